//! What may happen next, with weights: viewers come, post, misbehave and go; the control plane asks; time passes.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use uproar_engine::control::{PostRefusal, Reply, Request};
use uproar_engine::ids::EventId;
use uproar_engine::limits::LagPolicy;
use uproar_engine::placement::home_shard;

use super::socket::Socket;
use super::viewer::{Ask, Outcome, Posted, State, Viewer};
use super::wire;
use super::world::World;

/// Unanswered requests of one viewer that surely fit its private queue.
const PENDING_SAFE_MAX: usize = 3;

type Action = fn(&mut World);

/// The actions with their weights.
const ACTIONS: &[(u32, Action)] = &[
    (20, connect),
    (8, resume),
    (2, ask_oddly),
    (16, post),
    (1, flood),
    (3, post_badly),
    (5, post_over_http),
    (3, burst),
    (2, garbage),
    (3, ping),
    (1, deafen),
    (1, dangle),
    (1, half_head),
    (2, close),
    (2, reset),
    (2, end),
    (4, stall),
    (3, unstall),
    (1, stall_shard),
    (1, drain),
    (9, undrain),
    (1, reload),
    (2, jump_wall_clock),
    (1, leap),
    (6, pass_time),
    (1, come_and_go),
    (2, ask_report),
    (40, |_| {}),
];

/// Does one action.
pub(crate) fn act(world: &mut World) {
    let total = ACTIONS.iter().map(|(weight, _)| weight).sum();
    let mut ticket = world.random.below(total);
    for (weight, action) in ACTIONS {
        if ticket < *weight {
            return action(world);
        }
        ticket -= weight;
    }
}

fn event_id(event: usize) -> EventId {
    super::event_name(event).parse().expect("a sound event id")
}

/// Asks the home shard of `event`.
pub(crate) fn ask_home(world: &mut World, event: usize, request: Request) -> Reply {
    let home = home_shard(&super::event_name(event), world.plan.shards) as usize;
    let reply = world.shards[home].engine.control(world.now, request);
    world.obey(home);
    reply
}

fn some_event(world: &mut World, is_post: bool) -> usize {
    if world.plan.made_up > 0 && is_post && world.one_in(2) {
        return (world.plan.events + world.random.below(world.plan.made_up)) as usize;
    }
    // The first event is the hot one.
    if world.one_in(2) { 0 } else { world.random.below(world.plan.events) as usize }
}

/// A random viewer for which `filter` holds.
fn some_viewer(world: &mut World, filter: impl Fn(&Viewer) -> bool) -> Option<usize> {
    let fitting = |(index, viewer)| filter(viewer).then_some(index);
    let all: Vec<usize> = world.viewers.iter().enumerate().filter_map(fitting).collect();
    let pick = world.random.below(all.len() as u32) as usize;
    all.get(pick).copied()
}

fn ask(world: &mut World) -> Ask {
    Ask {
        event: some_event(world, false),
        is_binary: world.one_in(2),
        since: None,
        history: world.one_in(2).then(|| world.random.below(100)),
        user: (!world.one_in(3)).then(|| format!("u{}", world.random.below(4))),
        guest: None,
        is_odd: false,
        must_hear: false,
    }
}

fn open(world: &mut World, ask: Ask, request: &[u8]) -> Option<usize> {
    let open = world.viewers.iter().filter(|viewer| !viewer.is_over()).count();
    if open >= world.plan.viewers_max {
        return None;
    }
    let capacity = 300 + world.random.below(world.plan.socket_bytes_max) as usize;
    let mut socket = Socket::new(capacity);
    socket.viewer_sends(request);
    let index = world.sockets.len();
    world.sockets.push(socket);
    let limits = &world.plan.limits;
    let borne = |most: u32| if most == 0 { u32::MAX } else { most };
    let borne = (borne(limits.over_rate_commands_max), borne(limits.control_frames_per_sec_max));
    let mut viewer = Viewer::new(ask);
    viewer.borne = borne;
    viewer.shares_address = world.plan.addresses > 0;
    world.viewers.push(viewer);
    let shard = world.random.below(world.plan.shards) as usize;
    world.accept(shard, index);
    Some(index)
}

