//! The binary as an operator types it: exit codes, sentences on stderr, `post` and `config`.

mod fake;

use std::process::{Command, Output};

use fake::TestNode;

fn uproar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UPROAR_")) {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    uproar(args).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_bad_setting_is_one_sentence_and_exit_code_78() {
    for (args, sentence) in [
        (
            &["--shards", "0"][..],
            "uproar: --shards: shards is 0, under the smallest value 1 shards\n",
        ),
        (&["--listen", "here"], "uproar: --listen: listen is \"here\", which is not an IP address"),
        (
            &["--cpus", "4095"],
            "uproar: --cpus: cpus names CPU 4095, which this process may not use",
        ),
        (
            &["--drain-spread-ms", "60000"],
            "drain_spread_ms (60000) together are 62000, over drain_deadline_ms, which is 10000",
        ),
        (
            &["--rings-per-shard", "1", "--connections-max", "9000000"],
            "rings_per_shard is 1: rings",
        ),
        (&["--config", "/nowhere.toml"], "cannot read the configuration file /nowhere.toml"),
        (&["--rooms-max", "1", "--shards", "2"], "rooms_max is 1, but 2 shards divide it"),
    ] {
        let output = run(&[&["serve"], args].concat());
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{args:?}: {stderr}");
        assert!(stderr.contains(sentence), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"));
    }
}

#[test]
fn a_bad_variable_is_named() {
    let output = uproar(&["serve"]).env("UPROAR_SHARDS", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).starts_with("uproar: UPROAR_SHARDS: shards is \"many\""));
}

#[test]
fn all_bad_settings_are_reported_at_once() {
    let output = run(&["config", "show", "--shards", "0", "--admin", "x", "--rooms-max", "0"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stderr(&output).lines().count(), 3, "{}", stderr(&output));
}

#[test]
fn usage_errors_are_claps() {
    let output = run(&["serve", "--shard", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--shards"), "{}", stderr(&output));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_port_in_use_is_said_so_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for args in
        [["--listen", &addr, "--admin", "off"], ["--admin", &addr, "--listen", "127.0.0.1:0"]]
    {
        let output = run(&[&["serve"], &args[..]].concat());
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("cannot listen on {addr}")), "{stderr}");
        assert!(stderr.contains("the port is in use; `ss -ltnp"), "{stderr}");
    }
}

#[test]
fn a_start_that_fails_says_so_in_the_format_of_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let last_line = |format: &[&str]| {
        let output = run(&[&["serve", "--listen", &addr, "--admin", "off"], format].concat());
        assert_eq!(output.status.code(), Some(1));
        stderr(&output).lines().last().unwrap().to_owned()
    };
    let line: serde_json::Value =
        serde_json::from_str(&last_line(&["--log-format", "json"])).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().starts_with("cannot listen on"), "{line}");
    let line = last_line(&["--log-format", "journal"]);
    assert!(line.starts_with("<3>cannot listen on"), "{line}");
    // Without a log there is still a reason.
    let line = last_line(&["--log-level", "off"]);
    assert!(line.starts_with("uproar: cannot listen on"), "{line}");
}

#[test]
fn an_address_of_another_host_is_said_so() {
    // TEST-NET-1 (RFC 5737) is no address of any host.
    let args = ["serve", "--listen", "192.0.2.1:0", "--admin", "off", "--bind-wait-ms", "300"];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1), "it may come, so another try may help");
    let told = stderr(&output);
    assert!(
        told.contains("no interface of this host has 192.0.2.1 (listen); waiting up to 0.3 s"),
        "{told}"
    );
    assert!(told.contains("`ip addr` shows those it has"), "{told}");
}

#[test]
fn the_version_names_the_commit() {
    let version = stdout(&run(&["--version"]));
    // A build's variable of a name like a setting's would be one to each `cargo run`.
    assert!(!std::env::vars().any(|(name, _)| name == "UPROAR_COMMIT"));
    let commit = version.trim_end().strip_prefix("uproar ").unwrap().split_once(" (").unwrap().1;
    let commit = commit.strip_suffix(')').unwrap();
    let is_one = commit.len() == 12 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_one || commit == "unknown", "{version}");
    assert_eq!(commit, uproar::version::COMMIT);
}

#[test]
fn help_explains_every_documented_setting_and_hides_the_others() {
    let help = stdout(&run(&["serve", "--help"]));
    for setting in uproar::config::documented() {
        assert!(help.contains(&format!("--{} ", setting.flag())), "{}", setting.name);
    }
    assert!(!help.contains("conformance"));
}

