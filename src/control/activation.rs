//! Listeners inherited from the service manager (sd_listen_fds(3)).
//!
//! They come from two places. A socket unit holds the port for viewers; then nothing of `listen`
//! is in effect. `FileDescriptorName=uproar-admin` marks the admin port; every other name is for
//! viewers, so a unit with one socket and no name works. Or an earlier run of this service left
//! its own listeners with the manager (`keeping`), under a name that no socket unit uses.
//!
//! Either way the listening sockets outlive the process, which is what lets a restart refuse nobody.

use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

use super::keeping::KEPT;

/// The name of the admin socket in the socket unit.
const ADMIN: &str = "uproar-admin";

/// What was inherited.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// For the shards, from a socket unit.
    pub(super) public: Vec<TcpListener>,
    /// For the admin router, from a socket unit.
    pub(super) admin: Option<TcpListener>,
    /// The listeners of this service's last run, one a shard.
    pub(super) kept: Vec<TcpListener>,
}

/// What is wrong with an inherited descriptor.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// It is not a listening TCP socket.
    #[error("descriptor {0} is not a listening TCP socket; use ListenStream=IP:PORT")]
    NotTcp(usize),
    /// There is more than one admin socket.
    #[error("more than one socket is named {ADMIN}; keep one")]
    TwoAdmins,
}

/// Takes the listeners the service manager passed, if it passed any.
pub(super) fn inherited() -> Result<Inherited, ActivationError> {
    // Read first: the crate below may consume the variables. The first descriptor is the same
    // variable of its own, by which tests keep clear of what their harness has open.
    let first = std::env::var("LISTEN_FDS_FIRST_FD").ok().and_then(|fd| fd.parse().ok());
    let first: usize = first.unwrap_or(3);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut inherited = Inherited::default();
    for i in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let not_tcp = || ActivationError::NotTcp(first + i);
        // It says no more than that, with a number of its own.
        let taken = passed.take_tcp_listener(i).map_err(|_| not_tcp())?;
        let Some(listener) = taken else { continue };
        if !SockRef::from(&listener).is_listener().unwrap_or(false) {
            return Err(not_tcp());
        }
        match name {
            KEPT => inherited.kept.push(listener),
            ADMIN if inherited.admin.is_some() => return Err(ActivationError::TwoAdmins),
            ADMIN => inherited.admin = Some(listener),
            _ => inherited.public.push(listener),
        }
    }
    Ok(inherited)
}