fn request_of(world: &mut World, ask: &Ask) -> Vec<u8> {
    let mut query = Vec::new();
    if let Some((epoch, offset)) = ask.since {
        query.push(format!("since={epoch:x}-{offset}"));
    }
    query.extend(ask.history.map(|history| format!("history={history}")));
    if let Some(user) = &ask.user {
        query.push(format!("user={user}&name=N%20{user}"));
    }
    let protocol = match (ask.is_binary, world.one_in(2)) {
        (true, _) => "Sec-WebSocket-Protocol: other, uproar.rkyv.v1\r\n",
        (false, true) => "Sec-WebSocket-Protocol: uproar.json.v1\r\n",
        (false, false) => "",
    };
    let (event, query) = (super::event_name(ask.event), query.join("&"));
    format!(
        "GET /v1/events/{event}/live?{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{protocol}\r\n"
    )
    .into_bytes()
}

fn connect(world: &mut World) {
    // Big plans fill quickly.
    let count = if world.plan.viewers_max > 100 { 1 + world.random.below(80) } else { 1 };
    for _ in 0..count {
        let ask = ask(world);
        let request = request_of(world, &ask);
        let index = open(world, ask, &request);
        if let Some(index) = index
            && world.one_in(6)
        {
            post_from(world, index);
        }
    }
}

/// Somebody whose connection ended comes back: with its position, or a false one.
fn resume(world: &mut World) {
    let gone = |viewer: &Viewer| viewer.next > 0;
    let Some(index) = some_viewer(world, gone) else { return };
    let old = &world.viewers[index];
    let (mut ask, epoch, last) = (old.ask.clone(), old.epoch, old.next - 1);
    if let Some(you) = &old.you {
        (ask.user, ask.guest) = (Some(you.clone()), Some(index));
    }
    ask.is_binary = world.one_in(2);
    ask.since = Some(match world.random.below(8) {
        0 => (epoch, last.saturating_sub(u64::from(world.random.below(50)))),
        1 => (epoch, last + 1 + u64::from(world.random.below(100))),
        2 => (epoch, u64::MAX),
        3 => (world.random.bits(), last),
        _ => (epoch, last),
    });
    let request = request_of(world, &ask);
    open(world, ask, &request);
}

/// Requests that are refused, handed over or never finished.
fn ask_oddly(world: &mut World) {
    let large = format!("GET /v1/events/e0/live HTTP/1.1\r\nX: {}", "x".repeat(9_000));
    let (request, must_hear) = match world.random.below(7) {
        0 => ("GET /health HTTP/1.1\r\nHost: h\r\n\r\n", true),
        1 => ("GET /v1/events/e0/live HTTP/1.1\r\nHost: h\r\n\r\n", true),
        2 => ("GET /v1/events/e%200/live HTTP/1.1\r\nHost: h\r\n\r\n", true),
        3 => ("GET /v1/events/e0/li", true),
        4 => ("\u{1}\u{2}\r\n\r\n and more of the same", true),
        5 => (large.as_str(), true),
        _ => ("", false),
    };
    let ask = Ask { is_odd: true, must_hear, ..Ask::default() };
    let Some(index) = open(world, ask, request.as_bytes()) else { return };
    world.half_heads += 1;
    if must_hear && world.one_in(3) {
        // A body, or the request after it, that nobody will read.
        let rest = vec![b'r'; world.random.below(40_000) as usize];
        world.sockets[index].viewer_sends(&rest);
    }
}

fn next_text(world: &mut World, event: usize) -> String {
    let size = match world.random.below(5) {
        0 => world.plan.limits.comment_bytes_max,
        1 => 1 + world.random.below(world.plan.limits.comment_bytes_max),
        _ => 12,
    };
    world.texts += 1;
    let mut text = format!("{} é\n", world.texts);
    while text.len() < size as usize {
        text.push('x');
    }
    text.truncate(text.floor_char_boundary((size as usize).max(12)));
    world.oracle.posted(event, &text);
    text
}

fn mask(world: &mut World) -> [u8; 4] {
    (world.random.bits() as u32).to_le_bytes()
}

fn send(world: &mut World, index: usize, bytes: &[u8]) {
    world.sockets[index].viewer_sends(bytes);
    let viewer = &mut world.viewers[index];
    viewer.is_excused |= viewer.pending.len() + viewer.asked as usize > PENDING_SAFE_MAX;
}

