//! The files of a run: `summary.txt`, `report.json`, `report.html` and the histograms.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use super::{Report, html, table};

/// Makes `folder` and tries to write there, so that a run of hours does not end without its report.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(".writable");
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}

/// Writes everything into `folder`, which is made if need be.
pub(crate) fn write(
    folder: &Path,
    report: &Report,
    histograms: &[(String, Histogram<u64>)],
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let json = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
    fs::write(folder.join("report.json"), json)?;
    fs::write(folder.join("summary.txt"), table::summary(report) + "\n")?;
    fs::write(folder.join("report.html"), html::page(&[("run", report)]))?;
    for (label, histogram) in histograms {
        fs::write(folder.join(format!("{label}.hgrm")), hgrm(histogram)?)?;
        let mut hdr = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut hdr).map_err(io::Error::other)?;
        fs::write(folder.join(format!("{label}.hdr")), hdr)?;
    }
    Ok(())
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
        assert_eq!(fs::read_dir(folder.join("a/b")).unwrap().count(), 0);
        fs::write(folder.join("file"), []).unwrap();
        assert!(prepare(&folder.join("file")).is_err());
        assert!(prepare(&folder.join("file/below")).is_err());
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
