//! The kernel's floor: a server that accepts sockets and holds them, and does nothing else.
//!
//! Several processes share one listener, because one may not hold 50,000 descriptors.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::options::PlainServer;
use crate::probe;

type Failure = Box<dyn std::error::Error>;

/// Binds, starts the accepting processes, and waits for them; a process accepts on its standard
/// input when that is a listener.
pub(crate) fn serve(options: &PlainServer) -> Result<(), Failure> {
    if options.processes == 0 {
        probe::end_with_parent()?;
        return hold(&TcpListener::from(rustix::io::dup(std::io::stdin())?));
    }
    let listener = TcpListener::bind(options.listen)?;
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    for _ in 0..options.processes {
        let inherited: OwnedFd = listener.try_clone()?.into();
        let address = options.listen.to_string();
        let arguments = ["plain-server", "--processes", "0", "--listen", &address];
        children
            .push(Command::new(&program).args(arguments).stdin(Stdio::from(inherited)).spawn()?);
    }
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn hold(listener: &TcpListener) -> Result<(), Failure> {
    let mut held = Vec::new();
    loop {
        match listener.accept() {
            Ok((socket, _)) => held.push(socket),
            // Out of descriptors: another process takes the rest.
            Err(error) if error.raw_os_error() == Some(24) => loop {
                std::thread::park();
            },
            Err(error) => return Err(error.into()),
        }
    }
}
