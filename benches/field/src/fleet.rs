//! One worker process: an epoll loop over its share of the viewers, or over the publishers.
//!
//! Comments are due on a schedule that does not wait for the server (an open loop); latency
//! counts from the instant a comment was due, so a slow server cannot hide behind a slow fleet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;

use hdrhistogram::Histogram;
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::connection::{Connection, Seen, State};
use crate::options::{Group, Target};
use crate::plan::{Plan, Role, room_name};
use crate::report::{GroupReport, Message, Order, Report, histogram};
use crate::verify::Arrival;
use crate::{churn, clock, probe, socket, wire};

type Failure = Box<dyn std::error::Error>;

const ORDERS: u64 = u64::MAX;
const BUFFER_BYTES: usize = 128 * 1024;
/// Connecting gives up when nothing at all has come open for so long.
const NO_PROGRESS_NS: u64 = 20_000_000_000;

struct Fleet {
    plan: Plan,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    seen: Observed,
    /// The next connection to start.
    next: usize,
    in_flight: usize,
    progress_ns: u64,
    is_ready: bool,
    round: usize,
    clock: Option<Schedule>,
}

/// The part that reading a connection writes to.
struct Observed {
    report: Report,
    latencies: Vec<Histogram<u64>>,
    now_ns: u64,
    /// Viewers that have seen the last comment of their room, or ended.
    finished: usize,
    last_numbers: Vec<u32>,
}

/// From the order to publish on.
struct Schedule {
    /// (instant, connection, number), earliest first; empty for viewers.
    due: BinaryHeap<Reverse<(u64, usize, u32)>>,
    deadline_ns: u64,
    cpu_ns: u64,
    is_done: bool,
}

/// Reads the plan from standard input and follows orders until told to report.
pub(crate) fn run() -> Result<(), Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    probe::end_with_parent()?;
    if let Some(cpu) = plan.target.cpu {
        probe::pin(cpu)?;
    }
    if plan.role == Role::Publishers {
        probe::go_first();
    }
    if let Role::Offenders { per_second } = plan.role {
        return churn::run(&plan, per_second);
    }
    Fleet::new(plan)?.follow()
}

/// Prints one message for the parent.
pub(crate) fn say(message: &Message) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

