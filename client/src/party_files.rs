//! The configuration files of one party: what `arca party init` writes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest_file::write_new;

/// What a party's files say.
#[derive(Clone, Debug)]
pub struct PartyFiles {
    /// The party's name.
    pub party: String,
    /// Address and port for clients and peers.
    pub listen: String,
    /// Address and port of metrics and health checks; None for no such listener.
    pub metrics: Option<String>,
    /// Host and port of every other party.
    pub peers: BTreeMap<String, String>,
    /// Bytes that the host stores at most.
    pub quota_bytes: u64,
    /// Folder of the simulated NSM's root, shared by all parties of a simulated cluster.
    pub simulated_root: PathBuf,
    /// ECDSA presignatures kept ready for each key and set of signers; None for the default.
    pub presignatures: Option<u32>,
    /// No audit log, to measure what it costs.
    pub danger_without_log: bool,
}

/// Where a party's files are.
#[derive(Clone, Debug)]
pub struct PartyPaths {
    /// For `arca-host --config`.
    pub host: PathBuf,
    /// For `arca-enclave-simulated --config`.
    pub enclave: PathBuf,
    /// What the host keeps for the enclave: sealed blobs.
    pub storage: PathBuf,
}

impl PartyPaths {
    /// In a party's folder.
    pub fn in_folder(folder: &Path, party: &str) -> Self {
        Self {
            host: folder.join("host.toml"),
            enclave: folder.join("enclave.toml"),
            storage: folder.join(format!("{party}.redb")),
        }
    }
}

/// The longest path of a Unix socket (unix(7)), less a separator and the longest socket name.
const MAX_SOCKET_FOLDER: usize = 107 - "/storage.sock".len();

impl PartyFiles {
    /// Writes `host.toml` and `enclave.toml` into `folder`, with the folders that they name.
    ///
    /// # Errors
    /// [`Error::Config`] when a file exists, cannot be written, or a value is impossible.
    pub fn write(&self, folder: &Path) -> Result<PartyPaths> {
        let folder = std::path::absolute(folder)
            .map_err(|cause| Error::config(folder.display(), cause, "name another folder"))?;
        let sockets = folder.join("run");
        if sockets.as_os_str().len() > MAX_SOCKET_FOLDER {
            return Err(Error::config(
                sockets.display(),
                format!("is too long for Unix sockets; {MAX_SOCKET_FOLDER} bytes are possible"),
                "take a folder with a shorter path",
            ));
        }
        let paths = PartyPaths::in_folder(&folder, &self.party);
        let hardware = folder.join("hardware");
        for private in [&folder, &sockets, &hardware] {
            create_private(private)?;
        }
        write_new(
            &paths.host,
            self.host_toml(&sockets, &paths.storage).as_bytes(),
        )?;
        write_new(
            &paths.enclave,
            self.enclave_toml(&sockets, &hardware)?.as_bytes(),
        )?;
        Ok(paths)
    }

    fn host_toml(&self, sockets: &Path, storage: &Path) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(format!(
            "# Host of party {}. `arca-host --config FILE config check` reads it.",
            self.party
        ));
        line(format!("party = {}", quote(&self.party)));
        line("# Clients and the other parties connect here.".to_owned());
        line(format!("listen = {}", quote(&self.listen)));
        line("# The sockets between this host and its enclave.".to_owned());
        line(format!("sockets = {}", quote_path(sockets)));
        line("\n[peers]".to_owned());
        for (name, address) in &self.peers {
            line(format!("{name} = {}", quote(address)));
        }
        line("\n[storage]".to_owned());
        line("# Sealed blobs; the host cannot read them.".to_owned());
        line(format!("path = {}", quote_path(storage)));
        line(format!("quota_bytes = {}", self.quota_bytes));
        if let Some(metrics) = &self.metrics {
            line("\n[metrics]".to_owned());
            line("# /metrics, /healthz, /readyz".to_owned());
            line(format!("listen = {}", quote(metrics)));
        }
        text
    }

    fn enclave_toml(&self, sockets: &Path, hardware: &Path) -> Result<String> {
        let root = std::path::absolute(&self.simulated_root).map_err(|cause| {
            Error::config(self.simulated_root.display(), cause, "name another folder")
        })?;
        Ok(format!(
            "# SIMULATED enclave of party {}: nothing here is protected by hardware.\n\
             # The sockets between this enclave and its host.\n\
             sockets = {}\n\
             # The simulated NSM's root, from `arca-enclave-simulated make-root DIR`.\n\
             root = {}\n\
             # Stands for this machine's hardware: the key-encryption key, made at the first start.\n\
             hardware = {}\n{}",
            self.party,
            quote_path(sockets),
            quote_path(&root),
            quote_path(hardware),
            self.presignatures
                .map_or_else(String::new, |count| format!("presignatures = {count}\n"))
                + if self.danger_without_log {
                    "danger_without_log = true\n"
                } else {
                    ""
                },
        ))
    }
}

/// Makes a folder that only its owner can enter, and its parents as usual.
pub(crate) fn create_private(folder: &Path) -> Result<()> {
    let failed = |cause: std::io::Error| {
        Error::config(
            folder.display(),
            format!("cannot be made: {cause}"),
            "name another folder",
        )
    };
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => {
            Ok(())
        }
        outcome => outcome.map_err(failed),
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(crate) fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &Path) -> PartyFiles {
        PartyFiles {
            party: "ceo".to_owned(),
            listen: "127.0.0.1:7101".to_owned(),
            metrics: Some("127.0.0.1:9101".to_owned()),
            peers: BTreeMap::from([("cto".to_owned(), "cto.example.com:7102".to_owned())]),
            quota_bytes: 1 << 30,
            simulated_root: root.to_owned(),
            presignatures: None,
            danger_without_log: false,
        }
    }

    #[test]
    fn files_are_toml_that_says_what_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let party = folder.path().join("a \"quoted\" folder");
        let paths = files(folder.path()).write(&party).unwrap();
        let host: toml::Table = fs::read_to_string(&paths.host).unwrap().parse().unwrap();
        assert_eq!(host["party"].as_str(), Some("ceo"));
        assert_eq!(host["peers"]["cto"].as_str(), Some("cto.example.com:7102"));
        assert_eq!(host["metrics"]["listen"].as_str(), Some("127.0.0.1:9101"));
        assert_eq!(host["sockets"].as_str(), party.join("run").to_str());
        let enclave: toml::Table = fs::read_to_string(&paths.enclave).unwrap().parse().unwrap();
        assert_eq!(enclave["sockets"], host["sockets"]);
        assert_eq!(enclave["root"].as_str(), folder.path().to_str());

        let again = files(folder.path()).write(&party).unwrap_err();
        assert!(again.advice().contains("nothing is overwritten"));
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(100));
        let error = files(folder.path()).write(&long).unwrap_err();
        assert!(error.to_string().contains("too long for Unix sockets"));
        assert!(!long.exists());
    }
}
