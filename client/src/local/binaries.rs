//! Where the programs of a local cluster are.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The programs that a local cluster runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `arca`: goes between, so that children die with their parent.
    pub arca: PathBuf,
    /// `arca-host`.
    pub host: PathBuf,
    /// `arca-enclave-simulated`.
    pub enclave: PathBuf,
    folder: PathBuf,
}

/// Names the folder to look in.
pub const VARIABLE: &str = "ARCA_BIN_DIR";

impl Binaries {
    /// Looks in `ARCA_BIN_DIR`, or else beside the running program and in the folder above it, which is where
    /// cargo puts programs beside tests.
    ///
    /// # Errors
    /// [`Error::Config`] that names the missing program.
    pub fn find() -> Result<Self> {
        if let Some(folder) = std::env::var_os(VARIABLE) {
            return Self::in_folder(Path::new(&folder));
        }
        let program = std::env::current_exe()
            .map_err(|cause| Error::config("this program", cause, format!("set {VARIABLE}")))?;
        let beside = program.parent().unwrap_or_else(|| Path::new("."));
        let above = beside.parent().unwrap_or(beside);
        match Self::in_folder(beside) {
            Ok(binaries) => Ok(binaries),
            Err(error) => Self::in_folder(above).map_err(|_| error),
        }
    }

    /// Looks in one folder.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::config(
                    path.display(),
                    "this program is needed and is not there",
                    format!(
                        "run `cargo build --release -p arca-client -p arca-host -p arca-enclave-simulated`, or \
                         set {VARIABLE} to the folder of the programs"
                    ),
                ))
            }
        };
        Ok(Self {
            arca: program("arca")?,
            host: program("arca-host")?,
            enclave: program("arca-enclave-simulated")?,
            folder: folder.to_owned(),
        })
    }

    /// `arca-enclave-hsm`, or for a cluster that has parties on a simulated NSM too `arca-enclave-hsm-simulated`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not built.
    pub fn hsm(&self, mixed: bool) -> Result<PathBuf> {
        let name = if mixed {
            "arca-enclave-hsm-simulated"
        } else {
            "arca-enclave-hsm"
        };
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::config(
            path.display(),
            "this program is needed and is not there",
            format!("run `cargo build --release -p {name}`"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("arca"), "").unwrap();
        let error = Binaries::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("arca-host"));
        assert!(error.advice().contains("cargo build --release"));
        for name in ["arca-host", "arca-enclave-simulated"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(Binaries::in_folder(folder.path()).is_ok());
    }
}
