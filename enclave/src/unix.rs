//! The way to a host on the same machine: Unix sockets in one folder.
//!
//! The enclave listens on `enclave.sock`; `storage.sock` and `dial.sock` are the host's.

use std::{
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::platform::{BoxedStream, HostEndpoint};

const ENCLAVE_SOCKET: &str = "enclave.sock";
const STORAGE_SOCKET: &str = "storage.sock";
const DIAL_SOCKET: &str = "dial.sock";

/// The sockets of one enclave.
#[derive(Debug)]
pub struct UnixSockets {
    folder: PathBuf,
    listener: UnixListener,
}

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct SocketError {
    /// Which one.
    pub path: PathBuf,
    /// What the system said, or what is in the way.
    pub cause: io::Error,
}

impl UnixSockets {
    /// Listens in `folder`. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`SocketError`], also when another enclave listens there.
    pub fn listen(folder: &Path) -> Result<Self, SocketError> {
        let path = folder.join(ENCLAVE_SOCKET);
        match listen(&path) {
            Ok(listener) => Ok(Self {
                folder: folder.to_owned(),
                listener,
            }),
            Err(cause) => Err(SocketError { path, cause }),
        }
    }

    /// The next stream that the host carries in.
    ///
    /// # Errors
    /// What the system says.
    pub async fn accept(&self) -> io::Result<BoxedStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(Box::new(stream))
    }

    /// A new stream to the host.
    ///
    /// # Errors
    /// What the system says; there is no KMS on this way.
    pub async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        let name = match endpoint {
            HostEndpoint::Storage => STORAGE_SOCKET,
            HostEndpoint::Dial => DIAL_SOCKET,
            HostEndpoint::Kms => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Box::new(UnixStream::connect(self.folder.join(name)).await?))
    }
}

/// Listens on a socket that nobody else listens on. One that a killed enclave left behind is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another enclave listens here; stop it first",
        ));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "is no socket; move it away",
            ));
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    UnixListener::bind(path)
}
