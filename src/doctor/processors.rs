//! CPUs: speed, clock, huge pages, and whether packets arrive where shards run.

use super::check::{Check, Verdict};
use super::target::Target;
use super::tree::{Tree, cpu_list};

pub(super) fn checks(target: &Target, tree: &Tree) -> Vec<Check> {
    let mut checks = vec![governor(target, tree), clock(tree), huge_pages(tree)];
    checks.extend(interfaces(target, tree));
    checks
}

fn governor(target: &Target, tree: &Tree) -> Check {
    let row = Check::new(
        "CPU frequency governor",
        "a core that slows down between passes makes the load it measures look larger",
    )
    .needed("performance, or none");
    let mut seen: Vec<String> = target
        .cpus
        .iter()
        .filter_map(|cpu| {
            tree.read(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
        })
        .collect();
    seen.sort();
    seen.dedup();
    if seen.is_empty() {
        return row.now("none (a virtual machine, or fixed)");
    }
    let is_slow = seen.iter().any(|governor| governor != "performance");
    let fix = "tuning/placement, or cpupower frequency-set -g performance";
    row.now(seen.join(", ")).wrong_if(is_slow, Verdict::Advice, fix)
}

fn clock(tree: &Tree) -> Check {
    const SLOW: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "xen"];
    let dir = "sys/devices/system/clocksource/clocksource0";
    let row = Check::new(
        "clock source",
        "shards read the clock on every turn; a clock outside the vDSO is a system call each time",
    )
    .needed("tsc, kvm-clock or another that needs no system call");
    let Some(now) = tree.read(format!("{dir}/current_clocksource")) else { return row.unknown() };
    let is_slow = SLOW.contains(&now.as_str());
    let available = tree.read(format!("{dir}/available_clocksource")).unwrap_or_default();
    let fix = format!(
        "echo tsc > /{dir}/current_clocksource if it is available ({available}), or boot with \
         clocksource=tsc"
    );
    row.now(&now).wrong_if(is_slow, Verdict::Advice, fix)
}

fn huge_pages(tree: &Tree) -> Check {
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    let row = Check::new(
        "transparent huge pages",
        "always makes 2 MiB of each touched 4 KiB, and compacts memory while viewers wait",
    )
    .needed("madvise or never");
    let Some(text) = tree.read(path) else { return row.now("not in this kernel") };
    let now = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(now, _)| now);
    let Some(now) = now else { return row.unknown() };
    let fix = format!("echo madvise > /{path} (tuning/placement does it)");
    row.now(now).wrong_if(now == "always", Verdict::Advice, fix)
}

/// One row for each network device that viewers may come through.
fn interfaces(target: &Target, tree: &Tree) -> Vec<Check> {
    const CLASS: &str = "sys/class/net";
    // Loopback, bridges and tunnels have no device of their own, and no interrupts.
    let devices =
        tree.names(CLASS).into_iter().filter(|name| tree.has(format!("{CLASS}/{name}/device")));
    if target.listen.ip().is_loopback() {
        let row = Check::new("packet placement", "loopback traffic runs where it was sent");
        let row = row.needed("nothing").now("listen is loopback");
        return vec![row.listening(target.listen_unseen.as_ref())];
    }
    devices
        .map(|name| interface(target, tree, CLASS, &name))
        .map(|row| row.listening(target.listen_unseen.as_ref()))
        .collect()
}

fn interface(target: &Target, tree: &Tree, class: &str, name: &str) -> Check {
    let dir = format!("{class}/{name}/queues");
    let queues: Vec<String> =
        tree.names(&dir).into_iter().filter(|queue| queue.starts_with("rx-")).collect();
    let steered = queues
        .iter()
        .filter(|queue| {
            let mask = tree.read(format!("{dir}/{queue}/rps_cpus")).unwrap_or_default();
            covers(&mask, &target.cpus)
        })
        .count();
    let shards = target.shards() as usize;
    let list: Vec<String> = target.cpus.iter().map(usize::to_string).collect();
    let fix = format!("tuning/placement --interface {name} --cpus {}", list.join(","));
    let interrupts = interrupts(tree, class, name);
    let placed = interrupts
        .iter()
        .filter(|irq| {
            let cpus = tree.read(format!("proc/irq/{irq}/smp_affinity_list"));
            cpus.is_some_and(|cpus| is_within(&cpus, &target.cpus))
        })
        .count();
    // Where the host does not show which interrupts are the card's, queues alone must do.
    let is_spread = queues.len() >= shards && placed == interrupts.len();
    Check::new(
        format!("packet placement of {name}"),
        "what other CPUs receive for the shards costs a hop between caches, and one CPU that receives \
         for all becomes the limit",
    )
    .needed(format!("{shards} receive queues that interrupt the shards' CPUs, or RPS over these"))
    .now(format!(
        "{} queues, {placed} of {} interrupts on them, {steered} with RPS over them",
        queues.len(),
        interrupts.len()
    ))
    .wrong_if(!is_spread && steered < queues.len(), Verdict::Advice, fix)
}

/// The interrupts of an interface's receive queues; drivers name them after it, or as input.
fn interrupts(tree: &Tree, class: &str, name: &str) -> Vec<String> {
    // A virtio device is one level below the PCI device that has its interrupts.
    let dirs = ["msi_irqs", "../msi_irqs"].map(|dir| format!("{class}/{name}/device/{dir}"));
    let own: Vec<String> = dirs.iter().flat_map(|dir| tree.names(dir)).collect();
    let all = tree.read("proc/interrupts").unwrap_or_default();
    let is_received = |label: &str| {
        label.contains(&format!("{name}-"))
            || ["-input", "TxRx", "rx-"].iter().any(|part| label.contains(part))
    };
    all.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(irq, rest)| (irq.trim(), rest))
        .filter(|(irq, rest)| own.iter().any(|own| own == irq) && is_received(rest))
        .map(|(irq, _)| irq.to_owned())
        .collect()
}

/// Whether every CPU of a list such as `0-3,7` is among these.
fn is_within(list: &str, cpus: &[usize]) -> bool {
    cpu_list(list).is_some_and(|list| list.iter().all(|cpu| cpus.contains(cpu)))
}

/// Whether a mask such as `3,00000000` has a bit for each CPU.
fn covers(mask: &str, cpus: &[usize]) -> bool {
    let words: Vec<u32> =
        mask.rsplit(',').map(|word| u32::from_str_radix(word, 16).unwrap_or(0)).collect();
    cpus.iter().all(|cpu| words.get(cpu / 32).is_some_and(|word| word >> (cpu % 32) & 1 == 1))
}
