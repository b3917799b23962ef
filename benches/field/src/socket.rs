//! Sockets of the fleet: each bound to a source address of its own group, so that 50,000 of
//! them find ports.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections from one source address: few of the usual 28,000 ephemeral ports, because the
/// kernel looks for a free one linearly (60 s for 15,000 sockets where half were taken).
const PER_SOURCE: usize = 4_000;
/// The smallest receive buffer the kernel grants, for viewers that never read.
const STALLED_RECEIVE_BYTES: usize = 2_304;

/// The source address of the fleet's connection `number` in its `round`-th life: one of 127.0.0.0/8 for a server on
/// loopback, else of 10.0.0.0/8, which the fleet's network namespace has for its own.
///
/// A new run (its `salt`) and a new round take new addresses: the old ones' ports may still be in
/// TIME_WAIT.
pub(crate) fn source(server: SocketAddrV4, salt: u32, round: usize, number: usize) -> Ipv4Addr {
    let net = if server.ip().is_loopback() { 127 } else { 10 };
    let group = u8::try_from(number / PER_SOURCE % 250).expect("under 250");
    let round = u8::try_from(round % 250).expect("under 250");
    let salt = u8::try_from(salt % 250).expect("under 250");
    Ipv4Addr::new(net, 1 + salt, round, 2 + group)
}

/// Starts to connect, without waiting.
pub(crate) fn connect(
    server: SocketAddrV4,
    source: Ipv4Addr,
    is_stalled: bool,
) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    if is_stalled {
        sockopt::set_socket_recv_buffer_size(&socket, STALLED_RECEIVE_BYTES)?;
    }
    net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    match net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Whether the connection attempt of a writable socket succeeded.
pub(crate) fn is_connected(socket: &OwnedFd) -> bool {
    matches!(sockopt::socket_error(socket), Ok(Ok(())))
}
