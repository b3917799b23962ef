//! What the kernel must offer, asked once at start instead of guessed from its version.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::advice::RAISE_MEMLOCK;

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
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::SetSockOpt::CODE, "URING_CMD"),
];

/// One thing that rings need, and whether the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the kernel's headers, without prefix.
    pub name: &'static str,
    /// Whether it is there.
    pub is_there: bool,
}

/// Sets up a small ring as shards do and asks what it can.
///
/// # Errors
/// In one sentence: io_uring is disabled or blocked, the kernel is too old, or a limit is too low.
pub fn features() -> io::Result<Vec<Feature>> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let ring = builder.build(8).map_err(|error| explain_setup(&error))?;
    of(&ring)
}

fn of(ring: &IoUring) -> io::Result<Vec<Feature>> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let operation = |&(code, name): &(u8, _)| Feature { name, is_there: probe.is_supported(code) };
    let mut features: Vec<Feature> = NEEDED.iter().map(operation).collect();
    let is_there = ring.params().is_feature_skip_cqe_on_success();
    features.push(Feature { name: "CQE_SKIP", is_there });
    Ok(features)
}

/// Refuses a kernel that lacks a feature, in one sentence.
pub(crate) fn check(ring: &IoUring) -> io::Result<()> {
    let features = of(ring)?;
    let missing: Vec<&str> =
        features.iter().filter(|feature| !feature.is_there).map(|feature| feature.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this kernel's io_uring lacks {missing}; run Linux 6.8 or newer"),
    ))
}

/// Why a ring could not be made, and what to do about it, in one sentence.
pub(crate) fn explain_setup(error: &io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is disabled or blocked; set kernel.io_uring_disabled=0 and allow \
             io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
        }
        Some(libc::ENOSYS) => {
            "io_uring is missing: this kernel is too old (run Linux 6.8 or newer), or a container's \
             seccomp profile hides it (allow io_uring_setup, io_uring_enter, io_uring_register)"
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old; run Linux 6.8 or newer",
        Some(libc::ENOMEM) => {
            return io::Error::new(
                error.kind(),
                format!(
                    "there is not enough lockable memory for a ring; {RAISE_MEMLOCK} ({error})"
                ),
            );
        }
        _ => "the ring could not be set up",
    };
    io::Error::new(error.kind(), format!("{advice} ({error})"))
}
