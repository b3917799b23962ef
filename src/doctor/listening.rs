//! Where a running process listens: its descriptors against the kernel's tables of sockets.
//!
//! A listening socket may come from systemd, and then the configuration does not say where it
//! is. Descriptors name their sockets by inode, and `net/tcp` and `net/tcp6` of the process, which
//! are those of its network namespace, have an address for each inode.

use std::net::{IpAddr, SocketAddr};

use super::limits::kib;
use super::target::Held;
use super::tree::Tree;

/// The state of a listening socket in the kernel's tables.
const LISTEN: &str = "0A";

impl Tree {
    /// Where viewers reach the process: the first of its listening addresses that is not the
    /// admin port's, and among several rather one with the configured port.
    ///
    /// # Errors
    /// Why that is not to be seen.
    pub fn listening(
        &self,
        configured: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> Result<SocketAddr, String> {
        let dir = self.process_path("fd");
        let links = self.links(&dir).ok_or_else(|| format!("/{dir} is not readable"))?;
        let inodes: Vec<&str> = links
            .iter()
            .filter_map(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
            .collect();
        let tables = ["net/tcp", "net/tcp6"].map(|file| self.process(file).unwrap_or_default());
        let found: Vec<SocketAddr> = tables
            .iter()
            .flat_map(|table| table.lines())
            .filter_map(listener)
            .filter(|(addr, inode)| inodes.contains(inode) && Some(*addr) != admin)
            .map(|(addr, _)| addr)
            .collect();
        let as_configured = found.iter().find(|addr| addr.port() == configured.port());
        let addr = as_configured.or(found.first()).copied();
        addr.ok_or_else(|| "the process has no listening socket for viewers".to_owned())
    }
}

/// The kernel's part of an idle connection, in bytes (measured: 4,087).
const KERNEL_BYTES: u64 = 4_096;
/// The state of a connection in the kernel's tables.
const ESTABLISHED: &str = "01";

impl Tree {
    /// What the socket unit listens on, if it is enabled: its file and drop-ins, where an empty value takes back
    /// those before it.
    pub(super) fn socket_unit(&self) -> Option<Vec<String>> {
        const UNIT: &str = "uproar.socket";
        let is_enabled = ["sockets.target.wants", "uproar.service.requires"].iter().any(|dir| {
            self.names(format!("etc/systemd/system/{dir}")).iter().any(|name| name == UNIT)
        });
        if !is_enabled {
            return None;
        }
        let dirs = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
        let unit = dirs.iter().find_map(|dir| self.read(format!("{dir}/{UNIT}")));
        let mut texts: Vec<String> = unit.into_iter().collect();
        for dir in dirs.iter().rev().map(|dir| format!("{dir}/{UNIT}.d")) {
            let files = self.names(&dir).into_iter().filter(|name| name.ends_with(".conf"));
            texts.extend(files.filter_map(|name| self.read(format!("{dir}/{name}"))));
        }
        let mut streams = Vec::new();
        for value in texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
            line.trim().strip_prefix("ListenStream")?.trim_start().strip_prefix('=')
        }) {
            match value.trim() {
                "" => streams.clear(),
                stream => streams.push(stream.to_owned()),
            }
        }
        Some(streams)
    }

    /// What the process holds, by its connections at this port.
    #[must_use]
    pub fn held(&self, listen: SocketAddr) -> Held {
        let port = format!(":{:04X}", listen.port());
        let connections = ["net/tcp", "net/tcp6"]
            .map(|file| self.process(file).unwrap_or_default())
            .iter()
            .flat_map(|table| table.lines())
            .filter(|row| {
                let mut fields = row.split_whitespace().skip(1);
                fields.next().is_some_and(|local| local.ends_with(&port))
                    && fields.nth(1) == Some(ESTABLISHED)
            })
            .count() as u64;
        let own = self.links(&self.process_path("fd")).map_or(0, |links| links.len() as u64);
        let resident = self.process("status").and_then(|status| kib(&status, "VmRSS:"));
        Held {
            files: connections + own,
            memory_bytes: resident.unwrap_or(0) + connections * KERNEL_BYTES,
        }
    }
}

/// The address and inode of a table's row, if it is a listening socket.
fn listener(row: &str) -> Option<(SocketAddr, &str)> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    Some((SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?), inode))
}

/// An address as the tables have it: words of 32 bits in the host's order of bytes.
fn address(hex: &str) -> Option<IpAddr> {
    let word =
        |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        assert_eq!(address(&hex([127, 0, 0, 1])), Some(IpAddr::from([127, 0, 0, 1])));
        let zero = hex([0; 4]);
        let six = [zero.clone(), zero.clone(), zero.clone(), hex([0, 0, 0, 1])].concat();
        assert_eq!(address(&six), Some("::1".parse().expect("an address")));
        let mapped = [zero.clone(), zero, hex([0, 0, 255, 255]), hex([127, 0, 0, 1])].concat();
        assert_eq!(address(&mapped), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(address("7F"), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
    }
}
