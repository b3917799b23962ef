//! `tuning/` and the doctor: the same numbers, and scripts that undo what they do.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use uproar::config::{Config, Sources};
use uproar::control::{Host, SLOTS_PER_RING_MAX};
use uproar::doctor::{Target, descriptors, memlock_bytes, memory_bytes, sysctl_file, sysctls};

fn tuning(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(tuning(path)).unwrap_or_else(|why| panic!("tuning/{path}: {why}"))
}

/// The default target on a host as the unit makes it, with as many shards.
fn target(shards: usize) -> Target {
    let host = Host {
        cpus: (0..shards).collect(),
        name: "n1".into(),
        descriptors_max: unit_number("LimitNOFILE"),
    };
    Target::new(&Sources::default().load().unwrap(), &host)
}

/// The lines of a file that are not comments.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A number of the unit, with its suffix taken as binary.
fn unit_number(key: &str) -> u64 {
    number_of(&read("systemd/uproar.service"), key)
}

fn number_of(unit: &str, key: &str) -> u64 {
    let text = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "M" => 1 << 20,
        "G" => 1 << 30,
        other => panic!("{key} has the suffix {other}"),
    };
    digits.parse::<u64>().unwrap() * factor
}

#[test]
fn the_sysctl_file_is_what_the_doctor_needs_for_the_default_target() {
    let needs: Vec<String> = sysctls(&target(2)).iter().map(|need| need.line()).collect();
    assert_eq!(lines(&read("sysctl.d/60-uproar.conf")), needs);
    assert_eq!(lines(&sysctl_file(&target(2))), needs);
}

#[test]
fn the_limits_of_the_unit_fit_the_target() {
    for shards in [1, 2, 64, 128] {
        let target = target(shards);
        assert!(target.layout.is_ok(), "{:?}", target.layout);
        assert!(unit_number("LimitNOFILE") >= descriptors(&target));
        let locked = memlock_bytes(target.shards(), target.rings_per_shard);
        assert!(unit_number("LimitMEMLOCK") >= locked, "{shards} shards lock {locked}");
        assert!(unit_number("TasksMax") >= 32 + 6 * target.shards());
    }
    assert!(unit_number("LimitNOFILE") > SLOTS_PER_RING_MAX, "a ring is as wide as it can be");
    let example = read("systemd/uproar.service.d/memory.conf.example");
    for key in ["MemoryHigh", "MemoryMax"] {
        assert!(number_of(&example, key) >= memory_bytes(&target(2)), "{key}");
    }
}

#[test]
fn a_drain_ends_before_the_service_manager_loses_patience() {
    let Config { server, limits } = Config::default();
    let full_ms = server.deadline_ms(limits.connections_max.into());
    assert!(unit_number("TimeoutStopSec") * 1_000 > full_ms);
    let backlog = number_of(&read("systemd/uproar.socket"), "Backlog");
    assert_eq!(backlog, u64::from(server.accept_backlog));
    for (key, bytes) in
        [("SendBuffer", server.send_buffer_bytes), ("ReceiveBuffer", server.receive_buffer_bytes)]
    {
        assert_eq!(number_of(&read("systemd/uproar.socket"), key), u64::from(bytes), "{key}");
    }
    let listen = format!("ListenStream={}", server.listen);
    assert!(read("systemd/uproar.socket").lines().any(|line| line == listen));
}

#[test]
fn logins_get_the_limits_of_the_unit() {
    let text = read("limits.d/uproar.conf");
    let limits: BTreeMap<&str, u64> = lines(&text)
        .into_iter()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[2], fields[3].parse().unwrap())
        })
        .collect();
    assert_eq!(limits["nofile"], unit_number("LimitNOFILE"));
    assert_eq!(limits["memlock"] * 1_024, unit_number("LimitMEMLOCK"));
}

