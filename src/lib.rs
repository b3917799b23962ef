//! `uproar`: a broadcast server for the live comments of a live event.
pub mod link;
pub mod shard;
