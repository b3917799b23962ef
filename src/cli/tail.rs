//! `uproar tail`: an event's comments on stdout, through restarts and drains of the node.
//!
//! The first connection must succeed; after that a broken one is made again with growing
//! pauses, from the position after the last comment printed, so that nothing is printed twice
//! and what is missing is said on stderr.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpStream;
use std::time::Duration;

use clap::ArgMatches;
use serde::Deserialize;
use tungstenite::error::Error as WsError;
use tungstenite::handshake::HandshakeError;
use tungstenite::{Message, WebSocket};
use uproar_engine::ids::{EventId, Position};

use super::url::NodeUrl;
use super::{Failure, complain, post, print_line, required};
use crate::terminal;

/// The node pings after 50 s of silence; twice that without a byte means it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The first pause before connecting again; each further one doubles.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What to print, and from where.
#[derive(Debug)]
pub(super) struct Options {
    event: String,
    url: String,
    history: Option<u32>,
    is_json: bool,
}

impl Options {
    pub(super) fn from_args(args: &ArgMatches) -> Self {
        Self {
            event: required(args, "event").to_owned(),
            url: required(args, "url").to_owned(),
            history: args.get_one("history").copied(),
            is_json: args.get_flag("json"),
        }
    }
}

/// The frames that matter here; others are ignored, as the protocol asks.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Frame {
    Welcome {
        position: String,
        recovered: bool,
    },
    Comment {
        offset: u64,
        user: String,
        name: Option<String>,
        text: String,
    },
    Notice(Notice),
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Notice {
    Gap {
        from: u64,
        to: u64,
    },
    Drain {
        delay_ms: u32,
    },
    #[serde(other)]
    Unknown,
}

/// Why there was no connection.
enum Refused {
    /// Trying again may help.
    Later(Failure),
    /// Trying again cannot help.
    Never(Failure),
}

struct Tail<'a> {
    options: &'a Options,
    url: NodeUrl,
    event: EventId,
    /// Everything up to here is printed; `None` before the first welcome.
    position: Option<Position>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let url = NodeUrl::parse(&options.url)?;
    let event = options.event.parse().map_err(|why| Failure(format!("EVENT: {why}")))?;
    let mut tail = Tail { options, url, event, position: None };
    let mut pause = PAUSE_MIN;
    loop {
        match tail.connect() {
            Ok(socket) => {
                pause = PAUSE_MIN;
                let why = tail.print(socket)?;
                note(&format!("{why}; connecting again"));
            }
            Err(Refused::Never(why)) => return Err(why),
            Err(Refused::Later(why)) if tail.position.is_none() => return Err(why),
            Err(Refused::Later(why)) => {
                note(&format!("{why}; trying again in {:.1} s", pause.as_secs_f32()));
            }
        }
        std::thread::sleep(jittered(pause));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Between half of a pause and all of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + (pause / 2).mul_f64((random % 1_024) as f64 / 1_024.0)
}

impl Tail<'_> {
    fn connect(&self) -> Result<WebSocket<TcpStream>, Refused> {
        let stream =
            self.url.connect().map_err(|why| Refused::Later(self.url.unreachable(&why)))?;
        let io = |why: std::io::Error| Refused::Later(why.into());
        stream.set_read_timeout(Some(SILENCE_MAX)).map_err(io)?;
        stream.set_write_timeout(Some(SILENCE_MAX)).map_err(io)?;
        let since = self.position.map(|position| format!("since={position}"));
        let history = self.options.history.map(|comments| format!("history={comments}"));
        let query: Vec<String> = since.into_iter().chain(history).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let query = query.join("&");
        let NodeUrl { authority, prefix } = &self.url;
        let event = &self.event;
        let url = format!("ws://{authority}{prefix}/v1/events/{event}/live{mark}{query}");
        match tungstenite::client(url, stream) {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(why)) => Err(refused(why)),
            Err(HandshakeError::Interrupted(_)) => {
                Err(Refused::Later(Failure("the node did not answer in time".into())))
            }
        }
    }

    /// Prints what comes until the connection is lost, and says why it is.
    fn print(&mut self, mut socket: WebSocket<TcpStream>) -> Result<String, Failure> {
        loop {
            match socket.read() {
                Ok(Message::Text(frame)) => self.frame(&frame)?,
                Ok(Message::Close(Some(close))) => {
                    let code = u16::from(close.code);
                    return Ok(format!("closed with {code} {}", close.reason));
                }
                Ok(_) => {}
                Err(WsError::ConnectionClosed) => return Ok("closed".into()),
                Err(why) => return Ok(format!("the connection broke: {why}")),
            }
        }
    }

    /// Handles one frame.
    fn frame(&mut self, text: &str) -> Result<(), Failure> {
        let frame: Frame = serde_json::from_str(text).map_err(|why| {
            Failure(format!("the node sent what is no frame ({why}): {text:.200}"))
        })?;
        match frame {
            Frame::Welcome { position, recovered } => self.welcome(&position, recovered)?,
            Frame::Comment { offset, user, name, text: comment } => {
                self.printed(offset);
                let author = name.unwrap_or(user);
                let line = if self.options.is_json {
                    terminal::json_line(text)
                } else {
                    terminal::line(&format!("{offset}  {author}: {comment}"))
                };
                print_line(&line)?;
            }
            Frame::Notice(Notice::Gap { from, to }) => {
                self.printed(to);
                note(&format!("too slow, comments {from} to {to} were skipped"));
            }
            Frame::Notice(Notice::Drain { delay_ms }) => {
                note(&format!("the node is draining and will close within {delay_ms} ms"));
            }
            Frame::Notice(Notice::Unknown) | Frame::Unknown => {}
        }
        Ok(())
    }

    fn welcome(&mut self, position: &str, recovered: bool) -> Result<(), Failure> {
        let start: Position = position
            .parse()
            .map_err(|why| Failure(format!("the node's welcome has a bad position: {why}")))?;
        if self.position.is_some() && !recovered {
            note("the node no longer has all comments since the last one printed");
        }
        self.position = Some(start);
        Ok(())
    }

    fn printed(&mut self, offset: u64) {
        if let Some(position) = &mut self.position {
            position.offset = offset;
        }
    }
}

/// One line on stderr, whatever the node put into it.
fn note(text: &str) {
    complain(&terminal::line(text));
}

fn refused(why: WsError) -> Refused {
    match why {
        WsError::Http(response) => {
            let status = response.status();
            let body = response.body().as_deref().unwrap_or_default();
            let failure = post::refused(status, body);
            let may_change = status.is_server_error() || status.as_u16() == 429;
            if may_change { Refused::Later(failure) } else { Refused::Never(failure) }
        }
        WsError::Io(why) => Refused::Later(Failure(format!("the node broke off: {why}"))),
        other => Refused::Never(Failure(format!("not a WebSocket server: {other}; wrong --url?"))),
    }
}
