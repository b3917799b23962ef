//! What a connection costs the server: looks at both books, and when they may be believed.
//!
//! The kernel's books are the whole host's. Others' sockets that come and go meanwhile would be divided among
//! the viewers, so the sockets are counted too, and a figure that they could have moved is none.

use crate::probe::kernel::KernelMemory;
use crate::probe::process::Process;
use crate::slo::Reading;

/// With fewer connections, what else a host does is more than noise.
pub(crate) const CONNECTIONS_MIN: u64 = 1_000;
/// Sockets of others that may come or go: a share of the viewers', and a few that any host has.
const STRANGERS_SHARE_MAX: f64 = 0.02;
const STRANGERS_MAX: f64 = 200.0;
/// How far the looks of a window may lie apart (10th to 90th percentile), as a share of their median.
const SPREAD_MAX: f64 = 0.25;

/// One look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Of the server's processes; none when there are none, or they may not be read.
    pub(crate) user_bytes: Option<u64>,
    /// None without root.
    pub(crate) kernel: Option<KernelMemory>,
}

impl Memory {
    /// Reads both books now.
    pub(crate) fn now(server: Option<&Process>) -> Self {
        Self { user_bytes: server.and_then(Process::pss_bytes), kernel: KernelMemory::now() }
    }

    /// By how much user memory has grown, in bytes.
    pub(crate) fn user_growth(&self, earlier: &Self) -> Option<f64> {
        Some(self.user_bytes? as f64 - earlier.user_bytes? as f64)
    }

    /// By how much the kernel's books have grown, both ends of connections, in bytes.
    pub(crate) fn kernel_growth(&self, earlier: &Self) -> Option<f64> {
        let (now, then) = (self.kernel.as_ref()?, earlier.kernel.as_ref()?);
        Some(now.slab_growth(then) as f64 + now.tcp_bytes as f64 - then.tcp_bytes as f64)
    }

    /// By how many TCP sockets the host has more.
    pub(crate) fn sockets_grown(&self, earlier: &Self) -> Option<f64> {
        let (now, then) = (self.kernel.as_ref()?, earlier.kernel.as_ref()?);
        Some(now.sockets() as f64 - then.sockets() as f64)
    }
}

/// What is known of a window's memory.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whether the server's process is known on this host.
    pub(crate) is_local: bool,
    /// Whether its user memory could be read, and the kernel's books.
    pub(crate) has_user: bool,
    pub(crate) has_kernel: bool,
    pub(crate) connections: u64,
    /// Ends of each connection that are on this host: 2, or 1 when workers elsewhere have the others.
    pub(crate) ends: u32,
    /// Whether what a client end costs is known, or none is here.
    pub(crate) is_calibrated: bool,
    /// By how many TCP sockets this host has more than before the first connection.
    pub(crate) sockets_grown: f64,
}

impl Facts {
    /// Whether memory can be told at all here, or why not.
    fn check_rights(&self) -> Result<(), String> {
        if !self.is_local {
            return Err("no server process is known on this host; see --server-pid".to_owned());
        }
        if !self.has_kernel {
            return Err(
                "only root may read /proc/slabinfo, where the kernel's half is; run it as root"
                    .to_owned(),
            );
        }
        if !self.has_user {
            return Err("the server's smaps_rollup may not be read; run it as root".to_owned());
        }
        Ok(())
    }

    /// A connection's bytes, of the looks of a window.
    pub(crate) fn each(&self, looks: &[f64]) -> Reading {
        self.check_rights()?;
        if self.connections < CONNECTIONS_MIN {
            return Err(format!(
                "{} connections are fewer than {CONNECTIONS_MIN}, and what else this host does would be in it",
                self.connections
            ));
        }
        if !self.is_calibrated {
            return Err(
                "what the clients' ends cost is not known, and they are on this host".to_owned()
            );
        }
        let strangers = self.sockets_grown - self.connections as f64 * f64::from(self.ends);
        let share = self.connections as f64 * STRANGERS_SHARE_MAX;
        if strangers.abs() > share.max(STRANGERS_MAX) {
            return Err(format!(
                "{:.0} sockets of others {} meanwhile, and their memory with them",
                strangers.abs(),
                if strangers > 0.0 { "came" } else { "went" }
            ));
        }
        let [low, median, high] = quantiles(looks).ok_or("the window is too short for a look")?;
        if high - low > median.abs() * SPREAD_MAX {
            return Err(format!(
                "looks differ from {low:.0} to {high:.0} B, so what they show is noise"
            ));
        }
        Ok(median)
    }

    /// The whole server's growth, fitted through the looks of a window.
    pub(crate) fn growth(&self, fitted: Option<f64>) -> Reading {
        self.check_rights()?;
        fitted.ok_or_else(|| "the window is too short".to_owned())
    }
}

/// The 10th percentile, the median and the 90th.
pub(crate) fn quantiles(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some([last / 10, last / 2, last - last / 10].map(|at| sorted[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        is_local: true,
        has_user: true,
        has_kernel: true,
        connections: 10_000,
        ends: 2,
        is_calibrated: true,
        sockets_grown: 20_030.0,
    };
    const LOOKS: [f64; 5] = [6_100.0, 6_000.0, 6_080.0, 6_090.0, 9_000.0];

    #[test]
    fn looks_that_agree_are_a_figure() {
        assert_eq!(FACTS.each(&LOOKS[..4]), Ok(6_080.0));
        assert_eq!(
            Facts { ends: 1, sockets_grown: 10_000.0, ..FACTS }.each(&LOOKS[..3]),
            Ok(6_080.0)
        );
        assert_eq!(FACTS.growth(Some(5e6)), Ok(5e6));
    }

    #[test]
    fn what_others_could_have_moved_is_none() {
        let cases = [
            (Facts { is_local: false, ..FACTS }, "--server-pid"),
            (Facts { has_kernel: false, ..FACTS }, "only root may read /proc/slabinfo"),
            (Facts { has_user: false, ..FACTS }, "smaps_rollup"),
            (Facts { connections: 999, sockets_grown: 1_998.0, ..FACTS }, "fewer than 1000"),
            (Facts { is_calibrated: false, ..FACTS }, "clients' ends"),
            (Facts { sockets_grown: 20_900.0, ..FACTS }, "900 sockets of others came"),
            (Facts { sockets_grown: 19_000.0, ..FACTS }, "1000 sockets of others went"),
        ];
        for (facts, reason) in cases {
            let refused = facts.each(&LOOKS[..4]).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(FACTS.each(&[2_305.0, 3_000.0, 4_255.0]).unwrap_err().contains("noise"));
        assert!(FACTS.each(&[]).unwrap_err().contains("too short"));
        assert!(FACTS.growth(None).unwrap_err().contains("too short"));
        let unprivileged = Facts { has_kernel: false, ..FACTS };
        assert!(unprivileged.growth(Some(1.0)).unwrap_err().contains("root"));
    }
}
