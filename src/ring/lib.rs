//! The one home of unsafe code: private io_uring rings with direct descriptors, behind an
//! interface that safe code cannot misuse.
//!
//! A ring belongs to the thread that made it (`SINGLE_ISSUER | DEFER_TASKRUN`); sockets live in
//! its table of direct descriptors, so a process serves far more of them than RLIMIT_NOFILE.
//! What safe code needs to be kept from is small: memory that an SQE points at must outlive the
//! submission, a provided buffer must not be read while the kernel may write it, and a raw
//! descriptor must have one owner. Each is held by a type here ([`Ring::send_all`] borrows, a
//! [`Buffer`] is handed out once, [`Event::Installed`] owns).
//!
//! Not here: what a connection is, when to read or write, any protocol.

mod advice;
mod buffers;
mod decoding;
mod event;
mod memory;
mod outgoing;
mod probe;
mod receiving;
mod ring;
mod wake;

pub use advice::{RAISE_MEMLOCK, RAISE_NOFILE, explain_executor};
pub use buffers::Buffer;
pub use event::{Event, Key, Operation};
pub use memory::give_back;
pub use outgoing::Outgoing;
pub use probe::{Feature, features};
pub use ring::{ACCEPTS_MAX, Ring, RingAddress, RingConfig, SEND_CHUNK_MAX, Slot};
pub use wake::{Wake, Waker};
