//! A test double: a small server that speaks PROTOCOL.md, well or, on request, badly.
//!
//! `double ADDRESS [FAULT ONE_IN | plain | gathered | hang | mute]` prints the address it listens on,
//! then serves until its standard input ends. With a fault, one delivery in ONE_IN is dropped (`drop`),
//! swapped with the next (`reorder`), sent twice (`duplicate`), or changed (`rewrite`), one post is
//! forgotten (`swallow`), answered with an error (`refuse`) or appended twice (`twice`), acknowledged twice and the next one forgotten
//! (`swallow2`) or stored and not answered (`doubleack`), acknowledged without `ref` and forgotten (`swallownoref`),
//! acknowledged at the log's first offset and forgotten (`swallowold`) or followed by one that nobody posted (`junk`), or all upgrades beyond
//! that many are refused (`full`), so that tests can demand that the load generator notices. `hang` never answers an
//! upgrade, `mute` sends nothing after one. `plain` is another server altogether: it knows no protocol and sends
//! every message to everyone who asked for the same path; `gathered` does the same with all messages of some
//! milliseconds in one frame. It is one thread and no model of a fast server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

const EPOCH: u64 = 0x5f3a;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Drop,
    Reorder,
    Duplicate,
    Rewrite,
    Swallow,
    Refuse,
    Swallow2,
    DoubleAck,
    SwallowNoRef,
    SwallowOld,
    Junk,
    Full,
    Twice,
    Hang,
    Mute,
    Plain,
    Gathered,
}

impl Fault {
    /// Whether it speaks a protocol.
    fn has_protocol(self) -> bool {
        !matches!(self, Self::Plain | Self::Gathered | Self::Mute)
    }
}

/// For so long a gathering server waits for more.
const GATHERED: std::time::Duration = std::time::Duration::from_millis(60);

type Frame = Rc<[u8]>;

#[derive(Debug)]
struct Subscriber {
    outbox: UnboundedSender<Frame>,
    /// A frame that waits to be sent after the next one.
    held: Option<Frame>,
}

#[derive(Debug, Default)]
struct Room {
    log: Vec<Frame>,
    /// Payloads of a gathering server that have not been sent, with commas between them.
    gathered: Vec<u8>,
    subscribers: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Server {
    rooms: HashMap<String, Room>,
    fault: Fault,
    one_in: u64,
    deliveries: u64,
    posts: u64,
    connections: u64,
}

type Shared = Rc<RefCell<Server>>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let fault = match arguments.get(2).map(String::as_str) {
        None => Fault::None,
        Some("drop") => Fault::Drop,
        Some("reorder") => Fault::Reorder,
        Some("duplicate") => Fault::Duplicate,
        Some("rewrite") => Fault::Rewrite,
        Some("swallow") => Fault::Swallow,
        Some("refuse") => Fault::Refuse,
        Some("swallow2") => Fault::Swallow2,
        Some("doubleack") => Fault::DoubleAck,
        Some("swallownoref") => Fault::SwallowNoRef,
        Some("swallowold") => Fault::SwallowOld,
        Some("junk") => Fault::Junk,
        Some("full") => Fault::Full,
        Some("twice") => Fault::Twice,
        Some("hang") => Fault::Hang,
        Some("mute") => Fault::Mute,
        Some("plain") => Fault::Plain,
        Some("gathered") => Fault::Gathered,
        Some(other) => panic!("there is no fault {other}"),
    };
    let one_in = arguments.get(3).map_or(10_000, |text| text.parse().expect("a number"));
    let rooms = HashMap::new();
    let server = Server { rooms, fault, one_in, deliveries: 0, posts: 0, connections: 0 };
    // The parent closing our standard input is the sign to end, even if it was killed.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let local = tokio::task::LocalSet::new();
    let address = arguments.get(1).cloned().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let served = local.block_on(
        &runtime.expect("a runtime starts"),
        serve(address, Rc::new(RefCell::new(server))),
    );
    served.expect("the listener works");
}

async fn serve(address: String, server: Shared) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = Rc::clone(&server);
        tokio::task::spawn_local(async move {
            // A client that goes away ends its own connection only.
            let _ = session(stream, server).await;
        });
    }
}

