//! A viewer: asks, watches, posts, and holds the node to what it was told.

use std::collections::BTreeMap;

use serde_json::Value;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::oracle::Oracle;
use super::wire::{self, Frame};

/// How far a viewer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No status line yet.
    Asking,
    /// 101 came; is `welcome` here?
    Watching { is_welcome: bool },
    /// The node sent a close frame.
    Closing(u16),
    /// The request was answered with this status.
    Answered(u16),
    /// It is over, in the one way that says.
    Over(Outcome),
}

/// How a connection ended for its viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Answered(u16),
    Closed(u16),
    /// Without a word.
    Dropped,
    /// The viewer reset the connection itself.
    Left,
}

/// What the viewer asked with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) event: usize,
    pub(crate) is_binary: bool,
    pub(crate) since: Option<(u64, u64)>,
    pub(crate) history: Option<u32>,
    pub(crate) user: Option<String>,
    /// The viewer that first got this user's id, if it is a guest's.
    pub(crate) guest: Option<usize>,
    /// Plain HTTP, or a request that must be refused.
    pub(crate) is_odd: bool,
    /// It must be answered, whatever it sends behind its request.
    pub(crate) must_hear: bool,
}

/// A post whose answer is awaited.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) text: String,
    pub(crate) key: Option<String>,
    /// Whose key it is.
    pub(crate) author: String,
    /// The code it must be refused with.
    pub(crate) must_fail: Option<&'static str>,
}

/// One viewer and its connection's story.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) ask: Ask,
    pub(crate) state: State,
    buffer: Vec<u8>,
    pub(crate) epoch: u64,
    /// The offset it expects next.
    pub(crate) next: u64,
    /// Gaps since the last welcome.
    pub(crate) gaps: u64,
    pub(crate) pending: BTreeMap<String, Posted>,
    /// The id that the node made for a guest.
    pub(crate) you: Option<String>,
    /// Pings and nameless commands that will be answered.
    pub(crate) asked: u32,
    /// Commands, and pings and pongs, that it has sent, and how many of each the node bears at least.
    pub(crate) commands: u32,
    pub(crate) controls: u32,
    pub(crate) borne: (u32, u32),
    /// Reads nothing for now.
    pub(crate) is_stalled: bool,
    /// It did something, or something was done to it, for which it may lose its connection.
    pub(crate) is_excused: bool,
    /// Its socket moved, so it may have been lost on the way.
    pub(crate) has_moved: bool,
    pub(crate) has_sent_close: bool,
    /// It broke the protocol, and must be told so.
    pub(crate) is_at_fault: bool,
    /// When it had read its answer or close frame; 0: not yet.
    pub(crate) last_word_tick: u32,
    pub(crate) is_drain_told: bool,
    pub(crate) viewers_seen: u32,
    /// Its address may have no place for it, or too many requests that are not whole.
    pub(crate) shares_address: bool,
}

impl Viewer {
    pub(crate) fn new(ask: Ask) -> Self {
        Self {
            ask,
            state: State::Asking,
            buffer: Vec::new(),
            epoch: 0,
            next: 0,
            gaps: 0,
            pending: BTreeMap::new(),
            you: None,
            asked: 0,
            commands: 0,
            controls: 0,
            borne: (u32::MAX, u32::MAX),
            is_stalled: false,
            is_excused: false,
            has_moved: false,
            has_sent_close: false,
            is_at_fault: false,
            last_word_tick: 0,
            is_drain_told: false,
            viewers_seen: 0,
            shares_address: false,
        }
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.state == State::Watching { is_welcome: true }
    }

    /// Whether it has read a whole answer.
    pub(crate) fn has_answer(&self) -> bool {
        matches!(self.state, State::Answered(_)) && self.buffer.last() == Some(&b'}')
    }

