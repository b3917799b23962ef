//! What can be typed: the modes of a run and their options.

use std::net::SocketAddrV4;
use std::str::FromStr;

use clap::{Args, Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// Measures a broadcast server from outside; prints one JSON object a run.
#[derive(Debug, Parser)]
#[command(name = "field", version)]
pub(crate) enum Command {
    /// Connect all viewers, publish for a while, verify and time every delivery.
    Load(Load),
    /// Connect all viewers and hold them in silence; report memory and CPU.
    Idle(Idle),
    /// Connect all, close all at once, connect all again; report connections per CPU second.
    Storm(Storm),
    /// Ill-behaved clients beside healthy, verified rooms.
    Churn(Churn),
    /// A few connections that ask for all they can of one thing; prints what became of it.
    Flood(Flood),
    /// A server that only accepts and holds sockets: the kernel's floor for `idle`.
    PlainServer(PlainServer),
    /// One process of the fleet; started by the others, reads its plan from standard input.
    #[command(hide = true)]
    Worker,
}

/// Whom to connect to, and how.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Address of the server.
    #[arg(long)]
    pub(crate) server: SocketAddrV4,
    /// Path of the upgrade; `{room}` is replaced.
    #[arg(long, default_value = "/v1/events/{room}/live?history=0")]
    pub(crate) path: String,
    /// A post, as one text message; `{text}` is replaced.
    #[arg(long, default_value = r#"{"type":"post","text":"{text}"}"#)]
    pub(crate) post: String,
    /// Rooms and their viewers, `NAME:ROOMS:VIEWERS_PER_ROOM:COMMENTS_PER_SECOND[:BYTES]`; repeatable.
    #[arg(long = "group", required = true)]
    pub(crate) groups: Vec<Group>,
    /// Process id of the server; its CPU time and memory are read from `/proc`.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// CPU that the server has for itself: all that it does is charged to the server, the receive path included.
    #[arg(long)]
    pub(crate) server_cpu: Option<usize>,
    /// CPU to pin the fleet to.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Connections that may be on their way at a time, in each worker.
    #[arg(long, default_value_t = 256)]
    pub(crate) window: usize,
    /// Viewers a worker process holds.
    #[arg(long, default_value_t = 17_000)]
    pub(crate) per_worker: usize,
    /// Distinguishes the rooms of this run from those of earlier ones.
    #[arg(long, default_value = "f")]
    pub(crate) prefix: String,
    /// Only connect; neither upgrade nor read.
    #[arg(long)]
    pub(crate) plain: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) target: Target,
    /// For how long to publish.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// How long after the last comment its delivery is waited for.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) linger: f64,
    /// Share of the viewers that never read after their upgrade.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) stalled: f64,
    /// Send SIGTERM to the server this long after the first comment.
    #[arg(long)]
    pub(crate) term_after: Option<f64>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How long the silence is held.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) seconds: f64,
    /// Pause between the last connection and the first reading.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) settle: f64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How often everybody closes and comes back.
    #[arg(long, default_value_t = 3)]
    pub(crate) cycles: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) target: Target,
    /// For how long.
    #[arg(long, default_value_t = 600.0)]
    pub(crate) seconds: f64,
    /// Ill-behaved connections a second.
    #[arg(long, default_value_t = 200)]
    pub(crate) offences_per_second: u32,
    /// Pause after the last offence before memory and descriptors are read again.
    #[arg(long, default_value_t = 15.0)]
    pub(crate) settle: f64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Flood {
    /// What of.
    #[arg(value_enum)]
    pub(crate) kind: FloodKind,
    /// Address of the server.
    #[arg(long)]
    pub(crate) server: SocketAddrV4,
    /// Connections at a time.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// The event that is flooded.
    #[arg(long, default_value = "flood")]
    pub(crate) event: String,
    /// CPU to pin it to.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
}

/// What a flood is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloodKind {
    /// Pongs that nobody asked for.
    Pongs,
    /// Pings.
    Pings,
    /// Messages that are no commands.
    Garbage,
    /// Posts over a connection, far over its rate.
    Posts,
    /// Pages of history over HTTP.
    Pages,
    /// Posts over HTTP.
    RestPosts,
    /// Connections that are upgraded and closed at once.
    Connects,
}

impl std::fmt::Display for FloodKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no kind is hidden");
        f.write_str(value.get_name())
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PlainServer {
    /// Where to accept.
    #[arg(long)]
    pub(crate) listen: SocketAddrV4,
    /// Processes that share the port.
    #[arg(long, default_value_t = 3)]
    pub(crate) processes: usize,
}

/// Rooms of one size and rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) rooms: usize,
    pub(crate) viewers_per_room: usize,
    /// Comments a second in each room; 0 publishes nothing and needs no publisher.
    pub(crate) rate: f64,
    /// Length of a comment's text.
    pub(crate) bytes: usize,
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn number<T: FromStr>(part: Option<&&str>, what: &str) -> Result<T, String> {
            let part = part.ok_or_else(|| format!("{what} is missing"))?;
            part.parse().map_err(|_| format!("{what} is not a number: {part}"))
        }
        let parts: Vec<&str> = text.split(':').collect();
        let bytes = if parts.len() > 4 { number(parts.get(4), "BYTES")? } else { 200 };
        Ok(Self {
            name: parts[0].to_owned(),
            rooms: number(parts.get(1), "ROOMS")?,
            viewers_per_room: number(parts.get(2), "VIEWERS_PER_ROOM")?,
            rate: number(parts.get(3), "COMMENTS_PER_SECOND")?,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_field_by_field() {
        let group: Group = "hot:1:10000:0.5:1024".parse().unwrap();
        assert_eq!((group.rooms, group.viewers_per_room, group.bytes), (1, 10_000, 1_024));
        assert_eq!("a:2:3:4".parse::<Group>().unwrap().bytes, 200);
        assert!("a:2:3".parse::<Group>().unwrap_err().contains("COMMENTS_PER_SECOND"));
        assert!("a:x:3:1".parse::<Group>().unwrap_err().contains("ROOMS"));
    }
}
