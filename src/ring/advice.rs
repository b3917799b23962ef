//! What to do about limits that rings meet, in one wording for whoever has rings: the node and the load generator.
//!
//! glommio and the kernel say "MemLockLimit(65536/524288)" and "os error 11"; a person wants to know which limit,
//! what it is now, and where it is raised.

/// Where the limit of locked memory is raised.
pub const RAISE_MEMLOCK: &str = "raise the limit of locked memory (RLIMIT_MEMLOCK): LimitMEMLOCK=256M in the unit, \
ulimit -l 262144 in a shell, --ulimit memlock=268435456 in a container";

/// Where the limit of descriptors is raised.
pub const RAISE_NOFILE: &str = "raise the limit of descriptors (RLIMIT_NOFILE): LimitNOFILE=65536 in the unit, \
ulimit -n 65536 in a shell, --ulimit nofile=65536 in a container";

/// Where the limit of threads is raised.
const RAISE_THREADS: &str = "this user or container may start no more threads: TasksMax=2048 in the unit, ulimit -u in \
a shell, --pids-limit 2048 in a container";

/// What to do about an executor that did not start for another reason.
const EXECUTOR_NEEDS: &str =
    "it needs io_uring and lockable memory; `uproar doctor` says which of them is missing";

/// What glommio says about a limit of lockable memory under 512 KiB, which it looks at whatever the process may lock.
const MEMLOCK_LIMIT: &str = "MemLockLimit(";

/// What the kernel says when there may be no more threads (EAGAIN).
const AGAIN: &str = "(os error 11)";

/// Why an executor did not start or died, for whoever has never heard of executors.
#[must_use]
pub fn explain_executor(why: &str) -> String {
    let limits = why.split_once(MEMLOCK_LIMIT).and_then(|(_, rest)| rest.split_once(')'));
    match limits.and_then(|(limits, _)| limits.split_once('/')) {
        Some((limit, least)) => format!(
            "this process may lock {limit} bytes of memory, and {least} is the least; {RAISE_MEMLOCK}"
        ),
        None if why.contains(AGAIN) => format!("{RAISE_THREADS} ({why})"),
        None => format!("{why}; {EXECUTOR_NEEDS}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_executor_died_of_is_said_with_what_to_do() {
        for (why, said) in [
            (
                "Enqueue: MemLockLimit(65536/524288)",
                "may lock 65536 bytes of memory, and 524288 is the least; raise",
            ),
            (
                "IO error occurred: Resource temporarily unavailable (os error 11)",
                "TasksMax=2048 in the unit",
            ),
            ("it ended", "`uproar doctor` says which of them is missing"),
        ] {
            let told = explain_executor(why);
            assert!(told.contains(said), "{told}");
        }
    }
}
