//! Client sockets: bound to a source address and port, connecting, not yet a viewer's.
//!
//! Ports are chosen (`sources`), not left to the kernel: its search for a free one among 28,232 takes
//! milliseconds when few are left and stops at ports that any other program has bound.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sources::Origin;

/// Ports tried before a connect counts as failed.
const TRIES: u32 = 16;

/// A non-blocking socket whose connect has begun. `receive_bytes`: its receive buffer, if not the host's own.
pub(crate) fn connecting_socket(
    target: SocketAddr,
    origin: Origin,
    receive_bytes: Option<usize>,
) -> io::Result<Socket> {
    let mut attempt = 0;
    loop {
        match connect_once(
            target,
            SocketAddr::new(origin.address, origin.port(attempt)),
            receive_bytes,
        ) {
            Err(error) if is_port_taken(&error) && attempt < TRIES => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn connect_once(
    target: SocketAddr,
    source: SocketAddr,
    receive_bytes: Option<usize>,
) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    // A port in TIME_WAIT towards another target is free for us.
    socket.set_reuse_address(true)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SockAddr::from(source))?;
    match socket.connect(&SockAddr::from(target)) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL))
}

/// What a failed connect means and what to do about it.
pub(crate) fn explain_connect(error: &io::Error) -> String {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => "nothing listens at the target; check the address",
        Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => {
            "the source address is not this host's, or has no free port; see --source-ip"
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "out of descriptors; raise RLIMIT_NOFILE (ulimit -n) or fs.file-max"
        }
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
            "the target cannot be reached from this source address"
        }
        Some(Errno::CONNRESET | Errno::PIPE) => "the server closed the connection",
        _ => "the connection failed",
    };
    format!("{advice} ({error})")
}
