//! `enclave.toml`: which module and token, where the PIN is, where the host.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use arca_enclave::process::Reach;
use serde::Deserialize;

use crate::pin::PinSource;

/// A configuration with every field explained.
pub const EXAMPLE: &str = r#"# One file for each party whose keys are in an HSM. Unknown fields are refused; relative paths count from this file.

# The vendor's PKCS#11 library. `arca-enclave-hsm --config FILE probe` tells whether it can do what is needed.
module = "/usr/lib/softhsm/libsofthsm2.so"

# The token, by its label, or by its serial number: { serial = "5f1e0c7d31a2b493" }. Exactly one must match.
token = { label = "arca-ceo" }

# The user's PIN: a file that only this program's user may read (mode 0600), or a descriptor that is open when the
# program starts: { descriptor = 3 }. A PIN that is refused is never tried again by this process.
pin = { file = "/etc/arca/ceo-pin" }

# The keys in the token are labelled KEY_LABEL-kek and KEY_LABEL-identity. `arca-enclave-hsm init` makes them.
key_label = "arca"

# The certificate of the identity key and every authority above it up to the organisation's HSM root, in PEM or DER,
# in any order: files, or folders of them. They are read at the start.
certificates = ["/etc/arca/ceo-chain.pem"]

# Folder of the Unix sockets that connect the enclave with its host: enclave.sock is made here, storage.sock
# and dial.sock are the host's. The same as `sockets` in host.toml.
sockets = "/run/arca/ceo"

# Calls to the module at a time, 1 to 64. The following lines may be left out; these are the defaults.
sessions = 4

# After so many seconds, 1 to 300, a call to the module has failed.
call_timeout_seconds = 10

# ECDSA presignatures that are kept ready for each key and set of signers, at most 4096. They are made in the
# background, in memory only, and again when a quarter is left. 0: none, and every signature takes three rounds.
presignatures = 256

# What the module needs while the enclave serves, beyond shared libraries: files and folders to read and to write, and
# whether it talks to its HSM over TCP. Nothing else can be opened then. Vendors' configuration files, sockets of
# their services and logs belong here; for SoftHSM it is the folder of tokens and softhsm2.conf.
[module_needs]
read = ["/etc/softhsm"]
write = ["/var/lib/softhsm/tokens"]
network = false
"#;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The vendor's shared library.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenChoice,
    /// Where the PIN is.
    pub pin: PinSource,
    /// What the keys' labels begin with.
    #[serde(default = "default_key_label")]
    pub key_label: String,
    /// Files or folders of certificates.
    #[serde(default)]
    pub certificates: Vec<PathBuf>,
    /// Folder of the sockets.
    pub sockets: PathBuf,
    /// Calls at a time.
    #[serde(default = "default_sessions")]
    pub sessions: usize,
    /// Seconds after which a call has failed.
    #[serde(default = "default_call_timeout")]
    pub call_timeout_seconds: u64,
    /// Presignatures that a pool is filled up to.
    #[serde(default = "default_presignatures")]
    pub presignatures: u32,
    /// Files and network of the module.
    #[serde(default)]
    pub module_needs: ModuleNeeds,
}

/// How the token is named.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TokenChoice {
    /// CK_TOKEN_INFO.label.
    Label(String),
    /// CK_TOKEN_INFO.serialNumber.
    Serial(String),
}

impl std::fmt::Display for TokenChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label `{label}`"),
            Self::Serial(serial) => write!(f, "serial number `{serial}`"),
        }
    }
}

/// What the module opens while the enclave serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleNeeds {
    /// To read.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// To read and write.
    #[serde(default)]
    pub write: Vec<PathBuf>,
    /// TCP.
    #[serde(default)]
    pub network: bool,
}

/// More would take more memory than they are worth.
const MAX_PRESIGNATURES: u32 = 4096;
const MAX_SESSIONS: usize = 64;
const MAX_CALL_TIMEOUT: u64 = 300;
/// The longest suffix is `-identity`; tokens differ in how long labels may be, 32 is safe.
const MAX_KEY_LABEL: usize = 23;

