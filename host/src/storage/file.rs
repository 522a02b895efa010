//! The storage file on disk: making it, opening it, opening it again after a failure.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError};
use tracing::{debug, warn};

use super::engine::Opener;
use crate::error::Error;

/// Memory for pages of the file; redb's own default is 1 GiB.
const CACHE: usize = 32 * 1024 * 1024;

/// What opens the file, now and after each failure. Makes the file if there is none yet; afterwards a missing
/// or empty file is a failure, because what was in it was promised to be durable.
///
/// # Errors
///
/// [`Error::Storage`].
pub(super) fn opener(path: &Path) -> Result<Opener, Error> {
    make_if_missing(path).map_err(|error| Error::Storage {
        path: path.to_owned(),
        problem: format!("cannot make the file: {error}"),
        remedy: "Make its folder (`mkdir -p`; is the disk mounted?) and let this account write there",
    })?;
    let path = path.to_owned();
    Ok(Box::new(move || open(&path)))
}

/// Makes an empty storage under another name and links it to its own: it is whole or not there, and never
/// takes the place of a file that another process has just made.
fn make_if_missing(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    warn!(
        path = %path.display(),
        "no storage file yet, making an empty one; if this party has stored anything before, its file is \
         missing: stop the host and bring the file back"
    );
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    remove_if_there(&unfinished)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    initialise(file).map_err(io::Error::other)?;
    match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(&unfinished)?;
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn initialise(file: File) -> Result<(), DatabaseError> {
    Database::builder()
        .create_with_backend(FileBackend::new(file)?)?
        .close()
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty").into());
    }
    // After a failed fsync the page cache may show as clean what never reached the disk, and the next
    // transaction would build on it (Rebello et al., "Can Applications Recover from fsync Failures?",
    // USENIX ATC 2020). Dropping the cached pages makes redb's recovery judge what is on the disk.
    if let Err(error) = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        debug!(%error, "cached pages of the storage file not dropped");
    }
    Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(FileBackend::new(file)?)
}

/// Bytes of disk that a file takes.
pub(super) fn disk_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok()?.blocks().checked_mul(512)
}
