//! The address of a node: `ws://host:port` or `http://host:port`, with an optional path before
//! the protocol's own for nodes behind a proxy.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Failure;

/// How long one address may take to answer a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A node's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeUrl {
    /// Host and port, as a Host header has them.
    pub(super) authority: String,
    /// Nothing, or a path that begins with a slash and ends without one.
    pub(super) prefix: String,
}

impl NodeUrl {
    /// Takes an address apart.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure(format!("--url is \"{text}\", {why}"));
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("but takes an address as ws://HOST:PORT or http://HOST:PORT"))?;
        match scheme {
            "ws" | "http" => {}
            "wss" | "https" => {
                return Err(bad("but this client speaks no TLS; use the node's plain port"));
            }
            _ => return Err(bad("but the scheme is ws or http")),
        }
        if rest.contains(['?', '#', ' ', '@']) {
            return Err(bad("but takes nothing besides host, port and path"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A colon inside brackets belongs to an IPv6 address.
        let after_address = authority.rsplit(']').next().unwrap_or(authority);
        let authority = match after_address.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => {
                return Err(bad("but the port is a number up to 65535"));
            }
            Some(_) => authority.to_owned(),
            None => format!("{authority}:80"),
        };
        if authority.starts_with(':') {
            return Err(bad("but names no host"));
        }
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { authority, prefix })
    }

    /// Connects to the first of the host's addresses that answers.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let mut last = none();
        for addr in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// What to say when [`connect`](Self::connect) failed.
    pub(super) fn unreachable(&self, why: &io::Error) -> Failure {
        let advice = match why.kind() {
            io::ErrorKind::ConnectionRefused => ": nothing listens there; is the node running?",
            io::ErrorKind::TimedOut => {
                ": no answer; is the address right, and no firewall between?"
            }
            // A name that does not resolve has no errno.
            _ if why.raw_os_error().is_none() => "; is the host's name right?",
            _ => "",
        };
        Failure(format!("cannot reach {}: {why}{advice}", self.authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        let parts = |text: &str| NodeUrl::parse(text).map(|u| (u.authority, u.prefix)).unwrap();
        assert_eq!(parts("ws://h:1"), ("h:1".into(), "".into()));
        assert_eq!(parts("http://[::1]:80/a/b/"), ("[::1]:80".into(), "/a/b".into()));
        assert_eq!(parts("http://example.com"), ("example.com:80".into(), "".into()));
        assert_eq!(parts("ws://[::1]"), ("[::1]:80".into(), "".into()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("localhost:8080", "takes an address"),
            ("wss://h", "no TLS"),
            ("ftp://h", "scheme"),
            ("ws://h:99999", "port"),
            ("ws://:80", "no host"),
            ("ws://h/?a", "nothing besides"),
        ] {
            let why = NodeUrl::parse(text).unwrap_err().to_string();
            assert!(why.contains(reason), "{text}: {why}");
        }
    }
}
