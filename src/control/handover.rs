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
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use crate::link::Handover;

/// The rest of a request head that the shard saw only in part.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From handover to the last byte of the answer, body included. A slower peer is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Health checks served at a time beside everything else: a node that is busy is not dead.
const PROBES_MAX: usize = 64;

/// Reads spent on what a refused peer has already sent: 64 KiB, about a receive buffer.
const REFUSED_READS_MAX: usize = 16;

/// What a refused connection reads. Written in one go into an empty socket buffer.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 2\r\nconnection: close\r\ncontent-length: 76\r\n\r\n\
    {\"code\":\"overloaded\",\"message\":\"too many HTTP requests at once; try again\"}\n";

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
            let _ = refuse(&handover.stream);
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
    ["GET /health ", "HEAD /health ", "GET /ready ", "HEAD /ready "]
        .iter()
        .any(|probe| read.starts_with(probe.as_bytes()))
}

/// Answers 503 on a non-blocking socket, without ever waiting for the peer.
fn refuse(mut stream: &std::net::TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.write_all(FULL)?;
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
    fn the_canned_refusal_has_the_length_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(length.unwrap().parse(), Ok(body.len()));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
