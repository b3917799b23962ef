//! After the answer to a plain HTTP request: what the peer still sends is read and thrown away, so that no reset
//! destroys the answer before it has been read (RFC 9112 §9.6).
//!
//! The shards do the same for whom they close or refuse (`engine/lingering.rs`), within the same limits of a
//! connection: `linger_bytes_max` and `close_ms_max`. Who was served is heard in the place it had; who was refused has
//! none, and as many of these as there are places (`http_connections_max`) are heard at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uproar_engine::limits::Limits;

/// Which limit ended it before the peer did; the order is the order of [`Lingering::cut`].
#[derive(Clone, Copy, Debug)]
enum Cut {
    Time,
    Bytes,
    Places,
}

impl Cut {
    /// By the settings' names.
    const LABELS: [&str; 3] = ["close_ms_max", "linger_bytes_max", "http_connections_max"];
}

/// Who is heard to the end.
#[derive(Debug)]
pub(super) struct Lingering {
    /// For refused connections.
    places: Arc<Semaphore>,
    present: AtomicU64,
    cut: [AtomicU64; Cut::LABELS.len()],
}

impl Lingering {
    pub(super) fn new(places_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(places_max));
        Self { places, present: AtomicU64::new(0), cut: Default::default() }
    }

    /// A place for a connection that was refused.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.count(Cut::Places);
        }
        place
    }

    /// Says that there is no more to come, and hears the peer to its end or to a limit.
    pub(super) async fn linger(&self, stream: TcpStream, limits: &Limits) {
        let time_max = Duration::from_millis(limits.close_ms_max.into());
        let bytes_max = limits.linger_bytes_max as usize;
        let _present = Present::new(&self.present);
        match timeout(time_max, hear(stream, bytes_max)).await {
            // A peer that is gone does not need it.
            Ok(Ok(true) | Err(_)) => {}
            Ok(Ok(false)) => self.count(Cut::Bytes),
            Err(_) => self.count(Cut::Time),
        }
    }

    fn count(&self, cut: Cut) {
        self.cut[cut as usize].fetch_add(1, Relaxed);
    }

    /// Connections that are heard now.
    pub(super) fn present(&self) -> u64 {
        self.present.load(Relaxed)
    }

    /// Those that were cut off, by limit.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cut::LABELS.into_iter().zip(self.cut.iter().map(|count| count.load(Relaxed)))
    }
}

/// Counts a connection for as long as it is heard, also when its place is taken away meanwhile.
struct Present<'a>(&'a AtomicU64);

impl<'a> Present<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether the peer has ended within so many bytes.
async fn hear(mut stream: TcpStream, bytes_max: usize) -> std::io::Result<bool> {
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
