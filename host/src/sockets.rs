//! The folder of Unix sockets between the host and its enclave.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::error::Error;

/// The enclave listens; the host connects once per inbound TCP connection.
pub const ENCLAVE_SOCKET: &str = "enclave.sock";
/// The host listens; `arca.v1.StorageService` and `arca.v1.MetricsService`.
pub const STORAGE_SOCKET: &str = "storage.sock";
/// The host listens; the enclave names a peer and gets a byte stream to it.
pub const DIAL_SOCKET: &str = "dial.sock";
/// The host listens, if `[kms]` is configured; the enclave gets a byte stream to AWS KMS.
pub const KMS_SOCKET: &str = "kms.sock";

/// Removes the file on drop, so that the next start finds no stale one.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// Makes the folder (mode 0700) or checks that it is ours and nobody else can enter it: the mode of
/// the folder is what protects the sockets in it.
///
/// # Errors
///
/// [`Error::Socket`].
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), Error> {
    let refuse = |problem: String, remedy| Error::Socket {
        path: folder.to_owned(),
        problem,
        remedy,
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| {
        refuse(
            format!("cannot make the folder of the sockets: {error}"),
            "Set `sockets` to a folder that this account may create",
        )
    })?;
    let metadata = fs::metadata(folder).map_err(|error| {
        refuse(
            format!("cannot look at the folder of the sockets: {error}"),
            "Set `sockets` to a folder of this account",
        )
    })?;
    let me = nix::unistd::geteuid().as_raw();
    if metadata.uid() != me {
        return Err(refuse(
            format!("belongs to uid {}, not to uid {me}", metadata.uid()),
            "Set `sockets` to a folder of the account that runs the host",
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(
            format!(
                "is open to other accounts (mode {:o})",
                metadata.mode() & 0o7777
            ),
            "Run chmod 700 on it, or set `sockets` to a folder that does not exist yet",
        ));
    }
    Ok(())
}

/// Listens on a socket in the folder; its file goes when the second value goes. A stale file is replaced; a live one is somebody else's.
///
/// # Errors
///
/// [`Error::Socket`].
pub(crate) async fn listen(folder: &Path, name: &str) -> Result<(UnixListener, SocketFile), Error> {
    let path = folder.join(name);
    let refuse = |problem: String, remedy| Error::Socket {
        path: path.clone(),
        problem,
        remedy,
    };
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(refuse(
                format!("cannot look at it: {error}"),
                "Check the folder's permissions",
            ));
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(refuse(
                "exists and is no socket".to_owned(),
                "Move it away, or set `sockets` to another folder",
            ));
        }
        Ok(_) => {
            if UnixStream::connect(&path).await.is_ok() {
                return Err(refuse(
                    "another host is listening on it".to_owned(),
                    "Stop it first; each party has one host and one folder of sockets",
                ));
            }
            info!(path = %path.display(), "replacing the stale socket of an earlier run");
            fs::remove_file(&path).map_err(|error| {
                refuse(
                    format!("cannot remove the stale socket: {error}"),
                    "Remove it by hand",
                )
            })?;
        }
    }
    let listener = UnixListener::bind(&path).map_err(|error| {
        refuse(
            format!("cannot listen: {error}"),
            "Check the folder's permissions and file system",
        )
    })?;
    Ok((listener, SocketFile(path)))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!(path = %self.0.display(), %error, "socket file not removed");
        }
    }
}