impl Fleet {
    fn new(plan: Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, std::io::stdin(), EventData::new_u64(ORDERS), EventFlags::IN)?;
        let connections: Vec<_> = plan.seats().into_iter().map(Connection::new).collect();
        let groups = plan.target.groups.len();
        let mut report = Report::default();
        report.groups.resize_with(groups, GroupReport::default);
        let last_numbers = (0..groups).map(|group| plan.comments_per_room(group)).collect();
        let latencies = (0..groups).map(|_| histogram()).collect();
        Ok(Self {
            epoll,
            connections,
            seen: Observed { report, latencies, now_ns: 0, finished: 0, last_numbers },
            next: 0,
            in_flight: 0,
            progress_ns: clock::now_ns(),
            is_ready: false,
            round: 0,
            clock: None,
            plan,
        })
    }

    fn follow(mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(512);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.connect_more();
            self.publish_due();
            self.announce()?;
            let timeout = self.wake_at().map(clock::until);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let (data, flags) = (event.data.u64(), event.flags);
                if data != ORDERS {
                    self.turn(usize::try_from(data).expect("an index"), flags, &mut buffer);
                } else if self.obey()? {
                    return self.report();
                }
            }
        }
    }

    /// When to wake up without an event.
    fn wake_at(&self) -> Option<u64> {
        let connecting = (!self.is_ready).then(|| clock::now_ns() + 100_000_000);
        let clock = self.clock.as_ref().filter(|clock| !clock.is_done);
        let due = clock.and_then(|clock| clock.due.peek().map(|Reverse((at, ..))| *at));
        [connecting, due, clock.map(|clock| clock.deadline_ns)].into_iter().flatten().min()
    }

    fn connect_more(&mut self) {
        while self.next < self.connections.len() && self.in_flight < self.plan.target.window {
            let index = self.next;
            self.next += 1;
            let round = self.first_round() + self.round;
            let server = self.plan.target.server;
            let source = socket::source(server, self.plan.salt, round, self.plan.first + index);
            let connection = &mut self.connections[index];
            let started = socket::connect(server, source, connection.seat.is_stalled);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let data = EventData::new_u64(index as u64);
            match started.and_then(|socket| {
                epoll::add(&self.epoll, &socket, data, flags)?;
                Ok(socket)
            }) {
                Ok(socket) => {
                    connection.start(socket);
                    self.in_flight += 1;
                }
                Err(error) => self.refuse(index, &format!("{error}")),
            }
        }
        if self.in_flight > 0 && clock::now_ns() > self.progress_ns + NO_PROGRESS_NS {
            let stuck = |c: &Connection| matches!(c.state, State::Connecting | State::Upgrading);
            let all = 0..self.connections.len();
            for index in all.filter(|&at| stuck(&self.connections[at])).collect::<Vec<_>>() {
                self.in_flight -= 1;
                self.refuse(index, "timeout");
            }
        }
    }

    /// Publishers take source addresses of their own.
    fn first_round(&self) -> usize {
        if self.plan.role == Role::Publishers { 100 } else { 0 }
    }

    fn refuse(&mut self, index: usize, reason: &str) {
        self.connections[index].close();
        *self.seen.report.refused.entry(reason.to_owned()).or_default() += 1;
        self.progress_ns = clock::now_ns();
    }

    /// Tells the parent about a phase that has ended.
    fn announce(&mut self) -> Result<(), Failure> {
        if !self.is_ready && self.next == self.connections.len() && self.in_flight == 0 {
            self.is_ready = true;
            let open = self.connections.iter().filter(|c| c.state == State::Open).count();
            self.seen.report.open = open;
            let refused = self.seen.report.refused.values().sum();
            say(&Message::Ready { open, refused })?;
        }
        let Some(clock) = &mut self.clock else { return Ok(()) };
        let is_complete = clock.due.is_empty() && self.seen.finished >= self.seen.report.open;
        if !clock.is_done && (is_complete || clock::now_ns() >= clock.deadline_ns) {
            clock.is_done = true;
            clock.cpu_ns = probe::own_cpu_ns() - clock.cpu_ns;
            say(&Message::Done)?;
        }
        Ok(())
    }

    fn turn(&mut self, index: usize, flags: EventFlags, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        if connection.state == State::Connecting
            && flags.intersects(EventFlags::OUT | EventFlags::ERR)
        {
            if !connection.socket().is_some_and(socket::is_connected) {
                self.in_flight -= 1;
                return self.refuse(index, "connect");
            }
            self.progress_ns = clock::now_ns();
            if self.plan.target.plain {
                connection.state = State::Open;
                self.in_flight -= 1;
                return;
            }
            connection.state = State::Upgrading;
            let Target { path, server, .. } = &self.plan.target;
            let room = room_name(&self.plan.target, connection.seat.group, connection.seat.room);
            let request =
                wire::upgrade_request(&server.to_string(), &path.replace("{room}", &room));
            connection.send(|out| out.extend(request));
        } else if flags.contains(EventFlags::OUT) {
            connection.flush();
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            self.read(index, buffer);
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        let was_upgrading = connection.state == State::Upgrading;
        self.seen.now_ns = clock::now_ns();
        let seen = &mut self.seen;
        connection.read(buffer, |connection, what| seen.take(connection, what));
        if was_upgrading && connection.state != State::Upgrading {
            self.in_flight -= 1;
            self.progress_ns = seen.now_ns;
            if connection.state == State::Open && connection.seat.is_stalled {
                // From here on this viewer looks away for good.
                if let Some(socket) = connection.socket() {
                    epoll::delete(&self.epoll, socket).expect("it was added when it connected");
                }
                seen.finished += 1;
            }
        }
    }

    fn publish_due(&mut self) {
        let Some(clock) = &mut self.clock else { return };
        while let Some(&Reverse((at_ns, index, number))) = clock.due.peek() {
            if at_ns > clock::now_ns() {
                return;
            }
            clock.due.pop();
            let connection = &mut self.connections[index];
            let group = connection.seat.group;
            let Group { bytes, rate, .. } = self.plan.target.groups[group];
            let post = &self.plan.target.post;
            connection.send(|out| wire::put_post(out, post, number, at_ns, bytes));
            self.seen.report.posted += 1;
            if number < self.seen.last_numbers[group] {
                let next_ns = at_ns + clock::ns(1.0 / rate);
                clock.due.push(Reverse((next_ns, index, number + 1)));
            }
        }
    }

    /// Reads one order; true when it is the last.
    fn obey(&mut self) -> Result<bool, Failure> {
        let mut raw = [0; 256];
        let read = rustix::io::read(std::io::stdin(), &mut raw)?;
        if read == 0 {
            return Err("the parent is gone".into());
        }
        match serde_json::from_slice(&raw[..read])? {
            Order::Publish { at_ns } => self.schedule(at_ns),
            Order::Cycle => self.cycle(),
            Order::Report => return Ok(true),
        }
        Ok(false)
    }

    fn schedule(&mut self, at_ns: u64) {
        let mut due = BinaryHeap::new();
        let is_silent = |c: &&Connection| self.seen.last_numbers[c.seat.group] == 0;
        let waits = |c: &&Connection| c.state == State::Open && !c.seat.is_stalled;
        self.seen.finished += self.connections.iter().filter(is_silent).filter(waits).count();
        if self.plan.role == Role::Publishers {
            for (index, connection) in self.connections.iter().enumerate() {
                let group = &self.plan.target.groups[connection.seat.group];
                let phase = connection.seat.room as f64 / group.rooms as f64 / group.rate;
                due.push(Reverse((at_ns + clock::ns(phase), index, 1)));
            }
        }
        let deadline_ns = at_ns + clock::ns(self.plan.seconds + self.plan.linger);
        let cpu_ns = probe::own_cpu_ns();
        self.clock = Some(Schedule { due, deadline_ns, cpu_ns, is_done: false });
    }

    fn cycle(&mut self) {
        self.connections.iter_mut().for_each(Connection::close);
        for connection in &mut self.connections {
            *connection = Connection::new(connection.seat.clone());
        }
        self.round += 1;
        (self.next, self.in_flight, self.is_ready) = (0, 0, false);
        self.progress_ns = clock::now_ns();
    }

    fn report(mut self) -> Result<(), Failure> {
        for connection in &self.connections {
            let group = &mut self.seen.report.groups[connection.seat.group];
            if connection.seat.is_stalled {
                group.stalled += 1;
                continue;
            }
            group.viewers += 1;
            group.expected += u64::from(self.seen.last_numbers[connection.seat.group]);
            group.seen += u64::from(connection.sequence.seen());
        }
        for (group, latencies) in self.seen.report.groups.iter_mut().zip(&self.seen.latencies) {
            let values = latencies.iter_recorded();
            group.latencies =
                values.map(|v| (v.value_iterated_to(), v.count_since_last_iteration())).collect();
        }
        self.seen.report.cpu_ns = self.clock.map_or(0, |clock| clock.cpu_ns);
        say(&Message::Report(Box::new(self.seen.report)))
    }
}