async fn session(mut stream: TcpStream, server: Shared) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head_bytes = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_bytes]).into_owned();
    bytes.drain(..head_bytes);
    let target = head.split_whitespace().nth(1).unwrap_or("");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let event = path.split('/').nth(3).unwrap_or("").to_owned();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let Some(key) = field("sec-websocket-key") else { return Ok(()) };
    let (is_full, is_hung) = {
        let server = server.borrow();
        let is_full = server.fault == Fault::Full && server.connections >= server.one_in;
        (is_full, server.fault == Fault::Hang)
    };
    if is_hung {
        // Until the client goes away.
        while stream.read_buf(&mut bytes).await? > 0 {}
        return Ok(());
    }
    if is_full {
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    }
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key.as_bytes())
    );
    if let Some(protocol) = field("sec-websocket-protocol") {
        answer += &format!("Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    stream.write_all((answer + "\r\n").as_bytes()).await?;
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    let since = since.and_then(|text| text.split_once('-')?.1.parse::<usize>().ok());
    let (reader, mut writer) = stream.into_split();
    let (outbox, mut inbox) = unbounded_channel::<Frame>();
    let number = join(&mut server.borrow_mut(), &event, since, outbox);
    tokio::task::spawn_local(async move {
        while let Some(frame) = inbox.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let result = listen(reader, bytes, &server, &event, number).await;
    if let Some(room) = server.borrow_mut().rooms.get_mut(&event) {
        room.subscribers.remove(&number);
    }
    result
}

fn join(
    server: &mut Server,
    event: &str,
    since: Option<usize>,
    outbox: UnboundedSender<Frame>,
) -> u64 {
    server.connections += 1;
    let room = server.rooms.entry(event.to_owned()).or_default();
    let head = room.log.len();
    let start = since.unwrap_or(head).min(head);
    let welcome = format!(
        r#"{{"type":"welcome","event":"{event}","node":"double","position":"{EPOCH:x}-{start}","head":{head},"recovered":{},"viewers":{}}}"#,
        since.is_some(),
        room.subscribers.len() + 1
    );
    if server.fault.has_protocol() {
        // The receiver lives as long as the session that is being set up.
        let _ = outbox.send(text_frame(welcome.as_bytes()));
        for frame in &room.log[start..] {
            let _ = outbox.send(Rc::clone(frame));
        }
    }
    room.subscribers.insert(server.connections, Subscriber { outbox, held: None });
    server.connections
}

async fn listen(
    mut reader: OwnedReadHalf,
    mut bytes: Vec<u8>,
    server: &Shared,
    event: &str,
    number: u64,
) -> std::io::Result<()> {
    loop {
        let mut cursor = Cursor::new(&bytes[..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(std::io::Error::other)?;
        let start = cursor.position() as usize;
        if let Some((header, length)) = parsed
            && bytes.len() >= start + length as usize
        {
            let mask = header.mask.ok_or(std::io::ErrorKind::InvalidData)?;
            let payload = &bytes[start..start + length as usize];
            let payload: Vec<u8> =
                payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            bytes.drain(..start + length as usize);
            match header.opcode {
                OpCode::Data(Data::Text) => gather_or_post(server, event, number, &payload),
                OpCode::Control(Control::Close) => return Ok(()),
                _ => {}
            }
        } else if reader.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// A gathering server keeps a message; the first one begins the wait after which all leave together.
fn gather_or_post(server: &Shared, event: &str, number: u64, payload: &[u8]) {
    let mut locked = server.borrow_mut();
    if locked.fault != Fault::Gathered {
        return post(&mut locked, event, number, payload);
    }
    let Some(room) = locked.rooms.get_mut(event) else { return };
    let is_first = room.gathered.is_empty();
    room.gathered.push(if is_first { b'[' } else { b',' });
    room.gathered.extend_from_slice(payload);
    if !is_first {
        return;
    }
    let (server, event) = (Rc::clone(server), event.to_owned());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(GATHERED).await;
        if let Some(room) = server.borrow_mut().rooms.get_mut(&event) {
            let mut payload = std::mem::take(&mut room.gathered);
            payload.push(b']');
            broadcast(room, &payload);
        }
    });
}

/// Sends a message to everyone, as it is.
fn broadcast(room: &Room, payload: &[u8]) {
    let frame = text_frame(payload);
    for subscriber in room.subscribers.values() {
        // A receiver that is gone finds out by itself.
        let _ = subscriber.outbox.send(Rc::clone(&frame));
    }
}

fn post(server: &mut Server, event: &str, number: u64, payload: &[u8]) {
    let post: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    let (fault, one_in) = (server.fault, server.one_in);
    let Some(room) = server.rooms.get_mut(event) else { return };
    if fault == Fault::Plain {
        return broadcast(room, payload);
    }
    server.posts += 1;
    let is_due = server.posts.is_multiple_of(one_in);
    let is_after_due = server.posts > 1 && (server.posts - 1).is_multiple_of(one_in);
    let reference = post["ref"].as_str().unwrap_or("");
    let answer = |room: &Room, text: String| {
        if let Some(author) = room.subscribers.get(&number) {
            // A receiver that is gone has its own way of finding out.
            let _ = author.outbox.send(text_frame(text.as_bytes()));
        }
    };
    match fault {
        Fault::Swallow if is_due => return,
        Fault::Swallow2 if is_after_due => return,
        Fault::SwallowNoRef if is_due => {
            return answer(
                room,
                format!(r#"{{"type":"ack","id":"x","offset":{}}}"#, room.log.len()),
            );
        }
        Fault::SwallowOld if is_due => {
            return answer(
                room,
                format!(r#"{{"type":"ack","ref":"{reference}","id":"x","offset":1}}"#),
            );
        }
        Fault::Refuse if is_due => {
            let text = format!(
                r#"{{"type":"error","ref":"{reference}","code":"rate_limited","message":"m"}}"#
            );
            return answer(room, text);
        }
        _ => {}
    }
    for number in 0..if fault == Fault::Twice && is_due { 2 } else { 1 } {
        let ack = append(room, fault, (one_in, &mut server.deliveries), reference, &post);
        let acks = match fault {
            Fault::Swallow2 | Fault::DoubleAck if is_due => 2,
            Fault::DoubleAck if is_after_due => 0,
            _ => u64::from(number == 0),
        };
        (0..acks).for_each(|_| answer(room, ack.clone()));
    }
    if fault == Fault::Junk && is_due {
        let junk = serde_json::json!({"text": "BUY NOW"});
        append(room, fault, (one_in, &mut server.deliveries), "", &junk);
    }
}

/// Appends a comment and sends it to everyone; its ack.
fn append(
    room: &mut Room,
    fault: Fault,
    (one_in, deliveries): (u64, &mut u64),
    reference: &str,
    post: &serde_json::Value,
) -> String {
    let offset = room.log.len() + 1;
    let id = format!("01976543-2100-7567-aaf3-{offset:012x}");
    let text = post["text"].as_str().unwrap_or("");
    let comment = format!(
        r#"{{"type":"comment","offset":{offset},"id":"{id}","time":1764000000000,"user":"u","text":"{text}"}}"#
    );
    let frame = text_frame(comment.as_bytes());
    let rewritten = text_frame(comment.replace("~upr", "~uPr").as_bytes());
    room.log.push(Rc::clone(&frame));
    let ack = format!(r#"{{"type":"ack","ref":"{reference}","id":"{id}","offset":{offset}}}"#);
    for subscriber in room.subscribers.values_mut() {
        *deliveries += 1;
        let is_due = fault != Fault::None && deliveries.is_multiple_of(one_in);
        let send = |frame: &Frame| drop(subscriber.outbox.send(Rc::clone(frame)));
        match fault {
            Fault::Drop if is_due => {}
            Fault::Reorder if is_due => subscriber.held = Some(Rc::clone(&frame)),
            Fault::Duplicate if is_due => {
                send(&frame);
                send(&frame);
            }
            Fault::Rewrite if is_due => send(&rewritten),
            _ => send(&frame),
        }
        if !is_due && let Some(held) = subscriber.held.take() {
            drop(subscriber.outbox.send(held));
        }
    }
    ack
}

fn text_frame(payload: &[u8]) -> Frame {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let mut frame = Vec::new();
    header.format(payload.len() as u64, &mut frame).expect("a Vec takes every write");
    frame.extend_from_slice(payload);
    frame.into()
}
