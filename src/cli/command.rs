//! What clap knows: the subcommands, and a flag for each row of the configuration table.
//!
//! Flags are taken as text; the table judges them, so that a bad flag, variable and line of
//! the file get the same sentence and the same exit code.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, PossibleValuesParser};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::config::{Kind, Setting, Sources, documented, table};
use crate::version;

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let flags: Vec<Arg> = table().map(flag).collect();
    with_flags(&flags)
}

/// The command line as a shell completes it: without what is hidden, which the generators of
/// completions would offer, and with the words that a flag takes. Where flags are parsed the
/// table judges the words, so that a bad one is a configuration error like in the file.
#[must_use]
pub fn completed_command() -> Command {
    let completed = |setting: &'static Setting| match setting.kind {
        Kind::Choice(words) => flag(setting).value_parser(PossibleValuesParser::new(words)),
        Kind::Switch => flag(setting).value_parser(value_parser!(bool)),
        _ => flag(setting),
    };
    let flags: Vec<Arg> = documented().map(completed).collect();
    with_flags(&flags)
}

/// The command line with these flags for settings.
fn with_flags(flags: &[Arg]) -> Command {
    let settings = |command: Command| command.arg(file()).args(flags);
    Command::new("uproar")
        .version(version::BUILD)
        .about("A broadcast server for the live comments of a live event")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .subcommand(settings(Command::new("serve").about("Run a node")).after_help(
            "Each setting is also a key of the file and a variable: --frame-bytes-max is \
             frame_bytes_max and UPROAR_FRAME_BYTES_MAX. Flags win over variables, variables over \
             the file. SIGTERM drains and ends; SIGHUP reads the file again.",
        ))
        .subcommand(settings(doctor()))
        .subcommand(top())
        .subcommand(drain())
        .subcommand(tail())
        .subcommand(post())
        .subcommand(config().subcommand(settings(
            Command::new("show").about("Print the effective values and where each came from"),
        )))
}

/// What was typed: the flags of `serve` or `config show`, and the environment.
pub(super) fn sources(
    args: &ArgMatches,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Sources {
    let mut variables: Vec<(String, String)> = variables
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text)))
        .filter(|(name, _)| name.starts_with("UPROAR_"))
        // A value that is no text is no value of any setting, and is refused as what it is.
        .map(|(name, text)| (name, text.to_string_lossy().into_owned()))
        .collect();
    variables.sort();
    let named = variables.iter().position(|(name, _)| name == "UPROAR_CONFIG");
    let named = named.map(|i| variables.remove(i).1).filter(|path| !path.is_empty());
    let file = args.get_one::<PathBuf>("config").cloned().or(named.map(PathBuf::from));
    let flag = |setting: &'static Setting| {
        let text = args.get_one::<String>(setting.name)?;
        Some((setting.name, text.clone()))
    };
    Sources { file, variables, flags: table().filter_map(flag).collect() }
}

fn file() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(PathBufValueParser::new())
        .help("The configuration file (UPROAR_CONFIG); none by default")
}

fn flag(setting: &'static Setting) -> Arg {
    let first_sentence = setting.help.split_inclusive(". ").next().unwrap_or(setting.help);
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.kind.placeholder())
        .hide(setting.is_hidden)
        .allow_hyphen_values(true)
        // The last one wins, so that a wrapper script's flags can be overridden.
        .overrides_with(setting.name)
        .help_heading(setting.group)
        .help(format!("{} [default: {}]", first_sentence.trim(), setting.default))
        .long_help(setting.paragraph());
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

fn doctor() -> Command {
    let connections = Arg::new("target_connections")
        .long("target-connections")
        .value_name("CONNECTIONS")
        .help("Check for this many connections instead of connections_max");
    let pid = Arg::new("pid")
        .long("pid")
        .value_name("PID")
        .value_parser(pid)
        .help("Check the limits, CPUs and sockets of a running node instead of this shell's, as in --pid $(systemctl show -P MainPID uproar)");
    let json = Arg::new("json")
        .long("json")
        .action(clap::ArgAction::SetTrue)
        .help("Print everything as one JSON object");
    let sysctl = Arg::new("sysctl")
        .long("sysctl")
        .action(clap::ArgAction::SetTrue)
        .conflicts_with("json")
        .help("Print only a sysctl.d file with what the target needs, for tuning/apply --from");
    // For itself: what it does as the service's user.
    let probe =
        Arg::new("probe_rings").long("probe-rings").action(clap::ArgAction::SetTrue).hide(true);
    Command::new("doctor").about("Check this host for the configured target").args([
        connections,
        pid,
        json,
        sysctl,
        probe,
    ])
    .after_help(
        "Changes nothing. Exit code 0: the target fits; 1: it does not; 2: a usage error, also a \
         process that is not running; 78: wrong configuration.",
    )
}

/// A process; systemctl says 0 for a unit that has none.
fn pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("the unit is not running: leave --pid out".into()),
        Ok(pid) => Ok(pid),
        Err(_) => {
            Err("a process has a number, as `systemctl show -P MainPID uproar` prints it".into())
        }
    }
}

