//! Who watches what: viewers divided among events by popularity, and who of them posts.
//!
//! The division is a function of the parameters and the seed alone, so planes and hosts agree
//! on it without talking.

use crate::chance::Chance;
use crate::scenario::Parameters;

/// The event of every viewer, and the publishers.
#[derive(Debug)]
pub(crate) struct Audience {
    /// The event of each viewer, by the viewer's global number.
    pub(crate) event_of: Vec<u32>,
    /// Publishers as (viewer, event), in the order of events; their index is the publisher's number.
    pub(crate) publishers: Vec<(u32, u32)>,
}

impl Audience {
    /// Divides the viewers; the k-th most popular event gets a share proportional to `1 / k^zipf`.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let sizes = sizes(parameters.viewers, parameters.events, parameters.zipf);
        let sizes_by_event = sizes.iter().zip(0u32..);
        let mut event_of: Vec<u32> = sizes_by_event
            .flat_map(|(&size, event)| std::iter::repeat_n(event, size as usize))
            .collect();
        // Mixed, so that every stretch of the connect phase fills all events alike.
        Chance::new(parameters.seed).shuffle(&mut event_of);
        let mut publishers = Vec::new();
        let mut wanted = vec![parameters.publishers; parameters.events as usize];
        for (&event, viewer) in event_of.iter().zip(0u32..) {
            if wanted[event as usize] > 0 {
                wanted[event as usize] -= 1;
                publishers.push((viewer, event));
            }
        }
        publishers.sort_by_key(|&(viewer, event)| (event, viewer));
        Self { event_of, publishers }
    }

    /// Publishers of each event: fewer than asked for where an event has fewer viewers.
    pub(crate) fn publishers_of(&self, events: u32) -> Vec<u32> {
        let mut counts = vec![0; events as usize];
        for &(_, event) in &self.publishers {
            counts[event as usize] += 1;
        }
        counts
    }
}

/// Viewers of each event: largest remainders, at least one each while there are enough.
fn sizes(viewers: u32, events: u32, zipf: f64) -> Vec<u32> {
    let weights: Vec<f64> = (1..=events).map(|rank| f64::from(rank).powf(-zipf)).collect();
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|w| w / total * f64::from(viewers)).collect();
    let mut sizes: Vec<u32> = shares.iter().map(|share| share.floor() as u32).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
    let assigned: u32 = sizes.iter().sum();
    for &event in by_remainder.iter().cycle().take((viewers - assigned) as usize) {
        sizes[event] += 1;
    }
    // The least popular may have come out empty: the most popular gives one away.
    for event in (1..sizes.len()).rev() {
        if sizes[event] == 0 && sizes[0] > 1 {
            sizes[event] = 1;
            sizes[0] -= 1;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_shares_add_up_and_fall_with_rank() {
        let sizes = sizes(50_000, 1_000, 1.0);
        assert_eq!(sizes.iter().sum::<u32>(), 50_000);
        assert!(sizes.windows(2).all(|pair| pair[0] + 1 >= pair[1]));
        assert_eq!((sizes[0], sizes[999]), (6_680, 7));
    }

    #[test]
    fn a_flat_audience_is_even_and_nobody_watches_nothing() {
        assert_eq!(sizes(10, 3, 0.0), [4, 3, 3]);
        assert!(sizes(100, 50, 3.0).iter().all(|&size| size > 0));
    }

    #[test]
    fn every_event_has_its_publishers_among_its_viewers() {
        let parameters =
            Parameters { viewers: 500, events: 20, publishers: 3, ..Parameters::default() };
        let audience = Audience::new(&parameters);
        assert_eq!(audience.publishers.len(), 60);
        for &(viewer, event) in &audience.publishers {
            assert_eq!(audience.event_of[viewer as usize], event);
        }
        assert_eq!(audience.publishers_of(20), [3; 20]);
        let few = Parameters { viewers: 25, events: 20, publishers: 3, ..Parameters::default() };
        let counts = Audience::new(&few).publishers_of(20);
        assert_eq!((counts.iter().sum::<u32>(), counts.iter().min()), (25, Some(&1)));
    }
}
