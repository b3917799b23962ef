//! Streams of many messages, made from seeds or by tungstenite's client.

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket};

use super::*;
use crate::random::Random;

/// What a seed decides.
struct Dice(Random);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.below(sides as u32) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }

    fn text(&mut self, chars: usize) -> String {
        (0..chars).map(|_| ['a', ' ', 'é', '€', '\u{ffff}', '🎉'][self.roll(6)]).collect()
    }

    /// Mostly short, sometimes around the lengths where the header changes form.
    fn len(&mut self) -> usize {
        match self.roll(10) {
            0..=6 => self.roll(40),
            7 => 120 + self.roll(12),
            8 => self.roll(2_000),
            _ => 65_530 + self.roll(12),
        }
    }
}

/// A stream of sound frames and what they say.
fn sound_stream(dice: &mut Dice) -> (Vec<u8>, Vec<Owned>) {
    let mut bytes = Vec::new();
    let mut said = Vec::new();
    for _ in 0..1 + dice.roll(6) {
        let is_text = dice.roll(2) == 0;
        let len = dice.len();
        let payload = if is_text { dice.text(len / 3).into_bytes() } else { dice.bytes(len) };
        let mut rest = payload.as_slice();
        let mut opcode = if is_text { TEXT } else { BINARY };
        loop {
            let cut = if dice.roll(3) == 0 { dice.roll(rest.len() + 1) } else { rest.len() };
            let (piece, left) = rest.split_at(cut);
            rest = left;
            let is_final = rest.is_empty() && dice.roll(4) > 0;
            let mut written = Frame::message(piece.to_vec(), BINARY, is_final);
            written.header_mut().opcode = opcode;
            let mask = dice.bytes(4);
            written.header_mut().mask = mask.try_into().ok();
            written.format(&mut bytes).unwrap();
            opcode = CONTINUE;
            if is_final {
                break;
            }
            while dice.roll(3) == 0 {
                let control = dice.roll(126);
                let control = dice.bytes(control);
                let is_ping = dice.roll(2) == 0;
                bytes.extend(frame(if is_ping { PING } else { PONG }, true, &control));
                said.push(if is_ping { Owned::Ping(control) } else { Owned::Pong(control) });
            }
        }
        said.push(match is_text {
            true => Owned::Text(String::from_utf8(payload).unwrap()),
            false => Owned::Binary(payload),
        });
    }
    if dice.roll(2) == 0 {
        bytes.extend(frame(CLOSE, true, b"\x03\xe9going"));
        said.push(Owned::Close(Some(1001), "going".into()));
    }
    (bytes, said)
}

#[test]
fn the_same_bytes_in_any_chunking_say_the_same() {
    for seed in 0..200 {
        let mut dice = Dice(Random::new(seed));
        let (bytes, said) = sound_stream(&mut dice);
        assert_eq!(read_all(&bytes, &ROOMY), (said.clone(), Ok(())), "seed {seed}, whole");
        let chunk_bytes_max = [1, 2, 5, 17, 300, 5_000][dice.roll(6)];
        let mut reader = Reader::default();
        let mut read = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (chunk, left) = rest.split_at((1 + dice.roll(chunk_bytes_max)).min(rest.len()));
            feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
            rest = left;
        }
        assert_eq!(read, said, "seed {seed}, chunks of up to {chunk_bytes_max}");
        assert!(reader.is_idle(), "seed {seed}");
    }
}

/// An in-memory stream that takes what tungstenite's client writes.
#[derive(Default)]
struct Wire(Vec<u8>);

impl std::io::Read for Wire {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn tungstenites_client_is_understood() {
    let mut dice = Dice(Random::new(1));
    let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
    let mut said = Vec::new();
    for turn in 0..300 {
        let len = dice.len();
        let small = dice.roll(126);
        let (message, owned) = match turn % 4 {
            0 => (Message::Ping(vec![9; small].into()), Owned::Ping(vec![9; small])),
            1 => (Message::Pong(vec![8; small].into()), Owned::Pong(vec![8; small])),
            2 => {
                let bytes = dice.bytes(len);
                (Message::Binary(bytes.clone().into()), Owned::Binary(bytes))
            }
            _ => {
                let text = dice.text(len);
                (Message::Text(text.clone().into()), Owned::Text(text))
            }
        };
        client.send(message).unwrap();
        said.push(owned);
    }
    let bye = CloseFrame { code: 1000.into(), reason: "done".into() };
    client.close(Some(bye)).unwrap();
    client.flush().unwrap();
    said.push(Owned::Close(Some(1000), "done".into()));
    let bytes = &client.get_ref().0;
    assert_eq!(read_all(bytes, &ROOMY), (said.clone(), Ok(())));
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for chunk in bytes.chunks(1_399) {
        feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
    }
    assert_eq!(read, said);
}
