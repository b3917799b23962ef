//! The service manager's notify protocol (sd_notify(3)). Without one, all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

fn notify(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        debug!(%why, "the service manager could not be notified");
    }
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
pub(super) fn draining(connections: &str, extension: Duration) {
    let status = format!("draining, {connections} connections left");
    notify(&[NotifyState::Status(&status), extend(extension)]);
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// Within which time the service manager wants to hear [`alive`], if it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