fn post_from(world: &mut World, index: usize) {
    let Ask { event, is_binary, .. } = world.viewers[index].ask;
    let key = world.one_in(3).then(|| format!("k{}", world.random.below(12)));
    // A guest that came back with the id it was given is the same guest.
    let author = match &world.viewers[index].ask {
        Ask { user: Some(user), guest: None, .. } => user.clone(),
        ask => format!("guest {}", ask.guest.unwrap_or(index)),
    };
    let text = match &key {
        // A retry says the same again.
        Some(key) => format!("keyed {author} {key}"),
        None => next_text(world, event),
    };
    world.oracle.posted(event, &text);
    if let Some(key) = &key {
        world.oracle.sends_key(event, &author, key, world.now.mono_us);
    }
    let reference = format!("r{}", world.random.bits() >> 30);
    let mask = mask(world);
    let bytes = wire::post(is_binary, Some(&reference), key.as_deref(), &text, mask);
    let posted = Posted { text, key, author, must_fail: None };
    world.viewers[index].pending.insert(reference, posted);
    world.viewers[index].commands += 1;
    send(world, index, &bytes);
}

fn can_send(viewer: &Viewer) -> bool {
    let is_open = matches!(viewer.state, State::Asking | State::Watching { .. });
    is_open && !viewer.ask.is_odd && !viewer.has_sent_close && !viewer.is_at_fault
}

fn post(world: &mut World) {
    let count = if world.one_in(10) { 12 } else { 1 };
    for _ in 0..count {
        let Some(index) = some_viewer(world, can_send) else { return };
        post_from(world, index);
    }
}

/// More posts at once than a mesh link and its outbox take.
fn flood(world: &mut World) {
    if world.plan.shards == 1 {
        return;
    }
    // The shard that all of it goes to has other things to do.
    let home = home_shard(&super::event_name(0), world.plan.shards) as usize;
    world.shards[home].stalled_until_us = world.now.mono_us + 900_000;
    let floods = |viewer: &Viewer| can_send(viewer) && viewer.ask.event == 0;
    let crowd: Vec<usize> =
        (0..world.viewers.len()).filter(|&index| floods(&world.viewers[index])).collect();
    for index in crowd {
        (0..150).for_each(|_| post_from(world, index));
    }
}

/// A crowd that asks and does not listen.
fn deafen(world: &mut World) {
    for _ in 0..1 + world.random.below(40) {
        let Some(index) = some_viewer(world, can_send) else { return };
        let viewer = &mut world.viewers[index];
        (viewer.is_stalled, viewer.is_excused) = (true, true);
        for _ in 0..world.random.below(80) {
            let mask = mask(world);
            let bytes = wire::client_frame(OpCode::Control(Control::Ping), &[3; 125], mask);
            world.viewers[index].asked += 1;
            send(world, index, &bytes);
        }
    }
}

/// A crowd that begins long messages and does not end them.
fn dangle(world: &mut World) {
    let limits = &world.plan.limits;
    let len = limits.frame_bytes_max.min(limits.message_bytes_max) as usize;
    for _ in 0..1 + world.random.below(80) {
        let Some(index) = some_viewer(world, can_send) else { return };
        let (mask, kind) = (mask(world), world.viewers[index].ask.is_binary);
        let kind = if kind { Data::Binary } else { Data::Text };
        let bytes = wire::client_frame(OpCode::Data(kind), &vec![b'z'; len], mask);
        let viewer = &mut world.viewers[index];
        (viewer.is_excused, viewer.has_sent_close) = (true, true);
        world.dangling += 1;
        // Its pongs will be taken for the rest, and must not complete it.
        world.sockets[index].viewer_sends(&bytes[..bytes.len() - 300]);
    }
}

/// A crowd that begins long requests and does not end them.
fn half_head(world: &mut World) {
    let head = "GET /v1/events/e0/live HTTP/1.1\r\nX: ".to_owned();
    let len = world.plan.limits.handshake_bytes_max as usize - head.len() - 1;
    let head = head + &"x".repeat(len);
    for _ in 0..1 + world.random.below(40) {
        if open(world, Ask { is_odd: true, ..Ask::default() }, head.as_bytes()).is_some() {
            world.half_heads += 1;
        }
    }
}

/// Posts that are answered with an error.
fn post_badly(world: &mut World) {
    let Some(index) = some_viewer(world, can_send) else { return };
    let is_binary = world.viewers[index].ask.is_binary;
    let (reference, mask) = (format!("b{}", world.random.bits() >> 30), mask(world));
    let limit = world.plan.limits.comment_bytes_max as usize;
    let (text, key, code) = match world.random.below(4) {
        0 => ("y".repeat(limit + 1), None, "too_long"),
        1 => (" \n".into(), None, "empty"),
        2 => ("bell \u{7}".into(), None, "bad_text"),
        _ => ("fine".into(), Some("k".repeat(65)), "bad_text"),
    };
    let bytes = wire::post(is_binary, Some(&reference), key.as_deref(), &text, mask);
    let (author, must_fail) = (String::new(), Some(code));
    let posted = Posted { text, key: None, author, must_fail };
    world.viewers[index].pending.insert(reference, posted);
    world.viewers[index].commands += 1;
    send(world, index, &bytes);
}

