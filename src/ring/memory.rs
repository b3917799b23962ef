//! Memory that a thread has freed, given back to the kernel.

/// Returns what this thread has freed a while ago to the kernel. The allocator does so by itself only
/// when it is called again; a shard whose busy hour is over may not call it for a long time, and
/// would hold on to the logs of yesterday's events.
pub fn give_back() {
    // SAFETY: mi_collect takes no pointer and looks only at the calling thread's own heap and at
    // memory that nobody uses. WHY: the allocator's crate has no safe name for it.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
