//! After the answer to a plain HTTP request: what the peer still sends is read and thrown away, so that no reset
//! destroys the answer before it has been read (RFC 9112 §9.6).
//!
//! The shards do the same for whom they close or refuse (`engine/lingering.rs`), within the same limits of a
//! connection: `linger_bytes_max` and `close_ms_max`. Nobody has a place among those who are served meanwhile; as many
//! as there are of those places (`http_connections_max`) are heard at once, and one more takes the place of the oldest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uproar_engine::limits::Limits;

/// Which limit ended it before the peer did; the order is the order of [`Lingering::cut`].
#[derive(Clone, Copy, Debug)]
enum Cut {
    Time,
    Bytes,
    Count,
}

impl Cut {
    /// By the settings' names.
    const LABELS: [&str; 3] = ["close_ms_max", "linger_bytes_max", "http_connections_max"];
}

/// Who is heard to the end.
#[derive(Debug)]
pub(super) struct Lingering {
    present_max: usize,
    present: Mutex<Present>,
    cut: [AtomicU64; Cut::LABELS.len()],
}

/// Those that are heard now, oldest first.
#[derive(Debug, Default)]
struct Present {
    next: u64,
    peers: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Lingering {
    pub(super) fn new(present_max: usize) -> Self {
        Self { present_max, present: Mutex::default(), cut: Default::default() }
    }

    /// Says that there is no more to come, and hears the peer to its end or to a limit.
    pub(super) async fn linger(&self, mut stream: TcpStream, limits: &Limits) {
        let time_max = Duration::from_millis(limits.close_ms_max.into());
        let bytes_max = limits.linger_bytes_max as usize;
        let (_seat, needed) = self.sit();
        let cut = tokio::select! {
            heard = timeout(time_max, hear(&mut stream, bytes_max)) => match heard {
                // A peer that is gone does not need it.
                Ok(Ok(true) | Err(_)) => return,
                Ok(Ok(false)) => Cut::Bytes,
                Err(_) => Cut::Time,
            },
            _ = needed => Cut::Count,
        };
        self.cut[cut as usize].fetch_add(1, Relaxed);
        reset(&stream);
    }

    /// A seat among those who are heard, and what tells when somebody else needs it.
    fn sit(&self) -> (Seat<'_>, oneshot::Receiver<()>) {
        let (need, needed) = oneshot::channel();
        let mut present = self.present();
        while present.peers.len() >= self.present_max.max(1)
            && let Some((_, oldest)) = present.peers.pop_front()
        {
            // It may have ended at this moment.
            let _ = oldest.send(());
        }
        let number = present.next;
        present.next += 1;
        present.peers.push_back((number, need));
        (Seat { of: self, number }, needed)
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are heard now.
    pub(super) fn count(&self) -> u64 {
        self.present().peers.len() as u64
    }

    /// Those that were cut off, by limit.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cut::LABELS.into_iter().zip(self.cut.iter().map(|count| count.load(Relaxed)))
    }
}

/// A seat, left when it is dropped.
struct Seat<'a> {
    of: &'a Lingering,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut present = self.of.present();
        if let Ok(at) = present.peers.binary_search_by_key(&self.number, |(number, _)| *number) {
            present.peers.remove(at);
        }
    }
}

/// Has the coming close throw away what the peer has not taken: the kernel would keep it for long, and no limit
/// counts it there.
pub(super) fn reset(stream: &TcpStream) {
    // Only a socket that is gone refuses.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Whether the peer has ended within so many bytes.
async fn hear(stream: &mut TcpStream, bytes_max: usize) -> std::io::Result<bool> {
    stream.shutdown().await?;
    let mut rest = [0; 4_096];
    let mut heard = 0;
    while heard < bytes_max {
        match stream.read(&mut rest).await? {
            0 => return Ok(true),
            more => heard += more,
        }
    }
    Ok(false)
}
