//! The rules of uproar as a pure state machine.
#![forbid(unsafe_code)]

pub mod bucket;
pub mod control;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod log;
pub mod placement;
pub mod random;
pub mod report;
pub mod table;
pub mod time;
pub mod wheel;
