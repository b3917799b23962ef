//! Listeners: made before anything else starts, with every option that accepted sockets
//! inherit.
//!
//! Each shard has a listener of its own (SO_REUSEPORT), and the kernel spreads connections
//! over them. The price is that a second server of the same user could join the port
//! unnoticed and take half the viewers, so a plain probe checks first that nobody is there.
//!
//! An address that the host does not have may be about to come (IPv6 still looks for
//! duplicates, DHCP is slow, a virtual address is with another node): that is waited for.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::{info, warn};

use super::activation;
use super::{keeping, systemd};
use crate::config::Server;
use crate::shard::Listeners;

/// How often a bind that is waited for is tried.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How long the manager may take to close what it is to keep no longer.
const FORGET_MAX: Duration = Duration::from_secs(2);

/// The sockets a node listens on.
#[derive(Debug)]
pub struct Bound {
    /// For the shards.
    pub listeners: Listeners,
    /// Where viewers connect; the port is the real one even if 0 was configured.
    pub listen: SocketAddr,
    /// For the admin router, if it is on.
    pub admin: Option<TcpListener>,
    /// Who holds the viewers' listeners besides this process.
    pub holder: Holder,
    /// Whether a socket unit brought the admin port.
    pub is_admin_inherited: bool,
}

/// Who else holds listening sockets, so that they outlive the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: while the node restarts, connections are refused.
    #[default]
    Nobody,
    /// A socket unit, until that is stopped. It decides about the address.
    SocketUnit,
    /// The service manager, until the service is stopped.
    Store,
}

/// Whose the sockets of a running node are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Who holds the viewers' listeners besides the process.
    pub holder: Holder,
    /// Where viewers connect.
    pub listen: Option<SocketAddr>,
    /// The admin port, if a socket unit brought it.
    pub unit_admin: Option<SocketAddr>,
}

impl Sockets {
    /// Where viewers connect, if a socket unit decided that.
    #[must_use]
    pub fn unit_listen(&self) -> Option<SocketAddr> {
        self.listen.filter(|_| self.holder == Holder::SocketUnit)
    }
}

impl Bound {
    /// Whose they are.
    #[must_use]
    pub fn sockets(&self) -> Sockets {
        let admin = self.admin.as_ref().filter(|_| self.is_admin_inherited);
        Sockets {
            holder: self.holder,
            listen: Some(self.listen),
            unit_admin: admin.and_then(|admin| admin.local_addr().ok()),
        }
    }
}

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refused an address.
    #[error("cannot listen on {addr} ({setting}): {}", advice(source, addr, setting))]
    Address {
        /// Which address.
        addr: SocketAddr,
        /// The setting it comes from.
        setting: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The service manager passed something unusable.
    #[error("socket activation: {0}")]
    Activation(#[from] activation::ActivationError),
}

impl BindError {
    /// Whether another try must fail as well, until somebody changes the configuration. An address
    /// that is absent is not of this kind: it may come.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Activation(_))
    }
}

fn advice(source: &io::Error, addr: &SocketAddr, setting: &str) -> String {
    match source.kind() {
        ErrorKind::AddrInUse => format!(
            "the port is in use; `ss -ltnp 'sport = :{}'` shows by whom, or choose another with \
             --{setting}",
            addr.port()
        ),
        ErrorKind::AddrNotAvailable => format!(
            "no interface of this host has that address, nor got it in time; `ip addr` shows those it has. Choose one with \
             --{setting}, or wait longer with --bind-wait-ms"
        ),
        ErrorKind::PermissionDenied => format!(
            "ports under 1024 are for root, and the service is not; choose one from 1024 on with --{setting} and have a proxy \
             take port {port}, or let uproar.socket hold it (README, Start, stop, restart), or open it to \
             everyone on this host: sysctl -w net.ipv4.ip_unprivileged_port_start={port}",
            port = addr.port()
        ),
        _ => source.to_string(),
    }
}

/// Binds, or takes over from the service manager, everything the node listens on.
///
/// # Errors
/// [`BindError`] with what to do next.
pub fn bind(server: &Server, shards: usize) -> Result<Bound, BindError> {
    let activation::Inherited { public, admin, kept } = activation::inherited()?;
    let is_admin_inherited = admin.is_some();
    let admin = match admin {
        Some(admin) => Some(admin),
        None => server.admin.map(|addr| bind_admin(addr, server)).transpose()?,
    };
    if let Some(first) = public.first() {
        // What an earlier run without the unit left behind would answer nobody.
        if !kept.is_empty() {
            keeping::forget();
        }
        let listen = first.local_addr().unwrap_or(server.listen);
        for listener in &public {
            let at = |source| BindError::Address { addr: listen, setting: "listen", source };
            set_options(&SockRef::from(listener), server).map_err(at)?;
        }
        let holder = Holder::SocketUnit;
        let listeners = Listeners::Shared(public);
        return Ok(Bound { listeners, listen, admin, holder, is_admin_inherited });
    }
    let at = |source| BindError::Address { addr: server.listen, setting: "listen", source };
    let (listeners, holder) = own(server, shards, kept).map_err(at)?;
    let listen = listeners[0].local_addr().map_err(at)?;
    let listeners = Listeners::PerShard(listeners);
    Ok(Bound { listeners, listen, admin, holder, is_admin_inherited })
}

