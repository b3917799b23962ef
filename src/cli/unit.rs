//! The limits that a service will have, by asking systemd: with all its drop-ins, running or not.

use std::process::Command;

use super::Failure;
use crate::control::Host;
use crate::doctor::seconds;

/// What a unit gives its process, where it says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    descriptors_max: Option<u64>,
    cpus: Option<Vec<usize>>,
    /// How long systemd waits for the end, in seconds, if nobody asks for more time.
    pub(super) stop_seconds: Option<u64>,
}

impl Limits {
    /// A host as the service will see it.
    pub(super) fn of(self, host: Host) -> Host {
        // What the unit leaves open is the host's; and no unit has CPUs that the host has not.
        let cpus = self.cpus.map_or_else(
            || host.cpus.clone(),
            |cpus| host.cpus.iter().copied().filter(|cpu| cpus.contains(cpu)).collect(),
        );
        Host { descriptors_max: self.descriptors_max.unwrap_or(host.descriptors_max), cpus, ..host }
    }

    /// Of what `systemctl show` prints.
    fn read(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(str::trim).filter(|value| !value.is_empty())
        };
        Self {
            descriptors_max: value("LimitNOFILE").map(|n| n.parse().unwrap_or(u64::MAX)),
            cpus: value("CPUAffinity").and_then(cpus),
            stop_seconds: value("TimeoutStopUSec").and_then(seconds),
        }
    }
}

/// CPUs as systemd lists them: `1-3 5`.
fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split([' ', ',']).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// The limits of a unit.
pub(super) fn limits(unit: &str) -> Result<Limits, Failure> {
    let args = ["show", "--property=LoadState,LimitNOFILE,CPUAffinity,TimeoutStopUSec", "--", unit];
    let output = Command::new("systemctl").args(args).output();
    let output =
        output.map_err(|why| Failure(format!("--unit: systemctl cannot be run: {why}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().next().unwrap_or("it does not say why");
        return Err(Failure(format!(
            "--unit: systemd does not tell the limits of {unit} ({why}); ask where the service runs, or use --anywhere"
        )));
    }
    if !text.lines().any(|line| line == "LoadState=loaded") {
        return Err(Failure(format!("--unit: there is no unit {unit}; is the package installed?")));
    }
    Ok(Limits::read(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_shows_is_what_a_layout_gets() {
        let text =
            "LoadState=loaded\nLimitNOFILE=65536\nCPUAffinity=1-2 5\nTimeoutStopUSec=1min 15s\n";
        assert_eq!(Limits::read(text).stop_seconds, Some(75));
        let host = Host { cpus: (0..4).collect(), name: "n".into(), descriptors_max: 1_024 };
        let seen = Limits::read(text).of(host.clone());
        assert_eq!((seen.cpus, seen.descriptors_max), (vec![1, 2], 65_536));
        let open =
            Limits::read("LoadState=loaded\nLimitNOFILE=infinity\nCPUAffinity=\n").of(host.clone());
        assert_eq!((open.cpus, open.descriptors_max), (host.cpus, u64::MAX));
    }
}
