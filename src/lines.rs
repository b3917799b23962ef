//! Where lines for stderr wait: nobody who has something to say waits for the pipe behind it.
//!
//! ```text
//! any thread ── push ──► queue (LINES_BYTES_MAX) ──► a thread of its own ──► stderr, however slow
//!                 └─ full: the line is lost, and counted
//! ```
//!
//! A collector that stalls fills the pipe, and a write to a full pipe waits for ever. The thread may
//! wait; the node may not. Lines that were lost are counted and told as soon as one goes through.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::warn;

/// Bytes of lines that may wait, a thousand lines or so; the next are lost.
pub(crate) const LINES_BYTES_MAX: usize = 128 * 1024;
/// What a waiting line takes besides its text.
const LINE_BYTES: usize = size_of::<Vec<u8>>() + 16;

/// The queue of this process, once somebody has opened it.
static LINES: OnceLock<Lines> = OnceLock::new();
/// Lines that were lost, by whichever way.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Lines {
    waiting: Mutex<Waiting>,
    /// Something was pushed, or everything was written.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line is on its way into the pipe.
    is_writing: bool,
}

impl Waiting {
    /// Takes the line if there is room.
    fn push(&mut self, line: &[u8]) -> bool {
        let bytes = line.len() + LINE_BYTES;
        let has_room = self.bytes + bytes <= LINES_BYTES_MAX;
        if has_room {
            self.bytes += bytes;
            self.lines.push_back(line.to_vec());
        }
        has_room
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len() + LINE_BYTES;
        Some(line)
    }
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is pushed, for ever.
    fn write_on(&self) {
        let mut told = 0;
        loop {
            let line = {
                let mut waiting = self.waiting();
                loop {
                    if let Some(line) = waiting.pop() {
                        waiting.is_writing = true;
                        break line;
                    }
                    waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let is_written = write_whole(io::stderr(), &line).is_ok();
            if !is_written {
                LOST.fetch_add(1, Relaxed);
            }
            {
                let mut waiting = self.waiting();
                waiting.is_writing = false;
                if waiting.lines.is_empty() {
                    self.changed.notify_all();
                }
            }
            // In the format of all lines, and behind those that still wait; a pipe that is closed is told nothing.
            let lost = LOST.load(Relaxed);
            if is_written && lost > told && self.waiting().bytes < LINES_BYTES_MAX / 2 {
                warn!(lines = lost - told, "lines of this log were lost: nobody took them");
                told = lost;
            }
        }
    }
}

/// Starts the thread that writes, if it does not run yet.
///
/// # Errors
/// When the kernel refuses a thread.
pub(crate) fn open() -> io::Result<()> {
    let mut started = Ok(());
    let lines = LINES.get_or_init(|| Lines { waiting: Mutex::default(), changed: Condvar::new() });
    static IS_OPEN: OnceLock<()> = OnceLock::new();
    IS_OPEN.get_or_init(|| {
        let thread = thread::Builder::new().name("log".into());
        started = thread.spawn(move || lines.write_on()).map(drop);
    });
    started
}

/// Says a line, which ends with a line feed. It never waits; a line that has no room is lost.
pub(crate) fn push(line: &[u8]) {
    let is_taken = LINES.get().is_some_and(|lines| {
        let is_taken = lines.waiting().push(line);
        lines.changed.notify_all();
        is_taken
    });
    if !is_taken {
        LOST.fetch_add(1, Relaxed);
    }
}

/// Lines that nobody will read.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Waits until everything is written, but no longer than this.
pub(crate) fn flush(patience: Duration) {
    let Some(lines) = LINES.get() else { return };
    let deadline = Instant::now() + patience;
    let mut waiting = lines.waiting();
    while waiting.is_writing || !waiting.lines.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let woken = lines.changed.wait_timeout(waiting, left);
        waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Writes all of it, and waits for a descriptor that takes nothing now: also one that is non-blocking, as a
/// pipe or terminal that is shared with another program may be.
pub(crate) fn write_whole(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

/// A writer of whole lines into the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let mut waiting = Waiting::default();
        let line = [b'x'; 1_000];
        let taken = (0..2_000).filter(|_| waiting.push(&line)).count();
        assert_eq!(taken, LINES_BYTES_MAX / (1_000 + LINE_BYTES));
        assert_eq!(waiting.pop().as_deref(), Some(&line[..]));
        assert!(waiting.push(&line), "there is room again");
        while waiting.pop().is_some() {}
        assert_eq!(waiting.bytes, 0);
    }
}
