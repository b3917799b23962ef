//! A private ring: submission, completion, and the table of direct descriptors.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::buffers::{Buffer, Buffers, GROUP};
use crate::decoding::taken;
use crate::event::{Event, Key, Operation, Tag};
use crate::outgoing::{Outgoing, Vectors};
use crate::wake::Wake;

/// Submission entries of a ring; a chunk of sends fits in whole.
const SQ_ENTRIES: u32 = 1_024;
/// Completion entries; beyond them the kernel keeps an overflow list, which is slow but lossless.
const CQ_ENTRIES: u32 = 16_384;
/// The most sends one [`Ring::send_all`] takes.
pub const SEND_CHUNK_MAX: usize = 512;
/// The most accepts in flight on one ring.
pub const ACCEPTS_MAX: usize = 64;

const ENTER_GETEVENTS: u32 = 1;
/// `SOCKET_URING_OP_SIOCOUTQ` of `linux/io_uring.h`: bytes of a TCP socket that are not acknowledged.
const SOCKET_SIOCOUTQ: u32 = 1;
/// A close with this set resets.
static RESET_ON_CLOSE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
/// Enters before a set TASKRUN flag over an empty completion queue counts as stale; the kernel
/// runs deferred work in portions of 20.
const STALE_ENTERS_MAX: u32 = 16;

const _: () = assert!(SEND_CHUNK_MAX <= SQ_ENTRIES as usize);

/// A place in a ring's table of direct descriptors.
pub type Slot = u32;

/// Another ring, as a target for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddress(i32);

/// The sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Direct descriptors; at most RLIMIT_NOFILE.
    pub slots: u32,
    /// Provided buffers, a power of two.
    pub buffers: u16,
    /// Capacity of each buffer, in bytes.
    pub buffer_bytes: u32,
}

/// Where the kernel writes the peer's address of one accept.
#[repr(C)]
pub(crate) struct AcceptLane {
    pub(crate) address: libc::sockaddr_storage,
    len: libc::socklen_t,
}

/// A private ring. Made and used on one thread.
pub struct Ring {
    ring: IoUring,
    pub(crate) raw: i32,
    buffers: Buffers,
    /// Leaked: the kernel may write to them for as long as it likes.
    pub(crate) lanes: *mut AcceptLane,
    /// Leaked, as an SQE may point at it.
    timer: *mut Timespec,
    vectors: Vectors,
    /// Completions that surfaced while sends were submitted.
    early: VecDeque<cqueue::Entry>,
    submits: u64,
    overflows: u64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.raw).finish_non_exhaustive()
    }
}

/// Where completions go that surface while sends are submitted.
struct Ended<'a> {
    failures: &'a mut Vec<(u32, io::Result<usize>)>,
    others: VecDeque<cqueue::Entry>,
}

impl Ended<'_> {
    fn take(&mut self, entry: cqueue::Entry) {
        match Tag::split(entry.user_data()) {
            (Tag::Send, index) => {
                self.failures.push((index.bits() as u32, taken(entry.result())));
            }
            _ => self.others.push_back(entry),
        }
    }
}