#[test]
fn config_check_accepts_what_config_default_prints() {
    let path = std::env::temp_dir().join(format!("uproar-{}-cli.toml", std::process::id()));
    std::fs::write(&path, run(&["config", "default"]).stdout).unwrap();
    let good = run(&["config", "check", path.to_str().unwrap()]);
    std::fs::write(&path, "shard = 2\nrooms_max = \"x\"\n").unwrap();
    let bad = run(&["config", "check", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert_eq!(bad.status.code(), Some(78));
    let expected = format!(
        "uproar: {0}:1: shard is not a setting; did you mean shards?\n\
         uproar: {0}:2: rooms_max is text in quotes here, but takes 1 to 16777216 rooms, written as rooms_max = 65536\n",
        path.display()
    );
    assert_eq!(stderr(&bad), expected);
}

#[test]
fn config_check_refuses_what_serve_would_refuse_on_this_host() {
    let path = std::env::temp_dir().join(format!("uproar-{}-host.toml", std::process::id()));
    let path = path.to_str().unwrap();
    for (text, sentence) in [
        ("cpus = [0, 4095]\n", ":1: cpus names CPU 4095, which this process may not use"),
        ("\nrings_per_shard = 1\nconnections_max = 60000\n", ":2: rings_per_shard is 1: rings of"),
        ("connections_max = 10000000\n", ":1: connections_max is 10000000, which needs"),
    ] {
        std::fs::write(path, text).unwrap();
        let check = run(&["config", "check", path]);
        let serve = run(&["serve", "--config", path, "--listen", "127.0.0.1:0", "--admin", "off"]);
        for output in [check, serve] {
            assert_eq!(output.status.code(), Some(78), "{text}: {}", stderr(&output));
            assert!(stderr(&output).contains(sentence), "{text}: {}", stderr(&output));
        }
        assert_eq!(run(&["config", "check", "--anywhere", path]).status.code(), Some(0), "{text}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn config_show_names_flags_variables_and_the_file_by_variable() {
    let path = std::env::temp_dir().join(format!("uproar-{}-show.toml", std::process::id()));
    std::fs::write(&path, "\nrooms_max = 7\n").unwrap();
    let output = uproar(&["config", "show", "--shards", "2"])
        .env("UPROAR_KEEPALIVE_MS", "9000")
        .env("UPROAR_CONFIG", &path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let shown = stdout(&output);
    let origin = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{key} = ")));
        line.and_then(|line| line.split_once("# ")).map(|(_, origin)| origin.to_owned())
    };
    assert_eq!(origin("shards").as_deref(), Some("--shards"));
    assert_eq!(origin("keepalive_ms").as_deref(), Some("UPROAR_KEEPALIVE_MS"));
    assert_eq!(origin("rooms_max"), Some(format!("{}:2", path.display())));
    assert_eq!(origin("listen").as_deref(), Some("default"));
}

#[test]
fn post_prints_the_id_and_the_node_has_the_comment() {
    let node = TestNode::start(&[]);
    let url = format!("http://{}", node.public);
    let output =
        run(&["post", "final", "hello there", "--user", "u1", "--name", "Ann", "--url", &url]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with(" at offset 1\n"), "{}", stdout(&output));
    let comment = &node.get("/v1/events/final/comments").json()["comments"][0];
    assert_eq!((&comment["text"], &comment["user"]), (&"hello there".into(), &"u1".into()));

    let refused = run(&["post", "final", "", "--url", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        stderr(&refused),
        "uproar: refused with 400 empty: the text has nothing that anybody can see\n"
    );
}

#[test]
fn clients_say_what_is_wrong_with_an_address() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = closed.local_addr().unwrap().to_string();
    drop(closed);
    for (args, sentence) in [
        (["post", "e", "x", "--url", &format!("http://{addr}")], "is the node running?"),
        (["tail", "e", "--json", "--url", &format!("ws://{addr}")], "is the node running?"),
        (["tail", "e", "--json", "--url", "wss://x"], "speaks no TLS"),
        (["tail", "a b", "--json", "--url", "ws://x"], "an event id is 1 to 128 of"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(sentence), "{args:?}: {}", stderr(&output));
    }
}

/// What a shell gives may be more or less than what the service has; `--unit` asks systemd for the latter.
#[test]
fn a_configuration_is_judged_by_the_limits_of_the_unit() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("uproar-{}-unit", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (systemctl, file) = (dir.join("systemctl"), dir.join("uproar.toml"));
    std::fs::write(&file, "http_connections_max = 512\n").unwrap();
    let check = |shown: &str, args: &[&str]| {
        std::fs::write(&systemctl, format!("#!/bin/sh\nprintf '{shown}'\n")).unwrap();
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_uproar"))
            .args(["config", "check", file.to_str().unwrap()])
            .args(args)
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .output()
            .unwrap()
    };
    let unit = ["--unit", "uproar"];
    let low = check("LoadState=loaded\\nLimitNOFILE=600\\nCPUAffinity=\\n", &unit);
    assert_eq!(low.status.code(), Some(78));
    let told = stderr(&low);
    assert!(told.contains("limit is 600") || told.contains("limit of 600"), "{told}");
    let good = check("LoadState=loaded\\nLimitNOFILE=65536\\nCPUAffinity=0\\n", &unit);
    assert!(
        stdout(&good).contains("(by the limits of uproar: 65536 descriptors, 1 CPUs)"),
        "{good:?}"
    );
    let none = check("LoadState=not-found\\nLimitNOFILE=\\n", &unit);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("there is no unit uproar"));
    let shell = check("", &[]);
    assert!(stdout(&shell).contains("by the limits of this shell (--unit has the service's)"));
    std::fs::remove_dir_all(&dir).unwrap();
}
