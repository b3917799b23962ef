//! Whether the server's memory grows: a line through the samples of a window.
//!
//! The slope is the median of the slopes between all pairs of points (Theil and Sen), so that a
//! burst in flight or one late garbage collection does not bend it. Long windows are first
//! thinned to means of equal stretches.

use serde::{Deserialize, Serialize};

use crate::report::Sample;

/// The most points a line is laid through.
const POINTS_MAX: usize = 400;
/// Fewer samples say nothing.
const POINTS_MIN: usize = 5;

/// How the server's memory, user and kernel, rose over a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// The line's rise from the first sample to the last, in bytes.
    pub(crate) bytes: f64,
    /// The same an hour.
    pub(crate) bytes_per_hour: f64,
}

/// The growth over the samples of `phase`; none when they are too few or the server is not local.
pub(crate) fn of(samples: &[Sample], phase: &str) -> Option<Growth> {
    let samples = samples.iter().filter(|sample| sample.phase == phase);
    let points: Vec<(f64, f64)> = samples
        .filter_map(|s| Some((s.secs, s.bytes_per_connection? * s.connections as f64)))
        .collect();
    fit(&points)
}

fn fit(points: &[(f64, f64)]) -> Option<Growth> {
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < POINTS_MIN {
        return None;
    }
    let means: Vec<(f64, f64)> =
        points.chunks(points.len().div_ceil(POINTS_MAX)).map(mean).collect();
    let pairs =
        means.iter().enumerate().flat_map(|(i, a)| means[i + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> = pairs.map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let bytes_per_sec = slopes[slopes.len() / 2];
    Some(Growth {
        bytes: bytes_per_sec * (last.0 - first.0),
        bytes_per_hour: bytes_per_sec * 3_600.0,
    })
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rise(points: usize, bytes_per_sec: f64) -> f64 {
        // Noise of 5 MB either way, and a burst of 50 MB now and then.
        let noise = |i: usize| [5e6, -5e6, 2e6, 50e6, -3e6, 0.0, 1e6][i * 5 % 7];
        let line = |i: usize| (i as f64, 1e8 + bytes_per_sec * i as f64 + noise(i));
        fit(&(0..points).map(line).collect::<Vec<_>>()).unwrap().bytes
    }

    #[test]
    fn noise_is_not_growth_and_growth_is_found_in_noise() {
        assert!(rise(600, 0.0).abs() < 1e6);
        assert!((rise(600, 50e3) - 30e6).abs() < 2e6);
        assert!((rise(14_400, 2e3) - 28.8e6).abs() < 2e6);
    }

    #[test]
    fn a_handful_of_points_says_nothing() {
        assert_eq!(fit(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit(&[]), None);
    }
}
