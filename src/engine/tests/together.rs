//! What a connection is told alone and the frames it is to get next leave in one send, wherever the
//! kernel cuts it.

mod support;

use std::io;

use support::{at, engine, join};
use uproar_engine::engine::{Chunk, Engine, Source};
use uproar_engine::limits::Limits;
use uproar_engine::table::Id;

/// The bytes of one send.
fn bytes_of(chunk: &Chunk, source: Source) -> Vec<u8> {
    let mut bytes = Vec::new();
    match source {
        Source::Private { start, len } => bytes.extend(chunk.private(start, len)),
        Source::Log { own, segment, start, len, then, .. } => {
            bytes.extend(own.map_or(&[][..], |(start, len)| chunk.private(start, len)));
            chunk.segment(segment).read(start, len, &mut bytes);
            assert!(own.is_none() || then.is_none(), "own bytes and one stretch of frames");
            if let Some((next, len)) = then {
                chunk.segment(next).read(0, len, &mut bytes);
            }
        }
    }
    bytes
}

/// Two viewers who have read everything; the first is about to post.
struct Scene {
    engine: Engine,
    chunk: Chunk,
    author: Id,
    viewer: Id,
}

impl Scene {
    fn new() -> Self {
        let now = at(1_000_000);
        let mut engine = engine(Limits::default(), 1_000_000);
        let [author, viewer] = ["e", "e"].map(|event| join(&mut engine, now, event));
        let mut scene = Self { engine, chunk: Chunk::default(), author, viewer };
        scene.run(&mut Vec::new());
        scene
    }

    /// Posts over the author's connection, the mask being zero.
    fn post(&mut self) {
        let command = br#"{"type":"post","ref":"r","text":"hello"}"#;
        let mut frame = vec![0x81, 0x80 | command.len() as u8, 0, 0, 0, 0];
        frame.extend(command);
        self.engine.received(at(1_000_000), self.author, &mut frame);
    }

    /// Sends until nothing waits; each send of `cuts` takes so many bytes, and the socket is writable
    /// again at once. Returns who was sent what.
    fn run(&mut self, cuts: &mut Vec<usize>) -> Vec<(Id, Vec<u8>)> {
        let now = at(1_000_000);
        let mut sent = Vec::new();
        while self.engine.has_work() {
            self.engine.next_chunk(now, &mut self.chunk);
            let mut failures = Vec::new();
            for (index, delivery) in self.chunk.deliveries.iter().enumerate() {
                let mut bytes = bytes_of(&self.chunk, delivery.source);
                if delivery.id == self.author
                    && let Some(taken) = cuts.pop()
                    && taken < bytes.len()
                {
                    bytes.truncate(taken);
                    let nothing = io::ErrorKind::WouldBlock.into();
                    failures.push((index as u32, if taken > 0 { Ok(taken) } else { Err(nothing) }));
                }
                sent.push((delivery.id, bytes));
            }
            self.engine.settle(now, &mut self.chunk, &mut failures, 1);
            while self.engine.poll_output().is_some() {}
            self.engine.writable(now, self.author);
            self.engine.check();
        }
        sent
    }
}

fn of(sent: &[(Id, Vec<u8>)], id: Id) -> Vec<&[u8]> {
    sent.iter().filter(|(to, _)| *to == id).map(|(_, bytes)| &bytes[..]).collect()
}

#[test]
fn an_ack_and_the_authors_own_comment_are_one_send() {
    let mut scene = Scene::new();
    scene.post();
    let sent = scene.run(&mut Vec::new());
    let (to_author, to_viewer) = (of(&sent, scene.author), of(&sent, scene.viewer));
    assert_eq!((to_author.len(), to_viewer.len()), (1, 1), "one send each");
    let text = String::from_utf8_lossy(to_author[0]).into_owned();
    let (ack, comment) = (text.find(r#""type":"ack""#), text.find(r#""type":"comment""#));
    assert!(ack.is_some() && ack < comment, "{text}");
    assert!(to_author[0].ends_with(to_viewer[0]), "the comment is the same for everyone");
}

#[test]
fn a_welcome_and_the_history_after_it_are_one_send() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        support::post(&mut scene.engine, at(1_000_000), "e", "before");
    }
    scene.run(&mut Vec::new());
    let late = join(&mut scene.engine, at(1_000_000), "e");
    let sent = scene.run(&mut Vec::new());
    let to_late = of(&sent, late);
    assert_eq!(to_late.len(), 1, "101, welcome and three comments");
    assert_eq!(String::from_utf8_lossy(to_late[0]).matches("before").count(), 3);
}

#[test]
fn wherever_the_send_is_cut_the_stream_is_the_same() {
    let mut scene = Scene::new();
    scene.post();
    let sent = scene.run(&mut Vec::new());
    let length = of(&sent, scene.author).concat().len();
    for first in 0..length {
        for second in [0, 1, 40, usize::MAX] {
            let mut scene = Scene::new();
            scene.post();
            let mut cuts = vec![second, first];
            let sent = scene.run(&mut cuts);
            let (mine, theirs) =
                (of(&sent, scene.author).concat(), of(&sent, scene.viewer).concat());
            assert_eq!(mine.len(), length, "cut at {first}, then at {second}");
            assert!(mine.ends_with(&theirs), "cut at {first}, then at {second}");
        }
    }
}
