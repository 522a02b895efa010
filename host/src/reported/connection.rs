//! A connection of the enclave that tells whether it is still there.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// A stream whose requests carry a [`StillOpen`].
#[derive(Debug)]
pub(crate) struct EnclaveStream {
    stream: UnixStream,
    open: Arc<()>,
}

/// Whether the server still has the stream that a request came on; it drops it once either side has ended it.
#[derive(Clone, Debug)]
pub(crate) struct StillOpen(Weak<()>);

impl EnclaveStream {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            open: Arc::new(()),
        }
    }
}

impl StillOpen {
    pub(crate) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Connected for EnclaveStream {
    type ConnectInfo = StillOpen;

    fn connect_info(&self) -> StillOpen {
        StillOpen(Arc::downgrade(&self.open))
    }
}

impl AsyncRead for EnclaveStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for EnclaveStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
