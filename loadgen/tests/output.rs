//! What nobody reads, or cannot be written.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

/// Writes into a pipe until it takes nothing more.
fn fill(pipe: &File) {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_writable = || {
        let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
        poll(&mut fds, Some(&at_once)).unwrap() > 0
    };
    while is_writable() {
        (&*pipe).write_all(&[b'\n'; 4_096]).unwrap();
    }
}

#[test]
fn a_slow_reader_is_waited_for_none_ends_it_by_sigpipe_and_a_full_disk_is_an_error() {
    for arguments in [&["run", "idle", "--print"][..], &["man"], &["--help"], &["--version"]] {
        let loadgen = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"));
            command.args(arguments).stderr(Stdio::piped());
            command
        };
        let whole = loadgen().output().unwrap();
        assert!(whole.status.success() && !whole.stdout.is_empty(), "{arguments:?}: {whole:?}");

        // A pipe that is full, non-blocking as another program may have made it, and read late.
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (mut read, write) = (File::from(read), File::from(write));
        fill(&write);
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut child = loadgen().stdout(write).spawn().unwrap();
        let mut text = Vec::new();
        read.read_to_end(&mut text).unwrap();
        assert!(text.ends_with(&whole.stdout), "{arguments:?} lost something");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");

        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let closed = loadgen().stdout(write).output().unwrap();
        assert_eq!(closed.status.signal(), Some(Signal::PIPE.as_raw()), "{arguments:?}");
        assert!(closed.stderr.is_empty(), "{arguments:?}: {closed:?}");

        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full = loadgen().stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.starts_with("uproar-loadgen: cannot write to stdout: "),
            "{arguments:?}: {said}"
        );
    }
    // Neither is what is wrong a crash where nobody can be told.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"));
    let silent = command.args(["compare", "/nowhere", "/nowhere"]).stderr(full).status();
    assert_eq!(silent.unwrap().code(), Some(2));
}
