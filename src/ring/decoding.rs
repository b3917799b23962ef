//! Completions as the kernel writes them, turned into typed events.
//!
//! The tag in an entry's user data says which operation it was; each operation means something else
//! by its result and flags. Whatever an entry carries that must not be lost (a picked buffer, an
//! installed descriptor) leaves here with an owner.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use crate::buffers::Buffer;
use crate::event::{Event, Key, Operation, Tag};
use crate::ring::{Ring, Slot};

impl Ring {
    pub(crate) fn decode(&mut self, entry: &cqueue::Entry) -> Event {
        let (tag, key) = Tag::split(entry.user_data());
        let result = taken(entry.result());
        match tag {
            Tag::Accept => {
                let lane = key.bits() as u16;
                let peer = result.is_ok().then(|| self.peer(lane)).flatten();
                Event::Accepted { lane, slot: result.map(|slot| slot as Slot), peer }
            }
            Tag::ReadMany => {
                let armed = cqueue::more(entry.flags());
                Event::ReadMany { key, result: self.read_result(entry), armed }
            }
            Tag::Read => Event::Read { key, result: self.read_result(entry) },
            Tag::PollIn => {
                let armed = cqueue::more(entry.flags());
                let ends = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as usize;
                let is_last = result.as_ref().is_ok_and(|mask| mask & ends != 0);
                Event::Readable { key, armed, is_last, failed: result.is_err() }
            }
            Tag::PollOut => Event::Writable { key },
            Tag::Discard => Event::Discarded { key, result },
            Tag::CancelAccept => cancelled(key, Operation::Accept, result),
            Tag::CancelRead => cancelled(key, Operation::Read, result),
            Tag::CancelDiscard => cancelled(key, Operation::Discard, result),
            Tag::CancelReadMany => cancelled(key, Operation::ReadMany, result),
            Tag::CancelPollIn => cancelled(key, Operation::Readable, result),
            Tag::CancelPollOut => cancelled(key, Operation::Writable, result),
            Tag::Close => Event::Closed { key, result: result.map(|_| ()) },
            Tag::Linger => match result {
                Err(error) => Event::NotReset { key, error },
                Ok(_) => unreachable!("a success that was not to be told"),
            },
            Tag::Unsent => Event::Unsent { key, result: result.map(|bytes| bytes as u32) },
            Tag::SendSlot => Event::SlotSent { key, result: result.map(|_| ()) },
            Tag::Arrive => Event::Arrived { token: key, slot: entry.result() as Slot },
            Tag::Install => {
                // SAFETY: a successful FIXED_FD_INSTALL made this descriptor just now and nobody
                // else has seen it.
                let fd = result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) });
                Event::Installed { key, fd }
            }
            Tag::Timer => Event::Timer {
                // A timer that runs out says so with an error.
                result: match result {
                    Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
                    _ => Ok(()),
                },
            },
            Tag::Wake => Event::Woken { armed: cqueue::more(entry.flags()) },
            Tag::Send => unreachable!("a send ended outside its submission"),
        }
    }

    /// What a completion of a read says: the buffer the kernel picked is in its flags.
    fn read_result(&mut self, entry: &cqueue::Entry) -> io::Result<Option<Buffer>> {
        let id = cqueue::buffer_select(entry.flags());
        let len = taken(entry.result())?;
        let buffer = id.map(|id| Buffer::new(id, len as u32, self.raw));
        if len > 0 {
            return Ok(buffer);
        }
        // The end of a stream may still have picked a buffer.
        if let Some(unused) = buffer {
            self.recycle(unused);
        }
        Ok(None)
    }

    fn peer(&self, lane: u16) -> Option<SocketAddr> {
        // SAFETY: the lane is inside the leaked array and its accept has ended, so the kernel
        // does not write to it; the family says which of the two layouts was written.
        unsafe {
            let address = &raw const (*self.lanes.add(usize::from(lane))).address;
            match i32::from((*address).ss_family) {
                libc::AF_INET => {
                    let v4 = &*address.cast::<libc::sockaddr_in>();
                    let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
                }
                libc::AF_INET6 => {
                    let v6 = &*address.cast::<libc::sockaddr_in6>();
                    let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
                    Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
                }
                _ => None,
            }
        }
    }
}

fn cancelled(key: Key, operation: Operation, result: io::Result<usize>) -> Event {
    Event::Cancelled { key, operation, result: result.map(|_| ()) }
}

pub(crate) fn taken(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
