//! What client sockets need that neither std nor socket2 offers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Leaves the choice of the port to `connect` (IP_BIND_ADDRESS_NO_PORT, ip(7)): then a bound
/// source address serves as many connections as there are ports *per target*, and binding
/// fifty thousand sockets does not search for free ports.
///
/// # Errors
/// The kernel's.
pub fn bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads four bytes of a live
    // local. WHY: no safe crate among the dependencies sets this option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