impl Ring {
    /// Makes a ring on this thread; its completions write to `wake`.
    ///
    /// # Errors
    /// In one sentence: io_uring is disabled or blocked, the kernel is too old, or a limit is
    /// too low.
    pub fn new(config: RingConfig, wake: &Wake) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(CQ_ENTRIES);
        let ring =
            builder.build(SQ_ENTRIES).map_err(|error| crate::probe::explain_setup(&error))?;
        crate::probe::check(&ring)?;
        let raw = ring.as_raw_fd();
        ring.submitter().register_files_sparse(config.slots).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot register {} direct descriptors ({error}); {}",
                    config.slots,
                    crate::advice::RAISE_NOFILE
                ),
            )
        })?;
        let buffers = Buffers::register(&ring, raw, config.buffers, config.buffer_bytes)?;
        ring.submitter().register_eventfd(wake.raw())?;
        let lanes: Vec<AcceptLane> = (0..ACCEPTS_MAX)
            // SAFETY: all-zero bytes are a valid sockaddr_storage (plain integers).
            .map(|_| AcceptLane { address: unsafe { std::mem::zeroed() }, len: 0 })
            .collect();
        Ok(Self {
            ring,
            raw,
            buffers,
            lanes: Box::leak(lanes.into_boxed_slice()).as_mut_ptr(),
            timer: Box::leak(Box::new(Timespec::new())),
            vectors: Vectors::default(),
            early: VecDeque::new(),
            submits: 0,
            overflows: 0,
        })
    }

    /// The ring's address, for others to send sockets to.
    #[must_use]
    pub fn address(&self) -> RingAddress {
        RingAddress(self.raw)
    }

    /// `io_uring_enter` calls that submitted something.
    #[must_use]
    pub fn submits(&self) -> u64 {
        self.submits
    }

    /// Completion-queue overflows seen.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Capacity of a provided buffer: a read of exactly this many bytes may have left more.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffers.bytes_each()
    }

    /// Accepts one connection from `listener` into a free slot; `lane` is below
    /// [`ACCEPTS_MAX`] and not in flight.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, lane: u16) {
        assert!(usize::from(lane) < ACCEPTS_MAX, "lane {lane} does not exist");
        // SAFETY: `lane` is inside the leaked array; the caller keeps a lane to one accept, and
        // even two would only mix up addresses.
        let (address, len) = unsafe {
            let cell = &mut *self.lanes.add(usize::from(lane));
            cell.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            (&raw mut cell.address, &raw mut cell.len)
        };
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), address.cast(), len)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(&entry.user_data(Tag::Accept.with(Key::new(lane.into()))));
    }

    /// Ends a pending [`Self::accept`]; it ends with an error, unless it has taken a connection.
    pub fn cancel_accept(&mut self, lane: u16) {
        self.cancel(Operation::Accept, Key::new(lane.into()));
    }

    /// Reads into a provided buffer as soon as there is something to read.
    pub fn read(&mut self, slot: Slot, key: Key) {
        self.push_read(slot, key, 0);
    }

    /// Reads into a provided buffer what is there now, or nothing (`WouldBlock`).
    pub fn read_now(&mut self, slot: Slot, key: Key) {
        self.push_read(slot, key, libc::MSG_DONTWAIT);
    }

    /// Waits for bytes and throws away at most `len` of them, unseen. For TCP sockets only: for them MSG_TRUNC
    /// takes bytes out of the queue without a copy.
    pub fn discard(&mut self, slot: Slot, key: Key, len: u32) {
        // The address is null and nothing is written to it; another kind of socket would answer EFAULT.
        let entry = opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), len)
            .flags(libc::MSG_TRUNC)
            .build();
        self.push(&entry.user_data(Tag::Discard.with(key)));
    }

    fn push_read(&mut self, slot: Slot, key: Key, flags: i32) {
        let entry = opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), 0)
            .flags(flags)
            .buf_group(GROUP)
            .build()
            .flags(Flags::BUFFER_SELECT);
        self.push(&entry.user_data(Tag::Read.with(key)));
    }

    /// Watches a socket for bytes until cancelled: edge-triggered, so read until there is no more.
    pub fn watch_readable(&mut self, slot: Slot, key: Key) {
        let mask = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fixed(slot), mask).multi(true).build();
        self.push(&entry.user_data(Tag::PollIn.with(key)));
    }

    /// Reports once when a socket can be written to.
    pub fn await_writable(&mut self, slot: Slot, key: Key) {
        let entry = opcode::PollAdd::new(Fixed(slot), libc::POLLOUT as u32).build();
        self.push(&entry.user_data(Tag::PollOut.with(key)));
    }

    /// Ends the watch of `key`; it ends with a `Readable` that is not armed.
    pub fn unwatch_readable(&mut self, key: Key) {
        self.cancel(Operation::Readable, key);
    }

    /// Ends what is pending under `key`, which then completes by itself, once, with an error or with what it has
    /// come to meanwhile. POLL_REMOVE is no way to end a poll: while an event of it is pending it answers EALREADY,
    /// and the poll goes on and keeps the file.
    pub fn cancel(&mut self, operation: Operation, key: Key) {
        let target = CancelBuilder::user_data(operation.tag().with(key));
        let entry = opcode::AsyncCancel2::new(target).build();
        self.push(&entry.user_data(operation.cancel_tag().with(key)));
    }

    /// Empties a slot. The file in it lives on as long as a pending operation refers to it, and no FIN goes out
    /// before: cancel polls and reads first, and look at their last completions.
    pub fn close(&mut self, slot: Slot, key: Key) {
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.push(&entry.user_data(Tag::Close.with(key)));
    }

    /// Empties a slot, and resets its connection once nothing refers to it any more: what the peer has not taken is
    /// thrown away. Both are carried out within the submission, in this order.
    pub fn reset(&mut self, slot: Slot, key: Key) {
        let linger: *const libc::linger = &raw const RESET_ON_CLOSE;
        let entry = opcode::SetSockOpt::new(
            Fixed(slot),
            libc::SOL_SOCKET as u32,
            libc::SO_LINGER as u32,
            linger.cast(),
            size_of::<libc::linger>() as u32,
        )
        .build()
        .flags(Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(Tag::Linger.with(key)));
        self.close(slot, key);
    }

    /// Asks how many bytes the peer has not taken yet.
    pub fn ask_unsent(&mut self, slot: Slot, key: Key) {
        let entry = opcode::UringCmd16::new(Fixed(slot), SOCKET_SIOCOUTQ).build();
        self.push(&entry.user_data(Tag::Unsent.with(key)));
    }

    /// Gives a copy of the socket in `slot` to another ring, where it arrives under `token`.
    pub fn send_slot(&mut self, slot: Slot, target: RingAddress, token: Key, key: Key) {
        let entry = opcode::MsgRingSendFd::new(
            Fd(target.0),
            Fixed(slot),
            DestinationSlot::auto_target(),
            Tag::Arrive.with(token),
        )
        .build();
        self.push(&entry.user_data(Tag::SendSlot.with(key)));
    }

    /// Makes an ordinary descriptor of a direct one; the slot stays.
    pub fn install(&mut self, slot: Slot, key: Key) {
        let entry = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
        self.push(&entry.user_data(Tag::Install.with(key)));
    }

    /// Puts an ordinary socket into `slot`, which must be free, and closes the ordinary descriptor.
    ///
    /// # Errors
    /// The kernel's; a slot beyond the table is `InvalidInput`.
    pub fn adopt(&mut self, slot: Slot, socket: impl Into<OwnedFd>) -> io::Result<()> {
        let socket: OwnedFd = socket.into();
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()]).map(|_| ())
    }

    /// Wakes the shard `after` from now with [`Event::Timer`]. Timers add up; none is cancelled.
    pub fn set_timer(&mut self, after: Duration) {
        // An earlier timer whose SQE still waits must be read by the kernel before its memory
        // changes.
        self.submit();
        let time = Timespec::new().sec(after.as_secs()).nsec(after.subsec_nanos());
        // SAFETY: the leaked Timespec is written by this thread only, and no unsubmitted SQE
        // points at it (submitted just above; the kernel copies it at submission).
        unsafe { *self.timer = time };
        let entry = opcode::Timeout::new(self.timer).flags(TimeoutFlags::empty()).build();
        self.push(&entry.user_data(Tag::Timer.with(Key::new(0))));
    }

    /// Reports writes to the eventfd, so that [`Self::sleep`] ends for what other rings of this thread complete.
    pub fn watch_wake(&mut self, wake: &Wake) {
        let entry = opcode::PollAdd::new(Fd(wake.raw()), libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(Tag::Wake.with(Key::new(0))));
    }

    /// Sends each its bytes, whole or in part, without waiting. Reports `(index, result)`
    /// for each send that was not taken whole: `Ok(n)` took `n` bytes; `WouldBlock` none. All
    /// sends of a call have ended when it returns.
    pub fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = (Slot, Outgoing<'a>)>,
        failures: &mut Vec<(u32, io::Result<usize>)>,
    ) {
        self.submit();
        self.ensure_room();
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        for (index, (slot, bytes)) in sends.enumerate() {
            assert!(index < SEND_CHUNK_MAX, "a chunk holds at most {SEND_CHUNK_MAX} sends");
            let entry = if bytes.second.is_none() {
                let (start, len) = bytes.first;
                opcode::Send::new(Fixed(slot), start, len).flags(flags).build()
            } else {
                let header = self.vectors.fill(index, bytes);
                opcode::SendMsg::new(Fixed(slot), header).flags(flags as u32).build()
            };
            let entry =
                entry.flags(Flags::SKIP_SUCCESS).user_data(Tag::Send.with(Key::new(index as u64)));
            // SAFETY: the bytes are borrowed for 'a, which outlives this call, the vectors are not
            // touched again before the next call, and `submit` below
            // does not return before the kernel has taken every entry; with MSG_DONTWAIT a send
            // ends inside the submission, so nothing points at `bytes` afterwards.
            // WHY: the safe alternative is a copy of each frame for each subscriber.
            unsafe {
                self.ring.submission().push(&entry).expect("a chunk fits an empty queue");
            }
        }
        self.submit();
        let mut ended = Ended { failures, others: std::mem::take(&mut self.early) };
        let before = ended.others.len();
        for _ in 0..before {
            // Memory may have been short for a moment, and completions moved out of the way.
            let entry = ended.others.pop_front().expect("as many as were counted");
            ended.take(entry);
        }
        self.ring.completion().for_each(|entry| ended.take(entry));
        self.early = ended.others;
    }

    /// Makes sure that every send of a chunk can report its end: the kernel puts what finds no room into a
    /// list of its own, and all that comes after it.
    fn ensure_room(&mut self) {
        while self.ring.submission().cq_overflow()
            || self.ring.completion().len() + SEND_CHUNK_MAX > CQ_ENTRIES as usize
        {
            self.make_room();
        }
    }

    /// Submits what is queued, runs deferred work and decodes up to `max` completions into `events`.
    pub fn turn(&mut self, events: &mut Vec<Event>, max: usize) {
        self.submit();
        let limit = events.len() + max;
        while events.len() < limit {
            let Some(entry) = self.early.pop_front() else { break };
            let event = self.decode(&entry);
            events.push(event);
        }
        loop {
            while events.len() < limit {
                let Some(entry) = self.ring.completion().next() else { break };
                let event = self.decode(&entry);
                events.push(event);
            }
            if events.len() >= limit || !self.has_deferred_work() {
                return;
            }
            self.enter(0, ENTER_GETEVENTS);
            if self.ring.completion().is_empty() {
                // The flag was stale, or the work ended in no completion: see `has_work`.
                return;
            }
        }
    }

    /// Whether a turn would find something to do. Before a sleep, call it after
    /// [`Self::unmute`]: it runs what was queued while completions were muted.
    ///
    /// The kernel queues work first and sets the TASKRUN flag after; when we run the work in
    /// between, the flag stays set over an empty queue and no call clears it. So the flag is only
    /// a reason to enter, and what counts is a completion.
    #[must_use]
    pub fn has_work(&mut self) -> bool {
        if !self.early.is_empty() || !self.ring.submission().is_empty() {
            return true;
        }
        for _ in 0..STALE_ENTERS_MAX {
            if !self.ring.completion().is_empty() {
                return true;
            }
            if !self.has_deferred_work() {
                return false;
            }
            self.enter(0, ENTER_GETEVENTS);
        }
        !self.ring.completion().is_empty()
    }

    /// While awake, the shard looks by itself: completions need not write to the eventfd.
    pub fn mute(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    /// Completions write to the eventfd again. Check [`Self::has_work`] before sleeping.
    pub fn unmute(&mut self) {
        self.ring.completion().enable_eventfd();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Submits what is queued and blocks the thread until this ring has a completion: one system call, where a
    /// sleep on the eventfd takes two. May end early. Timers and [`Self::watch_wake`] end it as well; this ring itself
    /// stays muted. There is no time limit, as arming a clock for each sleep costs a tenth of a wake on a virtual machine.
    pub fn sleep(&mut self) {
        if self.early.is_empty() {
            let result = self.ring.submitter().submit_and_wait(1);
            self.entered(result);
        }
    }

    /// The bytes of a buffer.
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.buffers.bytes(buffer)
    }

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.buffers.recycle(buffer);
        self.buffers.publish();
    }

    /// Submits everything queued; returns when the kernel has taken every entry.
    pub fn submit(&mut self) {
        loop {
            let queued = self.ring.submission().len() as u32;
            if queued == 0 {
                return;
            }
            self.submits += 1;
            self.enter(queued, 0);
        }
    }

    fn has_deferred_work(&mut self) -> bool {
        let queue = self.ring.submission();
        let overflow = queue.cq_overflow();
        let pending = queue.taskrun() || overflow;
        drop(queue);
        self.overflows += u64::from(overflow);
        pending
    }

    fn enter(&mut self, submit: u32, flags: u32) {
        // SAFETY: no argument pointer is passed; every queued entry was built in this crate under
        // the rules its function states. WHY: the safe `submit` cannot ask for GETEVENTS without
        // waiting for a completion.
        let result =
            unsafe { self.ring.submitter().enter::<libc::sigset_t>(submit, 0, flags, None) };
        self.entered(result);
    }

    /// Acts on what `io_uring_enter` said.
    fn entered(&mut self, result: io::Result<usize>) {
        let Err(error) = result else { return };
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // The completion queue must be emptied, or memory is short for a moment.
            Some(libc::EBUSY | libc::EAGAIN) => self.make_room(),
            _ => panic!("io_uring_enter on ring {}: {error}", self.raw),
        }
    }

    /// Takes what has ended out of the completion queue, for the next turn, and lets in what found no room.
    fn make_room(&mut self) {
        let entries: Vec<cqueue::Entry> = self.ring.completion().collect();
        self.early.extend(entries);
        // SAFETY: as in `enter`; this flushes the overflow list into the emptied queue.
        let _ =
            unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
    }

    pub(crate) fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: pointers in entries of this crate lead to leaked memory (lanes, timer) or are
        // null; sends, whose pointers are borrowed, do not come through here.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
        }
    }
}
