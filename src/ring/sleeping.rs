//! Sleeping with the whole thread, for an executor that has only one task.
//!
//! A sleep through glommio's own rings costs several system calls and a timer; a plain read of
//! the eventfd costs one. Nothing else of the executor runs meanwhile.

use std::io;
use std::os::fd::BorrowedFd;

use crate::wake::Wake;

impl Wake {
    /// Blocks the thread until something was written since the last sleep.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sleep_thread(&self) -> io::Result<()> {
        // SAFETY: `self` owns the descriptor and is borrowed for the whole call.
        let eventfd = unsafe { BorrowedFd::borrow_raw(self.raw()) };
        let mut count = [0; 8];
        match rustix::io::read(eventfd, &mut count) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
