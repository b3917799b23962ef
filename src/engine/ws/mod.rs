//! RFC 6455 on the server's side: client frames in, server frames out.
//!
//! Header bits, opcodes and close codes are tungstenite's; what is ours is where the bytes
//! live. The reader works in the receive buffer and keeps something of its own only while a
//! frame or a message is incomplete; the writer appends to whatever buffer it is given.
//!
//! Not here: the upgrade (`http`), what a message means (`codec`), the closing handshake.

mod partial;
pub mod reader;
pub mod rest;
pub mod writer;

#[cfg(test)]
mod tests;
