//! Plain HTTP: the socket becomes an ordinary descriptor and goes to the control plane.
//!
//! The connection stays the shard's until it is in the control plane's hands, so that whatever fails on the way
//! is answered like any other refusal.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use uproar_engine::table::Id;
use uproar_engine::time::Now;

use crate::link::Handover;
use crate::shard::driver::Driver;
use crate::shard::kernel::Kernel;
use crate::shard::sockets::Errand;

/// A connection on its way out of the shard.
#[derive(Debug)]
pub(super) struct Leaver {
    pub(super) read: Vec<u8>,
    pub(super) peer: Option<SocketAddr>,
}

impl<K: Kernel> Driver<K> {
    /// The ordinary descriptor is there, or cannot be had: pass it on, or refuse.
    pub(super) fn installed(&mut self, now: Now, id: Id, fd: io::Result<OwnedFd>) {
        if !self.sockets.errand_ended(id, Errand::Install) {
            return;
        }
        let leaver = self.leavers.remove(&id);
        let Leaver { read, peer } = leaver.expect("who becomes a descriptor is on its way out");
        let stream = fd.map(TcpStream::from).and_then(|stream| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                self.shell.handovers_failed += 1;
                if let Some(more) = self.handover_line.due() {
                    tracing::warn!(
                        %error, since_last_line = more,
                        "a plain HTTP request got 503, as its socket cannot become an ordinary descriptor: raise \
                         LimitNOFILE=, or lower http_connections_max"
                    );
                }
                return self.engine.handover_failed(now, id, &read);
            }
        };
        let peer = peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
        match self.handovers.try_send(Handover { stream, read, peer }) {
            Ok(()) => self.engine.handed_over(id),
            Err(refused) => {
                let Handover { read, .. } = refused.into_inner();
                self.shell.handovers_refused += 1;
                self.engine.handover_failed(now, id, &read);
            }
        }
    }
}