impl Observed {
    fn take(&mut self, connection: &mut Connection, what: Seen<'_>) {
        match what {
            Seen::Upgraded => {}
            Seen::Payload(payload) => self.payload(connection, payload),
            Seen::Ping => self.report.pings += 1,
            Seen::Refused(status) => {
                *self.report.refused.entry(status.to_string()).or_default() += 1;
                connection.close();
            }
            Seen::Bad(fault) => {
                eprintln!("field: bad frame: {fault}");
                self.report.bad_frames += 1;
                self.end(connection, "bad frame");
            }
            Seen::Ended(how) if connection.state == State::Upgrading => {
                *self.report.refused.entry(how.to_owned()).or_default() += 1;
                connection.close();
            }
            Seen::Ended(how) => self.end(connection, how),
        }
    }

    fn end(&mut self, connection: &mut Connection, how: &str) {
        let how = connection.close_code.map_or(how.to_owned(), |code| code.to_string());
        *self.report.ended.entry(how).or_default() += 1;
        if connection.sequence.last() < self.last_numbers[connection.seat.group] {
            self.finished += 1;
        }
        connection.close();
    }

    fn payload(&mut self, connection: &mut Connection, payload: &[u8]) {
        let Some((number, at_ns)) = wire::find_stamp(payload) else {
            return self.other(connection, payload);
        };
        let group = connection.seat.group;
        let waited_us = self.now_ns.saturating_sub(at_ns) / 1_000;
        self.latencies[group].saturating_record(waited_us.max(1));
        let report = &mut self.report.groups[group];
        report.delivered += 1;
        match connection.sequence.take(number) {
            Arrival::Next if number == self.last_numbers[group] => self.finished += 1,
            Arrival::Next => {}
            Arrival::Late => report.late += 1,
            Arrival::Duplicate => report.duplicates += 1,
        }
    }

    /// Frames that are no comments, as PROTOCOL.md names them.
    fn other(&mut self, connection: &mut Connection, payload: &[u8]) {
        let has = |text: &str| memmem::find(payload, text.as_bytes()).is_some();
        if has(r#""type":"ack""#) {
            self.report.acks += 1;
        } else if has(r#""type":"error""#) {
            self.report.errors += 1;
        } else if has(r#""kind":"gap""#) {
            self.report.gap_notices += 1;
        } else if has(r#""kind":"drain""#) && !connection.is_told_to_drain {
            connection.is_told_to_drain = true;
            self.report.drain_notices += 1;
        }
    }
}