/// A whole number within `min..=max`, or what it takes instead.
fn whole(
    unit: &'static str,
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("it takes a whole number, {min} to {max} {unit}"))
    }
}

fn top() -> Command {
    Command::new("top")
        .about("Watch a running node, from its admin port")
        .arg(url("http://127.0.0.1:8081").help("The node's admin address"))
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("SECONDS")
                .value_parser(whole("seconds", 1, 3_600))
                .default_value("2")
                .help("Time between two looks"),
        )
        .arg(
            Arg::new("frames")
                .long("frames")
                .value_name("COUNT")
                .value_parser(whole("looks", 1, u32::MAX))
                .help("Stop after so many looks; never if absent"),
        )
        .after_help(format!(
            "On a terminal, q ends it and ? explains. A node that restarts is waited for.\n\n{}",
            crate::top::LEGEND
        ))
}

fn drain() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(clap::ArgAction::SetTrue);
    Command::new("drain")
        .about("Take a running node out of service, or back, from its admin port")
        .arg(url("http://127.0.0.1:8081").help("The node's admin address"))
        .arg(flag("undo").help("Take viewers again; closes that were announced do not happen"))
        .arg(flag("status").conflicts_with("undo").help("Only say how far a drain is"))
        .arg(
            flag("wait")
                .conflicts_with_all(["undo", "status"])
                .help("Print the progress each second and end when nobody is left"),
        )
        .after_help(
            "The node goes on running: /ready answers 503 at once, viewers are served for \
             drain_delay_ms more and then closed over drain_spread_ms, or longer where \
             drain_closes_per_sec asks for it. SIGTERM does the same and ends the process. Exit code \
             0: done; 1: the node could not be reached, refused, or --wait cannot see its end: the \
             drain was undone, the node was restarted or is gone, a shard does not answer.",
        )
}

fn url(default: &'static str) -> Arg {
    Arg::new("url")
        .long("url")
        .value_name("URL")
        .default_value(default)
        .help("The node's public address")
}

fn event() -> Arg {
    Arg::new("event").value_name("EVENT").required(true).help("The event's id")
}

fn tail() -> Command {
    Command::new("tail")
        .about("Print an event's comments as they come")
        .arg(event())
        .arg(url("ws://127.0.0.1:8080"))
        .arg(
            Arg::new("history")
                .long("history")
                .value_name("COMMENTS")
                .value_parser(whole("comments", 0, 65_536))
                .help("Start with this many comments from before; the node decides if absent"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(clap::ArgAction::SetTrue)
                .help("Print each comment as the node sent it, one JSON object a line"),
        )
}

fn post() -> Command {
    Command::new("post")
        .about("Post a comment to an event")
        .arg(event())
        .arg(Arg::new("text").value_name("TEXT").required(true).help("What to say"))
        .arg(url("http://127.0.0.1:8080"))
        .arg(Arg::new("user").long("user").value_name("ID").help("Who says it"))
        .arg(Arg::new("name").long("name").value_name("NAME").help("The name to show"))
}

fn config() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(PathBufValueParser::new())
        .required(true)
        .help("The file to check");
    Command::new("config")
        .about("Print, check and explain the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("default").about("Print a commented file of all defaults"))
        .subcommand(
            Command::new("check")
                .about("Check a file and print everything wrong with it")
                .arg(file)
                .arg(
                    Arg::new("anywhere")
                        .long("anywhere")
                        .action(clap::ArgAction::SetTrue)
                        .help("Leave out whether it fits this host: its CPUs and descriptor limit"),
                )
                .arg(
                    Arg::new("unit")
                        .long("unit")
                        .value_name("UNIT")
                        .conflicts_with("anywhere")
                        .help("Judge by the limits of this service, running or not, instead of this shell's, as in --unit uproar"),
                )
                .after_help(
                    "Judges what `serve` would refuse on this host, with the descriptor limit and the CPUs of \
                     this shell, or of the unit. Exit code 0: good; 2: no such unit; 78: wrong configuration.",
                ),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        command().debug_assert();
        completed_command().debug_assert();
    }

    #[test]
    fn completions_offer_words_and_nothing_hidden() {
        use clap_complete::Shell;
        let hidden: Vec<_> = table().filter(|setting| setting.is_hidden).collect();
        assert!(!hidden.is_empty());
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut completed_command(), "uproar", &mut script);
            let script = String::from_utf8(script).unwrap();
            for setting in &hidden {
                assert!(!script.contains(&setting.flag()), "{shell}: {}", setting.name);
            }
            for setting in documented() {
                assert!(script.contains(&setting.flag()), "{shell}: {}", setting.name);
            }
            let level = script.lines().any(|line| line.contains("error") && line.contains("trace"));
            // Fish has a line for each word.
            assert!(level || script.contains("trace\\t"), "{shell}: no words for --log-level");
        }
    }
}
