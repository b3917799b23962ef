//! Limits of the process, its cgroup and the host: descriptors, locked memory, memory, CPU, swap.

use super::check::{Check, Verdict};
use super::needs::{EXECUTOR_MEMLOCK_BYTES, descriptors, memlock_bytes, memory_bytes};
use super::target::Target;
use super::tree::Tree;

pub(super) fn checks(target: &Target, tree: &Tree) -> Vec<Check> {
    vec![
        layout(target),
        nofile(target, tree),
        memlock(target, tree),
        files(target, tree),
        memory(target, tree),
        cgroup_memory(target, tree),
        cgroup_cpu(target, tree),
        cgroup_tasks(target, tree),
        swap(tree),
    ]
}

/// The node's own judgement at start, so that the two cannot disagree.
fn layout(target: &Target) -> Check {
    let row = Check::new("shards and rings", "the node lays itself out at start, or refuses to")
        .needed(format!("room for {} connections", target.connections));
    match &target.layout {
        Err(problem) => row.now("refused").wrong_if(true, Verdict::Misfit, problem),
        Ok(layout) => {
            let (shards, rings) = (layout.cpus.len(), layout.rings_per_shard);
            let now = format!("{shards} x {rings} rings of {}", layout.slots_per_ring);
            let has_warnings = !layout.warnings.is_empty();
            row.now(now).wrong_if(has_warnings, Verdict::Advice, layout.warnings.join("; "))
        }
    }
}

fn nofile(target: &Target, tree: &Tree) -> Check {
    Check::new(
        "RLIMIT_NOFILE (hard)",
        "caps each ring's table of sockets; a lower limit costs more rings, each with its own \
         memory and submissions",
    )
    .at_least(
        tree.descriptors_max(),
        descriptors(target),
        Verdict::Advice,
        "LimitNOFILE=65536 in the unit, ulimit -Hn 65536 in a shell, --ulimit nofile=65536 in a \
         container",
    )
}

fn memlock(target: &Target, tree: &Tree) -> Check {
    let needed = memlock_bytes(target.shards(), target.rings_per_shard);
    let now = tree.hard_limit("Max locked memory");
    // Who may lock memory is not limited by the kernel; glommio looks at the limit all the same.
    let is_exempt = tree.status("CapEff").is_some_and(|caps| may_lock(&caps))
        && now.is_some_and(|bytes| bytes >= EXECUTOR_MEMLOCK_BYTES);
    let now = if is_exempt { Some(u64::MAX) } else { now };
    Check::new(
        "RLIMIT_MEMLOCK (hard), bytes",
        "rings are locked memory of the user; below it a shard cannot start or a restart fails",
    )
    .at_least(
        now,
        needed,
        Verdict::Misfit,
        format!("LimitMEMLOCK={needed} in the unit, --ulimit memlock={needed} in a container"),
    )
}

/// Whether a hexadecimal capability set holds CAP_IPC_LOCK.
fn may_lock(capabilities: &str) -> bool {
    const IPC_LOCK: u32 = 14;
    u64::from_str_radix(capabilities, 16).is_ok_and(|set| set >> IPC_LOCK & 1 == 1)
}

fn files(target: &Target, tree: &Tree) -> Check {
    let max = tree.sysctl("fs.file-max").and_then(|numbers| numbers.first().copied());
    let used = tree.sysctl("fs.file-nr").and_then(|numbers| numbers.first().copied());
    let free = max.zip(used).map(|(max, used)| max.saturating_sub(used));
    let needed = target.connections + descriptors(target);
    Check::new(
        "fs.file-max less fs.file-nr",
        "every socket is an open file of the host, in a ring's table or not",
    )
    .at_least(
        free,
        needed,
        Verdict::Misfit,
        format!("sysctl -w fs.file-max={}", needed + used.unwrap_or(0)),
    )
}

fn memory(target: &Target, tree: &Tree) -> Check {
    let available = tree.read("proc/meminfo").and_then(|meminfo| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    Check::new(
        "available memory, bytes",
        "connections at 8 KB each with the kernel's part, slow viewers, logs and the process",
    )
    .at_least(
        available,
        memory_bytes(target),
        Verdict::Misfit,
        "a host with more memory, or a smaller connections_max or log_bytes_max",
    )
}

fn cgroup_memory(target: &Target, tree: &Tree) -> Check {
    let limit = tree.cgroup("memory.max").map(|text| limit(&text));
    let needed = memory_bytes(target);
    let row = Check::new(
        "cgroup memory.max, bytes",
        "the kernel memory of sockets counts too; past the limit the node is killed",
    );
    // Without a limit anywhere above there is often no such file at all.
    row.at_least(
        limit.or(Some(u64::MAX)),
        needed,
        Verdict::Misfit,
        format!("MemoryMax={needed} in a drop-in of the unit, --memory={needed} in a container"),
    )
}

fn cgroup_cpu(target: &Target, tree: &Tree) -> Check {
    let row = Check::new(
        "cgroup cpu.max, CPUs",
        "a quota stops whole shards for tens of milliseconds once it is used up",
    );
    let quota = tree.cgroup("cpu.max").and_then(|text| {
        let (quota, period) = text.split_once(' ')?;
        let period: u64 = period.parse().ok()?;
        Some(if quota == "max" { u64::MAX } else { quota.parse::<u64>().ok()? / period.max(1) })
    });
    row.at_least(
        quota.or(Some(u64::MAX)),
        target.shards(),
        Verdict::Advice,
        "give whole CPUs (CPUAffinity=, --cpuset-cpus) instead of a quota",
    )
}

fn cgroup_tasks(target: &Target, tree: &Tree) -> Check {
    /// Threads of a shard: the executor, its helper, and workers of its rings.
    const TASKS_PER_SHARD: u64 = 6;
    let now = tree.cgroup("pids.max").map_or(u64::MAX, |text| limit(&text));
    Check::new("cgroup pids.max", "threads of shards and the kernel's workers for rings").at_least(
        Some(now),
        32 + target.shards() * TASKS_PER_SHARD,
        Verdict::Misfit,
        "TasksMax=2048 in the unit, --pids-limit 2048 in a container",
    )
}

fn swap(tree: &Tree) -> Check {
    let row = Check::new("swap", "a page that comes back from a disk stalls a whole shard")
        .needed("off, or closed to the node");
    let Some(swaps) = tree.read("proc/swaps") else { return row.unknown() };
    let is_on = swaps.lines().count() > 1;
    let is_closed = tree.cgroup("memory.swap.max").is_some_and(|text| text == "0");
    let now = match (is_on, is_closed) {
        (false, _) => "off",
        (true, true) => "on, closed to this cgroup",
        (true, false) => "on",
    };
    let fix = "MemorySwapMax=0 (the unit has it), or swapoff -a";
    row.now(now).wrong_if(is_on && !is_closed, Verdict::Advice, fix)
}

fn limit(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}
