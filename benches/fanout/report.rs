//! What is printed: medians over the rounds, with the lowest and the highest beside them.

use std::fmt::Write;

use crate::machine;
use crate::options::Options;
use crate::sender::Sample;

/// One turn of each sender under the same load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) shard: Sample,
    pub(crate) plain: Sample,
    pub(crate) batched: Sample,
}

/// Picks something out of a round.
type Of<T> = fn(&Round) -> T;

/// Where and what was measured.
pub(crate) fn heading(options: &Options, frame_bytes: usize) -> String {
    let Options { viewers, seconds, rounds, text_bytes, sender_cpu, viewer_cpu, .. } = options;
    format!(
        "machine: {}\n\
         run: {viewers} viewers for each sender, comments of {text_bytes} bytes (frames of \
         {frame_bytes}), senders on CPU {sender_cpu}, viewers on CPU {viewer_cpu}\n\
         values: median of {rounds} rounds of {seconds} s [lowest, highest]; CPU is the sending \
         thread's, kernel included\n",
        machine::line()
    )
}

/// The table of one load.
pub(crate) fn table(title: &str, rounds: &[Round]) -> String {
    let mut out = format!(
        "\n{title}\n{:<16}{:>14}{:>26}{:>26}\n",
        "", "comments/send", "CPU per send, µs", "CPU per delivery, µs"
    );
    let senders: [(&str, Of<Sample>); 3] =
        [("shard", |r| r.shard), ("plain send", |r| r.plain), ("batched ring", |r| r.batched)];
    for (name, of) in senders {
        let shared = Spread::of(rounds, |round| of(round).comments_per_send());
        let send = Spread::of(rounds, |round| of(round).send_us());
        let delivery = Spread::of(rounds, |round| of(round).delivery_us());
        row(&mut out, name, &format!("{:.2}", shared.median), send, delivery);
    }
    let ratios: [(&str, Of<(Sample, Sample)>); 3] = [
        ("shard/plain", |r| (r.shard, r.plain)),
        ("shard/batched", |r| (r.shard, r.batched)),
        ("batched/plain", |r| (r.batched, r.plain)),
    ];
    for (name, of) in ratios {
        let ratio = |cost: fn(&Sample) -> f64| {
            Spread::of(rounds, |round| {
                let (one, other) = of(round);
                cost(&one) / cost(&other)
            })
        };
        row(&mut out, name, "ratio", ratio(Sample::send_us), ratio(Sample::delivery_us));
    }
    out
}

fn row(out: &mut String, name: &str, first: &str, send: Spread, delivery: Spread) {
    let (send, delivery) = (send.to_string(), delivery.to_string());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name:<16}{first:>14}{send:>26}{delivery:>26}");
}

/// A median and what lies around it.
#[derive(Clone, Copy, Debug)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(rounds: &[Round], value: impl Fn(&Round) -> f64) -> Self {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Self { low: values[0], median, high: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.median, self.low, self.high)
    }
}
