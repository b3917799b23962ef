//! `uproar`: a broadcast server for the live comments of a live event.
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub(crate) mod lines;
pub mod link;
pub mod shard;
mod terminal;
pub mod top;
pub mod version;
mod words;