/// A scratch tree that the scripts take for a host.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("uproar-tuning-{}-{name}", std::process::id()));
        Self(root)
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap().trim().to_owned()
    }

    /// Every file and its text.
    fn all(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.0.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    files.insert(path, text);
                }
            }
        }
        files
    }

    fn run(&self, script: &str, args: &[&str]) -> String {
        let output =
            Command::new(tuning(script)).arg("--root").arg(&self.0).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{script} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small_host(name: &str) -> Scratch {
    let host = Scratch::new(name);
    host.set("proc/sys/net/core/somaxconn", "128");
    host.set("proc/sys/net/core/netdev_max_backlog", "1000");
    host.set("proc/sys/net/ipv4/tcp_max_syn_backlog", "100000");
    host.set("proc/sys/net/ipv4/tcp_syncookies", "1");
    host.set("proc/sys/net/ipv4/tcp_mem", "20000\t30000\t500000");
    host
}

#[test]
fn apply_raises_lowers_nothing_and_reverts_to_the_byte() {
    let host = small_host("apply");
    let before = host.all();
    let plan = host.run("apply", &["--dry-run"]);
    assert_eq!(host.all(), before, "a dry run changes nothing");
    assert!(plan.contains("set net.core.somaxconn = 4096 (was 128)"), "{plan}");

    let told = host.run("apply", &[]);
    assert!(told.ends_with("3 settings changed\n"), "{told}");
    assert_eq!(host.get("proc/sys/net/core/somaxconn"), "4096");
    assert_eq!(host.get("proc/sys/net/ipv4/tcp_max_syn_backlog"), "100000");
    assert_eq!(host.get("proc/sys/net/ipv4/tcp_mem"), "78375 104500 500000");
    let installed = host.get("etc/sysctl.d/60-uproar.conf");
    assert_eq!(
        lines(&installed),
        [
            "net.core.somaxconn = 4096",
            "net.ipv4.tcp_max_syn_backlog = 100000",
            "net.ipv4.tcp_syncookies = 1",
            "net.ipv4.tcp_mem = 78375 104500 500000",
            "net.core.netdev_max_backlog = 16384"
        ]
    );
    // Only what differs from the request is called more.
    assert_eq!(installed.matches("The host has more").count(), 2, "{installed}");

    let after = host.all();
    assert!(host.run("apply", &[]).ends_with("0 settings changed\n"));
    assert_eq!(host.all(), after, "a second run changes nothing");
    host.run("apply", &["--revert"]);
    let words = |files: BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
        files.into_iter().map(|(path, text)| (path, text.replace('\t', " "))).collect()
    };
    assert_eq!(words(host.all()), words(before));
    assert!(host.run("apply", &["--revert"]).contains("nothing to revert"));
}

/// Whoever raised a setting after us meant it; whoever asks for one in a file of theirs gets it at the next boot.
#[test]
fn a_revert_leaves_what_others_have_raised_or_ask_for() {
    let host = small_host("others");
    host.run("apply", &[]);
    host.set("proc/sys/net/core/somaxconn", "65535");
    host.set("proc/sys/net/ipv4/tcp_mem", "78375\t104500\t900000");
    // As sysctl.d(5) has it: blanks of any kind, slashes, a key that may be missing; and the last line lacks its end.
    host.set("usr/lib/sysctl.d/50-other.conf", "");
    let other = host.0.join("usr/lib/sysctl.d/50-other.conf");
    fs::write(other, "# theirs\n\t-net/core/netdev_max_backlog\t=\t5000").unwrap();
    // What is no number nobody can obey.
    host.set("etc/sysctl.d/80-odd.conf", "net.core.netdev_max_backlog = abc");
    // Another run keeps theirs, and does not take it for its own.
    host.run("apply", &[]);
    let told = host.run("apply", &["--revert"]);
    assert_eq!(host.get("proc/sys/net/core/somaxconn"), "65535", "{told}");
    assert!(told.contains("leave net.core.somaxconn = 65535"), "{told}");
    // Place by place: theirs is the third only.
    assert_eq!(host.get("proc/sys/net/ipv4/tcp_mem"), "20000 30000 900000");
    assert_eq!(host.get("proc/sys/net/core/netdev_max_backlog"), "5000");
    assert!(host.run("apply", &["--revert"]).contains("nothing to revert"));
}

/// Applies the doctor's file for a target.
fn apply_for(host: &Scratch, connections: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_uproar"))
        .args(["doctor", "--sysctl", "--target-connections", connections])
        .output()
        .unwrap();
    host.set("target.conf", &String::from_utf8(output.stdout).unwrap());
    let file = host.0.join("target.conf");
    host.run("apply", &["--from", file.to_str().unwrap()]);
}

#[test]
fn apply_takes_the_file_of_another_target() {
    let host = small_host("other");
    apply_for(&host, "1000000");
    assert_eq!(host.get("proc/sys/net/ipv4/tcp_mem"), "1425000 1900000 2850000");
}

#[test]
fn what_was_set_by_hand_holds_after_a_boot() {
    let host = small_host("by-hand");
    host.set("proc/sys/net/core/netdev_max_backlog", "16384");
    host.set("proc/sys/net/core/somaxconn", "8192");
    apply_for(&host, "55000");
    let installed = host.get("etc/sysctl.d/60-uproar.conf");
    let backlog = "net.core.netdev_max_backlog = 16384";
    assert!(lines(&installed).contains(&backlog), "{installed}");
    assert!(lines(&installed).contains(&"net.core.somaxconn = 8192"), "{installed}");
    let above = installed.lines().take_while(|line| *line != backlog).last().unwrap();
    assert!(!above.contains("more"), "it is what was asked for: {above}");
}

