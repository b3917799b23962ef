//! Client sockets: bound to a source address, connecting, not yet a viewer's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections one source address is given; the kernel's default port range has 28,232.
pub(crate) const CONNECTIONS_PER_SOURCE: u32 = 20_000;

/// A non-blocking socket whose connect has begun.
pub(crate) fn connecting_socket(target: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // The port is chosen at connect, when the whole four-tuple is known; so one address
        // serves as many connections as there are ports to each target.
        uproar_ring::bind_address_no_port(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    }
    match socket.connect(&SockAddr::from(target)) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Ok(socket)
        }
        Err(error) => Err(error),
    }
}

/// Enough loopback source addresses for `viewers`; empty when the target is elsewhere.
pub(crate) fn default_sources(target: SocketAddr, viewers: u32) -> Vec<IpAddr> {
    match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let count = viewers.div_ceil(CONNECTIONS_PER_SOURCE).max(1);
            // 127.9.0.1 onwards, away from the addresses that people use.
            (1..=count).map(|i| IpAddr::V4(Ipv4Addr::from(0x7f09_0000 + i))).collect()
        }
        _ => Vec::new(),
    }
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
    let advice = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::CONNREFUSED) => "nothing listens at the target; check the address",
        Some(rustix::io::Errno::ADDRNOTAVAIL) => {
            "no port is left for this source address; add addresses with --source-ip or widen \
             net.ipv4.ip_local_port_range"
        }
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
            "out of descriptors; raise RLIMIT_NOFILE (ulimit -n) or fs.file-max"
        }
        Some(rustix::io::Errno::NETUNREACH | rustix::io::Errno::HOSTUNREACH) => {
            "the target cannot be reached from this source address"
        }
        Some(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => {
            "the server closed the connection"
        }
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
        assert!(default_sources("10.1.1.1:80".parse().unwrap(), 50_000).is_empty());
    }
}
