//! What the units promise an operator, by a double of systemd that does what their directives say:
//! a stop that is one, restarts that refuse nobody, boots before the address is there, reloads that fail.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod boots;
mod manager;
mod stops;
mod unit_file;
