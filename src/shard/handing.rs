//! Plain HTTP: the socket becomes an ordinary descriptor and goes to the control plane.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use uproar_engine::http::Rejection;
use uproar_engine::table::Id;

use crate::link::Handover;
use crate::shard::driver::{Driver, clocks};
use crate::shard::sockets::Place;

/// A connection on its way out of the shard.
pub(super) struct Leaver {
    pub(super) place: Place,
    pub(super) read: Vec<u8>,
    pub(super) peer: Option<SocketAddr>,
}

impl Driver {
    /// The ordinary descriptor is there: pass it on and free the slot.
    pub(super) fn hand_over(&mut self, id: Id, fd: io::Result<OwnedFd>) {
        let Some(Leaver { place, read, peer }) = self.leavers.remove(&id) else { return };
        self.sockets.close(place);
        let peer = peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
        let Ok(stream) = fd.map(TcpStream::from) else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if let Err(refused) = self.handovers.try_send(Handover { stream, read, peer }) {
            self.shell.handovers_refused += 1;
            let Handover { mut stream, read, .. } = refused.into_inner();
            let answer = Rejection::OVERLOADED.answer_to(&read, clocks(self.started).wall_ms);
            // An empty socket buffer takes it whole; a peer that is gone does not need it.
            let _ = stream.write_all(&answer);
        }
    }
}
