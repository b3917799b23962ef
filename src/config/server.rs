//! The settings of the process: addresses, CPUs, sockets, drain, logs.
//!
//! One row is the whole truth about a setting: field, type, default, what it may hold,
//! whether SIGHUP changes it, and its help text. The macro makes the struct and the rows.

use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;

use super::setting::{Kind, Reload, Setting};
use super::value::{CpuList, LogFormat, Value};

macro_rules! server_settings {
    ($($group:literal { $($field:ident: $type:ty = $default:literal, $kind:expr, $reload:ident,
        $(hidden $hidden:literal,)? $help:literal;)* })*) => {
        /// The resolved settings of the process.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Server {
            $($(#[doc = $help] pub $field: $type,)*)*
        }

        impl Default for Server {
            fn default() -> Self {
                let invariant = "every default passes its own row";
                Self { $($($field: Value::parse($default, &$kind).expect(invariant),)*)* }
            }
        }

        /// The rows of [`Server`].
        pub(super) static SERVER: &[Setting] = &[$($(Setting {
            name: stringify!($field),
            group: $group,
            kind: $kind,
            default: $default,
            reload: Reload::$reload,
            is_hidden: false $(|| $hidden)?,
            help: $help,
            assign: |config, text, kind| {
                config.server.$field = Value::parse(text, kind)?;
                Ok(())
            },
            text: |config| Value::text(&config.server.$field),
        },)*)*];
    };
}

server_settings! {
    "Addresses" {
        listen: SocketAddr = "127.0.0.1:8080", Kind::Address, Restart,
            "Where viewers connect: WebSocket, REST, /health and /ready. Everyone who reaches a \
             non-loopback address may read and post, as there is no authentication yet.";
        admin: Option<SocketAddr> = "127.0.0.1:8081", Kind::AddressOrOff, Restart,
            "Where /metrics, /report and drain are served. It has no authentication: keep it on \
             loopback or a private network. `off` disables it.";
        bind_wait_ms: u32 = "20000", Kind::Number { unit: "ms", min: 0, max: 3_600_000 }, Restart,
            "How long a start waits for an address of `listen` or `admin` that no interface has \
             yet (IPv6 that still looks for duplicates, DHCP, a virtual address with another node). \
             After that the process ends with 1, and systemd starts it again. Keep it under \
             TimeoutStartSec of the unit (30 s).";
        node: Option<String> = "auto", Kind::NameOrAuto, Restart,
            "The node's name in welcome frames, comment origins and logs. `auto` is the host name.";
    }
    "Processors and sockets" {
        cpus: Option<CpuList> = "auto", Kind::CpusOrAuto, Restart,
            "The CPUs that shards are pinned to, in this order. `auto` is every CPU this process \
             may use (taskset, cgroup cpuset).";
        shards: Option<u32> = "auto",
            Kind::NumberOrAuto { unit: "shards", min: 1, max: 256 }, Restart,
            "How many shards to run, each one thread pinned to one CPU. `auto` is one for each \
             CPU of `cpus`; more shards than CPUs share them.";
        rings_per_shard: u32 = "0",
            Kind::NumberOrZero { unit: "rings", min: 1, max: 256 }, Restart,
            "Private io_uring rings of each shard. A ring holds at most RLIMIT_NOFILE sockets \
             (and 32768), and everyone may be in one room, so every shard must be able to hold \
             connections_max. 0 takes as many as that needs.";
        mesh_messages_max: u32 = "4096",
            Kind::Number { unit: "messages", min: 16, max: 1_048_576 }, Restart,
            "Messages that may wait on the link from one shard to another. A full link delays \
             hints and refuses posts with `overloaded`; it loses nothing. All links together hold at \
             most 256 MiB, so with over 40 shards a link takes fewer.";
        accept_backlog: u32 = "4096",
            Kind::Number { unit: "connections", min: 1, max: 1_048_576 }, Restart,
            "Connections that may wait in the kernel for a shard to accept them, per listener. \
             The kernel caps it at net.core.somaxconn.";
        send_buffer_bytes: u32 = "12288",
            Kind::Number { unit: "bytes", min: 4_608, max: 16_777_216 }, Restart,
            "SO_SNDBUF of each connection: what the kernel may hold for a viewer that does not \
             read. More costs memory per stalled viewer, less makes sends short.";
        receive_buffer_bytes: u32 = "16384",
            Kind::Number { unit: "bytes", min: 2_304, max: 16_777_216 }, Restart,
            "SO_RCVBUF of each connection: what the kernel may hold of a peer that the node does not read \
             from, because it does not take its answers. A message or request larger than this needs a \
             round trip for each piece.";
        user_timeout_ms: u32 = "30000",
            Kind::NumberOrZero { unit: "ms", min: 1_000, max: 3_600_000 }, Restart,
            "TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged before the kernel \
             ends the connection. 0 leaves it to the kernel (about 15 minutes).";
        http_connections_max: u32 = "256",
            Kind::Number { unit: "connections", min: 1, max: 16_384 }, Restart,
            "Plain HTTP requests (REST, /health, /ready) served at the same time on the public \
             port; more are answered 503. When all are taken, an address that has more than half of \
             them gives up its oldest for whoever comes from another.";
        http_bytes_max: u32 = "16777216",
            Kind::Number { unit: "bytes", min: 1_048_576, max: 4_294_967_295 }, Live,
            "Memory for bodies of plain HTTP, all together: pages of history until their readers \
             have them, posts until they are whole. More is answered 503; one address has at most \
             half of it. A page that many ask for counts once.";
        http_reads_per_sec: u32 = "2000",
            Kind::Number { unit: "reads/s", min: 0, max: 1_000_000 }, Live,
            "Pages of history and states of events a second over REST, of the whole node, with a \
             burst of two seconds' worth; more are answered 503. One address has half of it while \
             others ask. 0 is no cap.";
    }
    "Drain" {
        drain_delay_ms: u32 = "2000",
            Kind::Number { unit: "ms", min: 0, max: 3_600_000 }, Live,
            "On SIGTERM or a drain request, how long the node goes on serving and admitting after \
             /ready began to answer 503, so that load balancers stop sending viewers before they \
             are refused. Set it to a balancer's check interval times the failures it waits for; \
             the default is two checks of one a second. SIGINT (Ctrl-C) does not wait.";
        drain_spread_ms: u32 = "5000",
            Kind::Number { unit: "ms", min: 0, max: 3_600_000 }, Live,
            "After that delay, connections are told when they will be closed, and are closed \
             evenly over this time, so that reconnects do not hit the other nodes at once; over more \
             where drain_closes_per_sec asks for it.";
        drain_closes_per_sec: u32 = "1000",
            Kind::NumberOrZero { unit: "closes/s", min: 1, max: 1_000_000 }, Live,
            "The most connections that a drain closes in a second. With more connections than fit \
             into drain_spread_ms at that rate, closes take as long as they need (55,000 at 1000 a \
             second: 56 s), and the deadline is as much later: the service manager has to be as \
             patient. 0 is no limit.";
        drain_deadline_ms: u32 = "10000",
            Kind::Number { unit: "ms", min: 100, max: 7_200_000 }, Live,
            "The process ends this long after SIGTERM even if connections are left: at least \
             drain_delay_ms and drain_spread_ms together, and time for peers to answer a close. It is as \
             much later as drain_closes_per_sec makes the closes take longer than drain_spread_ms.";
    }
    "Logs" {
        log_level: LevelFilter = "info",
            Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]), Live,
            "The least severe log lines to write.";
        log_format: LogFormat = "auto", Kind::Choice(&["auto", "human", "journal", "json"]), Restart,
            "How log lines look: `human`, `journal` (human after the priority, as in <4>, without \
             the time), `json` (one object a line), or `auto`, which is human on a terminal, journal \
             where stderr is the journal, and JSON otherwise. Logs go to stderr.";
        stall_after_ms: u32 = "0",
            Kind::Number { unit: "ms", min: 0, max: 3_600_000 }, Restart, hidden true,
            "Test only: shard 0 stops turning this long after it started. 0 is never.";
        panic_after_ms: u32 = "0",
            Kind::Number { unit: "ms", min: 0, max: 3_600_000 }, Restart, hidden true,
            "Test only: shard 0 crashes this long after it started. 0 is never.";
        conformance_echo: bool = "false", Kind::Switch, Restart, hidden true,
            "Test only: answer every message with itself instead of joining a room.";
    }
}
