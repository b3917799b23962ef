//! Socket activation: listeners inherited from the service manager (sd_listen_fds(3)).
//!
//! `FileDescriptorName=uproar-admin` marks the admin port; everything else is for viewers, so
//! a unit with one socket and no name works. The listening socket outlives the process, which
//! is what lets a restart refuse nobody.

use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// The name of the admin socket in the socket unit.
const ADMIN: &str = "uproar-admin";

/// What was inherited.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// For the shards.
    pub(super) public: Vec<TcpListener>,
    /// For the admin router.
    pub(super) admin: Option<TcpListener>,
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
        let is_admin = names.next() == Some(ADMIN);
        let not_tcp = || ActivationError::NotTcp(first + i);
        // It says no more than that, with a number of its own.
        let taken = passed.take_tcp_listener(i).map_err(|_| not_tcp())?;
        let Some(listener) = taken else { continue };
        if !SockRef::from(&listener).is_listener().unwrap_or(false) {
            return Err(not_tcp());
        }
        if !is_admin {
            inherited.public.push(listener);
        } else if inherited.admin.replace(listener).is_some() {
            return Err(ActivationError::TwoAdmins);
        }
    }
    Ok(inherited)
}
