//! AF_VSOCK streams between a host and its enclave: addresses are a context id (CID) and a port.
//!
//! A connected stream is handed out as tokio's [`UnixStream`]: reading, writing and shutting down are the same
//! system calls for stream sockets of every family, and whoever serves a Unix socket serves this one unchanged.
//! What differs is here: addresses, connecting and accepting.

#![forbid(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
};

use nix::{
    errno::Errno,
    sys::socket::{self, SockaddrLike, VsockAddr},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::{io::Interest, net::UnixStream};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Connects to `port` of the machine `cid`.
///
/// # Errors
/// What the system says; the kernel itself gives up after two seconds without an answer.
pub async fn connect(cid: u32, port: u32) -> io::Result<UnixStream> {
    connect_to(AddressFamily::VSOCK, &VsockAddr::new(cid, port)).await
}

/// A listening socket.
#[derive(Debug)]
pub struct VsockListener(UnixStream);

impl VsockListener {
    /// Listens on `port`, whatever this machine's own CID is.
    ///
    /// # Errors
    /// What the system says: the port is in use, or there is no vsock here.
    pub fn bind(port: u32) -> io::Result<Self> {
        Self::bind_to(
            AddressFamily::VSOCK,
            &VsockAddr::new(nix::libc::VMADDR_CID_ANY, port),
        )
    }

    /// The next connection, and the CID that it comes from.
    ///
    /// # Errors
    /// What the system says. [`io::ErrorKind::ConnectionAborted`] when the other side was gone already.
    pub async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let socket = self.accept_any().await?;
        let peer: VsockAddr = socket::getpeername(socket.as_raw_fd())
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        Ok((stream(socket)?, peer.cid()))
    }

    fn bind_to(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<Self> {
        let socket = new_socket(family)?;
        socket::bind(socket.as_raw_fd(), address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        stream(socket).map(Self)
    }

    async fn accept_any(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        self.0
            .async_io(Interest::READABLE, || {
                Ok(rustix::net::accept_with(&self.0, flags)?)
            })
            .await
    }
}

async fn connect_to<A: SockaddrLike>(family: AddressFamily, address: &A) -> io::Result<UnixStream> {
    let socket = new_socket(family)?;
    match socket::connect(socket.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = stream(socket)?;
    // Writable means that connecting has ended, one way or the other.
    stream.writable().await?;
    sockopt::socket_error(&stream)??;
    Ok(stream)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    UnixStream::from_std(StdStream::from(socket))
}

/// Most machines have no vsock that leads back to themselves. The code above the address is the same for TCP,
/// where connecting takes its time too.
#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use nix::sys::socket::SockaddrIn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn loopback(port: u16) -> SockaddrIn {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()
    }

    fn listening() -> (VsockListener, SockaddrIn) {
        let listener = VsockListener::bind_to(AddressFamily::INET, &loopback(0)).unwrap();
        let address: SockaddrIn = socket::getsockname(listener.0.as_raw_fd()).unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_ends_are_seen() {
        let (listener, address) = listening();
        for round in 0..3u8 {
            let (near, far) = tokio::join!(
                connect_to(AddressFamily::INET, &address),
                listener.accept_any()
            );
            let (mut near, mut far) = (near.unwrap(), stream(far.unwrap()).unwrap());
            let large = vec![round; 1 << 20];
            let send = async {
                near.write_all(&large).await.unwrap();
                near.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, length) = tokio::join!(send, far.read_to_end(&mut received));
            assert_eq!(length.unwrap(), large.len());
            assert!(received == large);

            far.write_all(b"back").await.unwrap();
            drop(far);
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"back");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error() {
        let (listener, address) = listening();
        drop(listener);
        let error = connect_to(AddressFamily::INET, &address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Only where the kernel has vsock at all.
    #[tokio::test]
    async fn a_port_is_taken_once() {
        let Ok(listener) = VsockListener::bind(nix::libc::VMADDR_PORT_ANY) else {
            return;
        };
        let address: VsockAddr = socket::getsockname(listener.0.as_raw_fd()).unwrap();
        let error = VsockListener::bind(address.port()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
