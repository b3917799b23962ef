//! The report page in a real browser: its plots have a size, lines, and answer the pointer.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::process::Command;

use support::{Double, folder, loadgen, outcome, report};

/// Asks the browser what it made of every plot, after moving a pointer over it.
const LOOK: &str = "<script>
const seen = [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const lines = [...svg.querySelectorAll('polyline')].filter(line => line.getTotalLength() > 5);
  const legend = figure.querySelector('.legend'), before = legend.textContent;
  svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + box.width / 2, clientY: box.y + 50}));
  const title = figure.querySelector('figcaption').textContent;
  const shown = box.width > 200 && box.height > 80 && lines.length > 0 && legend.textContent !== before;
  return title + (shown ? ' shown' : ' MISSING');
});
document.title = 'LOOKED ' + seen.join('; ');
</script>";

const PLOTS: [&str; 5] =
    ["Latency by percentile", "Latency over time", "Connections", "Deliveries", "CPU"];

#[test]
fn the_report_shows_its_plots_in_chromium() {
    let double = Double::start(&[]);
    let out = folder("page");
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "100", "--rate", "20", "--duration-secs", "3", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, held) = outcome(&output);
    assert!(held, "{text}");
    assert!(report(&out)["samples"].as_array().is_some_and(|samples| samples.len() >= 3));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "self-contained");
    let looked = out.join("looked.html");
    fs::write(&looked, page.replace("</body>", &format!("{LOOK}</body>"))).unwrap();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", out.join("browser").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", looked.display()))
        .output()
        .expect("this test needs chromium: apt-get install chromium, or run scripts/test");
    let dom = String::from_utf8_lossy(&browser.stdout);
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let title = title.unwrap_or_default();
    assert!(title.starts_with("LOOKED"), "{}", String::from_utf8_lossy(&browser.stderr));
    for plot in PLOTS {
        assert!(title.contains(&format!("{plot} shown")), "{plot}: {title}");
    }
    assert!(!title.contains("MISSING"), "{title}");
}
