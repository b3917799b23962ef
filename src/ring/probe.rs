//! What the kernel must offer, asked once at start instead of guessed from its version.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Linux 6.8 is the first with all of these; `FIXED_FD_INSTALL` came last.
const NEEDED: &[(u8, &str)] = &[
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::FixedFdInstall::CODE, "FIXED_FD_INSTALL"),
    (opcode::MsgRingSendFd::CODE, "MSG_RING"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::PollRemove::CODE, "POLL_REMOVE"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Timeout::CODE, "TIMEOUT"),
];

/// Refuses a kernel that lacks an operation, in one sentence.
pub(crate) fn check(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(code, _)| !probe.is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() && ring.params().is_feature_skip_cqe_on_success() {
        return Ok(());
    }
    let missing = if missing.is_empty() { "CQE_SKIP".to_owned() } else { missing.join(", ") };
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this kernel's io_uring lacks {missing}; run Linux 6.8 or newer"),
    ))
}
