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
        cgroup_memory(
            target,
            tree,
            "memory.max",
            "the kernel memory of sockets counts too; past the limit the node is killed",
        ),
        cgroup_memory(
            target,
            tree,
            "memory.high",
            "past it the kernel makes the node wait with every page it asks for, shards and all",
        ),
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
    // What a running node holds already is part of its target.
    let others = used.map(|used| used.saturating_sub(target.held.files));
    let free = max.zip(others).map(|(max, others)| max.saturating_sub(others));
    let needed = target.connections + descriptors(target);
    Check::new(
        "fs.file-max less what others hold",
        "every socket is an open file of the host, in a ring's table or not",
    )
    .at_least(
        free,
        needed,
        Verdict::Misfit,
        format!("sysctl -w fs.file-max={}", needed + others.unwrap_or(0)),
    )
}

fn memory(target: &Target, tree: &Tree) -> Check {
    let available = tree.read("proc/meminfo").and_then(|meminfo| kib(&meminfo, "MemAvailable:"));
    // As with files.
    let available = available.map(|bytes| bytes + target.held.memory_bytes);
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

/// The bytes of a row such as `MemAvailable: 12 kB`.
pub(super) fn kib(text: &str, row: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(row))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The tightest of a cgroup's limits and those above it, and where it stands; none is unlimited.
fn tightest(tree: &Tree, file: &str, number: fn(&str) -> u64) -> (u64, String) {
    let all = tree.cgroups(file).into_iter().map(|(at, text)| (number(&text), at));
    all.min_by_key(|&(limit, _)| limit).unwrap_or((u64::MAX, String::new()))
}

/// Names the cgroup that a limit stands in, if there is a limit.
fn at(row: Check, limit: u64, cgroup: &str) -> Check {
    if limit == u64::MAX { row } else { Check { now: format!("{} in {cgroup}", row.now), ..row } }
}

fn cgroup_memory(target: &Target, tree: &Tree, file: &'static str, why: &'static str) -> Check {
    let (bytes, cgroup) = tightest(tree, file, limit);
    let needed = memory_bytes(target);
    let key = if file == "memory.max" { "MemoryMax" } else { "MemoryHigh" };
    let fix = format!(
        "{key}={needed} in a drop-in of the unit (or slice) that has it, --memory={needed} in a container"
    );
    let row = Check::new(format!("cgroup {file}, bytes"), why);
    // Without a limit anywhere above there is often no such file at all.
    at(row.at_least(Some(bytes), needed, Verdict::Misfit, fix), bytes, &cgroup)
}

fn cgroup_cpu(target: &Target, tree: &Tree) -> Check {
    let row = Check::new(
        "cgroup cpu.max, CPUs",
        "a quota stops whole shards for tens of milliseconds once it is used up",
    );
    let cpus = |text: &str| {
        let quota = text.split_once(' ').and_then(|(quota, period)| {
            let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
            Some(quota / period.max(1))
        });
        quota.unwrap_or(u64::MAX)
    };
    let (quota, cgroup) = tightest(tree, "cpu.max", cpus);
    let row = row.at_least(
        Some(quota),
        target.shards(),
        Verdict::Advice,
        "give whole CPUs (CPUAffinity=, --cpuset-cpus) instead of a quota",
    );
    at(row, quota, &cgroup)
}

fn cgroup_tasks(target: &Target, tree: &Tree) -> Check {
    /// Threads of a shard: the executor, its helper, and workers of its rings.
    const TASKS_PER_SHARD: u64 = 6;
    let (now, cgroup) = tightest(tree, "pids.max", limit);
    let row = Check::new("cgroup pids.max", "threads of shards and the kernel's workers for rings")
        .at_least(
            Some(now),
            32 + target.shards() * TASKS_PER_SHARD,
            Verdict::Misfit,
            "TasksMax=2048 in the unit, --pids-limit 2048 in a container",
        );
    at(row, now, &cgroup)
}

fn swap(tree: &Tree) -> Check {
    let row = Check::new("swap", "a page that comes back from a disk stalls a whole shard")
        .needed("off, or closed to the node");
    let Some(swaps) = tree.read("proc/swaps") else { return row.unknown() };
    let is_on = swaps.lines().count() > 1;
    let is_closed = tightest(tree, "memory.swap.max", limit).0 == 0;
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
