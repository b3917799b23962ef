//! Where viewers connect from: source addresses, and a port at one of them for each connection.
//!
//! A viewer's port follows from its number, and moves with each connection, so that a new one
//! does not wait for the last one's TIME_WAIT. While there are enough addresses, as on loopback,
//! ports stay below the range from which the kernel serves everybody else: a port that is bound here
//! is skipped there, and 28,232 of them are soon gone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Connections one loopback source address is given.
const CONNECTIONS_PER_LOOPBACK: u32 = 10_000;
/// The first source port: above the well-known servers' ports.
const FIRST_PORT: u32 = 10_240;
/// Ports below the kernel's usual range (net.ipv4.ip_local_port_range), and all of them.
const PORTS_LOW: u32 = 32_768 - FIRST_PORT;
const PORTS: u32 = 50_760;

const _: () = {
    assert!(FIRST_PORT + PORTS <= 65_536);
    // Twice, so that a viewer that comes back finds a port without a TIME_WAIT.
    assert!(2 * CONNECTIONS_PER_LOOPBACK <= PORTS_LOW);
};

/// Source addresses, and how many ports of each are used.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    addresses: Vec<IpAddr>,
    ports: u32,
}

/// Where a viewer connects from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    /// The viewer's number among those of the address.
    number: u32,
    /// How many connections the viewer has had.
    generation: u32,
    ports: u32,
}

impl Sources {
    /// Those that `given` lists, or else the ones that lead to `target`; enough for `viewers`.
    pub(crate) fn new(
        given: Option<&str>,
        target: SocketAddr,
        viewers: u32,
    ) -> Result<Self, String> {
        let addresses = match given {
            Some(text) => parse(text)?,
            None => default_addresses(target, viewers),
        };
        let needed = viewers.div_ceil(PORTS).max(1) as usize;
        if addresses.len() < needed {
            return Err(format!(
                "{viewers} connections need {needed} source addresses ({PORTS} ports each) and there \
                 are {}; add some with --source-ip",
                addresses.len()
            ));
        }
        let each = viewers.div_ceil(addresses.len() as u32);
        Ok(Self { addresses, ports: if 2 * each <= PORTS_LOW { PORTS_LOW } else { PORTS } })
    }

    /// The origin of viewer `number`'s connection `generation`.
    pub(crate) fn origin(&self, number: u32, generation: u16) -> Origin {
        let count = self.addresses.len() as u32;
        let address = self.addresses[(number % count) as usize];
        let (number, generation) = (number / count, generation.into());
        Origin { address, number, generation, ports: self.ports }
    }
}

impl Origin {
    /// The port of the `attempt`-th try.
    pub(crate) fn port(self, attempt: u32) -> u16 {
        // Steps without a factor in common with the number of ports spread what comes again.
        let step = self.number + self.generation * 10_007 + attempt * 4_099;
        (FIRST_PORT + step % self.ports) as u16
    }
}

/// Source addresses for `viewers`: enough of loopback, or the one that leads to the target.
fn default_addresses(target: SocketAddr, viewers: u32) -> Vec<IpAddr> {
    match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let count = viewers.div_ceil(CONNECTIONS_PER_LOOPBACK).max(1);
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

/// Reads `--source-ip`: addresses and `first-last` ranges, separated by commas.
fn parse(text: &str) -> Result<Vec<IpAddr>, String> {
    let address = |text: &str| {
        text.trim()
            .parse::<IpAddr>()
            .map_err(|_| format!("--source-ip: {text:?} is not an IP address"))
    };
    let mut addresses = Vec::new();
    for item in text.split(',') {
        match item.split_once('-') {
            None => addresses.push(address(item)?),
            Some((first, last)) => match (address(first)?, address(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    let range = u32::from(first)..=u32::from(last);
                    addresses.extend(range.map(|ip| IpAddr::V4(Ipv4Addr::from(ip))));
                }
                _ => {
                    return Err(format!(
                        "--source-ip: {item:?} is not a range of IPv4 addresses, first-last"
                    ));
                }
            },
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8_080);

    #[test]
    fn sources_are_addresses_and_ranges() {
        let sources = parse("10.0.0.1,10.0.1.254-10.0.2.1").unwrap();
        let texts: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "10.0.1.254", "10.0.1.255", "10.0.2.0", "10.0.2.1"]);
        for bad in ["", "x", "10.0.0.2-10.0.0.1", "::1-::2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    fn ports(sources: &Sources, generation: u16) -> Vec<(IpAddr, u16)> {
        let origins = (0..50_000).map(|number| sources.origin(number, generation));
        let mut ports: Vec<_> = origins.map(|origin| (origin.address, origin.port(0))).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    #[test]
    fn viewers_on_loopback_have_ports_of_their_own_that_the_kernel_does_not_give_out() {
        let sources = Sources::new(None, TARGET, 50_000).unwrap();
        let (first, second) = (ports(&sources, 1), ports(&sources, 2));
        assert_eq!((first.len(), second.len()), (50_000, 50_000));
        assert!(first.iter().chain(&second).all(|&(_, port)| (10_240..32_768).contains(&port)));
        assert!(!first.iter().any(|port| second.binary_search(port).is_ok()), "new ones next time");
    }

    #[test]
    fn one_address_serves_more_than_the_kernel_would_give_out() {
        let sources = Sources::new(Some("127.20.0.1"), TARGET, 50_000).unwrap();
        assert_eq!(ports(&sources, 1).len(), 50_000);
        let refusal = Sources::new(Some("127.20.0.1"), TARGET, 60_000).unwrap_err();
        assert!(refusal.contains("need 2 source addresses"), "{refusal}");
    }
}
