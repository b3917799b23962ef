//! The service manager's notify protocol (sd_notify(3)). Without one, all of this does nothing.

use std::collections::VecDeque;
use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// How long one try to hand over a message takes at most, and a process that ends waits for its last one.
const SEND_MAX: Duration = Duration::from_millis(200);
/// Messages about the process's state that may wait; the oldest is given up for the next.
const STATES_MAX: usize = 16;

/// What a message is about. Of the last two the newest alone matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// READY, RELOADING, STOPPING: each arrives, in order.
    State,
    Status,
    Watchdog,
}

/// Messages that wait for the thread that hands them over: a manager that hangs must not hold up
/// the node.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<VecDeque<(About, String)>>,
    changed: Condvar,
}

static OUTBOX: OnceLock<Outbox> = OnceLock::new();

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(About, String)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what waits, for ever.
    fn send_on(&self) {
        loop {
            let mut waiting = self.waiting();
            while waiting.is_empty() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let first = waiting[0].clone();
            drop(waiting);
            if let Err(why) = send(&first.1) {
                debug!(%why, "the service manager could not be notified");
                let is_full =
                    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                if is_full && first.0 == About::State {
                    continue;
                }
            }
            let mut waiting = self.waiting();
            // It may have been replaced by a newer one meanwhile.
            if waiting.front() == Some(&first) {
                waiting.pop_front();
            }
            self.changed.notify_all();
        }
    }
}

/// Adds a message; what it makes old does not have to be told any more.
fn add(waiting: &mut VecDeque<(About, String)>, about: About, text: String) {
    if about != About::State {
        waiting.retain(|(other, _)| *other != about);
    } else if waiting.iter().filter(|(other, _)| *other == about).count() >= STATES_MAX {
        let oldest = waiting.iter().position(|(other, _)| *other == about);
        waiting.remove(oldest.expect("there are many"));
    }
    waiting.push_back((about, text));
}

fn notify(about: About, states: &[NotifyState<'_>]) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let text = states.iter().map(|state| format!("{state}\n")).collect();
    let outbox = OUTBOX.get_or_init(|| {
        let sender = thread::Builder::new().name("notify".into());
        let started = sender.spawn(|| {
            OUTBOX.wait().send_on();
        });
        if let Err(why) = started {
            warn!(%why, "the service manager hears nothing: there is no thread for it");
        }
        Outbox::default()
    });
    add(&mut outbox.waiting(), about, text);
    outbox.changed.notify_all();
}

/// Waits for the manager to take the last messages, but not for long.
pub(crate) fn flush() {
    let Some(outbox) = OUTBOX.get() else { return };
    let is_waiting = |waiting: &mut VecDeque<_>| !waiting.is_empty();
    drop(outbox.changed.wait_timeout_while(outbox.waiting(), SEND_MAX, is_waiting));
}

fn send(text: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let manager = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    socket.send_to_addr(text.as_bytes(), &manager).map(|_| ())
}

/// Has the manager keep a listener under this name, until the service is stopped. FDPOLL=0: it is
/// not to look whether the socket has hung up, as a listener has nobody who could.
pub(super) fn keep(name: &str, listener: &TcpListener) -> io::Result<()> {
    let path = env::var_os("NOTIFY_SOCKET").ok_or(io::ErrorKind::NotFound)?;
    let manager = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path.as_os_str())?,
    };
    let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    let descriptors = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [io::IoSlice::new(text.as_bytes())];
    let none = SendFlags::empty();
    rustix::net::sendmsg_addr(&socket, &manager, &text, &mut ancillary, none)?;
    Ok(())
}

/// Has the manager close what it keeps under this name.
pub(super) fn forget(name: &str) {
    // At once, as what is kept next is not to be forgotten again.
    if let Err(why) = send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n")) {
        debug!(%why, "the service manager could not be notified");
    }
}

/// Every shard accepts.
pub(super) fn ready(status: &str) {
    notify(About::State, &[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
pub(super) fn status(status: &str) {
    notify(About::Status, &[NotifyState::Status(status)]);
}

/// Every shard answered: the process is alive in the sense that matters.
pub(super) fn alive() {
    notify(About::Watchdog, &[NotifyState::Watchdog]);
}

/// A reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(About::State, &[NotifyState::Reloading, now]),
        Err(_) => notify(About::State, &[NotifyState::Reloading]),
    }
}

/// The process is on its way out.
pub(super) fn stopping(extension: Duration) {
    notify(About::State, &[NotifyState::Stopping, extend(extension)]);
}

/// Still draining.
pub(super) fn draining(status: &str, extension: Duration) {
    notify(About::Status, &[NotifyState::Status(status), extend(extension)]);
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// Within which time the service manager wants to hear [`alive`], if it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_only_the_newest_status_is_told() {
        let mut waiting = VecDeque::new();
        for round in 0..100 {
            add(&mut waiting, About::State, format!("state {round}"));
            add(&mut waiting, About::Status, format!("status {round}"));
            add(&mut waiting, About::Watchdog, "alive".into());
        }
        let states = waiting.iter().filter(|(about, _)| *about == About::State);
        let states: Vec<_> = states.map(|(_, text)| text.as_str()).collect();
        assert_eq!((states.len(), states[0], states[15]), (STATES_MAX, "state 84", "state 99"));
        assert_eq!(waiting.len(), STATES_MAX + 2);
        assert_eq!(waiting[STATES_MAX], (About::Status, "status 99".into()));
    }
}
