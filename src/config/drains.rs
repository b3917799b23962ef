//! How long a drain takes, by the settings and by how many connections there are.
//!
//! ```text
//!  order ── drain_delay_ms ──► closes begin ── the spread ──► the last close ── its answer ──► end
//!                                                                                 at the latest by the deadline
//! ```
//!
//! No more than `drain_closes_per_sec` leave in a second, so a spread that is too short for the connections is as
//! long as they take, and the deadline is as much later.

use uproar_engine::engine::drain_ms_min;

use super::Server;

impl Server {
    /// Over how long the closes of so many connections are spread, in milliseconds.
    #[must_use]
    pub fn spread_ms(&self, connections: u64) -> u32 {
        let least = drain_ms_min(connections, self.drain_closes_per_sec);
        self.drain_spread_ms.max(u32::try_from(least).unwrap_or(u32::MAX))
    }

    /// How long after SIGTERM a process with so many connections ends at the latest, in milliseconds.
    #[must_use]
    pub fn deadline_ms(&self, connections: u64) -> u64 {
        let longer = self.spread_ms(connections) - self.drain_spread_ms;
        u64::from(self.drain_deadline_ms) + u64::from(longer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_takes_as_long_as_its_closes_do() {
        let server = Server::default();
        assert_eq!((server.spread_ms(0), server.deadline_ms(0)), (5_000, 10_000));
        assert_eq!((server.spread_ms(4_000), server.deadline_ms(4_000)), (5_000, 10_000));
        assert_eq!((server.spread_ms(55_000), server.deadline_ms(55_000)), (56_400, 61_400));
        let lifted = Server { drain_closes_per_sec: 0, ..server };
        assert_eq!((lifted.spread_ms(55_000), lifted.deadline_ms(55_000)), (5_000, 10_000));
    }
}
