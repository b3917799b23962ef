//! The rules of uproar as a pure state machine: no I/O, clock, randomness, threads or async.
//!
//! [`engine::Engine`] is one shard's worth of it. The shell around it moves bytes; a simulator
//! (`tests/simulation.rs`) moves virtual ones. `tests/purity.rs` keeps the crate honest.
#![forbid(unsafe_code)]

pub mod address;
pub mod bucket;
pub mod codec;
pub mod connection;
pub mod control;
pub mod engine;
pub mod fanout;
pub mod governor;
pub mod hot;
pub mod http;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod log;
pub mod mesh;
pub mod order;
pub mod page;
pub mod patience;
pub mod placement;
pub mod random;
pub mod ranks;
pub mod rate;
pub mod report;
pub mod room;
pub mod share;
pub mod table;
pub mod time;
pub mod traffic;
pub mod wheel;
pub mod ws;
