//! `enclave.toml`: where this simulated enclave finds its host, its root and its hardware.

use std::path::{Path, PathBuf};

use arca_enclave::process::Reach;
use serde::Deserialize;

use crate::files::FileError;

/// A configuration with every field explained.
pub const EXAMPLE: &str = r#"# One file for each simulated enclave. Unknown fields are refused.

# Folder of the Unix sockets that connect the enclave with its host: enclave.sock is made here, storage.sock
# and dial.sock are the host's. The same as `sockets` in host.toml.
sockets = "/run/arca/ceo"

# Folder with the local NSM root that all enclaves of a simulated cluster share, made once with
# `arca-enclave-simulated make-root FOLDER`.
root = "/etc/arca/simulated-root"

# Folder that stands for this machine's hardware: it holds the key-encryption key, made at the first start.
# Whoever loses it loses everything sealed under it.
hardware = "/var/lib/arca/ceo-hardware"

# ECDSA presignatures that are kept ready for each key and set of signers, at most 4096. They are made in the
# background, in memory only, and again when a quarter is left. 0: none, and every signature takes three rounds.
# This line may be left out; 256 is the default.
presignatures = 256
"#;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the three sockets.
    pub sockets: PathBuf,
    /// Folder of the local NSM root.
    pub root: PathBuf,
    /// Folder of the key-encryption key.
    pub hardware: PathBuf,
    /// Presignatures that a pool is filled up to.
    #[serde(default = "default_presignatures")]
    pub presignatures: u32,
    /// No entries in the audit log: `arca bench` measures with it what the log costs.
    #[serde(default)]
    pub danger_without_log: bool,
}

/// More would take more memory than they are worth.
const MAX_PRESIGNATURES: u32 = 4096;

fn default_presignatures() -> u32 {
    u32::try_from(arca_enclave::Settings::default().presignatures).unwrap_or(MAX_PRESIGNATURES)
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Not TOML, or not these fields.
    #[error("{}: {what}; `arca-enclave-simulated config example` prints a file with every field", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, field and what is wrong.
        what: String,
    },
}

impl Config {
    /// Makes the folder that stands for the hardware, unless it is there. Before the process is confined to its files:
    /// what is not there then cannot be made later.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn make_hardware(&self) -> Result<(), FileError> {
        crate::files::private_folder(&self.hardware)
    }

    /// The files that a running enclave needs.
    pub fn reach(&self) -> Reach {
        Reach {
            // The program measures itself.
            read: std::env::current_exe()
                .into_iter()
                .chain([self.root.clone()])
                .collect(),
            write: vec![self.sockets.clone(), self.hardware.clone()],
            network: false,
        }
    }

    /// Reads and checks a file. Relative paths count from the file's own folder.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let invalid = |what: String| ConfigError::Invalid {
            path: path.to_owned(),
            what,
        };
        let config: Self =
            toml::from_str(&text).map_err(|error| invalid(error.to_string().trim().to_owned()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let config = Self {
            sockets: folder.join(config.sockets),
            root: folder.join(config.root),
            hardware: folder.join(config.hardware),
            presignatures: config.presignatures,
            danger_without_log: config.danger_without_log,
        };
        if config.presignatures > MAX_PRESIGNATURES {
            return Err(invalid(format!(
                "presignatures: {} exceeds the limit of {MAX_PRESIGNATURES}",
                config.presignatures
            )));
        }
        for (field, path) in [("root", &config.root), ("sockets", &config.sockets)] {
            if !path.is_dir() {
                let remedy = match field {
                    "root" => "make it with `arca-enclave-simulated make-root`",
                    _ => "start the host first, which makes it, or create it with mode 0700",
                };
                return Err(invalid(format!(
                    "{field}: {} is no folder; {remedy}",
                    path.display()
                )));
            }
        }
        Ok(config)
    }
}
