//! How host and enclave reach each other: Unix sockets in a folder, or vsock.

use std::{fmt, io};

use arca_vsock::VsockListener;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::config::Transport;
use crate::error::Error;
use crate::metrics::LogLimit;
use crate::sockets::{self, DIAL_SOCKET, ENCLAVE_SOCKET, KMS_SOCKET, STORAGE_SOCKET, SocketFile};

/// What the enclave connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Storage,
    Dial,
    Kms,
}

/// Where the enclave listens.
#[derive(Clone, Debug)]
pub(crate) enum Enclave {
    Socket(std::path::PathBuf),
    Vsock { cid: u32, port: u32 },
}

impl Enclave {
    pub(crate) fn new(transport: &Transport) -> Self {
        match transport {
            Transport::Unix(folder) => Self::Socket(folder.join(ENCLAVE_SOCKET)),
            Transport::Vsock(vsock) => Self::Vsock {
                cid: vsock.cid,
                port: vsock.enclave_port,
            },
        }
    }

    /// A new stream to the enclave.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Socket(path) => UnixStream::connect(path).await,
            Self::Vsock { cid, port } => arca_vsock::connect(*cid, *port).await,
        }
    }
}

impl fmt::Display for Enclave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
        }
    }
}

/// Where the host listens for its enclave. A socket's file goes when this goes.
#[derive(Debug)]
pub(crate) enum Listener {
    Socket {
        listener: UnixListener,
        _file: SocketFile,
    },
    Vsock {
        listener: VsockListener,
        enclave: u32,
        log: LogLimit,
    },
}

impl Listener {
    /// Makes what listening needs. Call it once before [`listen`](Self::listen).
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub(crate) fn prepare(transport: &Transport) -> Result<(), Error> {
        match transport {
            Transport::Unix(folder) => sockets::prepare_folder(folder),
            Transport::Vsock(_) => Ok(()),
        }
    }

    /// Listens for the enclave's connections to a service.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`], [`Error::Vsock`].
    pub(crate) async fn listen(transport: &Transport, service: Service) -> Result<Self, Error> {
        match transport {
            Transport::Unix(folder) => {
                let name = match service {
                    Service::Storage => STORAGE_SOCKET,
                    Service::Dial => DIAL_SOCKET,
                    Service::Kms => KMS_SOCKET,
                };
                let (listener, file) = sockets::listen(folder, name).await?;
                Ok(Self::Socket {
                    listener,
                    _file: file,
                })
            }
            Transport::Vsock(vsock) => {
                let (field, port) = match service {
                    Service::Storage => ("vsock.storage_port", vsock.storage_port),
                    Service::Dial => ("vsock.dial_port", vsock.dial_port),
                    Service::Kms => ("vsock.kms_port", vsock.kms_port),
                };
                let listener = VsockListener::bind(port).map_err(|source| Error::Vsock {
                    field,
                    port,
                    source,
                })?;
                Ok(Self::Vsock {
                    listener,
                    enclave: vsock.cid,
                    log: LogLimit::default(),
                })
            }
        }
    }

    /// The next stream of the enclave. Unlike the folder of the sockets, a vsock port can be reached by every
    /// enclave of the machine: those of others are closed.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        match self {
            Self::Socket { listener, .. } => Ok(listener.accept().await?.0),
            Self::Vsock {
                listener,
                enclave,
                log,
            } => loop {
                let (stream, cid) = listener.accept().await?;
                if cid == *enclave {
                    return Ok(stream);
                }
                if let Some(suppressed) = log.permit() {
                    warn!(
                        cid,
                        enclave,
                        suppressed,
                        "connection closed: it comes from another machine than vsock.cid"
                    );
                }
            },
        }
    }
}
