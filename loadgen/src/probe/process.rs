//! The server's processes by `/proc`: whose listener it is, CPU time, memory.
//!
//! One process id given is that process alone, or it and its descendants. Else it is whoever holds the socket
//! that the kernel would give a connect to the target to: a listener at exactly that address, or else at the
//! wildcard. A listener that several processes hold (a master and its workers) is theirs together.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::cpus::{CpuBooks, numbers};

/// The server on this host.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// The one given or found; the oldest of several.
    pub(crate) pid: u32,
    /// All that were found, and whether their descendants count.
    roots: Vec<u32>,
    has_children: bool,
    /// The CPUs it keeps to: those that threads are pinned to one each, else all that its threads may use.
    pub(crate) cpus: Vec<usize>,
    /// Whether that is less than this host has for us.
    pub(crate) is_pinned: bool,
}

/// CPU time so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime {
    /// Of each thread: on a CPU, and ready without one (schedstat: scheduler time, not sampled ticks), in microseconds.
    threads: HashMap<u32, (u64, u64)>,
    /// Of the server's CPUs.
    pub(crate) books: CpuBooks,
}

impl CpuTime {
    /// What all threads used since `earlier`, in microseconds. One that ended meanwhile keeps what was seen of it.
    pub(crate) fn used_us(&self, earlier: &Self) -> u64 {
        self.since(earlier).map(|(used, _)| used).sum()
    }

    /// The busiest thread's use since `earlier`, and the wait of the one that waited most, in microseconds.
    pub(crate) fn most_us(&self, earlier: &Self) -> (u64, u64) {
        self.since(earlier)
            .fold((0, 0), |most, (used, waited)| (most.0.max(used), most.1.max(waited)))
    }

    fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.threads.iter().map(|(tid, &(used, waited))| {
            let before = earlier.threads.get(tid).copied().unwrap_or_default();
            (used.saturating_sub(before.0), waited.saturating_sub(before.1))
        })
    }
}

impl Process {
    /// The process with this id, and its descendants if `has_children`. `ours`: the CPUs this tool was given.
    pub(crate) fn new(pid: u32, has_children: bool, ours: &[usize]) -> Option<Self> {
        Self::of(vec![pid], has_children, ours)
    }

    /// Whoever would be connected to at `target` on this host.
    pub(crate) fn listening_at(target: SocketAddr, ours: &[usize]) -> Option<Self> {
        let inodes = listening_inodes(target);
        let is_listener = |link: &str| {
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
        };
        let mut holders: Vec<u32> = numbers("/proc")
            .filter(|pid| {
                let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
                let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
                links.any(|link| link.to_str().is_some_and(is_listener))
            })
            .collect();
        holders.sort_unstable();
        if holders.is_empty() {
            return None;
        }
        // A worker may be replaced while we look: then it is its master's child.
        let has_children = holders.len() > 1;
        Self::of(holders, has_children, ours)
    }

    fn of(roots: Vec<u32>, has_children: bool, ours: &[usize]) -> Option<Self> {
        let &pid = roots.first()?;
        fs::metadata(format!("/proc/{pid}/task")).ok()?;
        let mut process = Self { pid, roots, has_children, cpus: Vec::new(), is_pinned: false };
        process.find_cpus(ours);
        Some(process)
    }

    /// All processes that are the server now.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = self.roots.clone();
        if !self.has_children {
            return pids;
        }
        let parents: Vec<(u32, u32)> =
            numbers("/proc").filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let mut at = 0;
        while let Some(&pid) = pids.get(at) {
            at += 1;
            for &(child, _) in parents.iter().filter(|&&(_, parent)| parent == pid) {
                if !pids.contains(&child) {
                    pids.push(child);
                }
            }
        }
        pids
    }

    /// Whether the first of them still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        state.is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// CPU time of the server's threads and of its CPUs.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        let mut threads = HashMap::new();
        for pid in self.pids() {
            let tasks = format!("/proc/{pid}/task");
            for tid in numbers(&tasks) {
                let schedstat = fs::read_to_string(format!("{tasks}/{tid}/schedstat"));
                let schedstat = schedstat.unwrap_or_default();
                let mut fields =
                    schedstat.split_whitespace().map_while(|ns| ns.parse::<u64>().ok());
                if let (Some(used), Some(waited)) = (fields.next(), fields.next()) {
                    threads.insert(tid, (used / 1_000, waited / 1_000));
                }
            }
        }
        CpuTime { threads, books: CpuBooks::now(&self.cpus) }
    }

    /// Proportional set size of all its memory, in bytes; none when it may not be read.
    pub(crate) fn pss_bytes(&self) -> Option<u64> {
        let each = self.pids().into_iter().map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        each.sum::<Option<u64>>().map(|kib| kib * 1_024)
    }

    /// What its program is: the path, and a digest that tells two builds apart.
    pub(crate) fn program(&self) -> Option<String> {
        program(&format!("/proc/{}/exe", self.pid))
    }

    /// Whether it lives in another network namespace of this host than we do; none when that may not be asked.
    pub(crate) fn is_in_other_network(&self) -> Option<bool> {
        let theirs = fs::read_link(format!("/proc/{}/ns/net", self.pid)).ok()?;
        Some(theirs != fs::read_link("/proc/self/ns/net").ok()?)
    }

    fn find_cpus(&mut self, ours: &[usize]) {
        let (mut single, mut all) = (Vec::new(), Vec::new());
        for pid in self.pids() {
            let tasks = format!("/proc/{pid}/task");
            for tid in numbers(&tasks) {
                let status =
                    fs::read_to_string(format!("{tasks}/{tid}/status")).unwrap_or_default();
                let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                let cpus = list.map(parse_cpus).unwrap_or_default();
                if cpus.len() == 1 {
                    single.extend_from_slice(&cpus);
                }
                all.extend(cpus);
            }
        }
        self.cpus = if single.is_empty() { all } else { single };
        self.cpus.sort_unstable();
        self.cpus.dedup();
        self.is_pinned = ours.iter().any(|cpu| !self.cpus.contains(cpu));
    }
}

