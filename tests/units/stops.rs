//! Stops, restarts, crashes and reloads, while viewers keep coming back.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::boots::is_inside;
use crate::manager::{Manager, SERVICE, SOCKET, any_port, get};

/// Clients that ask again and again, as viewers whose connection was closed.
struct Clients {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Clients {
    fn of(to: SocketAddr) -> Self {
        let (is_over, answered, refused) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicU64>::default(),
            Arc::<AtomicU64>::default(),
        );
        let threads = (0..4)
            .map(|_| {
                let (is_over, answered, refused) =
                    (Arc::clone(&is_over), Arc::clone(&answered), Arc::clone(&refused));
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        match get(to, "/health").map_err(|why| why.kind()) {
                            Ok(200) => _ = answered.fetch_add(1, Ordering::Relaxed),
                            // Also a connection that was taken and then lost is one that a viewer lost.
                            Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                                refused.fetch_add(1, Ordering::Relaxed);
                                thread::park_timeout(Duration::from_millis(5));
                            }
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        Self { is_over, answered, refused, threads }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// A node's configuration that is quick to end, with `listen`.
fn config(listen: SocketAddr) -> String {
    format!(
        "listen = \"{listen}\"\nadmin = \"off\"\nshards = 2\nconnections_max = 500\nlog_level = \"error\"\n\
         drain_delay_ms = 100\ndrain_spread_ms = 100\ndrain_deadline_ms = 3000\n"
    )
}

fn started(
    name: &str,
    service: &str,
    socket: &str,
    enabled: &[&'static str],
) -> (Manager, SocketAddr) {
    let listen = any_port();
    let stream = format!("[Socket]\nListenStream=\nListenStream={listen}\n{socket}");
    let mut manager = Manager::new(name, &config(listen), service, &stream);
    enabled.iter().for_each(|unit| manager.enable(unit));
    assert_eq!(manager.boot(), []);
    manager.until("the node is ready", |manager| manager.is_ready);
    (manager, listen)
}

/// Waits until the clients have had `more` answers.
fn until_answered(manager: &mut Manager, clients: &Clients, more: u64) {
    let before = clients.answered();
    manager.until("clients are answered", |_| clients.answered() >= before + more);
}

fn assert_stopped(manager: &mut Manager, listen: SocketAddr) {
    let starts = manager.starts;
    // Long enough for a client to come back and start it, if anything would.
    manager.turn_for(Duration::from_millis(500));
    assert_eq!(manager.starts, starts, "a stop is a stop");
    assert!(!manager.is_active(SERVICE) && !manager.is_active(SOCKET));
    let refused = get(listen, "/health").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(manager.stored(), 0);
}

#[test]
fn without_a_socket_unit_a_restart_and_a_crash_refuse_nobody_and_a_stop_is_one() {
    let (mut manager, listen) = started("alone", "", "", &[SERVICE]);
    assert_eq!(manager.stored(), 2, "a listener for each shard");
    let clients = Clients::of(listen);
    until_answered(&mut manager, &clients, 50);
    for _ in 0..3 {
        manager.restart(SERVICE).unwrap();
        until_answered(&mut manager, &clients, 50);
        assert_eq!(manager.stored(), 2, "a restart adds none");
    }
    assert_eq!(clients.refused(), 0);
    // A crash loses who is connected, not who waits: nobody finds the port closed.
    let reset = clients.refused();
    manager.crash();
    manager.until("it is started again", |manager| manager.starts == 5 && manager.is_ready);
    until_answered(&mut manager, &clients, 50);
    let lost = clients.refused() - reset;
    assert!(lost <= 4 + 4, "only those that the crash cut off: {lost}");
    manager.stop(SERVICE);
    assert_stopped(&mut manager, listen);
}

#[test]
fn with_the_socket_unit_a_restart_refuses_nobody_and_either_stop_is_one() {
    for (name, stopped) in [("two", SERVICE), ("two-by-socket", SOCKET)] {
        let (mut manager, listen) = started(name, "", "", &[SERVICE, SOCKET]);
        let clients = Clients::of(listen);
        until_answered(&mut manager, &clients, 50);
        manager.restart(SERVICE).unwrap();
        until_answered(&mut manager, &clients, 50);
        assert_eq!(clients.refused(), 0);
        manager.stop(stopped);
        assert_stopped(&mut manager, listen);
        // And both are there again with one command.
        manager.start(SERVICE).unwrap();
        until_answered(&mut manager, &clients, 50);
        assert!(manager.is_active(SOCKET));
    }
}

/// What the double shows of units as they were: without the line, viewers start the node again.
#[test]
fn a_stop_of_the_service_alone_is_none_while_a_socket_unit_waits() {
    let drop_in = "[Unit]\nPropagatesStopTo=\n";
    let (mut manager, listen) = started("half", drop_in, "", &[SERVICE, SOCKET]);
    let clients = Clients::of(listen);
    until_answered(&mut manager, &clients, 50);
    manager.stop(SERVICE);
    manager.until("the clients start it again", |manager| manager.starts == 2 && manager.is_ready);
}

/// And why the socket is not PartOf= the service.
#[test]
fn a_socket_that_is_part_of_the_service_is_closed_by_a_restart() {
    let part = "[Unit]\nPartOf=uproar.service\n";
    let (mut manager, listen) = started("part", "", part, &[SERVICE, SOCKET]);
    let clients = Clients::of(listen);
    until_answered(&mut manager, &clients, 50);
    manager.restart(SERVICE).unwrap();
    until_answered(&mut manager, &clients, 50);
    assert!(clients.refused() > 0);
}

#[test]
fn another_address_or_other_shards_give_up_what_was_kept() {
    if !is_inside("stops::another_address_or_other_shards_give_up_what_was_kept") {
        return;
    }
    let (mut manager, listen) = started("moved", "", "", &[SERVICE]);
    let other = any_port();
    manager.configure(&config(other));
    manager.restart(SERVICE).unwrap();
    manager.until("the node is ready", |manager| manager.is_ready);
    assert_eq!(get(other, "/ready").unwrap(), 200);
    assert_eq!(get(listen, "/ready").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(manager.stored(), 2);
    // The same port on a wider address, which the old listeners are in the way of until they are gone.
    let moved = SocketAddr::new([0, 0, 0, 0].into(), other.port());
    manager.configure(&config(moved));
    manager.restart(SERVICE).unwrap();
    manager.until("the node is ready", |manager| manager.is_ready);
    assert_eq!(manager.starts, 3, "one start is enough");
    assert_eq!(manager.stored(), 2);
    assert_eq!(get(moved, "/ready").unwrap(), 200);
    for (shards, kept) in [("1", 1), ("3", 3)] {
        manager.configure(&config(moved).replace("shards = 2", &format!("shards = {shards}")));
        manager.restart(SERVICE).unwrap();
        manager.until("the node is ready", |manager| manager.is_ready);
        assert_eq!(manager.stored(), kept);
        // A listener that nobody accepts from would let some of these wait for ever.
        for _ in 0..20 {
            assert_eq!(get(moved, "/ready").unwrap(), 200);
        }
    }
}

#[test]
fn a_reload_of_a_bad_file_fails_and_reaches_no_node() {
    let (mut manager, listen) = started("reload", "", "", &[SERVICE]);
    let reloaded = |manager: &Manager| {
        manager.messages.iter().filter(|message| message.contains("RELOADING=1")).count()
    };
    manager.configure("rooms_max = 0\n");
    assert!(!manager.reload(), "the command that an operator types fails");
    manager.turn_for(Duration::from_millis(300));
    assert_eq!(reloaded(&manager), 0);
    manager.configure(&config(listen).replace("drain_spread_ms = 100", "drain_spread_ms = 50"));
    assert!(manager.reload());
    manager.until("the node reloads", |manager| reloaded(manager) == 1);
}
