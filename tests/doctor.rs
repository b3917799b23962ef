//! The doctor on hosts of every kind: made-up trees of /proc and /sys, and the real one.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use uproar::config::Sources;
use uproar::control::Host;
use uproar::doctor::{
    Check, RingFeature, Rings, Target, Tree, Verdict, descriptors, examine, fits,
};

/// A host where everything fits the default target.
struct FakeHost {
    root: PathBuf,
}

impl FakeHost {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("uproar-doctor-{}-{name}", std::process::id()));
        let host = Self { root };
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.12.0-1-amd64"),
            ("proc/sys/kernel/io_uring_disabled", "0"),
            ("proc/sys/kernel/io_uring_group", "-1"),
            ("proc/sys/fs/file-max", "2000000"),
            ("proc/sys/fs/file-nr", "1000\t0\t2000000"),
            ("proc/sys/net/core/somaxconn", "4096"),
            ("proc/sys/net/core/netdev_max_backlog", "16384"),
            ("proc/sys/net/core/wmem_max", "212992"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096"),
            ("proc/sys/net/ipv4/tcp_syncookies", "1"),
            ("proc/sys/net/ipv4/tcp_mem", "78375\t104500\t156750"),
            ("proc/sys/net/ipv4/tcp_allowed_congestion_control", "reno cubic"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
            ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4000000 kB"),
            ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max open files            1024                 65536                files\n\
                 Max locked memory         8388608              268435456            bytes",
            ),
            ("proc/self/status", "Name:\tuproar\nCapEff:\t0000000000000000\nSeccomp:\t0"),
            ("proc/self/cgroup", "0::/system.slice/uproar.service"),
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nuproar:x:992:991::/nonexistent:/usr/sbin/nologin",
            ),
            ("etc/group", "root:x:0:\nuproar:x:991:\nrings:x:992:other,uproar\nwheel:x:10:other"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
            ("sys/class/net/eth0/device/vendor", "0x8086"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
            ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0"),
        ] {
            host.set(path, text);
        }
        host
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path)).unwrap();
    }

    fn examine(&self) -> Vec<Check> {
        self.examine_for(&[], &working_rings())
    }

    fn examine_for(&self, flags: &[(&'static str, &str)], rings: &Rings) -> Vec<Check> {
        examine(&target(flags), &Tree::under(&self.root), rings)
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn target(flags: &[(&'static str, &str)]) -> Target {
    let mut all = vec![("listen", "0.0.0.0:8080".to_owned())];
    all.extend(flags.iter().map(|&(name, text)| (name, text.to_owned())));
    let loaded = Sources { flags: all, ..Sources::default() }.load().unwrap();
    let host = Host { cpus: vec![0, 1], name: "n1".into(), descriptors_max: 65_536 };
    Target::new(&loaded, &host)
}

fn working_rings() -> Rings {
    Rings {
        features: Ok(vec![RingFeature { name: "SEND".into(), is_there: true }]),
        whole: Ok(32_768),
        tried_as: None,
    }
}

/// The rows that are not as they should be.
fn wrong(checks: &[Check]) -> Vec<(&str, Verdict)> {
    let wrong = checks.iter().filter(|check| check.verdict != Verdict::Fits);
    wrong.map(|check| (check.what.as_str(), check.verdict)).collect()
}

#[test]
fn a_host_that_fits_has_nothing_to_fix() {
    let checks = FakeHost::new("fits").examine();
    assert_eq!(wrong(&checks), []);
    assert!(fits(&checks));
    assert!(checks.iter().all(|check| check.fix.is_none() && !check.now.is_empty()), "{checks:#?}");
    assert!(checks.iter().all(|check| !check.needed.is_empty() && check.why.len() > 20));
}

#[test]
fn each_thing_that_is_wrong_is_found_alone_and_has_a_fix() {
    use Verdict::{Advice, Misfit};
    let thp = "sys/kernel/mm/transparent_hugepage/enabled";
    let cgroup = |file: &str| format!("sys/fs/cgroup/system.slice/{file}");
    let (memory, cpu, pids) = (cgroup("memory.max"), cgroup("cpu.max"), cgroup("pids.max"));
    for (path, text, what, verdict) in [
        ("proc/sys/kernel/osrelease", "6.1.0-30-amd64", "kernel", Misfit),
        ("proc/sys/kernel/io_uring_disabled", "2", "kernel.io_uring_disabled", Misfit),
        ("proc/sys/kernel/io_uring_disabled", "1", "kernel.io_uring_disabled", Misfit),
        ("proc/sys/fs/file-nr", "1990000 0 2000000", "fs.file-max less what others hold", Misfit),
        ("proc/sys/net/core/somaxconn", "128", "net.core.somaxconn", Advice),
        ("proc/sys/net/core/netdev_max_backlog", "1000", "net.core.netdev_max_backlog", Advice),
        ("proc/sys/net/core/wmem_max", "8192", "net.core.wmem_max", Advice),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512", "net.ipv4.tcp_max_syn_backlog", Advice),
        ("proc/sys/net/ipv4/tcp_syncookies", "0", "net.ipv4.tcp_syncookies", Advice),
        ("proc/sys/net/ipv4/tcp_mem", "78375 104499 156750", "net.ipv4.tcp_mem", Misfit),
        (
            "proc/sys/net/ipv4/tcp_allowed_congestion_control",
            "reno bbr",
            "net.ipv4.tcp_allowed_congestion_control",
            Advice,
        ),
        (
            "proc/sys/net/ipv4/ip_local_port_range",
            "1024 65535",
            "net.ipv4.ip_local_port_range",
            Advice,
        ),
        (
            "proc/sys/net/netfilter/nf_conntrack_max",
            "65536",
            "net.netfilter.nf_conntrack_max",
            Misfit,
        ),
        ("proc/meminfo", "MemAvailable: 500000 kB", "available memory, bytes", Misfit),
        ("proc/swaps", "Filename\n/swapfile file 1 0 -2", "swap", Advice),
        (&memory, "536870912", "cgroup memory.max, bytes", Misfit),
        (&cpu, "150000 100000", "cgroup cpu.max, CPUs", Advice),
        (&pids, "16", "cgroup pids.max", Misfit),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
            "clock source",
            Advice,
        ),
        (
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "powersave",
            "CPU frequency governor",
            Advice,
        ),
        (thp, "[always] madvise never", "transparent huge pages", Advice),
    ] {
        let host = FakeHost::new("alone");
        host.set(path, text);
        let checks = host.examine();
        assert_eq!(wrong(&checks), [(what, verdict)], "{path} = {text}");
        let row = checks.iter().find(|check| check.what == what).unwrap();
        assert!(row.fix.as_ref().is_some_and(|fix| fix.len() > 10), "{row:?}");
        assert_eq!(fits(&checks), verdict != Misfit);
    }
}

#[test]
fn what_looks_wrong_but_is_not_is_left_alone() {
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.8.0-31-generic"),
        ("proc/sys/kernel/io_uring_group", "992"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "110000"),
        ("proc/self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t2"),
        ("sys/fs/cgroup/system.slice/cpu.max", "max 100000"),
        ("sys/fs/cgroup/system.slice/uproar.service/memory.max", "max"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock"),
    ] {
        let host = FakeHost::new("innocent");
        host.set(path, text);
        if path.ends_with("group") {
            host.set("proc/sys/kernel/io_uring_disabled", "1");
        }
        assert_eq!(wrong(&host.examine()), [], "{path} = {text}");
    }
    let host = FakeHost::new("reserved");
    host.set("proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
    host.set("proc/sys/net/ipv4/ip_local_reserved_ports", "22,8000-8081");
    assert_eq!(wrong(&host.examine()), []);
    let host = FakeHost::new("swap");
    host.set("proc/swaps", "Filename\n/swapfile file 1 0 -2");
    host.set("sys/fs/cgroup/system.slice/uproar.service/memory.swap.max", "0");
    assert_eq!(wrong(&host.examine()), []);
}

#[test]
fn a_host_that_shows_nothing_is_not_guessed_about() {
    let host = FakeHost::new("silent");
    for path in ["proc/sys/net/ipv4/tcp_mem", "proc/sys/kernel/osrelease", "proc/self/limits"] {
        host.remove(path);
    }
    let checks = host.examine();
    let unknown: Vec<_> = wrong(&checks).into_iter().map(|(what, _)| what).collect();
    let limits = ["RLIMIT_NOFILE (hard)", "RLIMIT_MEMLOCK (hard), bytes"];
    assert_eq!(unknown, ["kernel", limits[0], limits[1], "net.ipv4.tcp_mem"]);
    assert!(fits(&checks));
}

#[test]
fn the_limits_of_the_process_count() {
    let host = FakeHost::new("limits");
    let limits = |files: &str, locked: &str| {
        host.set(
            "proc/self/limits",
            &format!(
                "Max open files            1024  {files}  files\n\
                 Max locked memory         65536  {locked}  bytes"
            ),
        );
        let checks = host.examine();
        wrong(&checks)
            .into_iter()
            .map(|(what, verdict)| (what.to_owned(), verdict))
            .collect::<Vec<_>>()
    };
    assert_eq!(limits("unlimited", "unlimited"), []);
    assert_eq!(limits("1024", "268435456"), [("RLIMIT_NOFILE (hard)".into(), Verdict::Advice)]);
    let locked = ("RLIMIT_MEMLOCK (hard), bytes".into(), Verdict::Misfit);
    assert_eq!(limits("65536", "65536"), [locked]);
}

#[test]
fn the_layout_and_the_limit_name_the_same_number() {
    let flags = vec![("connections_max", "100".to_owned())];
    let loaded = Sources { flags, ..Sources::default() }.load().unwrap();
    let target = |descriptors_max| {
        let host = Host { cpus: vec![0, 1], name: "n1".into(), descriptors_max };
        Target::new(&loaded, &host)
    };
    for limit in 70..=400 {
        let target = target(limit);
        let needed = descriptors(&target);
        match &target.layout {
            Err(problem) => assert!(
                limit < needed && problem.contains(&format!("needs {needed} besides")),
                "with {limit} it needs {needed}: {problem}"
            ),
            Ok(_) => assert!(limit >= needed, "with {limit} it needs {needed}"),
        }
    }
}

#[test]
fn rings_that_cannot_be_made_do_not_fit() {
    let host = FakeHost::new("rings");
    host.set("proc/self/status", "Seccomp:\t2\nCapEff:\t0");
    let blocked = || Err("io_uring is disabled or blocked".to_owned());
    let rings =
        Rings { features: blocked(), whole: Err("io_uring is blocked".into()), tried_as: None };
    let checks = host.examine_for(&[], &rings);
    let rows: Vec<_> = wrong(&checks).into_iter().map(|(what, _)| what).collect();
    assert_eq!(rows, ["seccomp", "io_uring setup", "io_uring direct descriptors"]);
    assert!(!fits(&checks));

    let lacking = vec![
        RingFeature { name: "SEND".into(), is_there: true },
        RingFeature { name: "FIXED_FD_INSTALL".into(), is_there: false },
    ];
    let rings = Rings { features: Ok(lacking), whole: Ok(1), tried_as: None };
    let checks = host.examine_for(&[], &rings);
    assert_eq!(wrong(&checks), [("io_uring FIXED_FD_INSTALL", Verdict::Misfit)]);
}

#[test]
fn packets_must_reach_the_cpus_of_the_shards() {
    let host = FakeHost::new("packets");
    host.remove("sys/class/net/eth0/queues/rx-1/rps_cpus");
    fs::remove_dir(host.root.join("sys/class/net/eth0/queues/rx-1")).unwrap();
    let row = [("packet placement of eth0", Verdict::Advice)];
    assert_eq!(wrong(&host.examine()), row);
    host.set("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000002");
    assert_eq!(wrong(&host.examine()), row, "CPU 0 is left out");
    host.set("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000003");
    assert_eq!(wrong(&host.examine()), []);
    // Enough queues are not enough when other CPUs are interrupted for them.
    host.set("sys/class/net/eth0/queues/rx-0/rps_cpus", "0");
    host.set("sys/class/net/eth0/queues/rx-1/rps_cpus", "0");
    host.set(
        "proc/interrupts",
        "30: 0 PCI-MSI eth0\n 31: 1 PCI-MSI eth0-TxRx-0\n 32: 2 PCI-MSI eth0-TxRx-1\n 33: 1 PCI-MSI sda",
    );
    for (irq, cpus) in [("30", "0-7"), ("31", "0"), ("32", "7")] {
        host.set(&format!("sys/class/net/eth0/device/msi_irqs/{irq}"), "msix");
        host.set(&format!("proc/irq/{irq}/smp_affinity_list"), cpus);
    }
    assert_eq!(wrong(&host.examine()), row, "queue 1 interrupts CPU 7");
    host.set("proc/irq/32/smp_affinity_list", "0-1");
    assert_eq!(wrong(&host.examine()), []);
    fs::remove_dir_all(host.root.join("sys/class/net/eth0/queues/rx-1")).unwrap();
    let behind_a_proxy = [("listen", "127.0.0.1:8080"), ("connections_max", "20000")];
    assert_eq!(wrong(&host.examine_for(&behind_a_proxy, &working_rings())), []);
    let too_many = host.examine_for(&[("listen", "127.0.0.1:8080")], &working_rings());
    assert_eq!(wrong(&too_many), [("ephemeral ports", Verdict::Advice)]);
}

#[test]
fn ports_that_others_reserved_stay_reserved() {
    let host = FakeHost::new("ports");
    host.set("proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
    for (reserved, wanted) in [("", "8080,8081"), ("22,8000-8080", "22,8000-8080,8081")] {
        host.set("proc/sys/net/ipv4/ip_local_reserved_ports", reserved);
        let checks = host.examine();
        let row = checks.iter().find(|check| check.what.ends_with("port_range")).unwrap();
        let fix = row.fix.as_ref().unwrap();
        let setting = format!("net.ipv4.ip_local_reserved_ports={wanted};");
        assert!(fix.starts_with(&format!("sysctl -w {setting}")), "{fix}");
        assert!(fix.ends_with("in a file of /etc/sysctl.d keeps it"), "{fix}");
    }
}

/// The row of a table of sockets for one that listens.
fn listening_row(addr: [u8; 4], port: u16, inode: u32) -> String {
    let addr = u32::from_ne_bytes(addr);
    format!(
        "   0: {addr:08X}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 \
         {inode} 1 0000000070907e93 100 0 0 10 0\n"
    )
}

#[test]
fn the_sockets_of_the_process_say_where_it_listens() {
    let host = FakeHost::new("sockets");
    let rows = [
        listening_row([127, 0, 0, 1], 22, 70),
        listening_row([127, 0, 0, 1], 8081, 71),
        listening_row([0, 0, 0, 0], 9090, 72),
        listening_row([0, 0, 0, 0], 8080, 73),
    ];
    host.set("proc/7/net/tcp", &format!("  sl  local_address rem_address\n{}", rows.concat()));
    let [configured, admin] =
        ["127.0.0.1:8080", "127.0.0.1:8081"].map(|addr| addr.parse().unwrap());
    let tree = Tree::under(&host.root).with_process(7);
    let listening = || tree.listening(configured, Some(admin));
    assert_eq!(listening(), Err("/proc/7/fd is not readable".into()));
    let fd = host.root.join("proc/7/fd");
    fs::create_dir_all(&fd).unwrap();
    let open =
        |name: &str, inode: u32| symlink(format!("socket:[{inode}]"), fd.join(name)).unwrap();
    open("3", 71);
    assert!(listening().unwrap_err().contains("no listening socket"), "only the admin port");
    open("4", 72);
    assert_eq!(listening(), Ok(SocketAddr::from(([0, 0, 0, 0], 9090))));
    open("5", 73);
    assert_eq!(listening(), Ok(SocketAddr::from(([0, 0, 0, 0], 8080))));
}

#[test]
fn rows_go_by_the_address_of_the_sockets_or_say_that_they_do_not() {
    let host = FakeHost::new("listening");
    let target = || target(&[("listen", "127.0.0.1:8080")]);
    let rows = |target: &Target| -> Vec<Check> {
        let checks = examine(target, &Tree::under(&host.root), &working_rings());
        let is_about_it =
            |what: &str| what.starts_with("packet placement") || what == "ephemeral ports";
        checks.into_iter().filter(|check| is_about_it(&check.what)).collect()
    };
    let seen = rows(&target().listening_at(Ok(SocketAddr::from(([0, 0, 0, 0], 8080)))));
    assert_eq!(seen[0].now, "listen is not loopback");
    assert_eq!(seen[1].what, "packet placement of eth0");
    let unseen = rows(&target().listening_at(Err("/proc/7/fd is not readable".into())));
    assert_eq!(unseen[1].what, "packet placement");
    for row in unseen {
        let note = "(/proc/7/fd is not readable; listen as configured)";
        assert!(row.now.ends_with(note), "{row:?}");
    }
}

#[test]
fn a_larger_target_asks_for_more() {
    let host = FakeHost::new("larger");
    let checks = host.examine_for(&[("connections_max", "500000")], &working_rings());
    let rows: Vec<_> = wrong(&checks).into_iter().map(|(what, _)| what).collect();
    assert_eq!(
        rows,
        ["available memory, bytes", "net.ipv4.tcp_mem", "net.core.netdev_max_backlog"]
    );
    let impossible = host.examine_for(&[("connections_max", "9999999")], &working_rings());
    assert!(wrong(&impossible).contains(&("shards and rings", Verdict::Misfit)));
}

fn doctor(args: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_uproar")).arg("doctor").args(args).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_exit_code_and_the_json_say_the_same() {
    let (code, text) = doctor(&["--json", "--target-connections", "100"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let has_misfit = checks.iter().any(|check| check["verdict"] == "misfit");
    assert_eq!(report["fits"], !has_misfit);
    assert_eq!(code, Some(i32::from(has_misfit)));
    assert_eq!(report["target"]["connections"], 100);
    // More than any host has memory for.
    let (code, text) = doctor(&["--target-connections", "10000000"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("the target does not fit") && text.contains("fix: "), "{text}");
    assert!(!Path::new("/var/lib/uproar-tuning").exists(), "the doctor changes nothing");
}

#[test]
fn rings_work_where_the_tests_run() {
    let (_, text) = doctor(&["--json", "--target-connections", "100"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let rings: Vec<&Value> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["what"].as_str().unwrap().starts_with("io_uring "))
        .collect();
    assert!(rings.len() >= 12, "{rings:#?}");
    assert!(rings.iter().all(|check| check["verdict"] == "fits"), "{rings:#?}");
}

#[test]
fn wrong_flags_end_with_78() {
    let output = Command::new(env!("CARGO_BIN_EXE_uproar"))
        .args(["doctor", "--target-connections", "many"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
}

fn report(args: &[&str]) -> Value {
    let (_, text) = doctor(&[args, &["--json", "--target-connections", "100"]].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_running_node_counts_with_its_own_cpus() {
    let cpu = Host::observe().cpus.pop().unwrap();
    let mut child = Command::new("taskset")
        .args(["-c", &cpu.to_string(), "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it answers it has the affinity.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"there\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let target = report(&["--pid", &child.id().to_string()])["target"].take();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(target["cpus"], serde_json::json!([cpu]));
    assert!(target["listen_unseen"].as_str().unwrap().contains("no listening socket"));
}

#[test]
fn a_running_node_counts_with_its_own_sockets() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let configured = format!("127.0.0.1:{}", addr.port());
    let pid = std::process::id().to_string();
    let target = report(&["--pid", &pid, "--listen", &configured])["target"].take();
    assert_eq!(target["listen"], addr.to_string());
    assert_eq!(target["listen_unseen"], Value::Null);
}

#[test]
fn what_cannot_be_meant_is_no_verdict_about_the_host() {
    let leave_out = "leave --pid out";
    for (args, code, sentence) in [
        (["--pid", "0"], 2, leave_out),
        // Over the largest number a process can have.
        (["--pid", "4194305"], 2, leave_out),
        (["--target-connections", "0"], 78, "--target-connections: connections_max is 0"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_uproar")).arg("doctor").args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
        assert!(!stderr.contains("--connections-max"), "{stderr}");
    }
}

/// A group that is none of the service's leaves io_uring closed to it.
#[test]
fn io_uring_of_a_group_is_open_to_its_members_only() {
    let host = FakeHost::new("group");
    host.set("proc/sys/kernel/io_uring_disabled", "1");
    for (group, is_good) in
        [("991", true), ("992", true), ("10", false), ("0", false), ("-1", false)]
    {
        host.set("proc/sys/kernel/io_uring_group", group);
        assert_eq!(wrong(&host.examine()).is_empty(), is_good, "{group}");
    }
    // Of a running node its own groups count.
    host.set("proc/77/status", "Gid:\t5\t5\t5\t5\nGroups:\t10 11");
    for (group, is_good) in [("10", true), ("5", true), ("991", false)] {
        host.set("proc/sys/kernel/io_uring_group", group);
        let tree = Tree::under(&host.root).with_process(77);
        let checks = examine(&target(&[]), &tree, &working_rings());
        let row = checks.iter().find(|check| check.what == "kernel.io_uring_disabled").unwrap();
        assert_eq!(row.verdict == Verdict::Fits, is_good, "{row:#?}");
        assert!(row.now.contains("process 77 is"), "{}", row.now);
    }
    // Without the package, who asks is who would run it.
    host.remove("etc/passwd");
    host.set("proc/self/status", "CapEff:\t0\nSeccomp:\t0\nGid:\t7\t7\t7\t7\nGroups:\t");
    host.set("proc/sys/kernel/io_uring_group", "7");
    assert_eq!(wrong(&host.examine()), []);
}

#[test]
fn the_tightest_memory_limit_of_all_cgroups_above_counts() {
    for (file, at) in [
        ("memory.high", "system.slice/uproar.service"),
        ("memory.high", "system.slice"),
        ("memory.max", "system.slice"),
        ("memory.high", ""),
    ] {
        let host = FakeHost::new("cgroups");
        host.set("sys/fs/cgroup/system.slice/uproar.service/memory.max", "8000000000");
        host.set("sys/fs/cgroup/system.slice/uproar.service/memory.high", "max");
        host.set(&format!("sys/fs/cgroup/{at}/{file}"), "100000000");
        let checks = host.examine();
        assert_eq!(wrong(&checks), [(&*format!("cgroup {file}, bytes"), Verdict::Misfit)], "{at}");
        let row = checks.iter().find(|check| check.verdict == Verdict::Misfit).unwrap();
        assert_eq!(row.now, format!("100000000 in /{at}"));
    }
}

/// At its target a node holds most of what the host had; that is no reason to fear for the target.
#[test]
fn a_loaded_node_is_not_counted_against_itself() {
    let host = FakeHost::new("loaded");
    let row = |state: &str, i: u32| {
        format!("{i}: 0100007F:1F90 0100007F:{:04X} {state} 0:0 0:0 0 0 0 {i} 1", 1_024 + i)
    };
    let mut table = vec!["  sl  local_address rem_address   st tx_queue".to_owned()];
    table.extend((0..55_000).map(|i| row("01", i)));
    // Others' connections, to the same host, are not the node's.
    table.extend((0..1_000).map(|i| row("01", i).replace(":1F90", ":0050")));
    host.set("proc/77/net/tcp", &table.join("\n"));
    host.set("proc/77/status", "VmRSS:\t  90000 kB\nSeccomp:\t0\nGid:\t1\t1\t1\t1");
    host.set("proc/77/limits", &fs::read_to_string(host.root.join("proc/self/limits")).unwrap());
    host.set("proc/77/cgroup", "0::/");
    // What is left is under what the target needs in all, and enough for what the node has not got yet.
    host.set("proc/sys/fs/file-nr", "1945000 0 2000000");
    host.set("proc/meminfo", "MemAvailable: 500000 kB");
    let tree = Tree::under(&host.root).with_process(77);
    let listen = "127.0.0.1:8080".parse().unwrap();
    let held = tree.held(listen);
    assert_eq!((held.files, held.memory_bytes), (55_000, 90_000 * 1_024 + 55_000 * 4_096));
    let judged = |target: &Target| {
        let checks = examine(target, &tree, &working_rings());
        wrong(&checks).into_iter().map(|(what, _)| what.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        judged(&target(&[])),
        ["fs.file-max less what others hold", "available memory, bytes"]
    );
    assert_eq!(judged(&target(&[]).holding(held)), [""; 0]);
}

#[test]
fn a_socket_unit_with_another_address_is_told() {
    let host = FakeHost::new("socket");
    let row = |host: &FakeHost| {
        let checks = host.examine();
        checks.into_iter().find(|check| check.what == "uproar.socket").unwrap()
    };
    host.set("usr/lib/systemd/system/uproar.socket", "[Socket]\nListenStream=127.0.0.1:8080");
    assert_eq!(row(&host).now, "not enabled");
    host.set("etc/systemd/system/sockets.target.wants/uproar.socket", "");
    let told = row(&host);
    assert_eq!((told.now.as_str(), told.verdict), ("enabled, 127.0.0.1:8080", Verdict::Advice));
    assert!(told.fix.unwrap().contains("ListenStream="));
    let drop_in = "[Socket]\nListenStream=\nListenStream=0.0.0.0:8080";
    host.set("etc/systemd/system/uproar.socket.d/override.conf", drop_in);
    assert_eq!(row(&host).verdict, Verdict::Fits, "it is what is configured");
    // A node that listens elsewhere than configured is behind some socket unit.
    let host = FakeHost::new("socket-unseen");
    let elsewhere = target(&[]).listening_at(Ok("127.0.0.1:80".parse().unwrap()));
    let checks = examine(&elsewhere, &Tree::under(&host.root), &working_rings());
    let row = checks.iter().find(|check| check.what == "uproar.socket").unwrap();
    assert_eq!((row.now.as_str(), row.verdict), ("listening on 127.0.0.1:80", Verdict::Advice));
}

/// Root may lock any memory; the service's user may not. Where the test is not root there is nobody else to ask as.
#[test]
fn rings_are_tried_with_the_rights_of_the_service() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // A running process of another user, who has too little locked memory for a ring. The program lies where that
    // user may run it.
    let program = std::env::temp_dir().join(format!("uproar-as-nobody-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_uproar"), &program).unwrap();
    let mut node = Command::new("prlimit")
        .args(["--memlock=65536:65536", "setpriv", "--reuid", "65534", "--regid", "65534"])
        .args(["--clear-groups", "--pdeathsig", "KILL", "sleep", "600"])
        .spawn()
        .unwrap();
    let pid = node.id().to_string();
    let status = PathBuf::from(format!("/proc/{pid}/status"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !fs::read_to_string(&status).unwrap().contains("Name:\tsleep") {
        assert!(std::time::Instant::now() < deadline, "the process starts");
        std::thread::yield_now();
    }
    let output = Command::new(&program).args(["doctor", "--json", "--pid", &pid]).output().unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    fs::remove_file(&program).unwrap();
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = table["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["what"] == "io_uring direct descriptors").unwrap();
    assert_eq!(row["now"], "refused, tried as user 65534", "{row}");
    assert_eq!(row["verdict"], "misfit");
}
