//! A double of systemd for the two units: it knows jobs, dependencies, sockets, the descriptor store
//! and restarts, and does only what the unit files ask of it.
//!
//! What it believes of systemd was tried with systemd 252 (`systemd --user`, the same shapes of units):
//! stops travel along `PropagatesStopTo=` and to who `Requires=` the stopped unit, restarts only to who
//! requires it; a service that ends unexpectedly takes down what it propagates its stops to; the store
//! survives restarts of either kind and ends with a stop; `RequiredBy=` acts once the unit is enabled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::unit_file::UnitFile;

/// How long anything may take that is sure to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(5);
pub(crate) const SERVICE: &str = "uproar.service";
pub(crate) const SOCKET: &str = "uproar.socket";

/// Descriptors that are passed have numbers of their own, so that tests beside each other do not take each other's.
static NEXT_DESCRIPTOR: AtomicI32 = AtomicI32::new(300);

/// systemd, as far as these units go.
pub(crate) struct Manager {
    dir: PathBuf,
    units: BTreeMap<&'static str, UnitFile>,
    enabled: BTreeSet<&'static str>,
    /// What the socket unit holds while it is active.
    listener: Option<TcpListener>,
    store: Vec<(String, OwnedFd)>,
    notify: UnixDatagram,
    node: Option<Child>,
    restarts_at: Option<Instant>,
    /// How the runs of the service ended that nobody asked to end.
    pub(crate) ends: Vec<ExitStatus>,
    pub(crate) starts: usize,
    pub(crate) is_ready: bool,
    pub(crate) messages: Vec<String>,
}

/// A unit did not start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) &'static str);

impl Manager {
    /// With these drop-ins and this configuration of the node.
    pub(crate) fn new(name: &str, config: &str, service: &str, socket: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("uproar-units-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("uproar.toml"), config).unwrap();
        let notify = UnixDatagram::bind(dir.join("notify")).unwrap();
        notify.set_nonblocking(true).unwrap();
        let units = [(SERVICE, service), (SOCKET, socket)];
        Self {
            units: units.map(|(name, drop_in)| (name, UnitFile::read(name).with(drop_in))).into(),
            dir,
            enabled: BTreeSet::new(),
            listener: None,
            store: Vec::new(),
            notify,
            node: None,
            restarts_at: None,
            ends: Vec::new(),
            starts: 0,
            is_ready: false,
            messages: Vec::new(),
        }
    }

    pub(crate) fn enable(&mut self, unit: &'static str) {
        self.enabled.insert(unit);
    }

    /// Writes the node's configuration anew.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.dir.join("uproar.toml"), config).unwrap();
    }

    /// Starts what is enabled, sockets first; what fails is returned.
    pub(crate) fn boot(&mut self) -> Vec<Failed> {
        let mut failed = Vec::new();
        for target in ["sockets.target", "multi-user.target"] {
            for unit in self.enabled.clone() {
                if self.units[unit].words("Install", "WantedBy").contains(&target) {
                    failed.extend(self.start(unit).err());
                }
            }
        }
        failed
    }

