//! What strangers can make a shard hold, and what stops it: budgets, pauses of reading, deadlines, credit.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod budgets;
mod mesh;
mod reading;
mod shard;
