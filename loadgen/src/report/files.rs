//! The files of a run: `summary.txt`, `report.json`, `report.html` and the histograms.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use super::{Report, html, table};

/// Makes `folder`, takes an earlier run's report out of it and writes a summary that says what there is until this
/// run's is there: nothing. So a run of hours does not end without its report, and one that was killed or refused
/// does not leave another's verdict behind.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        // Histograms have the names of steps, whatever became of their report; what else is there is not ours.
        if name.to_str().is_some_and(is_histogram) {
            remove(&folder.join(name))?;
        }
    }
    remove(&folder.join(REPORT))?;
    remove(&folder.join(PAGE))?;
    fs::write(folder.join(SUMMARY), "not finished: this run is under way, or was killed\n")
}

/// Says in `folder` why there is no report.
pub(crate) fn write_refusal(folder: &Path, why: &str) -> io::Result<()> {
    fs::write(folder.join(SUMMARY), format!("not run: {why}\n"))
}

/// Whether a file's name is that of a step's histogram: `steady`, `x1.40` or `unfinished`, and which try it was.
fn is_histogram(name: &str) -> bool {
    let Some(label) = name.strip_suffix(".hdr").or_else(|| name.strip_suffix(".hgrm")) else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_try = |rest: &str| rest.is_empty() || rest.strip_prefix('.').is_some_and(is_number);
    let named = ["steady", "unfinished"].into_iter().find_map(|name| label.strip_prefix(name));
    if let Some(rest) = named {
        return is_try(rest);
    }
    let mut parts = label.strip_prefix('x').unwrap_or("").split('.');
    let count = parts.clone().count();
    (2..=3).contains(&count) && parts.all(is_number)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const REPORT: &str = "report.json";
const PAGE: &str = "report.html";
const SUMMARY: &str = "summary.txt";

/// Writes everything into `folder`; the verdict last, when all it stands for is there.
pub(crate) fn write(
    folder: &Path,
    report: &Report,
    histograms: &[(String, Histogram<u64>)],
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (label, histogram) in histograms {
        fs::write(folder.join(format!("{label}.hgrm")), hgrm(histogram)?)?;
        let mut hdr = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut hdr).map_err(io::Error::other)?;
        fs::write(folder.join(format!("{label}.hdr")), hdr)?;
    }
    let json = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
    fs::write(folder.join(REPORT), json)?;
    fs::write(folder.join(PAGE), html::page(&[("run", report)], None))?;
    fs::write(folder.join(SUMMARY), table::summary(report) + "\n")
}

/// The percentile text that HdrHistogram's plotters read; values in milliseconds.
fn hgrm(histogram: &Histogram<u64>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for point in histogram.iter_quantiles(5) {
        total += point.count_since_last_iteration();
        let quantile = point.quantile_iterated_to();
        let value_ms = point.value_iterated_to() as f64 / 1e3;
        write!(out, "{value_ms:12.3} {quantile:14.12} {total:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let max = histogram.max() as f64 / 1e3;
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len())?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", 32, 2_048)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_or_refused_before_the_run() {
        let folder = std::env::temp_dir().join(format!("loadgen-files-{}", std::process::id()));
        prepare(&folder.join("a/b")).unwrap();
        assert_eq!(
            fs::read_dir(folder.join("a/b")).unwrap().count(),
            1,
            "a summary that says nothing yet"
        );
        fs::write(folder.join("file"), []).unwrap();
        assert!(prepare(&folder.join("file")).is_err());
        assert!(prepare(&folder.join("file/below")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_earlier_runs_report_is_gone_before_the_next_begins() {
        let folder = std::env::temp_dir().join(format!("loadgen-stale-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let earlier = r#"{"steps":[{"label":"steady"},{"label":"../x"}],"passed":true}"#;
        fs::write(folder.join(REPORT), earlier).unwrap();
        for (name, text) in
            [(SUMMARY, "PASS"), (PAGE, "PASS"), ("steady.hdr", "x"), ("mine.hdr", "x")]
        {
            fs::write(folder.join(name), text).unwrap();
        }
        prepare(&folder).unwrap();
        let left: Vec<String> =
            ["report.json", "report.html", "steady.hdr", "mine.hdr", "summary.txt"]
                .map(str::to_owned)
                .into_iter()
                .filter(|name| folder.join(name).exists())
                .collect();
        assert_eq!(left, ["mine.hdr", "summary.txt"]);
        assert!(fs::read_to_string(folder.join(SUMMARY)).unwrap().starts_with("not finished"));
        write_refusal(&folder, "no such host").unwrap();
        assert_eq!(fs::read_to_string(folder.join(SUMMARY)).unwrap(), "not run: no such host\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn percentile_text_ends_with_everything_counted() {
        let mut histogram = crate::tally::latency_histogram();
        for us in 1..=1_000 {
            histogram.record(us).unwrap();
        }
        let text = String::from_utf8(hgrm(&histogram).unwrap()).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(fields, ["1.000", "1.000000000000", "1000"]);
    }
}
