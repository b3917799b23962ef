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

/// Colours that stay apart for colour-blind readers, on white and on black.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"];
/// Lines beyond the colours are dashed, so that no two look alike.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

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
    /// Stretches of x with a name.
    pub(crate) marks: Vec<Mark>,
}

/// A named stretch of x: a measured window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) name: String,
}

/// One line; points in ascending x. Where there is no value the line is broken.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

impl Line {
    /// The points that have a value.
    fn known(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().filter_map(|&(x, y)| Some((x, y?)))
    }

    /// Stretches of points that follow each other.
    fn runs(&self) -> Vec<Vec<(f64, f64)>> {
        let runs = self.points.split(|(_, y)| y.is_none());
        runs.map(|run| run.iter().filter_map(|&(x, y)| Some((x, y?))).collect())
            .filter(|run: &Vec<_>| !run.is_empty())
            .collect()
    }
}

/// How line number `at` looks: its colour and its dashes.
fn style(at: usize) -> (&'static str, &'static str) {
    (COLOURS[at % COLOURS.len()], DASHES[at / COLOURS.len() % DASHES.len()])
}

impl Plot {
    /// A `<figure>` with the plot; nothing when there are no points.
    pub(crate) fn figure(&self) -> String {
        let lines: Vec<&Line> =
            self.lines.iter().filter(|line| line.known().next().is_some()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let all = || lines.iter().flat_map(|line| line.known());
        // Seconds without a value are seconds all the same.
        let every = || self.lines.iter().flat_map(|line| &line.points);
        let x_min = every().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let x_max = every().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max).max(x_min + 1e-9);
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
        svg += &self.marks(x_min, x_max, &x_of);
        let mut legend = String::new();
        for (line, at) in lines.iter().zip(0..) {
            let (colour, dash) = style(at);
            let name = escape(&line.name);
            put(&mut svg, format_args!("<g data-name=\"{name}\">"));
            for run in line.runs() {
                draw(&mut svg, &run, (colour, dash), &x_of, &y_of);
            }
            svg += "</g>";
            put(
                &mut legend,
                format_args!(
                    "<span style=\"color:{colour}\"><svg class=\"key\" viewBox=\"0 0 28 8\"><line x1=\"0\" x2=\"28\" y1=\"4\" \
                     y2=\"4\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dash}\"/></svg><i>{name}</i></span> "
                ),
            );
        }
        svg + "</svg><p class=\"legend\">" + &legend + "</p></figure>"
    }

    /// Windows as bands with their names, which take turns in height so that narrow ones can be read.
    fn marks(&self, x_min: f64, x_max: f64, x_of: &impl Fn(f64) -> f64) -> String {
        let mut svg = String::new();
        for (mark, at) in self.marks.iter().zip(0..) {
            let (from, to) =
                (x_of(mark.from.clamp(x_min, x_max)), x_of(mark.to.clamp(x_min, x_max)));
            let name = escape(&mark.name);
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"/>\
                     <text class=\"mark\" x=\"{:.1}\" y=\"{}\">{name}</text>",
                    (to - from).max(1.0),
                    HEIGHT - TOP - BOTTOM,
                    from + 2.0,
                    TOP + 10.0 + f64::from(at % 3) * 10.0
                ),
            );
        }
        svg
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

/// A stretch of a line, with its values for the page's script; one point alone is a dot.
fn draw(
    svg: &mut String,
    run: &[(f64, f64)],
    (colour, dash): (&str, &str),
    x_of: &impl Fn(f64) -> f64,
    y_of: &impl Fn(f64) -> f64,
) {
    let values: Vec<String> = run.iter().map(|(x, y)| format!("{x:.4},{y:.6}")).collect();
    let mut path = String::new();
    for &(x, y) in run {
        put(&mut path, format_args!("{:.1},{:.1} ", x_of(x), y_of(y)));
    }
    if let &[(x, y)] = run {
        put(
            svg,
            format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.8\" fill=\"{colour}\"/>",
                x_of(x),
                y_of(y)
            ),
        );
    }
    put(
        svg,
        format_args!(
            "<polyline data-values=\"{}\" points=\"{}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"1.8\" stroke-dasharray=\"{dash}\"/>",
            values.join(" "),
            path.trim_end()
        ),
    );
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
                points: vec![(0.0, Some(0.0)), (5.0, Some(17.0)), (9.0, Some(900.0))],
            }],
            marks: vec![Mark { from: 4.0, to: 20.0, name: "x<2".into() }],
        };
        let figure = plot.figure();
        assert!(figure.contains("a &lt; b"));
        assert!(figure.contains("class=\"band\"") && figure.contains("x&lt;2"), "{figure}");
        let points = figure.split(" points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
        assert!(Plot { lines: Vec::new(), ..plot }.figure().is_empty());
    }

    #[test]
    fn a_second_without_a_value_breaks_the_line() {
        let points =
            vec![(1.0, Some(1.0)), (2.0, Some(2.0)), (3.0, None), (4.0, Some(3.0)), (5.0, None)];
        let runs = Line { name: String::new(), points }.runs();
        assert_eq!(runs, [vec![(1.0, 1.0), (2.0, 2.0)], vec![(4.0, 3.0)]]);
    }

    #[test]
    fn seven_lines_look_like_seven_lines() {
        let mut styles: Vec<_> = (0..24).map(style).collect();
        styles.sort_unstable();
        styles.dedup();
        assert_eq!(styles.len(), 24);
    }
}
