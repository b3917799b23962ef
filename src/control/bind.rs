//! Listeners: made before anything else starts, with every option that accepted sockets
//! inherit.
//!
//! Each shard has a listener of its own (SO_REUSEPORT), and the kernel spreads connections
//! over them. The price is that a second server of the same user could join the port
//! unnoticed and take half the viewers, so a plain probe checks first that nobody is there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::activation;
use crate::config::Server;
use crate::shard::Listeners;

/// The sockets a node listens on.
#[derive(Debug)]
pub struct Bound {
    /// For the shards.
    pub listeners: Listeners,
    /// Where viewers connect; the port is the real one even if 0 was configured.
    pub listen: SocketAddr,
    /// For the admin router, if it is on.
    pub admin: Option<TcpListener>,
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
    /// Whether another try must fail as well, until somebody changes the configuration.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Address { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            Self::Activation(_) => true,
        }
    }
}

fn advice(source: &io::Error, addr: &SocketAddr, setting: &str) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is in use; `ss -ltnp 'sport = :{}'` shows by whom, or choose another with \
             --{setting}",
            addr.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("no interface of this host has that address; choose another with --{setting}")
        }
        io::ErrorKind::PermissionDenied => format!(
            "ports under 1024 need CAP_NET_BIND_SERVICE; grant it or choose another with \
             --{setting}"
        ),
        _ => source.to_string(),
    }
}

/// Binds, or takes over from the service manager, everything the node listens on.
///
/// # Errors
/// [`BindError`] with what to do next.
pub fn bind(server: &Server, shards: usize) -> Result<Bound, BindError> {
    let inherited = activation::inherited()?;
    let admin = match inherited.admin {
        Some(admin) => Some(admin),
        None => server.admin.map(bind_admin).transpose()?,
    };
    if let Some(first) = inherited.public.first() {
        let listen = first.local_addr().unwrap_or(server.listen);
        for listener in &inherited.public {
            let at = |source| BindError::Address { addr: listen, setting: "listen", source };
            set_options(&SockRef::from(listener), server).map_err(at)?;
        }
        return Ok(Bound { listeners: Listeners::Shared(inherited.public), listen, admin });
    }
    let at = |source| BindError::Address { addr: server.listen, setting: "listen", source };
    let listeners = bind_shards(server, shards).map_err(at)?;
    let listen = listeners[0].local_addr().map_err(at)?;
    Ok(Bound { listeners: Listeners::PerShard(listeners), listen, admin })
}

fn bind_admin(addr: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = socket(addr)?;
        socket.bind(&addr.into())?;
        socket.listen(128)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|source| BindError::Address { addr, setting: "admin", source })
}

fn bind_shards(server: &Server, shards: usize) -> io::Result<Vec<TcpListener>> {
    let mut addr = server.listen;
    if addr.port() != 0 {
        socket(addr)?.bind(&addr.into())?;
    }
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(addr)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        set_options(&SockRef::from(&socket), server)?;
        socket.listen(i32::try_from(server.accept_backlog).unwrap_or(i32::MAX))?;
        let listener = TcpListener::from(socket);
        // With port 0 the first one finds a port and the others join it.
        addr = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
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
    if server.user_timeout_ms > 0 {
        let timeout = Duration::from_millis(server.user_timeout_ms.into());
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    // bbr, where it is the default, costs CPU for pacing; without cubic the default must do.
    let _ = socket.set_tcp_congestion(b"cubic");
    Ok(())
}
