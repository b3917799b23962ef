//! Boots of a host whose addresses come late, in a network of their own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::manager::{Failed, Manager, SERVICE, SOCKET, get};

/// An address that this host does not have until it is added.
const LATE: &str = "198.51.100.7";
const INSIDE: &str = "UPROAR_TEST_IS_INSIDE";

/// Runs the test of this name again in a network namespace of its own; true inside it.
pub(crate) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "unshare --net (root, or user namespaces, and iproute2 are needed):\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn run(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}

fn add_address() {
    run("ip", &["address", "add", &format!("{LATE}/32"), "dev", "lo"]);
}

fn late() -> SocketAddr {
    format!("{LATE}:8080").parse().unwrap()
}

fn config(more: &str) -> String {
    format!(
        "admin = \"off\"\nshards = 1\nconnections_max = 500\ndrain_delay_ms = 0\ndrain_spread_ms = 0\n{more}\n"
    )
}

fn socket_at_late() -> String {
    format!("[Socket]\nListenStream=\nListenStream={LATE}:8080\n")
}

fn until_served(manager: &mut Manager) {
    manager.until("the node is ready", |manager| manager.is_ready);
    let served = std::thread::spawn(|| get(late(), "/ready"));
    manager.until("an answer", |_| served.is_finished());
    assert_eq!(served.join().unwrap().unwrap(), 200);
}

#[test]
fn a_socket_unit_comes_before_its_address() {
    if !is_inside("boots::a_socket_unit_comes_before_its_address") {
        return;
    }
    let mut manager = Manager::new("free", &config(""), "", &socket_at_late());
    [SERVICE, SOCKET].into_iter().for_each(|unit| manager.enable(unit));
    assert_eq!(manager.boot(), []);
    manager.until("the node is ready", |manager| manager.is_ready);
    add_address();
    until_served(&mut manager);
}

/// Anything that fails the socket unit fails the service: it is not to be ready where nobody looks for it.
#[test]
fn a_socket_unit_that_fails_leaves_no_node_on_another_address() {
    if !is_inside("boots::a_socket_unit_that_fails_leaves_no_node_on_another_address") {
        return;
    }
    let socket = format!("{}FreeBind=no\n", socket_at_late());
    let mut manager = Manager::new("failed", &config(""), "", &socket);
    [SERVICE, SOCKET].into_iter().for_each(|unit| manager.enable(unit));
    assert_eq!(manager.boot(), [Failed(SOCKET), Failed(SOCKET)]);
    manager.turn_for(Duration::from_millis(300));
    assert_eq!(manager.starts, 0, "no node says READY on 127.0.0.1:8080");
    assert!(get("127.0.0.1:8080".parse().unwrap(), "/ready").is_err());
}

/// What the unit holds is in effect, whatever was typed: at the start, at a reload, and in what is warned of.
#[test]
fn the_log_tells_which_address_is_in_effect() {
    if !is_inside("boots::the_log_tells_which_address_is_in_effect") {
        return;
    }
    add_address();
    let typed = config("listen = \"127.0.0.1:9999\"\nlog_level = \"info\"");
    let mut manager = Manager::new("effect", &typed, "", &socket_at_late());
    [SERVICE, SOCKET].into_iter().for_each(|unit| manager.enable(unit));
    assert_eq!(manager.boot(), []);
    manager.until("the node is ready", |manager| manager.is_ready);
    let unused =
        format!("listen = 127.0.0.1:9999 is not in effect: the socket unit holds {LATE}:8080.");
    let open = format!("listen is {LATE}:8080, which is not loopback, and authentication is off");
    for part in [&unused, &open, "systemctl stop uproar.socket uproar.service"] {
        assert!(manager.log().contains(part), "no \"{part}\" in {}", manager.log());
    }
    assert!(manager.reload());
    manager.until("the file was read again", |manager| manager.log().matches(&unused).count() == 2);
    manager.until("it is done", |manager| manager.log().contains("reloaded: nothing differs"));
    manager.stop(SOCKET);
    let told = manager.log();
    assert!(told.contains("unless it is stopped too (systemctl stop uproar.socket)"), "{told}");
    assert!(!told.contains("needs a restart"), "{told}");
}

#[test]
fn a_late_address_is_waited_for() {
    if !is_inside("boots::a_late_address_is_waited_for") {
        return;
    }
    let config = config(&format!("listen = \"{LATE}:8080\""));
    let mut manager = Manager::new("late", &config, "", "");
    manager.enable(SERVICE);
    assert_eq!(manager.boot(), []);
    let waits =
        |text: &String| text.contains(&format!("STATUS=waiting for an interface to have {LATE}"));
    manager.until("the node waits", |manager| manager.messages.iter().any(waits));
    assert!(!manager.is_ready);
    add_address();
    until_served(&mut manager);
    assert_eq!(manager.starts, 1);
}

/// Longer than one start may wait: it ends with 1, which systemd tries again, and not with 78.
#[test]
fn an_address_that_is_very_late_is_tried_again() {
    if !is_inside("boots::an_address_that_is_very_late_is_tried_again") {
        return;
    }
    let config = config(&format!("listen = \"{LATE}:8080\"\nbind_wait_ms = 200"));
    let mut manager = Manager::new("very-late", &config, "", "");
    manager.enable(SERVICE);
    assert_eq!(manager.boot(), []);
    manager.until("two runs gave up", |manager| manager.ends.len() == 2);
    assert!(manager.ends.iter().all(|status| status.code() == Some(1)), "{:?}", manager.ends);
    add_address();
    until_served(&mut manager);
}

/// IPv6 as it comes up: the address is there and not yet good for anything (duplicate address detection).
#[test]
fn an_ipv6_address_still_being_checked_is_waited_for() {
    if !is_inside("boots::an_ipv6_address_still_being_checked_is_waited_for") {
        return;
    }
    run("ip", &["link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"]);
    run("ip", &["link", "set", "veth-b", "up"]);
    run("ip", &["link", "set", "veth-a", "up"]);
    let config = config("listen = \"[2001:db8::7]:8080\"");
    let mut manager = Manager::new("tentative", &config, "", "");
    manager.enable(SERVICE);
    // Tentative for about a second from here.
    run("ip", &["address", "add", "2001:db8::7/64", "dev", "veth-a"]);
    assert_eq!(manager.boot(), []);
    manager.until("the node is ready", |manager| manager.is_ready);
    assert_eq!(manager.starts, 1);
    let told = manager.messages.iter().any(|text| text.contains("STATUS=waiting for an interface"));
    assert!(told, "the address was tentative at first: {:?}", manager.messages);
}