    /// `systemctl start`.
    pub(crate) fn start(&mut self, unit: &'static str) -> Result<(), Failed> {
        // RequiredBy= of what is enabled; a socket is ordered before its service, so its failure counts.
        for other in self.enabled.clone() {
            let is_required = self.units[other].words("Install", "RequiredBy").contains(&unit)
                || self.units[unit].words("Unit", "Requires").contains(&other);
            if is_required && !self.is_active(other) {
                self.start(other)?;
            }
        }
        match unit {
            SOCKET if self.listener.is_none() => self.listen(),
            SERVICE if self.node.is_none() => {
                self.restarts_at = None;
                self.spawn();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `systemctl stop`: the jobs are of one transaction, the service's stop waited for.
    pub(crate) fn stop(&mut self, unit: &'static str) {
        for unit in self.with_propagated(unit, true) {
            self.stop_one(unit);
        }
        if self.node.is_none() {
            self.store.clear();
        }
    }

    /// `systemctl restart`.
    pub(crate) fn restart(&mut self, unit: &'static str) -> Result<(), Failed> {
        let units = self.with_propagated(unit, false);
        for &unit in &units {
            self.stop_one(unit);
        }
        units.into_iter().try_for_each(|unit| self.start(unit))
    }

    /// `systemctl reload`: the commands one after the other, as long as they succeed.
    pub(crate) fn reload(&mut self) -> bool {
        let pid = self.node.as_ref().unwrap().id().to_string();
        let commands = self.units[SERVICE].all("Service", "ExecReload").to_vec();
        commands.iter().all(|command| {
            let mut words =
                self.words(command).into_iter().map(|word| word.replace("$MAINPID", &pid));
            Command::new(words.next().unwrap()).args(words).status().unwrap().success()
        })
    }

    /// A unit and what its stop, or its restart, travels to.
    fn with_propagated(&self, unit: &'static str, is_stop: bool) -> Vec<&'static str> {
        let mut units = vec![unit];
        for &other in self.units.keys().filter(|&&other| other != unit) {
            let [this, that] = [unit, other].map(|name| &self.units[name]);
            let is_required = that.words("Unit", "Requires").contains(&unit)
                || that.words("Unit", "PartOf").contains(&unit)
                || (self.enabled.contains(unit)
                    && this.words("Install", "RequiredBy").contains(&other));
            let is_taken_along = this.words("Unit", "PropagatesStopTo").contains(&other);
            if is_required || (is_stop && is_taken_along) {
                units.push(other);
            }
        }
        units
    }

    fn stop_one(&mut self, unit: &'static str) {
        if unit == SOCKET {
            self.listener = None;
            return;
        }
        self.restarts_at = None;
        if let Some(node) = &self.node {
            kill_process(Pid::from_child(node), Signal::TERM).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while self.node.as_mut().unwrap().try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "the node ends on SIGTERM");
                self.hear();
                thread::park_timeout(TICK);
            }
            self.node = None;
            self.is_ready = false;
        }
    }

    pub(crate) fn is_active(&self, unit: &str) -> bool {
        match unit {
            SOCKET => self.listener.is_some(),
            _ => self.node.is_some() || self.restarts_at.is_some(),
        }
    }

    /// Ends the node as a crash would.
    pub(crate) fn crash(&mut self) {
        let node = self.node.as_mut().unwrap();
        node.kill().unwrap();
    }

    /// Goes about its business until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "in vain: {what}; heard {:#?}", self.messages);
            self.turn();
            thread::park_timeout(TICK);
        }
    }

