//! The rules of uproar as a pure state machine.
pub mod control;
pub mod ids;
pub mod limits;
pub mod report;
