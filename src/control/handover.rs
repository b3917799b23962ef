//! Plain HTTP that arrived on the public port: the shard hands over the socket together with
//! the bytes it has read, and the router here answers.
//!
//! The admin port is served the same way, from its own listener.
//!
//! One request a connection, then close. A kept connection could bring a WebSocket upgrade
//! next (proxies reuse idle connections for anything), and a socket that has left its ring
//! cannot go back; closing also leaves no idle connections to bound. The price is one
//! handshake a REST call.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;
use uproar_engine::http::{Rejection, split_target};

use crate::link::Handover;

/// The rest of a request head that the shard saw only in part.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From handover to the last byte of the answer, body included. A slower peer is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Health checks served at a time beside everything else: a node that is busy is not dead.
const PROBES_MAX: usize = 64;

/// Reads spent on what a refused peer has already sent: 64 KiB, about a receive buffer.
const REFUSED_READS_MAX: usize = 16;

/// Serves sockets as the shards hand them over, at most `connections_max` at a time, until no
/// shard is left to send any. Those beyond are answered 503 and counted in `refused`.
pub(super) async fn serve(
    mut handovers: mpsc::Receiver<Handover>,
    router: Router,
    connections_max: usize,
    refused: Arc<AtomicU64>,
) {
    let permits = Arc::new(Semaphore::new(connections_max));
    let probe_permits = Arc::new(Semaphore::new(PROBES_MAX));
    while let Some(handover) = handovers.recv().await {
        let permits = if is_probe(&handover.read) { &probe_permits } else { &permits };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            refused.fetch_add(1, Ordering::Relaxed);
            // Overload: whoever cannot take this at once gets the close alone.
            let _ = refuse(&handover);
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let peer = handover.peer;
            if let Err(why) = serve_one(handover, router).await {
                debug!(%peer, %why, "an HTTP connection ended early");
            }
            drop(permit);
        });
    }
}

/// Whether a request's first bytes ask how the node is.
fn is_probe(read: &[u8]) -> bool {
    let mut words = read.split(|byte| *byte == b' ');
    let is_reading = matches!(words.next(), Some(b"GET" | b"HEAD"));
    let target = words.next().and_then(|target| std::str::from_utf8(target).ok());
    let path = target.and_then(split_target).map(|(path, _)| path);
    is_reading && matches!(path, Some("/health" | "/ready"))
}

/// Answers 503 on a non-blocking socket, without ever waiting for the peer: in one go, into an
/// empty socket buffer.
fn refuse(Handover { stream, read, .. }: &Handover) -> io::Result<()> {
    let mut stream: &std::net::TcpStream = stream;
    stream.set_nonblocking(true)?;
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stream.write_all(&Rejection::HTTP_FULL.answer_to(read, wall.as_millis() as u64))?;
    stream.shutdown(Shutdown::Write)?;
    // Closing over unread bytes would send a reset, which can overtake the answer.
    let mut rest = [0; 4_096];
    for _ in 0..REFUSED_READS_MAX {
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

async fn serve_one(handover: Handover, router: Router) -> Result<(), ServeError> {
    handover.stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(handover.stream)?;
    let io = TokioIo::new(Replay { read: handover.read, at: 0, stream });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        // Who has sent everything may close its half and still wants the answer.
        .half_close(true)
        .serve_connection(io, TowerToHyperService::new(router));
    timeout(REQUEST_TIMEOUT, connection).await.map_err(|_| ServeError::Slow)??;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("not done within {} s", REQUEST_TIMEOUT.as_secs())]
    Slow,
}

/// A stream that first yields the bytes already read from it.
struct Replay {
    read: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.at..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.at += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_from_everything_else() {
        for probe in [
            "GET /health HTTP/1.1",
            "HEAD /ready HTTP/1.0",
            "GET /ready?x HTTP/1.1",
            "GET http://h:1/health HTTP/1.1",
        ] {
            assert!(is_probe(probe.as_bytes()), "{probe}");
        }
        for other in ["", "GET /", "POST /health HTTP/1.1", "GET /healthy HTTP/1.1", "GET", "\u{1}"]
        {
            assert!(!is_probe(other.as_bytes()), "{other}");
        }
    }
}
