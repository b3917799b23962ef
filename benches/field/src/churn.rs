//! Clients that misbehave: every fault a stranger can commit against the port, at a steady rate.
//!
//! Blocking sockets on a few threads; what each act led to is counted, judged elsewhere.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketType, sockopt};

use crate::plan::Plan;
use crate::report::{Message, Order, Report};
use crate::{fleet, probe, socket, wire};

type Failure = Box<dyn std::error::Error>;

const THREADS: u64 = 8;
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a half-open handshake is held, longer than the server's own 10 s.
const HALF_OPEN_HELD: Duration = Duration::from_secs(12);
const HALF_OPEN_MAX: usize = 50;

#[derive(Clone, Copy, Debug)]
enum Act {
    ConnectAndLeave,
    ConnectAndReset,
    HalfRequest,
    GarbageRequest,
    HugeRequest,
    BadEvent,
    PlainHealth,
    JoinAndLeave,
    JoinAndReset,
    OversizedFrame,
    UnmaskedFrame,
    BadText,
    GarbageFrames,
    CutFrame,
    PoliteClose,
}

const ACTS: [Act; 15] = [
    Act::ConnectAndLeave,
    Act::ConnectAndReset,
    Act::HalfRequest,
    Act::GarbageRequest,
    Act::HugeRequest,
    Act::BadEvent,
    Act::PlainHealth,
    Act::JoinAndLeave,
    Act::JoinAndReset,
    Act::OversizedFrame,
    Act::UnmaskedFrame,
    Act::BadText,
    Act::GarbageFrames,
    Act::CutFrame,
    Act::PoliteClose,
];

/// Follows the same orders as a fleet; misbehaves from `Publish` on for the plan's seconds.
pub(crate) fn run(plan: &Plan, per_second: u32) -> Result<(), Failure> {
    let mut report = Report::default();
    let cpu_ns = probe::own_cpu_ns();
    loop {
        let mut raw = [0; 256];
        let read = rustix::io::read(std::io::stdin(), &mut raw)?;
        if read == 0 {
            return Err("the parent is gone".into());
        }
        match serde_json::from_slice(&raw[..read])? {
            Order::Publish { .. } => {
                report.offences = misbehave(plan, per_second);
                fleet::say(&Message::Done)?;
            }
            Order::Cycle => {}
            Order::Report => break,
        }
    }
    report.cpu_ns = probe::own_cpu_ns() - cpu_ns;
    fleet::say(&Message::Report(Box::new(report)))
}

fn misbehave(plan: &Plan, per_second: u32) -> BTreeMap<String, u64> {
    let count = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let pause = Duration::from_secs_f64(THREADS as f64 / f64::from(per_second.max(1)));
    let mut outcomes = BTreeMap::new();
    std::thread::scope(|scope| {
        let thread = || offender(plan, &count, until, pause);
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(thread)).collect();
        for thread in threads {
            for (outcome, count) in thread.join().expect("an offender does not panic") {
                *outcomes.entry(outcome).or_default() += count;
            }
        }
    });
    outcomes
}

fn offender(
    plan: &Plan,
    count: &AtomicU64,
    until: Instant,
    pause: Duration,
) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    let mut half_open: Vec<(Instant, TcpStream)> = Vec::new();
    let mut due = Instant::now();
    while Instant::now() < until {
        half_open.retain(|(since, _)| since.elapsed() < HALF_OPEN_HELD);
        let number = count.fetch_add(1, Ordering::Relaxed);
        let act = ACTS[usize::try_from(number).expect("64 bits") % ACTS.len()];
        let outcome = match commit(plan, act, number) {
            Ok((outcome, left_open)) => {
                let kept = left_open.filter(|_| half_open.len() < HALF_OPEN_MAX);
                half_open.extend(kept.map(|stream| (Instant::now(), stream)));
                outcome
            }
            Err(error) => format!("{:?}", error.kind()),
        };
        *outcomes.entry(format!("{act:?}: {outcome}")).or_default() += 1;
        due += pause;
        sleep(due.saturating_duration_since(Instant::now()));
    }
    outcomes
}

fn connect(server: SocketAddrV4, salt: u32, number: u64) -> std::io::Result<TcpStream> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // Rounds apart from the fleet's.
    let spread = usize::try_from(number % 20).expect("under 20");
    net::bind(&socket, &SocketAddrV4::new(socket::source(server, salt, 200 + spread, 0), 0))?;
    net::connect(&socket, &server)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    Ok(stream)
}

