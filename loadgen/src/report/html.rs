//! The report as one self-contained page: verdicts, tables, plots. No network, no library.

use super::compare::Comparison;
use super::plot::{Line, Mark, Plot, Scale, escape};
use super::table;
use super::{Outcome, Report, Sample};

/// Samples further apart than this many times what they stand for have something missing between them.
const GAP_FACTOR: f64 = 1.5;

/// The page for `report`, or two reports side by side with what they have to say of each other.
pub(crate) fn page(reports: &[(&str, &Report)], comparison: Option<&Comparison>) -> String {
    let title = match reports {
        [(_, report)] => format!("uproar-loadgen {}", report.scenario),
        _ => "uproar-loadgen compare".to_owned(),
    };
    let mut body = format!("<h1>{}</h1>", escape(&title));
    body += &comparison.map(table_of).unwrap_or_default();
    for (name, report) in reports {
        body += &head(name, report);
    }
    body += "<div class=\"plots\">";
    for plot in plots(reports) {
        body += &plot.figure();
    }
    body += "</div>";
    for (name, report) in reports {
        body += &details(name, report);
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style>\
         <body>{body}<script>{SCRIPT}</script></body></html>",
        escape(&title)
    )
}

fn head(name: &str, report: &Report) -> String {
    let class = match report.outcome {
        Outcome::Passed => "pass",
        Outcome::Failed => "fail",
        Outcome::Unmeasured => "unmeasured",
    };
    format!(
        "<section><h2>{} <b class=\"{class}\">{}</b></h2><pre>{}</pre></section>",
        escape(name),
        report.outcome.word(),
        escape(&table::summary(report))
    )
}

/// A comparison as a table; A and B are the reports in the order of the page.
fn table_of(comparison: &Comparison) -> String {
    let row = |tag: &str, class: &str, cells: &[&str]| {
        let cells: String =
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr class=\"{class}\">{cells}</tr>")
    };
    let mut html = "<section><h2>A and B</h2><table class=\"compare\">".to_owned();
    if !comparison.unlike.is_empty() {
        html += &row("th", "fail", &["not alike", "A", "B", "not of the servers' making"]);
        for [what, a, b] in &comparison.unlike {
            html += &row("td", "fail", &[what, a, b, ""]);
        }
    }
    if !comparison.parameters.is_empty() {
        html += &row("th", "", &["parameters", "A", "B", ""]);
        for [what, a, b] in &comparison.parameters {
            html += &row("td", "", &[what, a, b, ""]);
        }
    }
    for section in &comparison.sections {
        html += &row("th", "", &[&section.title, "A", "B", "B / A"]);
        for [what, a, b, ratio] in &section.rows {
            html += &row("td", "", &[what, a, b, ratio]);
        }
        for note in &section.notes {
            html += &format!("<tr><td colspan=\"4\" class=\"note\">{}</td></tr>", escape(note));
        }
    }
    html += "</table>";
    for text in &comparison.alone {
        html += &format!("<p>{}</p>", escape(text));
    }
    html + "</section>"
}

fn details(name: &str, report: &Report) -> String {
    let mut rows = format!("command     {}\n", report.command.join(" "));
    let machine = &report.machine;
    rows += &format!(
        "machine     {}, {} CPUs, Linux {}, at most {} descriptors\n",
        machine.cpu, machine.cpus, machine.kernel, machine.descriptors_max
    );
    let loadgen = match &machine.loadgen_cpus {
        Some(cpus) => format!("{cpus:?}"),
        None => "on its workers".to_owned(),
    };
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    rows += &format!("CPUs        loadgen {loadgen}, server {:?}\n", machine.server_cpus);
    rows += &format!("network     {}\n", machine.network);
    rows += &format!(
        "server      pid {}, program {}, build {}\nloadgen     {}{}\n",
        machine.server_pid.map_or("unknown".to_owned(), |pid| pid.to_string()),
        known(&machine.server_program),
        known(&machine.server_build),
        machine.loadgen_program,
        if machine.is_root { ", as root" } else { ", not as root: memory is not measured" }
    );
    rows += &format!("commit      {}\n", machine.commit.as_deref().unwrap_or("unknown"));
    if let Some(calibration) = report.calibration {
        rows += &format!(
            "calibration plain socket {:.0} B, client half of a viewer {:.0} B\n",
            calibration.plain_socket_bytes, calibration.client_half_bytes
        );
    }
    rows +=
        &format!("memory      {}\nclocks      {}\n\n", report.memory_method, report.clock_method);
    rows += &report.parameters.lines().join("\n");
    format!(
        "<details><summary>{}: how</summary><pre>{}</pre></details>",
        escape(name),
        escape(&rows)
    )
}

