//! `uproar top`: asks a node's admin port again and again, and draws.

use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use clap::ArgMatches;

use super::url::NodeUrl;
use super::{Failure, print_line, required};
use crate::top::{Snapshot, frame};

/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long the node may take for a report; a stuck shard costs it three seconds.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &ArgMatches) -> Result<(), Failure> {
    let url = NodeUrl::parse(required(args, "url"))?;
    let every = Duration::from_secs(*args.get_one::<u64>("interval").expect("it has a default"));
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    let mut frames = args.get_one::<u64>("frames").copied().unwrap_or(u64::MAX);
    let mut before: Option<(Snapshot, Instant)> = None;
    while frames > 0 {
        frames -= 1;
        let now = ask(&url)?;
        let at = Instant::now();
        let last = before.as_ref().map(|(snapshot, then)| (snapshot, at - *then));
        if !print_line(&format!("{clear}{}", frame(&now, last).trim_end()))? {
            return Ok(());
        }
        before = Some((now, at));
        if frames > 0 {
            std::thread::sleep(every);
        }
    }
    Ok(())
}

fn ask(url: &NodeUrl) -> Result<Snapshot, Failure> {
    let mut stream = url.connect().map_err(|why| url.unreachable(&why))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let NodeUrl { authority, prefix } = url;
    // HTTP/1.0: the answer is whole, unchunked, and ends with the connection.
    write!(stream, "GET {prefix}/report HTTP/1.0\r\nhost: {authority}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = end.map_or(&[][..], |end| &answer[end + 4..]);
    Snapshot::parse(body).map_err(|why| Failure(why.to_string()))
}