fn post_over_http(world: &mut World) {
    let event = some_event(world, true);
    let key = world.one_in(3).then(|| format!("k{}", world.random.below(12)));
    let user = format!("u{}", world.random.below(4));
    let text = match &key {
        Some(key) => format!("keyed {user} {key}"),
        None => next_text(world, event),
    };
    world.oracle.posted(event, &text);
    if let Some(key) = &key {
        world.oracle.sends_key(event, &user, key, world.now.mono_us);
    }
    let request = Request::Post {
        event: event_id(event),
        user: Some(user.clone().into()),
        name: None,
        text: text.clone().into(),
        key: key.clone().map(Into::into),
        address: world.random.below(3),
    };
    match ask_home(world, event, request) {
        Reply::Posted { id, position } => {
            let (id, epoch) = (u128::from_be_bytes(id.0), position.epoch);
            world.oracle.ack(event, epoch, position.offset, id, &text);
            if let Some(key) = key {
                let (now_us, answer) = (world.now.mono_us, (id, position.offset));
                world.oracle.keyed((event, epoch), (&user, &key), now_us, answer);
            }
        }
        Reply::Refused(refusal) => {
            let may = [PostRefusal::RateLimited, PostRefusal::Draining];
            let is_full = refusal == PostRefusal::RoomsFull && has_no_vacancy(world, event);
            assert!(may.contains(&refusal) || is_full, "{refusal:?}");
        }
        reply => panic!("{reply:?}"),
    }
}

/// Whether all rooms of an event's home shard have viewers, or replicas elsewhere.
fn has_no_vacancy(world: &mut World, event: usize) -> bool {
    match ask_home(world, event, Request::Report) {
        Reply::Report(report) => report.rooms > 0 && report.rooms_vacant == 0,
        reply => panic!("{reply:?}"),
    }
}

fn burst(world: &mut World) {
    let most = if world.one_in(5) { 400 } else { 40 };
    for _ in 0..world.random.below(most) {
        post_over_http(world);
    }
}

fn garbage(world: &mut World) {
    let Some(index) = some_viewer(world, can_send) else { return };
    let mask = mask(world);
    let viewer = &mut world.viewers[index];
    // It must be told its fault, also while it goes on talking.
    viewer.is_at_fault = true;
    let wrong = if viewer.ask.is_binary { Data::Text } else { Data::Binary };
    let kind = world.random.below(6);
    let viewer = &mut world.viewers[index];
    let bytes = match kind {
        // Reserved bits set. What is heard after the fault may look like a close frame, behind which nothing is.
        0 => {
            viewer.is_excused = true;
            (world.random.bits() | 0x70).to_le_bytes().to_vec()
        }
        1 => vec![0x81, 0x05, b'h', b'e', b'l', b'l', b'o'],
        2 => wire::client_frame(OpCode::Data(Data::Text), b"\xff\xfe", mask),
        3 => wire::client_frame(OpCode::Data(wrong), b"{}", mask),
        4 => wire::client_frame(OpCode::Data(Data::Text), &[b'z'; 9_000], mask),
        _ => wire::client_frame(OpCode::Data(Data::Continue), b"of nothing", mask),
    };
    world.sockets[index].viewer_sends(&bytes);
    for _ in 0..[0, 0, 30][world.random.below(3) as usize] {
        let len = world.random.below(3_000) as usize;
        let more = wire::client_frame(OpCode::Data(Data::Text), &vec![b'm'; len], mask);
        world.sockets[index].viewer_sends(&more);
    }
}

fn ping(world: &mut World) {
    let Some(index) = some_viewer(world, can_send) else { return };
    let count = if world.one_in(8) { 60 } else { 1 };
    for _ in 0..count {
        let (mask, len) = (mask(world), world.random.below(126) as usize);
        let bytes = wire::client_frame(OpCode::Control(Control::Ping), &vec![3; len], mask);
        world.viewers[index].asked += 1;
        world.viewers[index].controls += 1;
        send(world, index, &bytes);
    }
}

