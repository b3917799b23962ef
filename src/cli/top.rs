//! `uproar top`: asks a node's admin port again and again, and draws.
//!
//! The first look must succeed; after that a node that does not answer is looked for until it is
//! back, as it is when it restarts. On a terminal a frame is as large as the screen, so that nothing
//! scrolls away, and `q` ends it.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::url::NodeUrl;
use super::{Failure, admin, print_raw, required};
use crate::terminal;
use crate::top::{LEGEND, Size, Snapshot, frame};

/// Hot rooms shown of each kind.
const ROOMS: usize = 10;
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// What Ctrl-C sends to a terminal that makes no signal of it.
const INTERRUPT: u8 = 3;
const KEYS: &str = "q ends   ? explains";

pub(super) fn run(args: &ArgMatches) -> Result<(), Failure> {
    let url = NodeUrl::parse(required(args, "url"))?;
    let every =
        Duration::from_secs((*args.get_one::<u32>("interval").expect("it has a default")).into());
    let mut looks = args.get_one::<u32>("frames").map_or(u64::MAX, |&looks| looks.into());
    let keys = Keys::of_terminal();
    let is_drawn = io::stdout().is_terminal();
    let mut before: Option<(Snapshot, Instant)> = None;
    let mut is_explained = false;
    while looks > 0 {
        looks -= 1;
        let size = if is_drawn { screen(keys.is_some()) } else { Size::ENDLESS };
        let mut text = match (ask(&url), &before) {
            (Err(why), None) => return Err(why),
            (Err(why), Some((last, at))) => {
                let node = terminal::line(&last.node);
                let seconds = at.elapsed().as_secs();
                format!("{node} was last seen {seconds} s ago; trying again\n{why}\n")
            }
            (Ok(now), last) => {
                let at = Instant::now();
                let last = last.as_ref().map(|(snapshot, then)| (snapshot, at - *then));
                let text = frame(&now, last, size);
                before = Some((now, at));
                text
            }
        };
        if is_explained {
            text = format!("{LEGEND}\n");
        }
        let text = terminal::lines(text.trim_end());
        let clear = if is_drawn { CLEAR } else { "" };
        let keys_line = if keys.is_some() { format!("\n{KEYS}") } else { String::new() };
        print_raw(&format!("{clear}{text}{keys_line}"))?;
        if looks > 0 {
            match keys.as_ref().map_or_else(|| rest(every), |keys| keys.within(every)) {
                Key::None => {}
                Key::Quit => return Ok(()),
                Key::Explain => is_explained = !is_explained,
            }
        }
    }
    Ok(())
}

fn ask(url: &NodeUrl) -> Result<Snapshot, Failure> {
    let body = admin::ask(url, "GET", &format!("/report?rooms={ROOMS}"))?;
    Snapshot::parse(&body).map_err(|why| Failure(why.to_string()))
}

/// The screen without its last line, and without the one for the keys.
fn screen(has_keys: bool) -> Size {
    let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let rows = usize::from(rows).saturating_sub(1 + usize::from(has_keys));
    Size { rows, columns: columns.into() }
}

/// What was typed.
#[derive(Debug)]
enum Key {
    /// Nothing that means anything.
    None,
    Quit,
    Explain,
}

fn rest(time: Duration) -> Key {
    std::thread::sleep(time);
    Key::None
}

/// A terminal whose keys come one by one, unseen; as it was when dropped.
struct Keys(Termios);

impl Keys {
    /// Of the terminal, if both ends are one.
    fn of_terminal() -> Option<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut modes = before.clone();
        // Ctrl-C as a signal would leave the terminal like this.
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Now, &modes).ok()?;
        Some(Self(before))
    }

    /// The first key that means something, or none after that time.
    fn within(&self, time: Duration) -> Key {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let stdin = io::stdin();
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Key::None,
                // A signal, such as that of a new size of the window.
                Err(_) => return Key::None,
                Ok(_) => {}
            }
            let mut key = [0];
            // Not by the standard library's buffer, which poll does not see.
            match rustix::io::read(&stdin, &mut key) {
                Ok(1) => {}
                _ => return Key::Quit,
            }
            match key[0] {
                b'q' | b'Q' | INTERRUPT => return Key::Quit,
                b'?' | b'h' => return Key::Explain,
                _ => {}
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
