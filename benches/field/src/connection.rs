//! One connection of the fleet: connecting, upgrading, open, closed. Reads whole frames out of
//! what arrives and tells its fleet about each.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use crate::plan::Seat;
use crate::verify::Sequence;
use crate::wire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started yet.
    Waiting,
    Connecting,
    Upgrading,
    Open,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    pub(crate) seat: Seat,
    pub(crate) sequence: Sequence,
    pub(crate) is_told_to_drain: bool,
    /// The code of the server's close frame, once one has come.
    pub(crate) close_code: Option<u16>,
    socket: Option<OwnedFd>,
    /// The beginning of a frame (or of the answer) whose end has not arrived.
    carry: Vec<u8>,
    /// What the kernel did not take yet.
    out: Vec<u8>,
}

/// What reading found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'a> {
    /// The upgrade succeeded.
    Upgraded,
    /// It did not; the status.
    Refused(u16),
    /// A frame with a payload to look into.
    Payload(&'a [u8]),
    Ping,
    /// The bytes are not frames of a server.
    Bad(&'static str),
    /// The other end is gone: `eof` or `reset`.
    Ended(&'static str),
}

impl Connection {
    pub(crate) fn new(seat: Seat) -> Self {
        Self {
            state: State::Waiting,
            seat,
            sequence: Sequence::default(),
            is_told_to_drain: false,
            close_code: None,
            socket: None,
            carry: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        self.state = State::Connecting;
    }

    pub(crate) fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    pub(crate) fn close(&mut self) {
        *self = Self {
            sequence: std::mem::take(&mut self.sequence),
            state: State::Closed,
            is_told_to_drain: self.is_told_to_drain,
            close_code: self.close_code,
            ..Self::new(self.seat.clone())
        };
    }

    /// Adds bytes to send and sends what the kernel takes.
    pub(crate) fn send(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(&mut self.out);
        self.flush();
    }

    /// Sends what is left over. A broken socket shows itself when it is read.
    pub(crate) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.out.is_empty() {
            match net::send(socket, &self.out, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(_) => return,
            }
        }
        self.out = Vec::new();
    }

    /// Reads until the kernel has no more, and shows `see` everything found, in order.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut see: impl FnMut(&mut Self, Seen<'_>)) {
        loop {
            let Some(socket) = &self.socket else { return };
            let read = match net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((read, _)) => read,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(_) => return see(self, Seen::Ended("reset")),
            };
            if read == 0 {
                return see(self, Seen::Ended("eof"));
            }
            if self.carry.is_empty() {
                let rest = self.take(&buffer[..read], &mut see);
                self.carry.extend_from_slice(rest);
            } else {
                let mut bytes = std::mem::take(&mut self.carry);
                bytes.extend_from_slice(&buffer[..read]);
                let rest = self.take(&bytes, &mut see).len();
                bytes.drain(..bytes.len() - rest);
                self.carry = bytes;
            }
            if self.carry.is_empty() && self.carry.capacity() > 0 {
                self.carry = Vec::new();
            }
            // Edge-triggered: a short read means that the next arrival raises a new event.
            if read < buffer.len() {
                return;
            }
        }
    }

    /// Takes all that is whole; returns the rest.
    fn take<'a>(
        &mut self,
        mut input: &'a [u8],
        see: &mut impl FnMut(&mut Self, Seen<'_>),
    ) -> &'a [u8] {
        if self.state == State::Upgrading {
            match wire::read_answer(input) {
                wire::Answer::Incomplete => return input,
                wire::Answer::Refused(status) => {
                    see(self, Seen::Refused(status));
                    return &[];
                }
                wire::Answer::Upgraded(head) => {
                    self.state = State::Open;
                    see(self, Seen::Upgraded);
                    input = &input[head..];
                }
            }
        }
        while self.state == State::Open {
            match wire::take_frame(&mut input) {
                Ok(None) => return input,
                Ok(Some(frame)) => self.frame(&frame, see),
                Err(fault) => {
                    see(self, Seen::Bad(fault));
                    return &[];
                }
            }
        }
        &[]
    }

    fn frame(&mut self, frame: &wire::Frame<'_>, see: &mut impl FnMut(&mut Self, Seen<'_>)) {
        match frame.opcode {
            wire::PING => {
                self.send(|out| wire::put_frame(out, wire::PONG, frame.payload));
                see(self, Seen::Ping);
            }
            wire::PONG => {}
            wire::CLOSE => {
                let code =
                    frame.payload.get(..2).map_or(1005, |b| u16::from_be_bytes([b[0], b[1]]));
                self.close_code = Some(code);
                self.send(|out| wire::put_frame(out, wire::CLOSE, frame.payload));
            }
            _ => see(self, Seen::Payload(frame.payload)),
        }
    }
}
