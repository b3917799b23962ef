//! Messages that a newcomer provokes, with the built binary: each says what happened in the words of who typed it, and
//! what to do next. None holds the words of a parser, of the standard library or of glommio.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;

/// What only who wrote the program understands.
const JARGON: &[&str] = &[
    "MemLockLimit",
    "invalid digit",
    "invalid float",
    "expected ",
    "duplicate key",
    "is a float",
    "is a string",
    "valid UTF-8",
    "No such file",
    "panicked",
    "18446744073709551615",
];

/// A folder of this test's own, in which other users may run the program.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("uproar-messages-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The program as an ordinary user with this limit of locked memory, in bytes.
    fn ordinary(&self, memlock: Option<u64>) -> Command {
        let program = self.0.join("uproar");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_uproar"), &program).unwrap();
        }
        let mut command = Command::new("prlimit");
        command.args(memlock.map(|bytes| format!("--memlock={bytes}:{bytes}")));
        if geteuid().is_root() {
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        command.arg(program).current_dir("/");
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn uproar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    command.args(args);
    command
}

/// What it said, having ended with `code`.
fn told(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    let said = text.lines().last().unwrap_or_default();
    for word in JARGON {
        assert!(!said.contains(word), "{word:?} in {said}");
    }
    said.to_owned()
}

#[test]
fn lines_of_a_file_that_cannot_be_read_get_what_to_write_instead() {
    let folder = Folder::new("lines");
    for (line, part) in [
        ("listen = 127.0.0.1:80", "written as listen = \"127.0.0.1:80\""),
        ("listen = 8080", "listen is a whole number here, but takes an IP address with a port"),
        ("listen = [\"127.0.0.1:80\"]", "listen is a list here"),
        ("listen = 2026-01-01", "listen is a date or time here"),
        ("listen = \"localhost:80\"", "which is not an IP address with a port, as in"),
        ("listen = \"224.0.0.1:80\"", "a multicast address, to which nobody can connect"),
        ("listen = \"255.255.255.255:80\"", "the broadcast address, to which nobody can connect"),
        ("listen = \"[fe80::1]:80\"", "without the link (write [fe80::1%2]:8080"),
        ("\"listen\" = 127.0.0.1:80", "written as listen = \"127.0.0.1:80\""),
        ("UPROAR_LISTEN=127.0.0.1:80", "is written listen in the file"),
        ("export UPROAR_ROOMS_MAX=5", "is written rooms_max in the file, as in rooms_max = 5"),
        (
            "rooms_max = 1.5",
            "rooms_max is a number with a fraction here, but takes 1 to 16777216 rooms",
        ),
        (
            "rooms_max = \"1000\"",
            "rooms_max is text in quotes here, but takes 1 to 16777216 rooms, written as rooms_max = 1000",
        ),
        ("rooms_max = true", "rooms_max is true or false here"),
        ("rooms_max = 1,000", "written as rooms_max = 1000"),
        ("rooms_max = 5\nrooms_max = 6", "rooms_max is set on line 1 already; keep one of the two"),
        ("rooms_max", "rooms_max has no =; write rooms_max = 65536"),
        ("rooms_max =", "rooms_max has no value"),
        ("rooms_max = 1, shards = 2", "write one setting a line"),
        ("log_bytes_max = 32 MiB", "written as log_bytes_max = 33554432"),
        ("drain_delay_ms = 3s", "written as drain_delay_ms = 3000"),
        ("log_level = INFO", "written as log_level = \"info\""),
        ("cpus = [0 1]", "it takes auto, or CPU numbers and ranges as in 0,2-3"),
        ("[server]", "the file is flat"),
        ("[[server]]", "the file is flat"),
        ("colour = blue", "is no setting; write KEY = VALUE"),
        ("{\"listen\": \"x\"}", "is no setting; write KEY = VALUE"),
        ("<?xml version=\"1.0\"?>", "is no setting; write KEY = VALUE"),
    ] {
        let file = folder.file("bad.toml", line.as_bytes());
        let text = told(&uproar(&["config", "check", "--anywhere", &file]).output().unwrap(), 78);
        assert!(text.contains(part), "{line}: {text}");
    }
}