    /// Goes about its business for this long.
    pub(crate) fn turn_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until("time passes", |_| Instant::now() >= end);
    }

    fn turn(&mut self) {
        self.hear();
        let ended = self.node.as_mut().and_then(|node| node.try_wait().unwrap());
        if let Some(status) = ended {
            self.hear();
            self.ended(status);
        }
        if self.restarts_at.is_some_and(|at| Instant::now() >= at) {
            self.restarts_at = None;
            let _ = self.start(SERVICE);
        }
        let is_wanted = self.node.is_none() && self.restarts_at.is_none();
        if is_wanted && self.listener.as_ref().is_some_and(has_waiting) {
            let _ = self.start(SERVICE);
        }
    }

    fn ended(&mut self, status: ExitStatus) {
        self.node = None;
        self.is_ready = false;
        self.ends.push(status);
        // Down without a job: what its stops travel to goes too.
        for unit in self.with_propagated(SERVICE, true) {
            if unit != SERVICE {
                self.stop_one(unit);
            }
        }
        let service = &self.units[SERVICE];
        let prevented = service.words("Service", "RestartPreventExitStatus");
        let is_prevented =
            status.code().is_some_and(|code| prevented.contains(&code.to_string().as_str()));
        let is_wanted = match service.last("Service", "Restart") {
            Some("on-failure") => !status.success(),
            Some("always") => true,
            _ => false,
        };
        if is_wanted && !is_prevented {
            let pause = service.last("Service", "RestartSec").unwrap().strip_suffix("ms").unwrap();
            self.restarts_at = Some(Instant::now() + Duration::from_millis(pause.parse().unwrap()));
        } else {
            self.store.clear();
        }
    }

    fn listen(&mut self) -> Result<(), Failed> {
        let unit = &self.units[SOCKET];
        let address: SocketAddr = unit.last("Socket", "ListenStream").unwrap().parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if unit.last("Socket", "FreeBind") == Some("yes") {
            socket.set_freebind_v4(true).unwrap();
        }
        socket.bind(&address.into()).map_err(|_| Failed(SOCKET))?;
        socket.listen(unit.number("Socket", "Backlog") as i32).map_err(|_| Failed(SOCKET))?;
        self.listener = Some(socket.into());
        Ok(())
    }

    /// The words of a command line, with this build and this configuration in place of the installed ones.
    fn words(&self, command: &str) -> Vec<String> {
        let config = self.dir.join("uproar.toml");
        command
            .split(' ')
            .map(|word| match word {
                "/usr/bin/uproar" => env!("CARGO_BIN_EXE_uproar").to_owned(),
                "/etc/uproar/uproar.toml" => config.to_str().unwrap().to_owned(),
                other => other.to_owned(),
            })
            .collect()
    }

    fn spawn(&mut self) {
        let service = &self.units[SERVICE];
        let words = self.words(service.last("Service", "ExecStart").unwrap());
        let mut passed: Vec<(&str, std::os::fd::BorrowedFd<'_>)> = Vec::new();
        if let Some(listener) = &self.listener {
            let name = self.units[SOCKET].last("Socket", "FileDescriptorName");
            passed.push((name.unwrap_or(SOCKET), listener.as_fd()));
        }
        passed.extend(self.store.iter().map(|(name, fd)| (name.as_str(), fd.as_fd())));
        let first = NEXT_DESCRIPTOR.fetch_add(passed.len() as i32, Ordering::Relaxed);
        let copies: Vec<OwnedFd> = (first..)
            .zip(&passed)
            .map(|(number, (_, fd))| {
                let copy = rustix::io::fcntl_dupfd_cloexec(fd, number).unwrap();
                assert_eq!(copy.as_raw_fd(), number, "the descriptor is free");
                rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
                copy
            })
            .collect();
        let names: Vec<&str> = passed.iter().map(|&(name, _)| name).collect();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&words);
        command.env("NOTIFY_SOCKET", self.dir.join("notify"));
        command.env("FDSTORE", service.number("Service", "FileDescriptorStoreMax").to_string());
        if !copies.is_empty() {
            command.env("LISTEN_FDS", copies.len().to_string());
            command.env("LISTEN_FDS_FIRST_FD", first.to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stderr(log);
        self.starts += 1;
        self.node = Some(command.spawn().unwrap());
    }

    /// Takes the messages that wait, with the descriptors in them.
    fn hear(&mut self) {
        loop {
            let mut bytes = [0; 4_096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let Ok(got) = rustix::net::recvmsg(&self.notify, &mut into, &mut ancillary, flags)
            else {
                return;
            };
            let received: Vec<OwnedFd> = ancillary
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                    _ => None,
                })
                .flatten()
                .collect();
            let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
            let name =
                text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
            if text.lines().any(|line| line == "FDSTORE=1") {
                let max = self.units[SERVICE].number("Service", "FileDescriptorStoreMax");
                for fd in received {
                    if self.store.len() < max {
                        self.store.push((name.to_owned(), fd));
                    }
                }
            } else if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
                self.store.retain(|(kept, _)| kept != name);
            }
            self.is_ready |= text.lines().any(|line| line == "READY=1");
            self.messages.push(text);
        }
    }

    /// What the node wrote to stderr in all its runs.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How many descriptors the store holds.
    pub(crate) fn stored(&self) -> usize {
        self.store.len()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether a connection waits to be accepted.
fn has_waiting(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&none)).is_ok_and(|ready| ready > 0)
}

/// The status of a request, or why there is none.
pub(crate) fn get(to: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no answer"))
}

/// A free port of loopback.
pub(crate) fn any_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
