//! The built binary on real sockets: what PROTOCOL.md promises, seen from outside.
//!
//! Each test starts a node of its own on free ports, with the limits it is about made small, and
//! talks to it as strangers do. Every wait has a deadline; nothing sleeps in place of a condition.

#![expect(clippy::unwrap_used, reason = "a failed unwrap of a test is its failure")]

mod addresses;
mod closes;
mod commenting;
mod draining;
mod endings;
mod flood;
mod handshakes;
mod holding;
mod inputs;
mod joining;
mod limits;
mod lingering;
mod node;
mod over_rate;
mod reading;
mod rest;
mod rkyv_frames;
mod shards;
mod slow;
mod vacancies;
mod viewer;