    /// Whether it has read what ends its connection.
    pub(crate) fn has_heard_last_word(&self) -> bool {
        self.has_answer() || matches!(self.state, State::Closing(_))
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// Takes bytes from the node; returns what to send back (pongs, the answer to a close).
    pub(crate) fn take(&mut self, bytes: &[u8], now_us: u64, oracle: &mut Oracle) -> Vec<u8> {
        self.buffer.extend_from_slice(bytes);
        let mut back = Vec::new();
        if self.state == State::Asking {
            self.read_status();
        }
        while let State::Watching { .. } | State::Closing(_) = self.state {
            let Some((frame, len)) = wire::next_frame(&self.buffer, self.ask.is_binary) else {
                break;
            };
            self.buffer.drain(..len);
            self.frame(frame, now_us, oracle, &mut back);
        }
        back
    }

    fn read_status(&mut self) {
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line");
        let status: u16 = status[..3].parse().expect("a status");
        if status == 101 {
            assert!(!self.ask.is_odd, "{:?} must not be upgraded", self.ask);
            // RFC 6455 §1.3: the answer to the key that the request carries.
            assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            self.state = State::Watching { is_welcome: false };
        } else {
            self.state = State::Answered(status);
        }
    }

    fn frame(&mut self, frame: Frame, now_us: u64, oracle: &mut Oracle, back: &mut Vec<u8>) {
        let State::Watching { is_welcome } = self.state else {
            panic!("{frame:?} after the close frame: {:?}", self.state)
        };
        assert_eq!(!is_welcome, matches!(frame, Frame::Welcome { .. }), "{frame:?}");
        match frame {
            Frame::Welcome { event, epoch, start, head, recovered, viewers } => {
                assert_eq!(event, super::event_name(self.ask.event));
                self.welcome(epoch, start, head, recovered);
                oracle.recovered += u64::from(recovered);
                assert!(viewers > 0, "it counts itself");
                self.viewers_seen = viewers;
            }
            Frame::Comment { offset, seen } => {
                assert_eq!(offset, self.next, "offsets go up by one");
                self.next += 1;
                oracle.comment(self.ask.event, self.epoch, offset, &seen);
            }
            Frame::Gap { from, to } => {
                assert_eq!(from, self.next, "a gap begins where the stream stopped");
                assert!(to >= from, "a gap has a length");
                self.next = to + 1;
                self.gaps += 1;
                oracle.gaps += 1;
            }
            Frame::You { user } => {
                assert!(user.starts_with("guest-") && self.ask.user.is_none(), "{user}");
                assert!(self.you.replace(user).is_none(), "a guest is told once");
            }
            Frame::Ack { reference, id, offset } => {
                let reference = reference.expect("every sound post has a ref");
                let posted = self.pending.remove(&reference).expect("a post is answered once");
                assert_eq!(posted.must_fail, None, "{posted:?} was taken");
                oracle.ack(self.ask.event, self.epoch, offset, id, &posted.text);
                assert!(self.ask.user.is_some() || self.you.is_some(), "an ack to nobody");
                if let Some(key) = &posted.key {
                    let log = (self.ask.event, self.epoch);
                    oracle.keyed(log, (&posted.author, key), now_us, (id, offset));
                }
            }
            Frame::Error { reference: Some(reference), code } => {
                let posted = self.pending.remove(&reference).expect("a post is answered once");
                let expected = posted.must_fail.unwrap_or(&code);
                let may = ["rate_limited", "overloaded", "draining"].contains(&&*code);
                assert!(may || posted.must_fail.is_some(), "{posted:?} got {code}");
                assert!(may || code == expected, "{posted:?} got {code}");
            }
            Frame::Error { reference: None, .. } | Frame::Pong => {
                self.asked = self.asked.checked_sub(1).expect("an answer to something asked");
            }
            Frame::Drain => self.is_drain_told = true,
            Frame::Ping(payload) => {
                self.controls += 1;
                back.extend(wire::client_frame(OpCode::Control(Control::Pong), &payload, [7; 4]));
            }
            Frame::Close(code) => {
                self.state = State::Closing(code);
                if !self.has_sent_close {
                    self.has_sent_close = true;
                    let code = code.to_be_bytes();
                    back.extend(wire::client_frame(OpCode::Control(Control::Close), &code, [9; 4]));
                }
            }
        }
    }

    fn welcome(&mut self, epoch: u64, start: u64, head: u64, recovered: bool) {
        self.state = State::Watching { is_welcome: true };
        assert!(start <= head, "a stream starts at {start}, before the end of its log {head}");
        (self.epoch, self.next) = (epoch, start + 1);
        match self.ask.since {
            Some(since) if recovered => {
                assert_eq!(since, (epoch, start), "recovered: from exactly there");
            }
            None if recovered => panic!("recovered without a position"),
            Some((asked, offset)) if asked == epoch && offset <= head => {
                assert!(start > offset, "recovered is false though {offset} was asked: {start}");
            }
            _ => {
                let history = u64::from(self.ask.history.unwrap_or(u32::MAX));
                assert!(head - start <= history, "more history than was asked for");
            }
        }
    }

    /// Whether it has given reason for being closed with `code`.
    fn has_flooded(&self, code: u16) -> bool {
        let (commands, controls) = self.borne;
        code == 1008 && (self.commands >= commands || self.controls > controls)
    }

    /// The node's end is closed and everything has been read.
    pub(crate) fn ended(&mut self) {
        let outcome = match self.state {
            State::Answered(status) => {
                if status != 200 && !self.is_excused {
                    let body: Value = serde_json::from_slice(&self.buffer).expect("a JSON body");
                    assert!(body["code"].is_string() && body["message"].is_string());
                }
                let is_full = [408, 503].contains(&status) || status == 429 && self.shares_address;
                assert!(self.ask.is_odd || is_full || self.is_excused, "{status}: {:?}", self.ask);
                Outcome::Answered(status)
            }
            State::Closing(code) => {
                assert!(self.buffer.is_empty(), "bytes after the close frame");
                let is_ours = code == 1012 && self.is_drain_told;
                // Its message was late, or held too much of a budget.
                let is_late = [1008, 1013].contains(&code) && self.is_excused;
                assert!(
                    is_ours
                        || code == 4000
                        || self.has_sent_close
                        || self.is_at_fault
                        || is_late
                        || self.has_flooded(code),
                    "closed with {code} for nothing"
                );
                Outcome::Closed(code)
            }
            State::Asking => {
                let is_unheard = self.ask.is_odd && !self.ask.must_hear;
                let may_go = self.is_excused || self.has_moved || self.shares_address;
                assert!(may_go || is_unheard, "{:?}", self.ask);
                Outcome::Dropped
            }
            State::Watching { .. } => {
                assert!(self.is_excused, "dropped for nothing: {:?}", self.ask);
                Outcome::Dropped
            }
            State::Over(_) => panic!("a connection ends once: {:?}", self.ask),
        };
        self.state = State::Over(outcome);
    }
}
