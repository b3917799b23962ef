//! One run from its flags to its report.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Floor as FloorOptions, Run, Worker};
use crate::clients;
use crate::conductor::{Abort, Conductor, Findings};
use crate::crew::Crew;
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::pinning;
use crate::plane::PlanePlan;
use crate::probe::calibrate::calibrate;
use crate::probe::kernel::KernelMemory;
use crate::probe::metrics;
use crate::probe::process::{self, Process};
use crate::remote::{self, Setup};
use crate::report::{
    self, FORMAT, Latency, Machine, Outcome, Report, Step, Unfinished, files, table,
};
use crate::say;
use crate::scenario::{Parameters, Scenario, Speak};
use crate::slo::Standing;
use crate::sources::Sources;
use crate::tally::Tally;
use crate::wire::{Dialect, Templates};
use crate::words;

/// How memory is counted; part of every report.
const MEMORY_METHOD: &str = "user: growth of the server's PSS (smaps_rollup) since before the first \
connection; kernel: growth of the live objects of all slab caches but those of files, processes and TIME_WAIT, \
each with its share of the slab's pages (slabinfo; caches that shrank are left out), and of TCP buffers (sockstat) on this host, less the client half of \
each connection, which is measured before the run: pairs of plain sockets whose client ends are reset leave the cost \
of an accepted end, pairs with a viewer's client end then tell that end's; the median of a look a second under load; \
none without root, with fewer than 1,000 connections, beside others' sockets, or when the looks differ";
/// Why CPU is not measured in a proof on loopback.
const LOOPBACK: &str = "on loopback the server's CPU does the viewers' half of TCP as well; run scripts/prove-50k \
as root, which measures between two network namespaces";
/// How clocks are compared; part of every report.
const CLOCK_METHOD: &str =
    "CLOCK_MONOTONIC of this host for due instants and receipts; error below a microsecond";

/// Runs a scenario; what it ends with is what the process does.
pub(crate) fn run(options: &Run) -> Result<Outcome, String> {
    let mut parameters = Parameters::of(options.scenario);
    options.overrides.clone().apply(&mut parameters);
    if options.print {
        say::line(&parameters.lines().join("\n"));
        return Ok(Outcome::Passed);
    }
    let Some(folder) = &options.out else { return run_with(options, parameters) };
    files::prepare(folder).map_err(|error| {
        format!("cannot write to {} of --out: {}", folder.display(), words::of_file(&error))
    })?;
    let done = run_with(options, parameters);
    if let Err(why) = &done
        && !folder.join("report.json").exists()
    {
        files::write_refusal(folder, why).map_err(|error| {
            format!("{why}; and cannot say so in {}: {error}", folder.display())
        })?;
    }
    done
}

/// Takes an earlier run's report out of the folder of a run whose flags were refused, and says why there is none.
pub(crate) fn refused(arguments: impl Iterator<Item = OsString>, why: &str) {
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.first().is_none_or(|task| task != "run") {
        return;
    }
    let mut folder = None;
    for (at, argument) in arguments.iter().enumerate() {
        if argument == "--out" {
            folder = arguments.get(at + 1).map(PathBuf::from);
        } else if let Some(value) = argument.as_encoded_bytes().strip_prefix(b"--out=") {
            folder = Some(PathBuf::from(OsStr::from_bytes(value)));
        }
    }
    let why = why.trim_start_matches("error: ").lines().next().unwrap_or_default();
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else { return };
    if let Err(error) = files::prepare(&folder).and_then(|()| files::write_refusal(&folder, why)) {
        say::complain(&format!("cannot say in {} that nothing ran: {error}", folder.display()));
    }
}

