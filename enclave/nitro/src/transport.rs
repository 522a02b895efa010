//! Byte streams between the enclave and its host.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use arca_enclave::platform::{BoxedStream, HostEndpoint};
use arca_vsock::VsockListener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::VsockConfig;

/// How the enclave and its host reach each other. Over vsock in production; tests bring sockets.
#[tonic::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The next stream that the host carries in from the network.
    async fn accept(&self) -> io::Result<BoxedStream>;

    /// A new stream to one of the host's services.
    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream>;
}

/// Vsock to the parent instance.
#[derive(Debug)]
pub struct VsockTransport {
    config: VsockConfig,
    listener: VsockListener,
}

impl VsockTransport {
    /// Listens for the host's connections. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(config: VsockConfig) -> io::Result<Self> {
        let listener = VsockListener::bind(config.enclave_port)?;
        Ok(Self { config, listener })
    }
}

#[tonic::async_trait]
impl Transport for VsockTransport {
    async fn accept(&self) -> io::Result<BoxedStream> {
        // Whoever connects has to prove itself in any case, so it does not matter from which machine it comes.
        let (stream, _) = self.listener.accept().await?;
        Ok(Box::new(Capped(stream)))
    }

    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        let port = match endpoint {
            HostEndpoint::Storage => self.config.storage_port,
            HostEndpoint::Dial => self.config.dial_port,
            HostEndpoint::Kms => self.config.kms_port,
        };
        let stream = arca_vsock::connect(self.config.parent_cid, port).await?;
        Ok(Box::new(Capped(stream)))
    }
}

/// Most bytes of one write. On emulated vsock, larger writes to the host stall for good.
pub const MAX_WRITE: usize = 16 * 1024;

/// A stream whose writes are cut to [`MAX_WRITE`] bytes.
#[derive(Debug)]
pub struct Capped<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

/// Without a vectored write of its own: the default one writes the first slice through `poll_write`.
impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let cut = bytes.get(..MAX_WRITE).unwrap_or(bytes);
        Pin::new(&mut self.0).poll_write(cx, cut)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Notes the size of each write, and takes all of it.
    #[derive(Default)]
    struct Writes(Vec<usize>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let length = slices.iter().map(|slice| slice.len()).sum();
            self.0.push(length);
            Poll::Ready(Ok(length))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn no_write_is_larger_than_the_cap() {
        let mut stream = Capped(Writes::default());
        stream.write_all(&[1; MAX_WRITE]).await.unwrap();
        stream.write_all(&[1; 2 * MAX_WRITE + 1]).await.unwrap();
        stream.write_all(&[1; 5]).await.unwrap();
        assert_eq!(stream.0.0, [MAX_WRITE, MAX_WRITE, MAX_WRITE, 1, 5]);

        let mut stream = Capped(Writes::default());
        let large = [2; 20_000];
        let slices = [IoSlice::new(&large), IoSlice::new(&large)];
        let written = stream.write_vectored(&slices).await.unwrap();
        assert_eq!((written, stream.0.0), (MAX_WRITE, vec![MAX_WRITE]));
        assert!(!Capped(Writes::default()).is_write_vectored());
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Capped(near);
        let sent: Vec<u8> = (0..100_000u32).map(|at| at.to_le_bytes()[0]).collect();
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
        far.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        near.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    }
}