fn close(world: &mut World) {
    let Some(index) = some_viewer(world, can_send) else { return };
    let mask = mask(world);
    let bytes = wire::client_frame(OpCode::Control(Control::Close), &1000u16.to_be_bytes(), mask);
    let viewer = &mut world.viewers[index];
    (viewer.is_excused, viewer.has_sent_close) = (true, true);
    world.sockets[index].viewer_sends(&bytes);
}

fn reset(world: &mut World) {
    let Some(index) = some_viewer(world, |viewer| !viewer.is_over()) else { return };
    world.sockets[index].viewer_resets();
    world.viewers[index].state = State::Over(Outcome::Left);
}

fn end(world: &mut World) {
    let Some(index) = some_viewer(world, |viewer| !viewer.is_over()) else { return };
    world.sockets[index].viewer_ends();
    let viewer = &mut world.viewers[index];
    (viewer.is_excused, viewer.has_sent_close) = (true, true);
}

fn stall(world: &mut World) {
    let Some(index) = some_viewer(world, |viewer| !viewer.is_over()) else { return };
    let viewer = &mut world.viewers[index];
    (viewer.is_stalled, viewer.is_excused) = (true, true);
}

fn unstall(world: &mut World) {
    let Some(index) = some_viewer(world, |viewer| viewer.is_stalled) else { return };
    world.viewers[index].is_stalled = false;
}

fn stall_shard(world: &mut World) {
    let shard = world.random.below(world.plan.shards) as usize;
    let us = u64::from(world.random.below(900_000));
    world.shards[shard].stalled_until_us = world.now.mono_us + us;
}

fn everywhere(world: &mut World, request: impl Fn() -> Request) {
    for shard in 0..world.shards.len() {
        let reply = world.shards[shard].engine.control(world.now, request());
        assert!(matches!(reply, Reply::Done | Reply::Report(_)));
        world.obey(shard);
    }
}

fn drain(world: &mut World) {
    let spread_ms = world.random.below(5_000);
    world.drains += 1;
    let number = world.drains;
    everywhere(world, || Request::Drain { number, spread_ms });
}

fn undrain(world: &mut World) {
    everywhere(world, || Request::Undrain);
}

/// Limits that a viewer's expectations do not hang on.
fn reload(world: &mut World) {
    let mut limits = world.plan.limits.clone();
    limits.room_log_frames_max = 4 + world.random.below(300);
    limits.room_log_bytes_max = 2_000 + u64::from(world.random.below(60_000));
    limits.log_bytes_max = u64::from(world.plan.shards * (3_000 + world.random.below(200_000)));
    limits.coalesce_ms_max = world.random.below(250);
    limits.spread_subscribers_min = world.random.below(9);
    limits.keepalive_ms = [0, 4_000, 50_000][world.random.below(3) as usize];
    limits.lag_policy = [LagPolicy::Skip, LagPolicy::Evict][world.random.below(2) as usize];
    world.plan.limits = limits.clone();
    // What the new interval makes overdue is spread over 5 s.
    world.quiet_since_us = world.now.mono_us + 5_000_000;
    everywhere(world, || Request::Reload { generation: 1, limits: Box::new(limits.clone()) });
}

fn jump_wall_clock(world: &mut World) {
    let ms = u64::from(world.random.below(100_000));
    world.now.wall_ms =
        if world.one_in(2) { world.now.wall_ms - ms } else { world.now.wall_ms + ms };
}

/// The machine slept: nobody can be blamed for silence.
fn leap(world: &mut World) {
    for viewer in &mut world.viewers {
        viewer.is_excused = true;
    }
    let us = u64::from(world.random.below(120_000_000));
    world.pass_us(us);
    world.quiet_since_us = world.quiet_since_us.max(world.now.mono_us);
}

fn pass_time(world: &mut World) {
    for _ in 0..world.random.below(15) {
        world.pass_us(100_000);
        round(world);
    }
}

/// People join and leave, and nobody writes.
fn come_and_go(world: &mut World) {
    for _ in 0..40 + world.random.below(80) {
        connect(world);
        if world.one_in(2) {
            end(world);
        }
        world.pass_us(100_000);
        round(world);
        world.check();
    }
}

fn ask_report(world: &mut World) {
    everywhere(world, || Request::Report);
}

/// Every shard takes a turn and every viewer that is not stalled reads.
pub(crate) fn round(world: &mut World) {
    world.move_sockets();
    for shard in 0..world.shards.len() {
        world.turn(shard);
    }
    for index in 0..world.viewers.len() {
        if !world.viewers[index].is_stalled {
            world.view(index, usize::MAX);
        }
    }
}