fn run_with(options: &Run, mut parameters: Parameters) -> Result<Outcome, String> {
    parameters.check(options.scenario)?;
    let levels = crate::slo::parse(&parameters.slo)?;
    let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = (started_unix.as_nanos() as u64 % 0xffff) as u16;
    let are_events_own = parameters.event_prefix.is_empty();
    if are_events_own {
        parameters.event_prefix = format!("run{run:04x}-");
    }
    let target = resolve(&parameters.target)?;
    reach(target)?;
    reach_admin(&parameters.admin)?;
    let called = remote::call(&options.workers)?;
    let descriptors_max = raise_descriptors()?;
    let allowed = pinning::allowed()?;
    let cpus = take_cpus(&options.cpus)?;
    let server = find_server(options, target, &allowed)?;
    // With workers this host's CPUs are not the planes'.
    if let Some(server) =
        server.as_ref().filter(|server| options.workers.is_empty() && server.is_pinned)
        && let Some(warning) = pinning::overlap(&cpus, &server.cpus)
    {
        say::complain(&warning);
    }
    let is_root = KernelMemory::now().is_some();
    if server.is_some() && !is_root {
        say::complain("memory is not measured, as only root may read /proc/slabinfo");
    }
    let setup = Setup {
        parameters: parameters.clone(),
        target,
        run,
        first_share: 0,
        shares: cpus.len() as u32,
        clock_offset_ns: 0,
    };
    let mut calibration = match &server {
        Some(_) if is_root => Some(
            calibrate(parameters.viewers, descriptors_max)
                .map_err(|error| format!("the calibration failed: {error}"))?,
        ),
        _ => None,
    };
    let own_before = own_pss_bytes();
    let is_remote = !options.workers.is_empty();
    let mut ends = 2;
    let mut clocks = None;
    let crew = if !is_remote {
        start_crew(&setup, &cpus, options.source_ip.as_deref(), descriptors_max)?
    } else {
        let workers = remote::enlist(called, &setup)?;
        if !workers.are_local {
            // The client halves are on other hosts.
            (calibration, ends) = (None, 1);
        }
        clocks = Some((workers.planes, workers.clocks));
        Crew::remote(workers.ports)
    };
    let interrupt =
        Interrupt::listen().map_err(|error| format!("cannot take SIGINT and SIGTERM: {error}"))?;
    let network = network(target, server.as_ref());
    let is_proof_on_loopback = options.scenario == Scenario::Prove && target.ip().is_loopback();
    let mut observer =
        Observer::new(server, &parameters.admin, calibration, options.progress, interrupt, ends);
    let mut findings = Findings::default();
    let mut conductor = Conductor {
        scenario: options.scenario,
        parameters: &parameters,
        levels: &levels,
        crew: &crew,
        observer: &mut observer,
        cpu_distorted: is_proof_on_loopback.then_some(LOOPBACK),
        are_events_own,
        findings: &mut findings,
    };
    let abort = conductor.run().err();
    let could_not_begin = abort.as_ref().is_some_and(Abort::is_before_the_run);
    let aborted = abort.map(|abort| abort.to_string());
    let own_bytes = own_pss_bytes().saturating_sub(own_before);
    let process = observer.server();
    let machine = Machine {
        time_unix: started_unix.as_secs(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpu: cpu_model(),
        cpus: host_cpus(),
        descriptors_max,
        loadgen_cpus: (!is_remote).then_some(cpus),
        server_cpus: process.map(|process| process.cpus.clone()).unwrap_or_default(),
        server_pid: process.map(|process| process.pid),
        server_program: process.and_then(Process::program),
        server_build: match parameters.admin.as_str() {
            "" => None,
            admin => metrics::build(&metrics::fetch(admin).unwrap_or_default()),
        },
        loadgen_program: format!(
            "{} {}",
            env!("CARGO_PKG_VERSION"),
            process::program("/proc/self/exe").unwrap_or_default()
        ),
        network,
        is_root,
        commit: Some(env!("BUILD_COMMIT").to_owned()).filter(|commit| commit != "unknown"),
    };
    let clock_method = match clocks {
        None => CLOCK_METHOD.to_owned(),
        Some((planes, clocks)) => clocks.describe(planes, options.workers.len()),
    };
    drop(crew);
    let last = findings.last.take().unwrap_or_else(Tally::new);
    let unfinished = aborted.as_ref().and_then(|_| unfinished(&mut findings, &last));
    let mut counters = last.counters;
    counters.lost = counters.lost.max(findings.steps.iter().map(|step| step.counters.lost).sum());
    let outcome = outcome(&findings.steps, parameters.rate, aborted.is_some());
    let report = Report {
        format: FORMAT,
        scenario: options.scenario.name().to_owned(),
        command: std::env::args().collect(),
        machine,
        calibration,
        memory_method: MEMORY_METHOD.to_owned(),
        clock_method,
        loadgen_us_per_delivery: findings.steps.first().and_then(|s| s.loadgen.us_per_delivery),
        spread: report::spread(&findings.steps, parameters.rate),
        steps: findings.steps,
        samples: findings.samples,
        counters,
        connect: Latency::of(&last.connect),
        slippage: Latency::of(&last.slippage),
        loadgen_bytes_per_viewer: (!is_remote)
            .then(|| own_bytes as f64 / f64::from(parameters.viewers)),
        highest: findings.highest,
        unfinished,
        troubles: last.troubles,
        aborted,
        passed: outcome == Outcome::Passed,
        outcome,
        parameters,
    };
    observer.end_progress();
    if let Some(folder) = &options.out {
        files::write(folder, &report, &findings.histograms)
            .map_err(|error| format!("cannot write the report to {}: {error}", folder.display()))?;
    }
    // After the files: nobody who stops reading loses the report of an hour.
    say::line(&table::summary(&report));
    match report.aborted {
        Some(text) if could_not_begin => Err(text),
        _ => Ok(outcome),
    }
}

/// What a run ends with: steps at its first `rate` must hold, all must be sound, and each must have been measured,
/// itself or the one that took its place.
fn outcome(steps: &[Step], rate: f64, is_aborted: bool) -> Outcome {
    let headline = || steps.iter().filter(|step| step.rate == rate);
    let is_broken = |step: &Step| step.standing == Standing::Broken;
    if is_aborted || headline().any(is_broken) || steps.iter().any(|step| !step.is_sound) {
        return Outcome::Failed;
    }
    let is_open = |step: &Step| step.standing == Standing::Unmeasured && !step.is_repeated;
    match headline().next().is_none() || steps.iter().any(is_open) {
        true => Outcome::Unmeasured,
        false => Outcome::Passed,
    }
}

/// What lies between viewers and server.
fn network(target: SocketAddr, server: Option<&Process>) -> String {
    match server.map(Process::is_in_other_network) {
        _ if target.ip().is_loopback() => {
            "loopback: the CPU that sends does the receiving half of TCP as well".to_owned()
        }
        Some(Some(true)) => "between two network namespaces of this host".to_owned(),
        _ => format!("to {}", target.ip()),
    }
}

/// What the window that a run ended in had measured; its histogram is kept with the others.
fn unfinished(findings: &mut Findings, last: &Tally) -> Option<Unfinished> {
    let window = last.windows.get(findings.histograms.len())?;
    let latency = Latency::of(&window.latency);
    let growth = match findings.steps.is_empty() {
        true => crate::growth::of(&findings.samples, "steady"),
        false => None,
    };
    findings.histograms.push(("unfinished".to_owned(), window.latency.clone()));
    (latency.count > 0).then_some(Unfinished { latency, growth })
}

/// Serves coordinators until the process is ended.
pub(crate) fn work(options: &Worker) -> Result<(), String> {
    let descriptors_max = raise_descriptors()?;
    let cpus = take_cpus(&options.cpus)?;
    let start =
        |setup: &Setup| start_crew(setup, &cpus, options.source_ip.as_deref(), descriptors_max);
    remote::work(options.listen, cpus.len() as u32, start).map_err(|error| {
        format!("cannot serve coordinators at {}: {}", options.listen, words::cannot_listen(&error))
    })
}

/// Starts this host's planes.
fn start_crew(
    setup: &Setup,
    cpus: &[usize],
    source_ip: Option<&str>,
    descriptors_max: u64,
) -> Result<Crew, String> {
    let viewers = setup.parameters.viewers;
    let sources = Sources::new(source_ip, setup.target, viewers)?;
    let plans = cpus.iter().zip(setup.first_share..).map(|(&cpu, share)| {
        let plan = PlanePlan {
            parameters: setup.parameters.clone(),
            dialect: dialect(&setup.parameters),
            target: setup.target,
            sources: sources.clone(),
            run: setup.run,
            share: (share, setup.shares),
            cpu,
            clock_offset_ns: setup.clock_offset_ns,
            slots_per_ring: descriptors_max.min(u64::from(u32::MAX)) as u32,
        };
        (cpu, plan)
    });
    Crew::start(plans.collect()).map_err(|error| error.to_string())
}

fn find_server(
    options: &Run,
    target: SocketAddr,
    allowed: &[usize],
) -> Result<Option<Process>, String> {
    match options.server_pid {
        Some(pid) => {
            let process = Process::new(pid, options.server_children, allowed);
            process.map(Some).ok_or_else(|| format!("--server-pid: there is no process {pid} on this host; leave it out and the server is found by its port"))
        }
        None if target.ip().is_loopback() => Ok(Process::listening_at(target, allowed)),
        None => Ok(None),
    }
}

fn dialect(parameters: &Parameters) -> Dialect {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    match parameters.speak {
        Speak::Json => Dialect::Json,
        Speak::Rkyv => Dialect::Rkyv,
        Speak::Generic => Dialect::Generic(Templates {
            path: parameters.path.clone(),
            hello: given(&parameters.hello),
            publish: parameters.publish.clone(),
            subprotocol: given(&parameters.subprotocol),
        }),
    }
}

fn resolve(target: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &str| format!("--target is {target:?}, {why}");
    if target.contains("//") {
        return Err(wrong("but takes HOST:PORT alone, without a scheme and a path"));
    }
    let Some((_, port)) = target.rsplit_once(':') else {
        return Err(wrong("but takes HOST:PORT, as in 127.0.0.1:8080"));
    };
    if port.parse::<u16>().is_err() {
        return Err(wrong("but the port is a number up to 65535"));
    }
    let mut addresses = target
        .to_socket_addrs()
        .map_err(|_| wrong("and no such host is known; is its name right?"))?;
    addresses.next().ok_or_else(|| wrong("and that host has no address"))
}

/// One plain connect, so that a wrong address is one sentence and not fifty thousand failures.
fn reach(target: SocketAddr) -> Result<(), String> {
    match std::net::TcpStream::connect_timeout(&target, Duration::from_secs(5)) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot reach {target}: {}", clients::explain_connect(&error))),
    }
}