fn plots(reports: &[(&str, &Report)]) -> Vec<Plot> {
    let quantile_ticks = [
        (0.5, "50%"),
        (0.9, "90%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
        (0.9999, "99.99%"),
        (0.99999, "99.999%"),
    ];
    let x_of = |quantile: f64| -(1.0 - quantile).max(1e-7).log10();
    let mut by_percentile = Vec::new();
    for (name, report) in reports {
        for step in &report.steps {
            let curve = step.latency.curve.iter().filter(|(quantile, _)| *quantile < 1.0);
            by_percentile.push(Line {
                name: label(reports, name, &step.label),
                points: curve.map(|&(quantile, secs)| (x_of(quantile), Some(secs * 1e3))).collect(),
            });
        }
    }
    let percentile_plot = Plot {
        title: "Latency by percentile".into(),
        x_ticks: quantile_ticks.iter().map(|&(q, text)| (x_of(q), text.to_owned())).collect(),
        x_label: "percentile".into(),
        y_label: "ms, from the intended instant".into(),
        y_scale: Scale::Log,
        lines: by_percentile,
        marks: Vec::new(),
    };
    let latency: [(&str, Pick); 3] = [
        ("p50", |s| (s.p50 > 0.0).then_some(s.p50 * 1e3)),
        ("p99", |s| (s.p99 > 0.0).then_some(s.p99 * 1e3)),
        ("max", |s| (s.max > 0.0).then_some(s.max * 1e3)),
    ];
    let memory: [(&str, Pick); 2] = [
        ("user", |s| Some(s.user_bytes? as f64 / 1_048_576.0)),
        ("kernel, both ends", |s| Some(s.kernel_bytes? as f64 / 1_048_576.0)),
    ];
    vec![
        percentile_plot,
        over_time(reports, "Latency over time", "ms", Scale::Log, &latency),
        over_time(
            reports,
            "Connections",
            "live",
            Scale::Linear,
            &[("live", |s| Some(s.connections as f64))],
        ),
        over_time(
            reports,
            "Deliveries",
            "a second",
            Scale::Linear,
            &[("deliveries", |s| Some(s.deliveries_per_sec))],
        ),
        over_time(
            reports,
            "CPU",
            "% of its CPUs, as in the table",
            Scale::Linear,
            &[("server", |s| s.server_cpu_percent), ("loadgen", |s| s.loadgen_cpu_percent)],
        ),
        over_time(reports, "Memory", "MiB", Scale::Linear, &memory),
        Plot {
            // Where it was not measured the line would be noise.
            lines: reports
                .iter()
                .filter(|(_, report)| report.steps.iter().any(|step| step.memory.is_ok()))
                .map(|(name, report)| memory_a_connection(reports, name, report))
                .collect(),
            ..over_time(
                reports,
                "Memory a connection",
                "B, client half taken away",
                Scale::Linear,
                &[],
            )
        },
    ]
}

fn memory_a_connection(reports: &[(&str, &Report)], name: &str, report: &Report) -> Line {
    let viewers = u64::from(report.parameters.viewers);
    let first = report.samples.iter().position(|sample| sample.connections >= viewers);
    let crowded = &report.samples[first.unwrap_or(report.samples.len())..];
    let pick =
        move |sample: &Sample| sample.bytes_per_connection.filter(|_| is_crowded(sample, viewers));
    Line { name: label(reports, name, "user + kernel"), points: points(crowded, pick) }
}

/// Whether the audience is there. Divided among the few that connect first, or stay in a storm, what a server keeps
/// anyway would stretch the axis a hundredfold.
fn is_crowded(sample: &Sample, viewers: u64) -> bool {
    sample.connections * 2 >= viewers
}

/// A line's points, broken where a sample has no value and where samples are missing.
fn points(samples: &[Sample], pick: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
    let mut points = Vec::new();
    let mut last_secs = f64::INFINITY;
    for sample in samples {
        if sample.secs - last_secs > sample.span_secs * GAP_FACTOR {
            points.push(((sample.secs + last_secs) / 2.0, None));
        }
        points.push((sample.secs, pick(sample)));
        last_secs = sample.secs;
    }
    points
}

/// The measured windows of a run: stretches of samples with a step's name.
fn marks(report: &Report) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for sample in &report.samples {
        let from = sample.secs - sample.span_secs;
        let is_step =
            report.steps.iter().any(|step| step.label == sample.phase) || sample.phase == "steady";
        match marks.last_mut() {
            Some(mark) if mark.name == sample.phase => mark.to = sample.secs,
            _ if is_step => marks.push(Mark { from, to: sample.secs, name: sample.phase.clone() }),
            _ => {}
        }
    }
    marks
}

