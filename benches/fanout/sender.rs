//! What the three senders have in common: the load they are given and what they report.

use std::time::{Duration, Instant};

use crate::Failure;

/// When comments are made: `bursts` times, `every` apart, `comments` at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) bursts: u32,
    pub(crate) comments: u32,
    pub(crate) every: Duration,
}

impl Load {
    /// Calls `burst` at each due time. One that comes late does not move the others.
    pub(crate) fn each(
        &self,
        mut burst: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        for number in 1..=self.bursts {
            burst()?;
            let due = began + self.every * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

/// What a sender did under one load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// CPU time of the sending thread, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Sends handed to the kernel.
    pub(crate) sends: u64,
    /// Comments in them.
    pub(crate) deliveries: u64,
}

impl Sample {
    /// CPU time of a send, in microseconds.
    pub(crate) fn send_us(&self) -> f64 {
        self.cpu_ns as f64 / 1e3 / self.sends as f64
    }

    /// CPU time of a delivery, in microseconds.
    pub(crate) fn delivery_us(&self) -> f64 {
        self.cpu_ns as f64 / 1e3 / self.deliveries as f64
    }

    /// Comments that shared a send.
    pub(crate) fn comments_per_send(&self) -> f64 {
        self.deliveries as f64 / self.sends as f64
    }
}

/// Something that sends comments to its viewers.
pub(crate) trait Sender {
    /// Sends under `load` and returns once its viewers have read every byte.
    fn run(&mut self, load: &Load) -> Result<Sample, Failure>;
}
