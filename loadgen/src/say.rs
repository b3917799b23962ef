//! What goes to stdout and stderr. A slow reader is waited for. When nobody reads stdout any more the process ends
//! silently, by SIGPIPE, as others do that write into a closed pipe; when it cannot be written, as on a full disk, with
//! 1 and a sentence. What cannot be written to stderr has nobody to be told of it.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;

/// Exit code of a result that could not be written.
const UNWRITTEN: i32 = 1;

/// A result, as it is.
pub(crate) fn text(text: &str) {
    match write_whole(io::stdout(), text.as_bytes()) {
        Ok(()) => {}
        Err(why) if why.kind() == ErrorKind::BrokenPipe => {
            // It returns only where the signal is blocked; a shell shows it as this exit code.
            let _ = emulate_default_handler(SIGPIPE);
            std::process::exit(128 + SIGPIPE);
        }
        Err(why) => {
            complain(&format!("cannot write to stdout: {why}"));
            std::process::exit(UNWRITTEN);
        }
    }
}

/// A result, with a line feed behind it.
pub(crate) fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// A line on stderr.
pub(crate) fn complain(why: &str) {
    note(&format!("uproar-loadgen: {why}\n"));
}

/// Text on stderr, as it is.
pub(crate) fn note(text: &str) {
    let _ = write_whole(io::stderr(), text.as_bytes());
}

/// Writes all of it, and waits for a descriptor that takes nothing now, also one that is non-blocking.
fn write_whole(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}
