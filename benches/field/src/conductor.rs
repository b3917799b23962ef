//! The parent of a run: starts the workers, gives the orders, reads the server, prints the result.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::options::{Churn, Idle, Load, Storm, Target};
use crate::plan::{Plan, Role, publishers, viewers};
use crate::report::{Message, Order, Report};
use crate::{clock, probe, result};

type Failure = Box<dyn std::error::Error>;

/// One worker process and the pipes to it.
struct Worker {
    child: Child,
    orders: ChildStdin,
    messages: BufReader<ChildStdout>,
}

impl Worker {
    fn start(plan: &Plan) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut orders = child.stdin.take().expect("it is piped");
        let messages = BufReader::new(child.stdout.take().expect("it is piped"));
        orders.write_all((serde_json::to_string(plan)? + "\n").as_bytes())?;
        Ok(Self { child, orders, messages })
    }

    fn order(&mut self, order: Order) -> Result<(), Failure> {
        Ok(self.orders.write_all(serde_json::to_string(&order)?.as_bytes())?)
    }

    fn message(&mut self) -> Result<Message, Failure> {
        let mut line = String::new();
        if self.messages.read_line(&mut line)? == 0 {
            return Err("a worker of the fleet died".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An ended worker cannot be killed, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the viewers and waits until all have connected.
fn gather(base: &Plan) -> Result<(Vec<Worker>, usize), Failure> {
    let all = viewers(&base.target.groups);
    let share = base.target.per_worker.max(1);
    let mut workers = Vec::new();
    for first in (0..all).step_by(share) {
        let plan = Plan { first, count: share.min(all - first), ..base.clone() };
        workers.push(Worker::start(&plan)?);
    }
    let open = wait_ready(&mut workers)?;
    Ok((workers, open))
}

fn wait_ready(workers: &mut [Worker]) -> Result<usize, Failure> {
    let mut all = 0;
    for worker in workers {
        match worker.message()? {
            Message::Ready { open, .. } => all += open,
            other => return Err(format!("not ready but {other:?}").into()),
        }
    }
    Ok(all)
}

fn order_all(workers: &mut [Worker], order: Order) -> Result<(), Failure> {
    workers.iter_mut().try_for_each(|worker| worker.order(order))
}

fn reports(workers: &mut [Worker]) -> Result<Report, Failure> {
    order_all(workers, Order::Report)?;
    let mut all = Report::default();
    for worker in workers {
        match worker.message()? {
            Message::Report(report) => all.add(*report),
            other => return Err(format!("no report but {other:?}").into()),
        }
    }
    Ok(all)
}

fn plan(target: &Target, seconds: f64, linger: f64, stalled: f64) -> Plan {
    let target = target.clone();
    let salt = std::process::id();
    Plan { role: Role::Viewers, target, salt, first: 0, count: 0, seconds, linger, stalled }
}

fn print(value: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all((value.to_string() + "\n").as_bytes())?;
    Ok(out.flush()?)
}

fn usage(target: &Target) -> probe::Usage {
    target.pid.map(probe::usage).unwrap_or_default()
}

/// The two CPUs, the server's and the fleet's.
fn processors(target: &Target) -> [probe::Processor; 2] {
    [target.server_cpu, target.cpu].map(|cpu| cpu.map(probe::processor).unwrap_or_default())
}

/// Sleeps until an instant of the shared clock.
fn sleep_until(at_ns: u64) {
    sleep(Duration::from_nanos(at_ns.saturating_sub(clock::now_ns())));
}

/// Adds the publishers, one a room that has a rate.
fn add_publishers(workers: &mut Vec<Worker>, base: &Plan) -> Result<(), Failure> {
    let count = publishers(&base.target.groups);
    if count > 0 {
        let plan = Plan { role: Role::Publishers, first: 0, count, ..base.clone() };
        let mut publishers = [Worker::start(&plan)?];
        wait_ready(&mut publishers)?;
        workers.extend(publishers);
    }
    Ok(())
}

/// Publishes by the clock and waits for the end; what the server used meanwhile.
fn publish(
    workers: &mut [Worker],
    base: &Plan,
    term_after: Option<f64>,
) -> Result<(Report, Value), Failure> {
    sleep(Duration::from_secs(1));
    let (kernel_before, before) = (probe::kernel(), usage(&base.target));
    let cpus_before = processors(&base.target);
    let start_ns = clock::now_ns() + 100_000_000;
    order_all(workers, Order::Publish { at_ns: start_ns })?;
    if let (Some(after), Some(pid)) = (term_after, base.target.pid) {
        sleep_until(start_ns + clock::ns(after));
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("a bad pid")?;
        kill_process(pid, Signal::TERM)?;
    }
    sleep_until(start_ns + clock::ns(base.seconds));
    let (kernel_during, during) = (probe::kernel(), usage(&base.target));
    for worker in workers.iter_mut() {
        worker.message()?;
    }
    let (after, wall_ns) = (usage(&base.target), clock::now_ns() - start_ns);
    let cpus_after = processors(&base.target);
    let report = reports(workers)?;
    let delivered = report.groups.iter().map(|group| group.delivered).sum();
    let server = json!({
        "wall_seconds": wall_ns as f64 / 1e9,
        "server_cpu": result::server_cpu(before, after, wall_ns, delivered),
        "cpus": result::processors(cpus_before, cpus_after, wall_ns, delivered),
        "server_before": before, "server_at_last_comment": during, "server_after": after,
        "tcp_bytes_before": kernel_before.tcp_bytes,
        "tcp_bytes_at_last_comment": kernel_during.tcp_bytes,
        "slab_bytes_growth":
            probe::slab_growth(&kernel_before, &kernel_during, 1).values().sum::<f64>(),
    });
    Ok((report, server))
}

/// `field load`.
pub(crate) fn load(options: &Load) -> Result<(), Failure> {
    let base = plan(&options.target, options.seconds, options.linger, options.stalled);
    let started_ns = clock::now_ns();
    let (mut workers, _) = gather(&base)?;
    add_publishers(&mut workers, &base)?;
    let connect_seconds = (clock::now_ns() - started_ns) as f64 / 1e9;
    let (report, server) = publish(&mut workers, &base, options.term_after)?;
    let seen = result::seen(&base.target.groups, &report);
    let head = json!({ "mode": "load", "connect_seconds": connect_seconds });
    print(&result::join(result::join(head, server), seen))
}

/// `field idle`.
pub(crate) fn idle(options: &Idle) -> Result<(), Failure> {
    let base = plan(&options.target, 0.0, 0.0, 0.0);
    let (kernel_empty, empty) = (probe::kernel(), usage(&options.target));
    let (mut workers, open) = gather(&base)?;
    sleep(Duration::from_secs_f64(options.settle));
    let (kernel_full, full, started_ns) =
        (probe::kernel(), usage(&options.target), clock::now_ns());
    let cpus_full = processors(&options.target);
    sleep(Duration::from_secs_f64(options.seconds));
    let (later, wall_ns) = (usage(&options.target), clock::now_ns() - started_ns);
    let cpus_later = processors(&options.target);
    let report = reports(&mut workers)?;
    let slabs = probe::slab_growth(&kernel_empty, &kernel_full, open);
    let pss_grown = full.pss_bytes as f64 - empty.pss_bytes as f64;
    let memory = json!({
        "mode": "idle",
        "server_empty": empty, "server_full": full, "server_later": later,
        "pss_bytes_per_connection": pss_grown / open.max(1) as f64,
        "slab_bytes_per_connection": slabs.values().sum::<f64>(),
        "slab_bytes_by_cache": slabs,
        "idle_cpu": result::server_cpu(full, later, wall_ns, 0),
        "cpus": result::processors(cpus_full, cpus_later, wall_ns, 0),
    });
    print(&result::join(memory, result::seen(&base.target.groups, &report)))
}

/// `field storm`.
pub(crate) fn storm(options: &Storm) -> Result<(), Failure> {
    let base = plan(&options.target, 0.0, 0.0, 0.0);
    let (mut workers, open) = gather(&base)?;
    let mut cycles = Vec::new();
    for _ in 0..options.cycles {
        sleep(Duration::from_secs(2));
        let (before, started_ns) = (usage(&options.target), clock::now_ns());
        let cpus_before = processors(&options.target);
        order_all(&mut workers, Order::Cycle)?;
        let back = wait_ready(&mut workers)?;
        let (after, wall_ns) = (usage(&options.target), clock::now_ns() - started_ns);
        let cpus_after = processors(&options.target);
        let cpu_seconds = (after.cpu_ns - before.cpu_ns) as f64 / 1e9;
        cycles.push(json!({
            "connections": back,
            "seconds": wall_ns as f64 / 1e9,
            "server_cpu_seconds": cpu_seconds,
            "connections_per_cpu_second": back as f64 / cpu_seconds.max(1e-9),
            "cpus": result::processors(cpus_before, cpus_after, wall_ns, back as u64),
        }));
    }
    let report = reports(&mut workers)?;
    let head = json!({ "mode": "storm", "first_connections": open, "cycles": cycles });
    print(&result::join(head, result::seen(&base.target.groups, &report)))
}

/// `field churn`.
pub(crate) fn churn(options: &Churn) -> Result<(), Failure> {
    let base = plan(&options.target, options.seconds, 10.0, 0.0);
    let (mut workers, _) = gather(&base)?;
    add_publishers(&mut workers, &base)?;
    let role = Role::Offenders { per_second: options.offences_per_second };
    let offender = Worker::start(&Plan { role, ..base.clone() })?;
    workers.push(offender);
    let (report, server) = publish(&mut workers, &base, None)?;
    sleep(Duration::from_secs_f64(options.settle));
    let settled = usage(&options.target);
    let head = json!({ "mode": "churn", "server_settled": settled });
    print(&result::join(result::join(head, server), result::seen(&base.target.groups, &report)))
}
