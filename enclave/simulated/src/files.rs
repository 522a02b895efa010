//! The few files that the simulated hardware consists of.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct FileError {
    path: String,
    what: String,
}

impl FileError {
    pub(crate) fn at(path: &Path, cause: io::Error) -> Self {
        Self {
            path: path.display().to_string(),
            what: cause.to_string(),
        }
    }

    pub(crate) fn contents(path: &Path, expected: &str) -> Self {
        Self {
            path: path.display().to_string(),
            what: format!("is not {expected}"),
        }
    }
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|cause| FileError::at(path, cause))
}

/// A secret file, if there is one; refused when anybody else may read it.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let at = |cause| FileError::at(path, cause);
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(at(cause)),
    };
    if mode & 0o077 != 0 {
        let remedy = format!("others may read it (mode {:o}); chmod 600 it", mode & 0o777);
        return Err(at(io::Error::new(io::ErrorKind::PermissionDenied, remedy)));
    }
    std::fs::read(path)
        .map(Zeroizing::new)
        .map(Some)
        .map_err(at)
}

/// Writes a new secret file, whole or not at all; durable when this returns.
///
/// # Errors
/// Also when there is a file of that name: it is never replaced.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let unfinished = path.with_extension("unfinished");
    let write = || {
        // What is left of a process that was killed while it wrote was never used.
        remove_if_there(&unfinished)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces a file that another process has just made.
        std::fs::hard_link(&unfinished, path)?;
        std::fs::remove_file(&unfinished)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|cause| FileError::at(path, cause))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a folder for the owner alone, unless it is there.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|cause| FileError::at(path, cause))
}
