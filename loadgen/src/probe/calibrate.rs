//! What the client's half of a connection costs the kernel, measured, so that it can be
//! taken away from what the whole host spends.
//!
//! First plain pairs: an ordinary socket connected to an ordinary accepted one; half of their
//! growth is a plain socket. Then pairs whose client end is made the way this tool makes its
//! viewers (direct descriptor, receive armed); their growth less a plain socket is the client half.
//! Both kinds stay open until both are measured, so that no freed slab is counted twice.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use uproar_ring::{Event, Key, Ring, RingConfig, Wake};

use super::kernel::KernelMemory;
use crate::clients::connecting_socket;

/// Pairs of each kind: enough to drown the noise of other processes, few enough to be quick.
const PAIRS: u32 = 2_000;

/// Closed sockets are freed after a grace period; looks 50 ms apart until less than this changes.
const SETTLE_BYTES: u64 = 64 * 1_024;
const SETTLE_LOOKS_MAX: u32 = 60;

/// Kernel memory of one socket, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Calibration {
    /// An ordinary accepted socket: half of a plain pair.
    pub(crate) plain_socket_bytes: f64,
    /// The client half of a viewer's connection.
    pub(crate) client_half_bytes: f64,
}

/// Measures; takes about a tenth of a second.
pub(crate) fn calibrate() -> io::Result<Calibration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?;
    let wake = Wake::new()?;
    let mut ring = Ring::new(RingConfig { slots: PAIRS, buffers: 16, buffer_bytes: 4_096 }, &wake)?;
    let start = KernelMemory::now().slab_bytes;
    let mut open: Vec<TcpStream> = Vec::with_capacity(3 * PAIRS as usize);
    for _ in 0..PAIRS {
        let client = TcpStream::connect(target)?;
        open.push(listener.accept()?.0);
        open.push(client);
    }
    let plain = KernelMemory::now().slab_bytes;
    for slot in 0..PAIRS {
        connect_viewer(&mut ring, slot, target)?;
        open.push(listener.accept()?.0);
        ring.submit();
    }
    let mixed = KernelMemory::now().slab_bytes;
    close(&mut ring, open);
    settle();
    let plain_socket_bytes = plain.saturating_sub(start) as f64 / f64::from(PAIRS) / 2.0;
    let mixed_pair_bytes = mixed.saturating_sub(plain) as f64 / f64::from(PAIRS);
    Ok(Calibration {
        plain_socket_bytes,
        client_half_bytes: (mixed_pair_bytes - plain_socket_bytes).max(0.0),
    })
}

fn connect_viewer(ring: &mut Ring, slot: u32, target: SocketAddr) -> io::Result<()> {
    let socket = connecting_socket(target, None)?;
    ring.adopt(slot, socket)?;
    ring.read_many(slot, Key::new(u64::from(slot)));
    Ok(())
}

/// Closes with a reset, so that no TIME_WAIT stays behind to disturb the run's own books.
fn close(ring: &mut Ring, open: Vec<TcpStream>) {
    for stream in open {
        // Refused, the close is merely slower to be forgotten.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    for slot in 0..PAIRS {
        ring.cancel_read_many(Key::new(u64::from(slot)));
        ring.close(slot, Key::new(u64::from(slot)));
    }
    let mut events = Vec::new();
    let mut closed = 0;
    while closed < PAIRS {
        ring.turn(&mut events, usize::MAX / 2);
        let is_closed = |event: &Event| matches!(event, Event::Closed { .. });
        closed += events.drain(..).filter(is_closed).count() as u32;
    }
}

/// Waits until the kernel has freed what was closed: its books do not shrink any more.
fn settle() {
    let mut smallest = u64::MAX;
    let mut unchanged = 0;
    for _ in 0..SETTLE_LOOKS_MAX {
        let slab_bytes = KernelMemory::now().slab_bytes;
        unchanged = if slab_bytes + SETTLE_BYTES < smallest { 0 } else { unchanged + 1 };
        smallest = smallest.min(slab_bytes);
        if unchanged == 5 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_cost_what_a_tcp_socket_costs() {
        // The books are the whole host's: places that others left free in the slabs are filled first.
        let is_plausible = |calibration: &Calibration| {
            (1_000.0..20_000.0)
                .contains(&(calibration.plain_socket_bytes + calibration.client_half_bytes))
        };
        let tries: Vec<_> = (0..5).map(|_| calibrate().unwrap()).collect();
        assert!(tries.iter().any(is_plausible), "{tries:?}");
    }
}