/// A listener for each shard: those the manager kept if they still fit, and new ones besides.
fn own(
    server: &Server,
    shards: usize,
    mut kept: Vec<TcpListener>,
) -> io::Result<(Vec<TcpListener>, Holder)> {
    let fit = |kept: &TcpListener| kept.local_addr().is_ok_and(|addr| addr == server.listen);
    // A listener that no shard accepts from would swallow its share of the viewers.
    let is_other = kept.len() > shards || !kept.iter().all(fit);
    if is_other {
        info!(
            "the listeners that were kept are not those configured now; who waits on them is refused"
        );
        kept.clear();
        keeping::forget();
    }
    for listener in &kept {
        let socket = SockRef::from(listener);
        set_options(&socket, server)?;
        socket.listen(backlog(server))?;
    }
    let first_new = kept.len();
    let patience = if is_other { FORGET_MAX } else { Duration::ZERO };
    let listeners = waiting_for(server.listen, "listen", server, patience, || {
        bind_shards(server, shards, &kept)
    })?;
    let all: Vec<TcpListener> = kept.into_iter().chain(listeners).collect();
    // A port of the kernel's choice is another one next time.
    let may_be_kept = server.listen.port() != 0 && all.len() <= keeping::places();
    let is_kept = may_be_kept && keeping::keep(&all[first_new..]);
    Ok((all, if is_kept { Holder::Store } else { Holder::Nobody }))
}

fn bind_admin(addr: SocketAddr, server: &Server) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = socket(addr)?;
        socket.bind(&addr.into())?;
        socket.listen(128)?;
        Ok(TcpListener::from(socket))
    };
    waiting_for(addr, "admin", server, Duration::ZERO, bind).map_err(|source| BindError::Address {
        addr,
        setting: "admin",
        source,
    })
}

/// Binds, and waits for an address that is not there yet, or for `patience` for one still in use.
fn waiting_for<T>(
    addr: SocketAddr,
    setting: &str,
    server: &Server,
    patience: Duration,
    bind: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    let began = Instant::now();
    let wait_max = Duration::from_millis(server.bind_wait_ms.into());
    let mut is_told = false;
    loop {
        let why = match bind() {
            Ok(bound) => return Ok(bound),
            Err(why) => why,
        };
        let wait = match why.kind() {
            ErrorKind::AddrNotAvailable => wait_max,
            ErrorKind::AddrInUse => patience,
            _ => Duration::ZERO,
        };
        if began.elapsed() >= wait {
            return Err(why);
        }
        if why.kind() == ErrorKind::AddrNotAvailable && !is_told {
            is_told = true;
            let ip = addr.ip();
            warn!(
                "no interface of this host has {ip} ({setting}); waiting up to {} s for it (bind_wait_ms)",
                wait.as_secs_f32()
            );
            systemd::status(&format!("waiting for an interface to have {ip} ({setting})"));
        }
        thread::sleep(TRY_EVERY);
    }
}

/// The listeners of the shards that have none `kept`.
fn bind_shards(
    server: &Server,
    shards: usize,
    kept: &[TcpListener],
) -> io::Result<Vec<TcpListener>> {
    let mut addr = server.listen;
    // Those that were kept are proof that the port is ours.
    if addr.port() != 0 && kept.is_empty() {
        socket(addr)?.bind(&addr.into())?;
    }
    let mut listeners = Vec::with_capacity(shards);
    for _ in kept.len()..shards {
        let socket = socket(addr)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        set_options(&SockRef::from(&socket), server)?;
        socket.listen(backlog(server))?;
        let listener = TcpListener::from(socket);
        // With port 0 the first one finds a port and the others join it.
        addr = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn backlog(server: &Server) -> i32 {
    i32::try_from(server.accept_backlog).unwrap_or(i32::MAX)
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn set_options(socket: &SockRef<'_>, server: &Server) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // The kernel doubles the value for its bookkeeping, and shows it doubled.
    socket.set_send_buffer_size(server.send_buffer_bytes as usize)?;
    // Set before anybody connects, it also keeps the window from growing beyond it.
    socket.set_recv_buffer_size(server.receive_buffer_bytes as usize)?;
    let timeout = Duration::from_millis(server.user_timeout_ms.into());
    // Also none: a listener that was kept may have one.
    socket.set_tcp_user_timeout((!timeout.is_zero()).then_some(timeout))?;
    // bbr, where it is the default, costs CPU for pacing; without cubic the default must do.
    let _ = socket.set_tcp_congestion(b"cubic");
    Ok(())
}
