//! `uproar top`: a running node at a glance, from its admin port's /report.
//!
//! Two reports make a frame: gauges are shown as they are, counters as what they grew by in
//! between. The frame is a pure function of the two, so that it can be tested without a
//! terminal or a node.
//!
//! Not here: asking the node (`cli::top`), finding the hot rooms (the engine).

mod frame;
mod snapshot;

pub use frame::{LEGEND, Size, frame};
pub use snapshot::{HotRoom, HotRooms, NoReport, Snapshot};