#[test]
fn files_that_cannot_be_read_say_why_and_what_to_do() {
    let folder = Folder::new("files");
    let binary = folder.file("binary.toml", b"\xff\xfel\0i\0");
    let shut = folder.file("shut.toml", b"");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    for (file, part) in [
        ("/nowhere/uproar.toml", "there is no such file; `uproar config default` prints one"),
        (folder.0.to_str().unwrap(), "it is a folder; name a file in it"),
        (&binary, "it is not plain text; save it as UTF-8"),
        (&shut, "may not read it, or a folder above it; `namei -l"),
    ] {
        let output = folder.ordinary(None).args(["config", "check", file]).output().unwrap();
        let text = told(&output, 78);
        assert!(text.contains(part), "{file}: {text}");
    }
}

#[test]
fn words_that_cannot_be_get_what_the_flag_takes() {
    for (args, code, part) in [
        (&["top", "--interval", "x"][..], 2, "it takes a whole number, 1 to 3600 seconds"),
        (&["top", "--frames", "0"], 2, "it takes a whole number, 1 to"),
        (&["tail", "e", "--history", "x"], 2, "it takes a whole number, 0 to 65536 comments"),
        (&["doctor", "--pid", "x"], 2, "a process has a number, as `systemctl show"),
        (&["doctor", "--pid", "0"], 2, "the unit is not running: leave --pid out"),
        (
            &["top", "--url", "127.0.0.1:1"],
            1,
            "takes an address as ws://HOST:PORT or http://HOST:PORT",
        ),
        (&["tail", "a b"], 1, "an event id is 1 to 128 of"),
        (&["serve", "--shards", "0"], 78, "shards is 0, under the smallest value 1"),
        (&["serve", "--log-level", "loud"], 78, "which is not one of off, error, warn"),
    ] {
        let output = uproar(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(part), "{args:?}: {text}");
        assert!(!JARGON.iter().any(|word| text.contains(word)), "{args:?}: {text}");
    }
}

#[test]
fn too_little_lockable_memory_says_how_much_and_where_it_is_raised() {
    let folder = Folder::new("memlock");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--shards", "1"];
    for (memlock, part) in [
        // glommio looks at the limit itself.
        (65_536, "this process may lock 65536 bytes of memory, and 524288 is the least"),
        // What it does not see, the kernel does.
        (614_400, "there is not enough lockable memory for a ring"),
    ] {
        let text = told(&folder.ordinary(Some(memlock)).args(serve).output().unwrap(), 1);
        assert!(text.contains(part), "{text}");
        for place in
            ["LimitMEMLOCK=256M in the unit", "ulimit -l 262144 in a shell", "in a container"]
        {
            assert!(text.contains(place), "{text}");
        }
    }
}

#[test]
fn too_few_descriptors_say_how_many_and_where_they_are_raised() {
    for (nofile, part) in
        [("64:64", "with a descriptor limit of 64"), ("256:256", "the descriptor limit is 256")]
    {
        let mut command = Command::new("prlimit");
        command.args([&format!("--nofile={nofile}"), env!("CARGO_BIN_EXE_uproar"), "serve"]);
        let text = told(&command.args(["--listen", "127.0.0.1:0"]).output().unwrap(), 78);
        assert!(text.contains(part) && text.contains("LimitNOFILE=65536 in the unit"), "{text}");
    }
}

#[test]
fn a_port_under_1024_says_who_may_have_it_and_the_ways_round() {
    let first =
        fs::read_to_string(Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start")).unwrap();
    let Some(port) = first.trim().parse::<u16>().unwrap().checked_sub(1).filter(|&port| port > 0)
    else {
        return; // This host has opened them to everyone.
    };
    let folder = Folder::new("port");
    let listen = format!("127.0.0.1:{port}");
    let output = folder
        .ordinary(None)
        .args(["serve", "--listen", &listen, "--admin", "off"])
        .output()
        .unwrap();
    let text = told(&output, 1);
    for part in [
        &format!("cannot listen on {listen} (listen): ports under 1024 are for root"),
        "choose one from 1024 on with --listen and have a proxy take port",
        "let uproar.socket hold it",
        &format!("sysctl -w net.ipv4.ip_unprivileged_port_start={port}"),
    ] {
        assert!(text.contains(part), "{text}");
    }
}