/// Where shared libraries and their settings are: a module may load more of them when it is initialised again.
const LIBRARIES: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/etc/nsswitch.conf",
];

fn default_key_label() -> String {
    "arca".to_owned()
}

fn default_sessions() -> usize {
    4
}

fn default_call_timeout() -> u64 {
    10
}

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
    #[error("{}: {what}; `arca-enclave-hsm config example` prints a file with every field", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, field and what is wrong.
        what: String,
    },
}

impl Config {
    /// Reads and checks a file. Relative paths count from the file's own folder. Neither the module nor the PIN is
    /// looked at.
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
        let mut config: Self =
            toml::from_str(&text).map_err(|error| invalid(error.to_string().trim().to_owned()))?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check().map_err(invalid)?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let paths = [&mut self.module, &mut self.sockets]
            .into_iter()
            .chain(&mut self.certificates)
            .chain(&mut self.module_needs.read)
            .chain(&mut self.module_needs.write);
        for path in paths {
            *path = folder.join(&*path);
        }
        if let PinSource::File(path) = &mut self.pin {
            *path = folder.join(&*path);
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.presignatures > MAX_PRESIGNATURES {
            return Err(format!(
                "presignatures: {} exceeds the limit of {MAX_PRESIGNATURES}",
                self.presignatures
            ));
        }
        if !(1..=MAX_SESSIONS).contains(&self.sessions) {
            return Err(format!(
                "sessions: {} is not in 1 to {MAX_SESSIONS}",
                self.sessions
            ));
        }
        if !(1..=MAX_CALL_TIMEOUT).contains(&self.call_timeout_seconds) {
            return Err(format!(
                "call_timeout_seconds: {} is not in 1 to {MAX_CALL_TIMEOUT}",
                self.call_timeout_seconds
            ));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.key_label.is_empty()
            || self.key_label.len() > MAX_KEY_LABEL
            || !self.key_label.chars().all(plain)
        {
            return Err(format!(
                "key_label: 1 to {MAX_KEY_LABEL} letters, digits, `-`, `_` or `.`"
            ));
        }
        let (TokenChoice::Label(name) | TokenChoice::Serial(name)) = &self.token;
        if name.trim().is_empty() {
            return Err("token: an empty name matches nothing".to_owned());
        }
        if !self.module.is_file() {
            return Err(format!(
                "module: {} is no file; name the vendor's PKCS#11 library",
                self.module.display()
            ));
        }
        Ok(())
    }

    /// What running it needs, and the other commands do not.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn check_for_running(&self, path: &Path) -> Result<(), ConfigError> {
        let what = if self.certificates.is_empty() {
            "certificates: none; `arca-enclave-hsm request` asks your authority for one".to_owned()
        } else if !self.sockets.is_dir() {
            format!(
                "sockets: {} is no folder; start the host first, which makes it, or create it with mode 0700",
                self.sockets.display()
            )
        } else {
            return Ok(());
        };
        Err(ConfigError::Invalid {
            path: path.to_owned(),
            what,
        })
    }

    /// The files that a running enclave needs.
    pub fn reach(&self) -> Reach {
        let mut read: Vec<PathBuf> = LIBRARIES.iter().map(PathBuf::from).collect();
        read.extend(self.module.parent().map(Path::to_owned));
        read.extend(self.certificates.iter().cloned());
        read.extend(self.module_needs.read.iter().cloned());
        let mut write = self.module_needs.write.clone();
        write.push(self.sockets.clone());
        Reach {
            read,
            write,
            network: self.module_needs.network,
        }
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_seconds)
    }

    /// Label of the key-encryption key.
    pub(crate) fn kek_label(&self) -> String {
        format!("{}-kek", self.key_label)
    }

    /// Label of the identity key.
    pub(crate) fn identity_label(&self) -> String {
        format!("{}-identity", self.key_label)
    }
}
