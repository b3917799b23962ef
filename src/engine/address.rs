//! Which addresses count as one where a limit is counted by address.
//!
//! A household or a host with IPv6 has a whole /64 and may use any address of it, so a limit on
//! single ones would bind nobody (RFC 4291 §2.5.4, RFC 7934). An IPv4 address that a socket for
//! both protocols shows as `::ffff:a.b.c.d` is that IPv4 address.

use std::net::{IpAddr, Ipv6Addr};

use xxhash_rust::xxh3::xxh3_64;

/// The bits of an IPv6 address that its user cannot choose.
const NETWORK: u128 = !0 << 64;

/// An IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(IpAddr);

impl Address {
    /// Four bytes that stand for it where many are kept; 0 stands for one that is not known. Two that
    /// share them are taken for one.
    #[must_use]
    pub fn digest(self) -> u32 {
        let hash = match self.0 {
            IpAddr::V4(v4) => xxh3_64(&v4.octets()),
            IpAddr::V6(v6) => xxh3_64(&v6.octets()),
        };
        (hash as u32).max(1)
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_ipv4_address_is_itself() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address"));
        for (one, other, are_one) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            // Not mapped, and so one network with `::1`.
            ("::192.0.2.1", "::1", true),
        ] {
            assert_eq!(address(one) == address(other), are_one, "{one} and {other}");
        }
    }
}
