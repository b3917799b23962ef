//! What the client's half of a connection costs the kernel, measured, so that it can be
//! taken away from what the whole host spends.
//!
//! First plain pairs, of which the client ends are then reset: their memory goes, and what is
//! left is that of the accepted ends. Then pairs whose client end is made the way this tool makes
//! its viewers (own port, direct descriptor, receive armed): their growth less the accepted ends
//! is the client half. Live objects are counted, and whole ones: a socket has one inode or none, so
//! what other processes do meanwhile rounds away. Looks are repeated until the books stand still, as
//! closed sockets are freed after a grace period.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use uproar_ring::{Event, Key, Ring, RingConfig, Wake};

use super::kernel::KernelMemory;
use crate::clients::connecting_socket;
use crate::sources::{Origin, Sources};

/// Pairs of each kind, descriptors permitting: enough to drown the noise of other processes, few enough to be quick.
const PAIRS_MAX: u32 = 3_000;

/// Looks 25 ms apart until this many in a row are within this many bytes.
const SETTLE_LOOKS: u32 = 5;
const SETTLE_LOOKS_MAX: u32 = 80;
const SETTLE_BYTES: u64 = 16 * 1_024;
const SETTLE_PAUSE: Duration = Duration::from_millis(25);

/// Kernel memory of one socket, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Calibration {
    /// An ordinary accepted socket, its peer's end not included.
    pub(crate) plain_socket_bytes: f64,
    /// The client half of a viewer's connection.
    pub(crate) client_half_bytes: f64,
}

/// Measures, for viewers as many as `viewers`; takes about a second.
pub(crate) fn calibrate(viewers: u32, descriptors_max: u64) -> io::Result<Calibration> {
    // The accepted ends of both kinds and the plain clients are open at a time.
    let pairs = PAIRS_MAX.min(descriptors_max.saturating_sub(256) as u32 / 3);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?;
    let wake = Wake::new()?;
    let mut ring = Ring::new(RingConfig { slots: pairs, buffers: 16, buffer_bytes: 4_096 }, &wake)?;
    let sources = Sources::new(None, target, viewers).map_err(io::Error::other)?;
    let mut accepted: Vec<TcpStream> = Vec::with_capacity(2 * pairs as usize);
    let start = settled()?;
    let mut clients: Vec<TcpStream> = Vec::with_capacity(pairs as usize);
    for number in 0..pairs {
        clients.push(connecting_socket(target, sources.origin(number, 1), None)?.into());
        accepted.push(listener.accept()?.0);
    }
    reset(clients);
    let plain = settled()?;
    for slot in 0..pairs {
        connect_viewer(&mut ring, slot, target, sources.origin(slot, 2))?;
        accepted.push(listener.accept()?.0);
        ring.submit();
    }
    let mixed = settled()?;
    reset(accepted);
    close(&mut ring, pairs);
    settled()?;
    let plain_socket_bytes = plain.slab_bytes_each(&start, pairs);
    let client_half_bytes = (mixed.slab_bytes_each(&plain, pairs) - plain_socket_bytes).max(0.0);
    Ok(Calibration { plain_socket_bytes, client_half_bytes })
}

fn connect_viewer(
    ring: &mut Ring,
    slot: u32,
    target: SocketAddr,
    origin: Origin,
) -> io::Result<()> {
    let socket = connecting_socket(target, origin, None)?;
    ring.adopt(slot, socket)?;
    ring.read_many(slot, Key::new(slot.into()));
    Ok(())
}

/// Closes with a reset, so that no TIME_WAIT stays behind to disturb the books.
fn reset(sockets: Vec<TcpStream>) {
    for socket in sockets {
        // Refused, the close is merely slower to be forgotten.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
}

fn close(ring: &mut Ring, pairs: u32) {
    for slot in 0..pairs {
        ring.cancel_read_many(Key::new(slot.into()));
        ring.close(slot, Key::new(slot.into()));
    }
    let mut events = Vec::new();
    let mut closed = 0;
    while closed < pairs {
        ring.turn(&mut events, usize::MAX / 2);
        let is_closed = |event: &Event| matches!(event, Event::Closed { .. });
        closed += events.drain(..).filter(is_closed).count() as u32;
    }
}

/// The books once they stand still, or after two seconds of waiting for it.
fn settled() -> io::Result<KernelMemory> {
    let books = || KernelMemory::now().ok_or(io::ErrorKind::PermissionDenied);
    let mut last = books()?;
    let mut unchanged = 0;
    for _ in 0..SETTLE_LOOKS_MAX {
        std::thread::sleep(SETTLE_PAUSE);
        let look = books()?;
        let is_still = look.slab_bytes().abs_diff(last.slab_bytes()) < SETTLE_BYTES;
        unchanged = if is_still { unchanged + 1 } else { 0 };
        last = look;
        if unchanged == SETTLE_LOOKS {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_cost_what_a_tcp_socket_costs_time_and_again() {
        if KernelMemory::now().is_none() {
            assert!(calibrate(50_000, 20_000).is_err(), "without root there is nothing to read");
            return;
        }
        // The books are the whole host's: other tests open sockets meanwhile, so not every try is good.
        let is_plausible = |calibration: &Calibration| {
            (2_500.0..6_000.0).contains(&calibration.plain_socket_bytes)
                && (3_000.0..7_000.0).contains(&calibration.client_half_bytes)
        };
        let tries: Vec<_> = (0..6).map(|_| calibrate(50_000, 20_000).unwrap()).collect();
        let agree = |pair: &[Calibration]| {
            let ratio = pair[0].client_half_bytes / pair[1].client_half_bytes;
            pair.iter().all(is_plausible) && (0.97..1.03).contains(&ratio)
        };
        assert!(tries.windows(2).any(agree), "{tries:?}");
    }
}
