//! Client sockets: bound to a source address and port, connecting, not yet a viewer's.
//!
//! Ports are chosen here, not by the kernel: its search for a free one among 28,232 takes
//! milliseconds when few are left and stops at ports that any other program has bound. A
//! viewer's port follows from its number, and moves with each connection, so that a new one
//! does not wait for the last one's TIME_WAIT.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections one loopback source address is given.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;
/// The first source port, and how many there are: above the well-known servers' ports.
const FIRST_PORT: u32 = 10_240;
const PORTS: u32 = 50_760;
/// Ports tried before a connect counts as failed.
const TRIES: u32 = 16;

const _: () = assert!(FIRST_PORT + PORTS <= 65_536);

/// Where a viewer connects from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    /// The viewer's number among those of the address.
    pub(crate) number: u32,
    /// How many connections the viewer has had.
    pub(crate) generation: u32,
}

impl Origin {
    /// The origin of viewer `number` when viewers are dealt out over `sources`.
    pub(crate) fn of(sources: &[IpAddr], number: u32, generation: u16) -> Option<Self> {
        let count = sources.len() as u32;
        let address = *sources.get(number.checked_rem(count)? as usize)?;
        Some(Self { address, number: number / count, generation: generation.into() })
    }

    fn port(self, attempt: u32) -> u16 {
        // Steps without a factor in common with the number of ports spread what comes again.
        let step = self.number + self.generation * 20_011 + attempt * 4_099;
        (FIRST_PORT + step % PORTS) as u16
    }
}

/// A non-blocking socket whose connect has begun.
pub(crate) fn connecting_socket(target: SocketAddr, origin: Option<Origin>) -> io::Result<Socket> {
    let mut attempt = 0;
    loop {
        match connect_once(target, origin.map(|o| SocketAddr::new(o.address, o.port(attempt)))) {
            Err(error) if is_port_taken(&error) && origin.is_some() && attempt < TRIES => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn connect_once(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // A port in TIME_WAIT towards another target is free for us.
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(source))?;
    }
    match socket.connect(&SockAddr::from(target)) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL))
}

/// Source addresses for `viewers`: enough of loopback, or the one that leads to the target.
pub(crate) fn default_sources(target: SocketAddr, viewers: u32) -> Vec<IpAddr> {
    match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let count = viewers.div_ceil(CONNECTIONS_PER_SOURCE).max(1);
            // 127.9.0.1 onwards, away from the addresses that people use.
            (1..=count).map(|i| IpAddr::V4(Ipv4Addr::from(0x7f09_0000 + i))).collect()
        }
        _ => route_to(target).into_iter().collect(),
    }
}

/// The address that the kernel would send from. Nothing is sent.
fn route_to(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Says when there are not enough ports.
pub(crate) fn check_sources(sources: &[IpAddr], viewers: u32) -> Result<(), String> {
    let needed = viewers.div_ceil(PORTS) as usize;
    if sources.len() >= needed {
        return Ok(());
    }
    Err(format!(
        "{viewers} connections need {needed} source addresses ({PORTS} ports each) and there are {}; \
         add some with --source-ip",
        sources.len()
    ))
}

/// Reads `--source-ip`: addresses and `first-last` ranges, separated by commas.
pub(crate) fn parse_sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &str| {
        text.trim().parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"))
    };
    let mut sources = Vec::new();
    for item in text.split(',') {
        match item.split_once('-') {
            None => sources.push(parse(item)?),
            Some((first, last)) => match (parse(first)?, parse(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    let range = u32::from(first)..=u32::from(last);
                    sources.extend(range.map(|ip| IpAddr::V4(Ipv4Addr::from(ip))));
                }
                _ => return Err(format!("{item:?} is not a range of IPv4 addresses")),
            },
        }
    }
    Ok(sources)
}

/// What a failed connect means and what to do about it.
pub(crate) fn explain_connect(error: &io::Error) -> String {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => "nothing listens at the target; check the address",
        Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => {
            "no port is free at this source address; add addresses with --source-ip"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_addresses_and_ranges() {
        let sources = parse_sources("10.0.0.1,10.0.1.254-10.0.2.1").unwrap();
        let texts: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "10.0.1.254", "10.0.1.255", "10.0.2.0", "10.0.2.1"]);
        for bad in ["", "x", "10.0.0.2-10.0.0.1", "::1-::2"] {
            assert!(parse_sources(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_targets_get_an_address_for_every_twenty_thousand() {
        let target = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(default_sources(target, 50_000).len(), 3);
    }

    #[test]
    fn viewers_of_an_address_have_ports_of_their_own_and_new_ones_next_time() {
        let sources = default_sources("127.0.0.1:1".parse().unwrap(), 50_000);
        let port = |number, generation| {
            let origin = Origin::of(&sources, number, generation).unwrap();
            (origin.address, origin.port(0))
        };
        let mut seen: Vec<_> = (0..50_000).map(|number| port(number, 1)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 50_000);
        assert_ne!(port(7, 1), port(7, 2));
        assert!(check_sources(&sources[..1], 50_000).is_ok());
        assert!(check_sources(&sources[..1], 60_000).is_err());
    }
}
