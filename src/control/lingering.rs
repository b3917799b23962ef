//! After the answer to a plain HTTP request: what the peer still sends is read and thrown away, so that no reset
//! destroys the answer before it has been read (RFC 9112 §9.6).
//!
//! The shards do the same for whom they close or refuse (`engine/lingering.rs`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is thrown away of one peer, in bytes, and for how long it is waited for.
const BYTES_MAX: usize = 4 * 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(5);
/// Refused connections, which have no place among those that are served, that are heard to their end at once.
const REFUSED_MAX: usize = 64;

static REFUSED: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(REFUSED_MAX)));

/// A place among [`REFUSED_MAX`].
pub(super) fn place() -> Option<OwnedSemaphorePermit> {
    Arc::clone(&REFUSED).try_acquire_owned().ok()
}

/// Says that there is no more to come, and hears the peer to its end or to a limit.
pub(super) async fn linger(mut stream: TcpStream) {
    // A peer that is gone does not need it.
    let _ = timeout(TIME_MAX, async {
        stream.shutdown().await?;
        let mut rest = [0; 4_096];
        let mut heard = 0;
        while heard < BYTES_MAX {
            match stream.read(&mut rest).await? {
                0 => break,
                more => heard += more,
            }
        }
        std::io::Result::Ok(())
    })
    .await;
}