#[test]
fn a_smaller_target_afterwards_keeps_what_the_kernel_has() {
    let host = small_host("smaller");
    host.set("proc/sys/net/netfilter/nf_conntrack_max", "262144");
    apply_for(&host, "200000");
    host.run("apply", &[]);
    let installed = host.get("etc/sysctl.d/60-uproar.conf");
    assert!(installed.contains("\n-net.netfilter.nf_conntrack_max = 400000"), "{installed}");
    for line in lines(&installed) {
        let (key, value) = line.trim_start_matches('-').split_once(" = ").unwrap();
        let now = host.get(&format!("proc/sys/{}", key.replace('.', "/")));
        assert_eq!(now.replace('\t', " "), value, "{key}");
    }
    let after = host.all();
    host.run("apply", &[]);
    assert_eq!(host.all(), after, "another run changes nothing");
    host.run("apply", &["--revert"]);
    assert_eq!(host.get("proc/sys/net/netfilter/nf_conntrack_max"), "262144");
    assert_eq!(host.get("proc/sys/net/core/somaxconn"), "128");
}

#[test]
fn a_file_that_changed_nothing_is_reverted_too() {
    let host = small_host("unchanged");
    host.set("only.conf", "net.core.somaxconn = 64");
    let file = host.0.join("only.conf");
    let before = host.all();
    host.run("apply", &["--from", file.to_str().unwrap()]);
    assert_eq!(lines(&host.get("etc/sysctl.d/60-uproar.conf")), ["net.core.somaxconn = 128"]);
    host.run("apply", &["--revert"]);
    assert_eq!(host.all(), before);
}

#[test]
fn purging_the_package_takes_the_drop_ins_of_both_units() {
    let host = Scratch::new("purge");
    let units = host.0.join("etc/systemd/system");
    host.set("etc/systemd/system/other.service.d/override.conf", "[Service]");
    let before = host.all();
    for file in ["uproar.service.d/override.conf", "uproar.socket.d/override.conf"] {
        host.set(&format!("etc/systemd/system/{file}"), "[Unit]");
    }
    host.set("var/lib/uproar-tuning/sysctl.saved", "net.core.somaxconn=128");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/debian/postrm");
    let purge = Command::new("sh").arg(script).arg("purge").env("DPKG_ROOT", &host.0).status();
    assert!(purge.unwrap().success());
    assert_eq!(host.all(), before);
    assert_eq!(fs::read_dir(units).unwrap().count(), 1, "no empty directory is left");
}

