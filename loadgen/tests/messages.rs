//! Messages that a newcomer provokes: each names the flag, says what it takes, and holds no words of a parser.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

/// What only who wrote the program understands.
const JARGON: &[&str] = &[
    "invalid digit",
    "invalid float",
    "invalid socket address",
    "os error",
    "panicked",
    "a plane ended",
];

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!JARGON.iter().any(|word| text.contains(word)), "{text}");
    text
}

#[test]
fn words_that_cannot_be_get_what_the_flag_takes() {
    for (args, part) in [
        (
            &["run", "hot", "--viewers", "x"][..],
            "for '--viewers <VIEWERS>': it takes a whole number",
        ),
        (&["run", "hot", "--rate", "x"], "it takes a number, as in 2 or 0.5"),
        (&["run", "hot", "--rate", "-1"], "--rate cannot be negative: it is a number from 0"),
        (&["run", "hot", "--cpus", "0-1"], "it takes a whole number"),
        (&["worker", "--listen", "x"], "it takes an IP address with a port, as in 10.0.0.7:7000"),
        (&["worker", "--listen", "192.0.2.1:7"], "this host does not have that address; `ip addr`"),
        (&["run", "hot", "--target", "x"], "--target is \"x\", but takes HOST:PORT"),
        (&["run", "hot", "--target", "http://127.0.0.1:1"], "without a scheme and a path"),
        (&["run", "hot", "--viewers", "0"], "--viewers is 0 and --events is 1"),
        (&["run", "hot", "--path", "/x"], "--path is for other servers: add --speak generic"),
        (&["run", "hot", "--speak", "generic", "--publish", "x"], "--publish must hold {marker}"),
        (&["run", "hot", "--slo", "p99<250"], "--slo p99<250: \"250\" needs a unit: us, ms, s"),
        (&["run", "hot", "--slo", "p99"], "--slo p99: a level is a name, a comparison and a bound"),
        (
            &["run", "hot", "--out", "/dev/null"],
            "/dev/null of --out: that is a file; name a folder",
        ),
        (&["compare", "/nowhere", "/nowhere"], "name the folder that a run had as --out"),
    ] {
        let text = told(Command::new(env!("CARGO_BIN_EXE_uproar-loadgen")).args(args));
        assert!(text.contains(part), "{args:?}: {text}");
    }
}