/// What a plot takes from a sample.
type Pick = fn(&Sample) -> Option<f64>;

fn over_time(
    reports: &[(&str, &Report)],
    title: &str,
    y_label: &str,
    y_scale: Scale,
    picks: &[(&str, Pick)],
) -> Plot {
    let mut lines = Vec::new();
    for (name, report) in reports {
        for (what, pick) in picks {
            lines.push(Line {
                name: label(reports, name, what),
                points: points(&report.samples, pick),
            });
        }
    }
    Plot {
        title: title.into(),
        x_ticks: Vec::new(),
        x_label: "seconds".into(),
        y_label: y_label.into(),
        y_scale,
        lines,
        // Two runs' windows would lie over each other.
        marks: match reports {
            [(_, report)] => marks(report),
            _ => Vec::new(),
        },
    }
}

fn label(reports: &[(&str, &Report)], name: &str, what: &str) -> String {
    if reports.len() == 1 { what.to_owned() } else { format!("{name}: {what}") }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1500px;padding:0 1rem;\
color:#222;background:#fff}pre{overflow:auto;background:#f4f4f4;padding:.8rem;font-size:12.5px}.pass{color:#07702f}\
.fail{color:#b00020}.unmeasured{color:#8a5a00}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:1rem}\
figure{margin:0}figcaption{font-weight:600}figure>svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor}\
.grid{stroke:currentColor;opacity:.15}.band{fill:currentColor;opacity:.07}svg text.mark{font-size:9.5px;opacity:.75}\
.legend{margin:0;font-size:13px}.legend i{font-style:normal}.legend span{white-space:nowrap;margin-right:.7rem}\
.key{width:28px;height:8px;margin-right:4px;vertical-align:middle}.compare{border-collapse:collapse;font-size:13.5px}\
.compare td,.compare th{text-align:right;padding:1px 14px;border-bottom:1px solid #8883}.compare td:first-child,\
.compare th:first-child,.compare .note{text-align:left}.compare th{padding-top:.8rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#222}.pass{color:#4cc38a}\
.fail{color:#ff8080}.unmeasured{color:#e0b050}}";

/// Shows each line's value under the pointer, in the legend.
const SCRIPT: &str = "for(const svg of document.querySelectorAll('figure>svg')){const legend=svg.parentNode.querySelector('.legend');\
const names=[...legend.querySelectorAll('i')];const lines=[...svg.querySelectorAll('g')].map(g=>({name:g.dataset.name,\
values:[...g.querySelectorAll('polyline')].flatMap(l=>l.dataset.values.split(' ').map(v=>+v.split(',')[1])),\
at:[...g.querySelectorAll('polyline')].flatMap(l=>l.getAttribute('points').split(' ').map(p=>+p.split(',')[0]))}));\
svg.addEventListener('pointermove',e=>{const x=e.offsetX/svg.clientWidth*720;lines.forEach((l,i)=>{let best=0;\
l.at.forEach((a,k)=>{if(Math.abs(a-x)<Math.abs(l.at[best]-x))best=k});const far=Math.abs(l.at[best]-x)>24;\
names[i].textContent=l.name+' '+(far?'no data':+l.values[best].toPrecision(4))})});\
svg.addEventListener('pointerleave',()=>lines.forEach((l,i)=>{names[i].textContent=l.name}))}";

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(secs: f64, connections: u64) -> Sample {
        Sample {
            secs,
            span_secs: 1.0,
            phase: "steady".to_owned(),
            connections,
            posts_per_sec: 0.0,
            deliveries_per_sec: 0.0,
            p50: 0.0,
            p99: 0.0,
            max: 0.0,
            server_cpu_percent: None,
            loadgen_cpu_percent: None,
            user_bytes: None,
            kernel_bytes: None,
            bytes_per_connection: Some(1.0),
            user_bytes_per_connection: None,
        }
    }

    #[test]
    fn memory_is_divided_among_an_audience_not_among_the_few_that_stay() {
        let course = [100, 98, 10, 55, 100];
        let shown = course.map(|connections| is_crowded(&sample(0.0, connections), 100));
        assert_eq!(shown, [true, true, false, true, true]);
    }

    #[test]
    fn seconds_without_samples_break_a_line() {
        let samples = [1.0, 2.0, 5.0, 6.0].map(|secs| sample(secs, 1));
        let line = points(&samples, |s| s.bytes_per_connection);
        let xs: Vec<(f64, bool)> = line.iter().map(|&(x, y)| (x, y.is_some())).collect();
        assert_eq!(xs, [(1.0, true), (2.0, true), (3.5, false), (5.0, true), (6.0, true)]);
    }
}
