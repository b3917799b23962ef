//! The configuration table: names, ranges, precedence, and a clear sentence for each mistake.

use std::fs;
use std::path::PathBuf;

use uproar::config::{
    Config, Kind, Origin, Sources, commented_default, documented, effective, find, nearest, table,
};
use uproar_engine::limits::{LagPolicy, Limits};

/// A file of its own for each test, removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uproar-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("the temporary directory takes files");
        Self(path)
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.clone()), ..Sources::default() }
    }

    /// The problems of the file, without its path.
    fn problems(&self) -> Vec<String> {
        let path = format!("{}:", self.0.display());
        let problems = self.sources().load().expect_err("the file is bad").to_string();
        problems.lines().map(|line| line.replace(&path, "")).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn flags(flags: &[(&'static str, &str)]) -> Sources {
    let flags = flags.iter().map(|&(name, text)| (name, text.to_owned())).collect();
    Sources { flags, ..Sources::default() }
}

fn problem_of(name: &'static str, text: &str) -> String {
    flags(&[(name, text)]).load().expect_err("the value is bad").to_string()
}

#[test]
fn defaults_are_the_engines_own() {
    let loaded = Sources::default().load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.limits, Limits::default());
    assert!(loaded.warnings.is_empty());
    for setting in table() {
        assert_eq!(setting.value(&loaded.config), setting.default, "{}", setting.name);
        assert_eq!(loaded.origin(setting), Origin::Default);
    }
}

#[test]
fn every_limit_of_the_engine_is_a_setting() {
    let debug = format!("{:?}", Limits::default());
    let fields: Vec<&str> = debug
        .trim_start_matches("Limits { ")
        .split(", ")
        .map(|field| field.split(':').next().unwrap())
        .collect();
    assert!(fields.len() > 20);
    for field in fields {
        assert!(find(field).is_some(), "{field} has no setting");
    }
}

#[test]
fn names_are_unique_and_every_row_bears_the_ends_of_its_range() {
    let mut names: Vec<_> = table().map(|setting| setting.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    for setting in table() {
        let Some((_, min, max)) = setting.kind.bounds() else { continue };
        for end in [min, max] {
            let text = end.to_string();
            // Rules across settings may object; the row itself must not, and must not panic.
            if let Err(problems) = flags(&[(setting.name, &text)]).load() {
                assert!(problems.to_string().contains(", over "), "{problems}");
            }
        }
        for beyond in [max + 1, u64::MAX] {
            let problem = problem_of(setting.name, &beyond.to_string());
            assert!(problem.contains("over the largest value"), "{problem}");
        }
        let zero_is_off = matches!(setting.kind, Kind::NumberOrZero { .. });
        assert!(!zero_is_off || flags(&[(setting.name, "0")]).load().is_ok());
        if min > u64::from(zero_is_off) {
            let problem = problem_of(setting.name, &(min - 1).to_string());
            assert!(problem.contains("under the smallest value"), "{problem}");
        }
    }
}

#[test]
fn each_kind_of_bad_value_gets_a_sentence() {
    for (name, text, sentence) in [
        (
            "shards",
            "two",
            "shards is \"two\", which is not a whole number (auto, or 1 to 256 shards)",
        ),
        ("shards", "0", "shards is 0, under the smallest value 1 shards"),
        ("keepalive_ms", "-5", "keepalive_ms is \"-5\", which is not a whole number"),
        ("rooms_max", "1e6", "is \"1e6\", which is not a whole number"),
        ("rooms_max", "99999999999999999999", "over the largest value 16777216 rooms"),
        ("keepalive_ms", "999", "keepalive_ms is 999, under the smallest value 1000 ms"),
        ("listen", "localhost:80", "is \"localhost:80\", which is not an IP address with a port"),
        ("listen", "127.0.0.1", "which is not an IP address with a port"),
        ("listen", "off", "which is not an IP address with a port"),
        ("admin", "on", "is \"on\", which is not an IP address with a port, or off"),
        ("node", "a b", "is \"a b\", which is not auto, or 1 to 64 of"),
        ("cpus", "0,x", "is \"0,x\", which is not auto, or CPU numbers and ranges as in 0,2-3"),
        ("cpus", "3-1", "where the range 3-1 runs backwards"),
        ("cpus", "0,0", "which names CPU 0 twice"),
        ("cpus", "", "which is not auto, or CPU numbers"),
        ("lag_policy", "drop", "is \"drop\", which is not one of skip, evict"),
        ("log_level", "loud", "is \"loud\", which is not one of off, error, warn"),
        ("log_level", "3", "is \"3\", which is not one of"),
        ("log_format", "xml", "which is not one of auto, human, journal, json"),
        ("conformance_echo", "yes", "is \"yes\", which is neither true nor false"),
    ] {
        let problem = problem_of(name, text);
        let flag = format!("--{}: {name} ", name.replace('_', "-"));
        assert!(problem.starts_with(&flag), "{problem}");
        assert!(problem.contains(sentence), "{problem}");
    }
}

#[test]
fn rules_across_settings_name_both_and_where_they_come_from() {
    for (name, text, sentence) in [
        ("frame_bytes_max", "20000", "is 20000, over message_bytes_max, which is 16384 (default)"),
        ("message_bytes_max", "1000", "frame_bytes_max is 16384, over message_bytes_max"),
        ("room_log_bytes_max", "70000000", "over log_bytes_max"),
        ("history_frames", "501", "over history_frames_max"),
        ("history_frames_max", "8193", "over room_log_frames_max"),
        ("connections_per_address_max", "55001", "over connections_max"),
        (
            "drain_spread_ms",
            "8001",
            "drain_delay_ms (2000) and drain_spread_ms (8001) together are 10001, over \
             drain_deadline_ms, which is 10000 (default)",
        ),
        ("drain_deadline_ms", "6999", "together are 7000, over drain_deadline_ms"),
        ("drain_delay_ms", "5001", "the process would end before the last viewers are closed"),
        ("admin", "127.0.0.1:8080", "admin and listen are both 127.0.0.1:8080"),
    ] {
        let problem = problem_of(name, text);
        assert!(problem.contains(sentence), "{problem}");
        assert!(problem.starts_with(&format!("--{}: ", name.replace('_', "-"))), "{problem}");
    }
    // Two settings that are each in range, and the queue too small for the comment.
    let both = [("comment_bytes_max", "5000"), ("private_queue_bytes_max", "4096")];
    let problem = flags(&both).load().unwrap_err().to_string();
    assert!(problem.contains("(--private-queue-bytes-max)"), "{problem}");
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file =
        File::new("precedence", "history_frames = 1\nstall_ms_max = 2_000\nkeepalive_ms = 3000\n");
    let mut sources = file.sources();
    let variables = [("UPROAR_STALL_MS_MAX", "4000"), ("UPROAR_KEEPALIVE_MS", "5000")];
    sources.variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    sources.flags = vec![("keepalive_ms", "6000".to_owned())];
    let loaded = sources.load().unwrap();
    let limits = &loaded.config.limits;
    assert_eq!((limits.history_frames, limits.stall_ms_max, limits.keepalive_ms), (1, 4000, 6000));
    let origin = |name| loaded.origin(find(name).unwrap());
    assert_eq!(origin("history_frames"), Origin::File(file.0.clone(), 1));
    assert_eq!(origin("stall_ms_max"), Origin::Variable("UPROAR_STALL_MS_MAX".into()));
    assert_eq!(origin("keepalive_ms"), Origin::Flag("--keepalive-ms".into()));
    assert_eq!(origin("rooms_max"), Origin::Default);
    let shown = effective(&loaded);
    assert!(shown.contains("# --keepalive-ms\n"), "{shown}");
    assert!(shown.contains(&format!("# {}:1\n", file.0.display())), "{shown}");
}

#[test]
fn every_problem_of_a_file_is_reported_with_its_line() {
    let file = File::new(
        "problems",
        "frame_byte_max = 3\n\
         shards = \"two\"\n\
         \n\
         lag_policy = skip\n\
         history_frames = \"7\"\n\
         cpus = [0, true]\n\
         node = 5\n\
         rooms_max = -1\n\
         log_level = \"loud\"\n\
         [limits]\n\
         colour = 1\n",
    );
    let problems = file.problems();
    let expected = [
        "1: frame_byte_max is not a setting; did you mean frame_bytes_max?",
        "2: shards is text in quotes here, but takes auto, or 1 to 256 shards",
        "4: lag_policy = skip cannot be read; it takes skip, evict",
        "5: history_frames is text in quotes here, but takes 0 to 65536 frames",
        "6: cpus is a list here",
        "7: node is a whole number here",
        "8: rooms_max is \"-1\", which is not a whole number",
        "9: log_level is \"loud\"",
        "10: limits is not a setting",
    ];
    for expected in expected {
        assert!(problems.iter().any(|p| p.starts_with(expected)), "{expected}: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn rules_across_settings_run_wherever_their_own_settings_are_good() {
    let file =
        File::new("across", "drain_delay_ms = 9000\nlisten = \"nope\"\nhistory_frames = 501\n");
    let problems = file.problems();
    let begins =
        ["1: drain_delay_ms (9000) and", "2: listen is \"nope\"", "3: history_frames is 501"];
    assert_eq!(problems.len(), begins.len(), "{problems:#?}");
    for (problem, begin) in problems.iter().zip(begins) {
        assert!(problem.starts_with(begin), "{problems:#?}");
    }
    // A deadline that was meant, however it was mistyped, is not the default one.
    for deadline in
        ["drain_deadline_ms = x", "drain_deadline_ms = \"20000\"", "drain_dedline_ms = 1"]
    {
        let file = File::new("unfair", &format!("drain_delay_ms = 9000\n{deadline}\n"));
        assert_eq!(file.problems().len(), 1, "{:#?}", file.problems());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { file: Some("/nowhere/uproar.toml".into()), ..Sources::default() };
    let problem = sources.load().unwrap_err().to_string();
    assert!(problem.starts_with("cannot read the configuration file /nowhere/uproar.toml: "));
}

#[test]
fn numbers_and_lists_may_be_written_in_several_ways() {
    let file = File::new("forms", "rooms_max = 0x1_0000\ncpus = [1, \"3-4\"]\nshards = \"auto\"");
    let config = file.sources().load().unwrap().config;
    assert_eq!(config.limits.rooms_max, 65_536);
    assert_eq!(config.server.cpus.unwrap().0, [1, 3, 4]);
    assert_eq!(config.server.shards, None);
    let config = flags(&[("rooms_max", "1_000"), ("lag_policy", "evict")]).load().unwrap().config;
    assert_eq!((config.limits.rooms_max, config.limits.lag_policy), (1_000, LagPolicy::Evict));
    let off = flags(&[("admin", "off")]).load().unwrap().config;
    assert_eq!(off.server.admin, None);
}

#[test]
fn the_generated_file_is_the_defaults_commented_or_not() {
    let text = commented_default();
    let commented = File::new("commented", &text);
    assert!(commented.sources().load().unwrap().origins.is_empty());

    // Keys are commented without a space, prose with one.
    let is_key = |line: &&str| line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
    let keys: String =
        text.lines().filter(is_key).map(|line| format!("{}\n", &line[1..])).collect();
    let live = File::new("live", &keys);
    let loaded = live.sources().load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.origins.len(), documented().count());
    assert!(!text.contains("conformance_echo"), "test-only settings are not advertised");
    assert!(text.lines().all(|line| line.len() <= 100));
}

#[test]
fn effective_values_are_a_valid_file_again() {
    let loaded = flags(&[("cpus", "0"), ("lag_policy", "evict")]).load().unwrap();
    let again = File::new("again", &effective(&loaded)).sources().load().unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn unknown_variables_are_warned_about_only_when_they_look_like_ours() {
    let variables = ["UPROAR_LISTN", "UPROAR_SERVICE_HOST", "UPROAR_PORT_8080_TCP"];
    let variables = variables.map(|name| (name.to_owned(), "x".to_owned())).to_vec();
    let warnings = Sources { variables, ..Sources::default() }.load().unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("did you mean UPROAR_LISTEN?"), "{warnings:?}");
}

#[test]
fn empty_variables_are_unset() {
    let variables = vec![("UPROAR_SHARDS".to_owned(), String::new())];
    let loaded = Sources { variables, ..Sources::default() }.load().unwrap();
    assert!(loaded.origins.is_empty());
}

#[test]
fn an_open_address_without_authentication_is_warned_about() {
    let loaded = flags(&[("listen", "0.0.0.0:80"), ("admin", "[::]:81")]).load().unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings[0].contains("authentication is off"), "{:?}", loaded.warnings);
}

#[test]
fn suggestions_are_near_or_absent() {
    assert_eq!(nearest("history-frame"), Some("history_frames"));
    assert_eq!(nearest("conections_max"), Some("connections_max"));
    assert_eq!(nearest("zzz"), None);
}