/// Commits one act; what came of it, and the socket where it is to be left hanging.
fn commit(plan: &Plan, act: Act, number: u64) -> std::io::Result<(String, Option<TcpStream>)> {
    let mut stream = connect(plan.target.server, plan.salt, number)?;
    let room = format!("{}-churn-{}", plan.target.prefix, number % 499);
    let path = plan.target.path.replace("{room}", &room);
    let request = wire::upgrade_request("field", &path);
    match act {
        Act::ConnectAndLeave => return Ok(("left".into(), None)),
        Act::ConnectAndReset => return reset(&stream),
        Act::HalfRequest => {
            stream.write_all(&request[..request.len() / 2])?;
            return Ok(("left hanging".into(), Some(stream)));
        }
        Act::GarbageRequest => stream.write_all(&noise(number, 300))?,
        Act::HugeRequest => {
            stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
            // The server may answer and close before it has read all this.
            let _ = stream.write_all(&[b'x'; 20_000]);
        }
        Act::BadEvent => {
            stream.write_all(&wire::upgrade_request("field", "/v1/events/a%2Fb/live"))?;
        }
        Act::PlainHealth => {
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: field\r\nConnection: close\r\n\r\n")?;
        }
        _ => return joined(act, stream, &request, number),
    }
    let mut head = [0; 12];
    Ok((answer(stream.read(&mut head), &head), None))
}

/// The status in the beginning of an HTTP answer.
fn answer(read: std::io::Result<usize>, head: &[u8; 12]) -> String {
    match read {
        Ok(0) => "eof".into(),
        Ok(12) => String::from_utf8_lossy(&head[9..]).into_owned(),
        Ok(_) => "short answer".into(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => "silence".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Acts that begin with a good upgrade.
fn joined(
    act: Act,
    mut stream: TcpStream,
    request: &[u8],
    number: u64,
) -> std::io::Result<(String, Option<TcpStream>)> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let head = loop {
        match wire::read_answer(&bytes) {
            wire::Answer::Upgraded(head) => break head,
            wire::Answer::Refused(status) => return Ok((format!("refused {status}"), None)),
            wire::Answer::Incomplete => {}
        }
        if read_more(&mut stream, &mut bytes)? == 0 {
            return Ok(("eof in the upgrade".into(), None));
        }
    };
    bytes.drain(..head);
    let mut out = Vec::new();
    match act {
        Act::JoinAndReset => return reset(&stream),
        Act::JoinAndLeave => return Ok(("left".into(), None)),
        Act::OversizedFrame => {
            out.extend([0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]);
            out.extend([b'x'; 5_000]);
        }
        Act::UnmaskedFrame => out.extend([0x81, 2, b'h', b'i']),
        Act::BadText => wire::put_frame(&mut out, 1, &[0xff, 0xfe, 0xc0]),
        Act::GarbageFrames => out.extend(noise(number, 700)),
        Act::CutFrame => {
            wire::put_frame(&mut out, 1, &[b'x'; 900]);
            out.truncate(400);
            stream.write_all(&out)?;
            return Ok(("left hanging".into(), Some(stream)));
        }
        _ => wire::put_frame(&mut out, wire::CLOSE, &1000_u16.to_be_bytes()),
    }
    stream.write_all(&out)?;
    Ok((ending(&mut stream, &mut bytes), None))
}

/// Reads frames until the end: the close code that came, or how else it ended.
fn ending(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> String {
    let since = Instant::now();
    while since.elapsed() < ANSWER_WAIT * 2 {
        let mut input = &bytes[..];
        while let Ok(Some(frame)) = wire::take_frame(&mut input) {
            if frame.opcode == wire::CLOSE {
                let code =
                    frame.payload.get(..2).map_or(1005, |b| u16::from_be_bytes([b[0], b[1]]));
                return format!("closed {code}");
            }
        }
        let rest = input.len();
        bytes.drain(..bytes.len() - rest);
        match read_more(stream, bytes) {
            Ok(0) => return "eof".into(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return "silence".into(),
            Err(error) => return format!("{:?}", error.kind()),
        }
    }
    "still open".into()
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut chunk = [0; 4_096];
    let read = stream.read(&mut chunk)?;
    bytes.extend_from_slice(&chunk[..read]);
    Ok(read)
}

fn reset(stream: &TcpStream) -> std::io::Result<(String, Option<TcpStream>)> {
    sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(("reset".into(), None))
}

/// Bytes without a pattern, the same for the same number (xorshift).
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
