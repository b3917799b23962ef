//! The report as one self-contained page: verdicts, tables, plots. No network, no library.

use super::plot::{Line, Plot, Scale, escape};
use super::table;
use super::{Report, Sample};

/// The page for `report`, or two reports side by side.
pub(crate) fn page(reports: &[(&str, &Report)]) -> String {
    let title = match reports {
        [(_, report)] => format!("uproar-loadgen {}", report.scenario),
        _ => "uproar-loadgen compare".to_owned(),
    };
    let mut body = format!("<h1>{}</h1>", escape(&title));
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
    let verdict = if report.passed { "pass" } else { "fail" };
    format!(
        "<section><h2>{} <b class=\"{verdict}\">{}</b></h2><pre>{}</pre></section>",
        escape(name),
        verdict.to_uppercase(),
        escape(&table::summary(report))
    )
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
    rows += &format!("CPUs        loadgen {loadgen}, server {:?}\n", machine.server_cpus);
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
                points: curve.map(|&(quantile, secs)| (x_of(quantile), secs * 1e3)).collect(),
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
            "% of one CPU",
            Scale::Linear,
            &[("server", |s| s.server_cpu_percent), ("loadgen", |s| s.loadgen_cpu_percent)],
        ),
        over_time(reports, "Memory", "MiB", Scale::Linear, &memory),
        Plot {
            lines: reports
                .iter()
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
    let crowded = crowded(&report.samples, u64::from(report.parameters.viewers));
    Line {
        name: label(reports, name, "user + kernel"),
        points: crowded.filter_map(|s| Some((s.secs, s.bytes_per_connection?))).collect(),
    }
}

/// The samples while the audience is there. Divided among the few that connect first, or stay in a
/// storm, what a server keeps anyway would stretch the axis a hundredfold.
fn crowded(samples: &[Sample], viewers: u64) -> impl Iterator<Item = &Sample> {
    let connected = samples.iter().skip_while(move |sample| sample.connections < viewers);
    connected.filter(move |sample| sample.connections * 2 >= viewers)
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
            let points = report.samples.iter().filter_map(|s| Some((s.secs, pick(s)?)));
            lines.push(Line { name: label(reports, name, what), points: points.collect() });
        }
    }
    Plot {
        title: title.into(),
        x_ticks: Vec::new(),
        x_label: "seconds".into(),
        y_label: y_label.into(),
        y_scale,
        lines,
    }
}

fn label(reports: &[(&str, &Report)], name: &str, what: &str) -> String {
    if reports.len() == 1 { what.to_owned() } else { format!("{name}: {what}") }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1500px;padding:0 1rem;\
color:#222;background:#fff}pre{overflow:auto;background:#f4f4f4;padding:.8rem;font-size:12.5px}.pass{color:#07702f}\
.fail{color:#b00020}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:1rem}\
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor}\
.grid{stroke:currentColor;opacity:.15}.cursor{stroke:currentColor;opacity:.6}.legend{margin:0;font-size:13px}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#222}.pass{color:#4cc38a}\
.fail{color:#ff8080}}";

/// Shows each line's value under the pointer, in the legend.
const SCRIPT: &str = "for(const svg of document.querySelectorAll('svg')){const legend=svg.parentNode.querySelector('.legend');\
const names=[...legend.children];const lines=[...svg.querySelectorAll('polyline')].map(l=>({name:l.dataset.name,\
values:l.dataset.values.split(' ').map(v=>v.split(',').map(Number)),at:l.getAttribute('points').split(' ').map(p=>+p.split(',')[0])}));\
svg.addEventListener('pointermove',e=>{const x=e.offsetX/svg.clientWidth*720;lines.forEach((l,i)=>{let best=0;\
l.at.forEach((a,k)=>{if(Math.abs(a-x)<Math.abs(l.at[best]-x))best=k});names[i].textContent=l.name+' '+(+l.values[best][1].toPrecision(4))})});\
svg.addEventListener('pointerleave',()=>lines.forEach((l,i)=>{names[i].textContent=l.name}))}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_divided_among_an_audience_not_among_the_first_that_come() {
        let sample = |secs, connections| Sample {
            secs,
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
        };
        let course = [4, 60, 100, 98, 10, 55, 100];
        let samples: Vec<Sample> =
            (0..).zip(course).map(|(at, n)| sample(f64::from(at), n)).collect();
        let shown: Vec<u64> = crowded(&samples, 100).map(|sample| sample.connections).collect();
        assert_eq!(shown, [100, 98, 55, 100]);
        assert_eq!(crowded(&samples[..2], 100).count(), 0);
    }
}
