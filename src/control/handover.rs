//! Plain HTTP that arrived on the public port: the shard hands over the socket together with
//! the bytes it has read, and the router here answers.
//!
//! The admin port is served the same way, from its own listener.
//!
//! One request a connection, then close. A kept connection could bring a WebSocket upgrade
//! next (proxies reuse idle connections for anything), and a socket that has left its ring
//! cannot go back; closing also leaves no idle connections to bound. The price is one
//! handshake a REST call.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;
use uproar_engine::address::Address;
use uproar_engine::http::{Rejection, split_target};

use super::lingering;
use super::node::Node;
use super::places::{Places, Seated};
use crate::link::Handover;

/// The rest of a request head that the shard saw only in part.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From handover to the last byte of the answer, body included. A slower peer is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection may hold of bytes that the router has not taken: a request head, or a piece of a body.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Health checks served at a time beside everything else: a node that is busy is not dead.
const PROBES_MAX: usize = 64;

/// What a port serves, and how much of it.
pub(super) struct Port {
    /// Who answers.
    pub(super) router: Router,
    /// Where: health checks are answered where the accepts are, everything else may wait there.
    pub(super) runtime: Handle,
    /// Connections at a time.
    pub(super) connections_max: usize,
    /// Those beyond, answered 503.
    pub(super) refused: Arc<AtomicU64>,
    /// Counts those that gave up their places to another address, and hears peers to their end.
    pub(super) node: Arc<Node>,
}

/// Serves sockets as the shards hand them over, until no shard is left to send any.
pub(super) async fn serve(mut handovers: mpsc::Receiver<Handover>, port: Port) {
    let mut places = Places::new(port.connections_max);
    let mut probe_places = Places::new(PROBES_MAX);
    let here = Handle::current();
    loop {
        let handover = tokio::select! {
            handover = handovers.recv() => handover,
            () = places.freed() => continue,
            () = probe_places.freed() => continue,
        };
        let Some(handover) = handover else { return };
        let (places, runtime) = match is_probe(&handover.read) {
            true => (&mut probe_places, &here),
            false => (&mut places, &port.runtime),
        };
        let address = Address::from(handover.peer.ip());
        let mut place = match places.take(address) {
            Seated::Free(place) => place,
            Seated::InsteadOf(place) => {
                port.node.http_evicted.fetch_add(1, Ordering::Relaxed);
                place
            }
            Seated::Full => {
                port.refused.fetch_add(1, Ordering::Relaxed);
                // Overload: whoever cannot take this at once gets the close alone.
                let node = Arc::clone(&port.node);
                if let Ok(stream) = refuse(handover) {
                    here.spawn(async move {
                        node.lingering.linger(stream, &node.limits()).await;
                    });
                }
                continue;
            }
        };
        let (router, node) = (port.router.clone(), Arc::clone(&port.node));
        runtime.spawn(async move {
            let peer = handover.peer;
            let served = tokio::select! {
                served = serve_one(handover, router) => served,
                () = place.evicted() => Err(ServeError::Evicted),
            };
            // Who has its answer leaves its place to others.
            drop(place);
            match served {
                Ok(stream) => node.lingering.linger(stream, &node.limits()).await,
                Err(why) => debug!(%peer, %why, "an HTTP connection ended early"),
            }
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
fn refuse(Handover { mut stream, read, .. }: Handover) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stream.write_all(&Rejection::HTTP_FULL.answer_to(&read, wall.as_millis() as u64))?;
    TcpStream::from_std(stream)
}

/// Answers a request; the stream, when everything of the answer is in the kernel's hands.
async fn serve_one(handover: Handover, router: Router) -> Result<TcpStream, ServeError> {
    handover.stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(handover.stream)?;
    let (replay, stream) = Replay::new(handover.read, stream);
    let io = TokioIo::new(replay);
    let from = Address::from(handover.peer.ip());
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(from);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        // Who has sent everything may close its half and still wants the answer.
        .half_close(true)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .serve_connection(io, service);
    let answered = timeout(REQUEST_TIMEOUT, connection).await.map_err(|_| ServeError::Slow)?;
    if let Err(why) = answered {
        debug!(peer = %handover.peer, %why, "a request could not be understood, or its answer not be sent");
    }
    // Also a request that cannot be understood has had its answer.
    stream.await.map_err(|_| ServeError::Gone)
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its stream went away with its answer")]
    Gone,
    #[error("not done within {} s", REQUEST_TIMEOUT.as_secs())]
    Slow,
    #[error("its place was needed for another address")]
    Evicted,
}

/// A stream that first yields the bytes already read from it, and that comes back when it is dropped.
struct Replay {
    read: Vec<u8>,
    at: usize,
    /// There until it is dropped.
    stream: Option<TcpStream>,
    back: Option<oneshot::Sender<TcpStream>>,
}

impl Replay {
    fn new(read: Vec<u8>, stream: TcpStream) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, dropped) = oneshot::channel();
        (Self { read, at: 0, stream: Some(stream), back: Some(back) }, dropped)
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Nobody waits for it when its request took too long, or its place was needed.
            if let Err(stream) = back.send(stream) {
                lingering::reset(&stream);
            }
        }
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.at..];
        if rest.is_empty() {
            return self.stream().poll_read(cx, buf);
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
        self.stream().poll_write(cx, buf)
    }

    /// Without this a body is copied to stand in one piece with its head, once for each of its readers.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
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
