//! The byte stream that a finished handshake leaves.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arca_attestation::manifest::Manifest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::Peer;

/// A verified connection. HTTP/2 goes over it.
///
/// It fails, reading and writing, once the other side's evidence is about to expire or the manifest under which
/// it was opened is replaced; whoever still needs it opens another one and so asks for new evidence.
pub struct Channel<S> {
    stream: TlsStream<S>,
    peer: Peer,
    expires_at: Instant,
    changes: watch::Receiver<Option<Arc<Manifest>>>,
    /// Ends when the channel has to; polled by reads, so that an idle one notices too.
    end: Pin<Box<dyn Future<Output = Ended> + Send>>,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Expired,
    ManifestChanged,
}

impl<S> Channel<S> {
    pub(crate) fn new(
        stream: TlsStream<S>,
        peer: Peer,
        expires_at: Instant,
        changes: watch::Receiver<Option<Arc<Manifest>>>,
    ) -> Self {
        let mut watched = changes.clone();
        let end = Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep_until(expires_at) => Ended::Expired,
                // Without an endpoint there is nobody left to change the manifest; the age still counts.
                Ok(()) = watched.changed() => Ended::ManifestChanged,
            }
        });
        Self {
            stream,
            peer,
            expires_at,
            changes,
            end,
            ended: None,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// When this channel closes itself at the latest.
    pub fn expires_at(&self) -> Instant {
        self.expires_at
    }

    fn check(&self) -> io::Result<()> {
        let ended = match self.ended {
            Some(ended) => ended,
            None if self.changes.has_changed().unwrap_or(false) => Ended::ManifestChanged,
            None if Instant::now() >= self.expires_at => Ended::Expired,
            None => return Ok(()),
        };
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            match ended {
                Ended::Expired => "the channel's evidence has to be renewed; connect again",
                Ended::ManifestChanged => "the manifest changed; connect again",
            },
        ))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Channel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.end.as_mut().poll(context)
        {
            self.ended = Some(ended);
        }
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Channel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> Connected for Channel<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S> fmt::Debug for Channel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("peer", &self.peer)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