#[test]
fn placement_steers_packets_and_reverts() {
    let host = Scratch::new("placement");
    host.set("proc/sys/net/core/rps_sock_flow_entries", "0");
    host.set("sys/class/net/eth0/queues/rx-0/rps_cpus", "00");
    host.set("sys/class/net/eth0/queues/rx-0/rps_flow_cnt", "0");
    host.set("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
    host.set("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave");
    host.set("sys/devices/system/cpu/online", "0-3");
    let args = ["--interface", "eth0", "--cpus", "0-1,3"];
    let before = host.all();
    host.run("placement", &[&args[..], &["--dry-run"]].concat());
    assert_eq!(host.all(), before, "a dry run changes nothing");
    host.run("placement", &args);
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-0/rps_cpus"), "b");
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-0/rps_flow_cnt"), "65536");
    assert_eq!(host.get("sys/kernel/mm/transparent_hugepage/enabled"), "madvise");
    assert_eq!(host.get("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"), "performance");
    assert_eq!(host.run("placement", &args), "", "a second run changes nothing");
    host.run("placement", &["--revert"]);
    host.set("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
    assert_eq!(host.all(), before);
}

#[test]
fn placement_refuses_cpus_that_the_host_does_not_have() {
    let host = Scratch::new("absent");
    host.set("sys/devices/system/cpu/online", "0-1,4");
    host.set("sys/class/net/eth0/queues/rx-0/rps_cpus", "00");
    let before = host.all();
    for (cpus, sentence) in [
        ("5-6", "placement: this host has no CPU 5 to run on, only 0-1,4\n"),
        ("0,1,2", "placement: this host has no CPU 2 to run on, only 0-1,4\n"),
        ("1-0", "placement: --cpus is a list as 0-3,6, not 1-0\n"),
        ("08", "placement: --cpus is a list as 0-3,6, not 08\n"),
    ] {
        let args = ["--interface", "eth0", "--dry-run", "--cpus", cpus];
        let output = Command::new(tuning("placement"))
            .arg("--root")
            .arg(&host.0)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    }
    assert_eq!(host.all(), before);
    host.set("proc/sys/net/core/rps_sock_flow_entries", "0");
    assert!(host.run("placement", &["--interface", "eth0", "--cpus", "0-1,4"]).contains("= 13 "));
}

/// Reads a mask as the kernel does (bitmap_parse): words of at most 8 hexadecimal digits between commas, the highest first.
fn cpus_of(mask: &str) -> Vec<usize> {
    let words: Vec<u32> = mask
        .rsplit(',')
        .map(|word| {
            assert!((1..=8).contains(&word.len()), "the kernel refuses {mask}");
            u32::from_str_radix(word, 16).unwrap()
        })
        .collect();
    (0..words.len() * 32).filter(|cpu| words[cpu / 32] >> (cpu % 32) & 1 == 1).collect()
}

#[test]
fn placement_writes_masks_that_the_kernel_takes_for_each_cpu() {
    let host = Scratch::new("masks");
    host.set("sys/devices/system/cpu/online", "0-255");
    host.set("proc/sys/net/core/rps_sock_flow_entries", "0");
    let queue = "sys/class/net/eth0/queues/rx-0/rps_cpus";
    let place = |cpus: &str| {
        host.set(queue, "00000000,00000000");
        host.run("placement", &["--interface", "eth0", "--cpus", cpus]);
        cpus_of(&host.get(queue))
    };
    for cpu in [0, 1, 31, 32, 33, 62, 63, 64, 95, 96, 127, 128, 191, 192, 254, 255] {
        assert_eq!(place(&cpu.to_string()), [cpu]);
    }
    assert_eq!(place("0-255"), (0..256).collect::<Vec<_>>());
    assert_eq!(place("31-32,63-64"), [31, 32, 63, 64]);
    // As the kernel shows it, it is what was asked for, and nothing to do.
    host.set(queue, "00000001,80000000,00000001,80000000");
    let told = host.run("placement", &["--interface", "eth0", "--cpus", "31-32,63-64,95-96"]);
    assert!(told.contains("rps_cpus"), "{told}");
    host.set(queue, "00000000,00000001,80000001,80000000");
    assert_eq!(host.run("placement", &["--interface", "eth0", "--cpus", "31-32,63-64"]), "");
}

#[test]
fn a_write_that_the_kernel_refuses_is_a_failure() {
    let host = Scratch::new("refused");
    host.set("sys/devices/system/cpu/online", "0-3");
    host.set("proc/sys/net/core/rps_sock_flow_entries", "0");
    host.set("sys/class/net/eth0/queues/rx-0/rps_flow_cnt", "0");
    // A setting of the kernel that nobody may write, not even root.
    let queue = host.0.join("sys/class/net/eth0/queues/rx-0/rps_cpus");
    std::os::unix::fs::symlink("/proc/sys/kernel/ostype", &queue).unwrap();
    let output = Command::new(tuning("placement"))
        .arg("--root")
        .arg(&host.0)
        .args(["--interface", "eth0", "--cpus", "0-1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("refused by the kernel"), "{told}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "placement: 1 settings could not be written\n"
    );
    // What went well is done, and can be put back.
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-0/rps_flow_cnt"), "65536");
    host.run("placement", &["--revert"]);
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-0/rps_flow_cnt"), "0");
}

#[test]
fn placement_gives_each_queue_a_cpu_when_there_are_enough() {
    let host = Scratch::new("queues");
    host.set("sys/devices/system/cpu/online", "0-3");
    host.set("proc/sys/net/core/rps_sock_flow_entries", "0");
    host.set(
        "proc/interrupts",
        "  30: 1 PCI-MSI eth0\n  31: 1 PCI-MSI eth0-TxRx-0\n  32: 2 PCI-MSI eth0-TxRx-1",
    );
    for irq in ["30", "31", "32"] {
        host.set(&format!("sys/class/net/eth0/device/msi_irqs/{irq}"), "msix");
        host.set(&format!("proc/irq/{irq}/smp_affinity_list"), "0-3");
    }
    for queue in ["rx-0", "rx-1"] {
        host.set(&format!("sys/class/net/eth0/queues/{queue}/rps_cpus"), "3");
        host.set(&format!("sys/class/net/eth0/queues/{queue}/rps_flow_cnt"), "0");
    }
    host.run("placement", &["--interface", "eth0", "--cpus", "2,3"]);
    let affinity = |irq: &str| host.get(&format!("proc/irq/{irq}/smp_affinity_list"));
    assert_eq!([affinity("30"), affinity("31"), affinity("32")], ["0-3", "2", "3"]);
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-0/rps_cpus"), "0");
    assert_eq!(host.get("sys/class/net/eth0/queues/rx-1/rps_flow_cnt"), "32768");
}