/// One scrape, so that a wrong --admin is not a run whose levels were never measured.
fn reach_admin(admin: &str) -> Result<(), String> {
    if admin.is_empty() {
        return Ok(());
    }
    match metrics::fetch(admin) {
        Ok(metrics) if metrics.is_empty() => {
            Err(format!("http://{admin}/metrics of --admin has no metrics; check the address"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "cannot read http://{admin}/metrics of --admin; check the address: {error}"
        )),
    }
}

/// Raises the soft limit of descriptors to the hard one.
fn raise_descriptors() -> Result<u64, String> {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: limit.maximum })
        .map_err(|error| {
            format!("cannot raise RLIMIT_NOFILE to its hard limit {maximum}: {error}")
        })?;
    if maximum < 4_096 {
        return Err(format!(
            "the hard limit of descriptors is {maximum}, and 4096 is the least; {}",
            uproar_ring::RAISE_NOFILE
        ));
    }
    Ok(maximum)
}

/// The CPUs for planes; the main thread goes there as well, away from the server.
fn take_cpus(wanted: &[usize]) -> Result<Vec<usize>, String> {
    let cpus = pinning::choose(wanted, &pinning::allowed()?)?;
    pinning::pin(&cpus)?;
    Ok(cpus)
}

/// Prints what receiving costs, this tool's way and a plain epoll client's.
pub(crate) fn floor(options: &FloorOptions) -> Result<bool, String> {
    raise_descriptors()?;
    let allowed = pinning::allowed()?;
    let receivers = pinning::choose(options.cpu.as_slice(), &allowed)?[0];
    let others: Vec<usize> = allowed.into_iter().filter(|&cpu| cpu != receivers).collect();
    if !others.is_empty() {
        pinning::pin(&others)?;
    }
    let floors = crate::floor::measure(receivers).map_err(|error| error.to_string())?;
    say::line("CPU a received comment, by how comments come:");
    for floor in &floors {
        say::line(&format!(
            "  {:<9} epoll {:>5.2} us   loadgen {:>5.2} us   ratio {:.2}",
            floor.load.name(),
            floor.epoll_us,
            floor.loadgen_us,
            floor.ratio()
        ));
    }
    // Comments that come alone leave the CPU idle; only the other loads can fill it.
    let fills = |floor: &&crate::floor::Floor| floor.load != crate::floor::Load::Alone;
    Ok(floors.iter().filter(fills).all(|floor| floor.ratio() <= 1.0))
}

