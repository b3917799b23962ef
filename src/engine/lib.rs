//! The rules of uproar as a pure state machine.
#![forbid(unsafe_code)]

pub mod codec;
pub mod control;

pub mod http;
pub mod ids;
pub mod limits;
pub mod report;
pub mod ws;
