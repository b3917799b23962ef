//! The service manager's notify protocol (sd_notify(3)). Without one, all of this does nothing.

use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use sd_notify::NotifyState;
use tracing::debug;

/// How long a message may wait for a manager whose queue is full. The crate's own sending waits
/// for ever, and a manager that hangs would then hold up the drain past its deadline.
const SEND_MAX: Duration = Duration::from_millis(100);

fn notify(states: &[NotifyState<'_>]) {
    if let Err(why) = send(states) {
        debug!(%why, "the service manager could not be notified");
    }
}

fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let manager = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
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
    let name = format!("FDNAME={name}");
    notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&name)]);
}

/// Every shard accepts.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
pub(super) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Every shard answered: the process is alive in the sense that matters.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// A reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The process is on its way out.
pub(super) fn stopping(extension: Duration) {
    notify(&[NotifyState::Stopping, extend(extension)]);
}

/// Still draining.
pub(super) fn draining(status: &str, extension: Duration) {
    notify(&[NotifyState::Status(status), extend(extension)]);
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// Within which time the service manager wants to hear [`alive`], if it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