/// A program's path and a digest of what is in it (FNV-1a, 64 bits: to tell builds apart, not to prove them).
pub(crate) fn program(exe: &str) -> Option<String> {
    let path = fs::read_link(exe).ok()?;
    let bytes = fs::read(exe).ok()?;
    let digest = bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325_u64, |digest, chunk| {
        let word = chunk.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        (digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(5)
    });
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(format!("{name} {digest:016x}"))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Reads `0-3,8`.
fn parse_cpus(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    });
    ranges.flatten().collect()
}

/// Inodes of the sockets that a connect to `target` may end at: those at exactly its address, or else those at
/// the wildcard of its family, or else those at `::`, which take IPv4 as well.
fn listening_inodes(target: SocketAddr) -> Vec<String> {
    let mut listeners = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        listeners.extend(read_listeners(&fs::read_to_string(table).unwrap_or_default()));
    }
    choose(&listeners, target)
}

fn choose(listeners: &[(SocketAddr, String)], target: SocketAddr) -> Vec<String> {
    let mapped = match target.ip() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    };
    let wildcard = match target.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let ranks = [[target.ip(), mapped], [wildcard; 2], [IpAddr::V6(Ipv6Addr::UNSPECIFIED); 2]];
    let at = |ips: [IpAddr; 2]| {
        let there = listeners.iter().filter(move |(address, _)| {
            address.port() == target.port() && ips.contains(&address.ip())
        });
        there.map(|(_, inode)| inode.clone()).collect::<Vec<_>>()
    };
    ranks.into_iter().map(at).find(|inodes| !inodes.is_empty()).unwrap_or_default()
}

/// Listening sockets of a table of `/proc/net`: address and inode.
fn read_listeners(table: &str) -> Vec<(SocketAddr, String)> {
    let listeners = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if *fields.get(3)? != "0A" {
            return None;
        }
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((SocketAddr::new(read_ip(ip)?, port), (*fields.get(9)?).to_owned()))
    });
    listeners.collect()
}

/// Words of 32 bits in this host's order, in hex.
fn read_ip(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let words: Vec<[u8; 4]> = words.collect::<Option<_>>()?;
    match words.as_slice() {
        &[word] => Some(IpAddr::from(word)),
        words => <[u8; 16]>::try_from(words.concat()).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_listener_is_found_and_measured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_at(listener.local_addr().unwrap(), &[0]).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.is_alive() && process.program().is_some());
        assert_eq!(process.is_in_other_network(), Some(false));
        assert!(process.pss_bytes().unwrap() > 100_000);
        let before = process.cpu_time();
        let spin_until = crate::clock::thread_cpu_us() + 20_000;
        while crate::clock::thread_cpu_us() < spin_until {}
        assert!(process.cpu_time().used_us(&before) > 10_000);
    }

    #[test]
    fn who_holds_the_port_on_another_address_is_not_the_server() {
        let other = std::net::TcpListener::bind("127.0.0.43:0").unwrap();
        let mut target = other.local_addr().unwrap();
        assert!(Process::listening_at(target, &[]).is_some());
        target.set_ip(Ipv4Addr::new(127, 0, 0, 44).into());
        assert!(Process::listening_at(target, &[]).is_none());
    }

    #[test]
    fn the_listener_nearest_to_the_target_is_chosen() {
        let at = |text: &str, inode: &str| (text.parse().unwrap(), inode.to_owned());
        let listeners = [
            at("127.0.0.1:80", "one"),
            at("0.0.0.0:80", "any"),
            at("[::]:80", "any6"),
            at("[::]:90", "dual"),
            at("[::ffff:127.0.0.9]:80", "mapped"),
            at("0.0.0.0:81", "port"),
        ];
        let chosen = |target: &str| choose(&listeners, target.parse().unwrap());
        assert_eq!(chosen("127.0.0.1:80"), ["one"]);
        assert_eq!(chosen("127.0.0.2:80"), ["any"]);
        assert_eq!(chosen("127.0.0.9:80"), ["mapped"]);
        assert_eq!(chosen("[::1]:80"), ["any6"]);
        assert_eq!(chosen("127.0.0.1:90"), ["dual"]);
        assert_eq!(chosen("127.0.0.1:99"), Vec::<String>::new());
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "  sl  local_address rem_address st tx rx tr tm retrnsmt uid timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 4243 1\n\
            2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1\n";
        let listeners = read_listeners(table);
        assert_eq!(listeners[0], ("127.0.0.1:8080".parse().unwrap(), "4242".to_owned()));
        assert_eq!(listeners[1], ("[::1]:80".parse().unwrap(), "7".to_owned()));
        assert_eq!(listeners.len(), 2);
        assert_eq!(parse_cpus(" 0-2,8"), [0, 1, 2, 8]);
    }

    #[test]
    fn children_are_the_servers_by_choice() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let own = std::process::id();
        let alone = Process::new(own, false, &[]).unwrap();
        let all = Process::new(own, true, &[]).unwrap();
        assert_eq!(alone.pids(), [own]);
        assert!(all.pids().contains(&own) && all.pids().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_server_kept_to_less_than_we_have_is_pinned() {
        let process = Process::new(std::process::id(), false, &[]).unwrap();
        assert!(!process.is_pinned && !process.cpus.is_empty());
        let more = Process::new(std::process::id(), false, &[usize::MAX]).unwrap();
        assert!(more.is_pinned);
    }
}
