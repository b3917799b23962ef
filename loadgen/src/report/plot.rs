//! Line plots as SVG text: axes, grid, legend, and the values for the reader's pointer.
//!
//! The page's script only shows values under the pointer; every line is there without it.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// Lines that stay apart for colour-blind readers, on white and on black.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"];

/// How a value is placed on its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// One plot.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// Horizontal positions that get a label; empty: even steps.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) y_scale: Scale,
    pub(crate) lines: Vec<Line>,
}

/// One line; points in ascending x.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// A `<figure>` with the plot; nothing when there are no points.
    pub(crate) fn figure(&self) -> String {
        let lines: Vec<&Line> = self.lines.iter().filter(|l| !l.points.is_empty()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let all = || lines.iter().flat_map(|line| &line.points);
        let x_min = all().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let x_max = all().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max).max(x_min + 1e-9);
        let y_max = all().map(|p| p.1).fold(0.0, f64::max);
        let positive = || all().map(|p| p.1).filter(|y| *y > 0.0);
        let y_axis = match self.y_scale {
            Scale::Linear => Axis::linear(y_max),
            Scale::Log => Axis::log(positive().fold(f64::INFINITY, f64::min), y_max),
        };
        let x_of = |x: f64| LEFT + (x - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| HEIGHT - BOTTOM - y_axis.place(y) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\" data-x=\"{}\" data-left=\"{LEFT}\" data-right=\"{}\">",
            escape(&self.title),
            escape(&self.title),
            escape(&self.x_label),
            WIDTH - RIGHT
        );
        for (value, label) in &y_axis.ticks {
            let y = y_of(*value);
            put(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    y + 4.0
                ),
            );
        }
        for (value, label) in self.x_ticks_within(x_min, x_max) {
            let x = x_of(value);
            put(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{0}\"/>\
                 <text x=\"{x:.1}\" y=\"{1}\" text-anchor=\"middle\">{label}</text>",
                    HEIGHT - BOTTOM,
                    HEIGHT - BOTTOM + 15.0
                ),
            );
        }
        put(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"axis\">{}</text>\
             <text x=\"{LEFT}\" y=\"10\" class=\"axis\">{}</text>",
                WIDTH - RIGHT,
                HEIGHT - 4.0,
                escape(&self.x_label),
                escape(&self.y_label)
            ),
        );
        let mut legend = String::new();
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for &(x, y) in &line.points {
                put(&mut path, format_args!("{:.1},{:.1} ", x_of(x), y_of(y)));
            }
            let values: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{x:.4},{y:.6}")).collect();
            let name = escape(&line.name);
            put(
                &mut svg,
                format_args!(
                    "<polyline data-name=\"{name}\" data-values=\"{}\" points=\"{}\" fill=\"none\" \
                 stroke=\"{colour}\" stroke-width=\"1.8\"/>",
                    values.join(" "),
                    path.trim_end()
                ),
            );
            put(&mut legend, format_args!("<span style=\"color:{colour}\">{name}</span> "));
        }
        svg + "</svg><p class=\"legend\">" + &legend + "</p></figure>"
    }

    fn x_ticks_within(&self, x_min: f64, x_max: f64) -> Vec<(f64, String)> {
        if self.x_ticks.is_empty() {
            let step = nice_step((x_max - x_min) / 8.0);
            let first = (x_min / step).ceil() as i64;
            let last = (x_max / step).floor() as i64;
            return (first..=last).map(|i| (i as f64 * step, short(i as f64 * step))).collect();
        }
        let within = |tick: &&(f64, String)| x_min <= tick.0 && tick.0 <= x_max;
        self.x_ticks.iter().filter(within).cloned().collect()
    }
}

/// A vertical axis: where a value is between 0 and 1, and which are labelled.
#[derive(Debug)]
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn linear(max: f64) -> Self {
        let step = nice_step(max.max(1e-9) / 4.0);
        let count = (max / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|i| (f64::from(i) * step, short(f64::from(i) * step)));
        Self {
            low: 0.0,
            high: f64::from(count) * step,
            scale: Scale::Linear,
            ticks: ticks.collect(),
        }
    }

    fn log(min: f64, max: f64) -> Self {
        let max = max.max(1e-9);
        let low = min.min(max).log10().floor() as i32;
        let high = (max.log10().ceil() as i32).max(low + 1);
        let ticks = (low..=high).map(|power| {
            let value = 10f64.powi(power);
            (value, short(value))
        });
        Self {
            low: f64::from(low),
            high: f64::from(high),
            scale: Scale::Log,
            ticks: ticks.collect(),
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-12).log10(),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// A number without noise digits.
fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", trim(value / 1e6))
    } else if value >= 10_000.0 {
        format!("{}k", trim(value / 1e3))
    } else {
        trim(value)
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that is safe inside HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("writing into a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_labels_are_round() {
        assert_eq!([0.7, 1.2, 3.0, 7.0, 120.0].map(nice_step), [1.0, 2.0, 5.0, 10.0, 200.0]);
        assert_eq!([0.25, 1500.0, 50_000.0, 2e6].map(short), ["0.25", "1500", "50k", "2M"]);
    }

    #[test]
    fn all_points_lie_inside_the_frame() {
        let plot = Plot {
            title: "a < b".into(),
            x_ticks: Vec::new(),
            x_label: "s".into(),
            y_label: "ms".into(),
            y_scale: Scale::Log,
            lines: vec![Line {
                name: "l".into(),
                points: vec![(0.0, 0.0), (5.0, 17.0), (9.0, 900.0)],
            }],
        };
        let figure = plot.figure();
        assert!(figure.contains("a &lt; b"));
        let points = figure.split(" points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
        assert!(Plot { lines: Vec::new(), ..plot }.figure().is_empty());
    }
}