fn own_pss_bytes() -> u64 {
    let own = Process::new(std::process::id(), false, &[]);
    own.and_then(|process| process.pss_bytes()).unwrap_or(0)
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map_or("unknown CPU", |(_, name)| name);
    name.trim().to_owned()
}

/// The CPUs of this host, whatever this process was given of them or keeps to.
fn host_cpus() -> usize {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_passes_only_when_all_was_measured_and_the_first_rate_held() {
        use Standing::{Broken, Holds, Unmeasured};
        let step = Step::known_by;
        let again = |step: Step| Step { is_repeated: true, ..step };
        let unsound = |step: Step| Step { is_sound: false, ..step };
        let of = |steps: &[Step]| outcome(steps, 1.0, false);
        assert_eq!(of(&[step("steady", 1.0, Holds)]), Outcome::Passed);
        assert_eq!(of(&[step("steady", 1.0, Holds), step("x2.00", 2.0, Broken)]), Outcome::Passed);
        assert_eq!(of(&[step("steady", 1.0, Broken)]), Outcome::Failed);
        let second_breaks = [step("steady", 1.0, Holds), step("steady.2", 1.0, Broken)];
        assert_eq!(of(&second_breaks), Outcome::Failed);
        // Lost unannounced at twice the rate is lost.
        let lost = [step("steady", 1.0, Holds), unsound(step("x2.00", 2.0, Broken))];
        assert_eq!(of(&lost), Outcome::Failed);
        let limited: Vec<Step> = (0..7).map(|_| step("steady", 1.0, Unmeasured)).collect();
        assert_eq!(of(&limited), Outcome::Unmeasured, "all of them client-limited");
        let later = [step("steady", 1.0, Holds), step("x2.00", 2.0, Unmeasured)];
        assert_eq!(of(&later), Outcome::Unmeasured);
        let replaced = [again(step("steady", 1.0, Unmeasured)), step("steady.2", 1.0, Holds)];
        assert_eq!(of(&replaced), Outcome::Passed);
        let lost_then =
            [again(unsound(step("steady", 1.0, Unmeasured))), step("steady.2", 1.0, Holds)];
        assert_eq!(of(&lost_then), Outcome::Failed, "a try that is repeated has lost all the same");
        assert_eq!(of(&[]), Outcome::Unmeasured);
        assert_eq!(outcome(&[step("steady", 1.0, Holds)], 1.0, true), Outcome::Failed);
    }
}
