//! All planes of a run, asked and merged as if they were one.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use uproar_ring::Wake;

use crate::command::{Answer, Command};
use crate::plane::{Plane, PlanePlan, PlanePort};
use crate::tally::Tally;

/// glommio 0.9 parks an executor with a runnable task when this timer fires between its poll and
/// its run (`run_task_queues` then reports that nothing ran). One task needs no preemption, so the
/// timer is set beyond any run.
pub(crate) const PREEMPT: Duration = Duration::from_secs(24 * 3_600);
/// A plane that does not answer for this long is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// The planes.
#[derive(Debug)]
pub(crate) struct Crew {
    ports: Vec<PlanePort>,
}

/// A plane did not answer, or not what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silent {
    #[error("{0} did not answer for 30 s; its CPU may be taken by another process")]
    Slow(String),
    #[error("{0} is gone: it was ended, or the way to it is broken")]
    Gone(String),
    #[error("a worker answered another question; is it of this version?")]
    Confused,
}

impl Crew {
    /// Starts one plane on each CPU.
    pub(crate) fn start(plans: Vec<(usize, PlanePlan)>) -> io::Result<Self> {
        let ports = plans.into_iter().map(|(cpu, plan)| start_plane(cpu, plan));
        Ok(Self { ports: ports.collect::<io::Result<_>>()? })
    }

    /// The planes of other hosts, each behind its port.
    pub(crate) fn remote(ports: Vec<PlanePort>) -> Self {
        Self { ports }
    }

    /// Tells every plane something that is not answered.
    pub(crate) fn tell(&self, command: &Command) {
        for port in &self.ports {
            // A plane that has ended says so by not answering.
            let _ = port.commands.send(command.clone());
            if let Some(waker) = &port.waker {
                waker.wake();
            }
        }
    }

    /// Asks every plane and merges the answers.
    pub(crate) fn ask(&self, command: &Command) -> Result<Answer, Silent> {
        self.tell(command);
        let mut answers = self.ports.iter().map(answer);
        let mut merged = answers.next().expect("a crew has a plane")?;
        for more in answers {
            if !merged.merge(&more?) {
                return Err(Silent::Confused);
            }
        }
        Ok(merged)
    }

    /// The tallies of all planes, merged.
    pub(crate) fn collect(&self) -> Result<Tally, Silent> {
        self.ask_tally(&Command::Collect)
    }

    /// Who has not reached the newest offset that any plane knows of.
    pub(crate) fn judge(&self) -> Result<Tally, Silent> {
        match self.ask(&Command::Heads)? {
            Answer::Heads(heads) => self.ask_tally(&Command::Judge { heads }),
            Answer::Tally(_) => Err(Silent::Confused),
        }
    }

    fn ask_tally(&self, command: &Command) -> Result<Tally, Silent> {
        match self.ask(command)? {
            Answer::Tally(tally) => Ok(*tally),
            Answer::Heads(_) => Err(Silent::Confused),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.tell(&Command::Quit);
        for port in &self.ports {
            // Wait until it has closed its sockets: the channel ends with the plane.
            while answer(port).is_ok() {}
        }
    }
}

fn answer(port: &PlanePort) -> Result<Answer, Silent> {
    match port.answers.recv_timeout(PATIENCE) {
        Ok(answer) => Ok(answer),
        Err(RecvTimeoutError::Timeout) => Err(Silent::Slow(port.name.clone())),
        Err(RecvTimeoutError::Disconnected) => Err(Silent::Gone(port.name.clone())),
    }
}

fn start_plane(cpu: usize, plan: PlanePlan) -> io::Result<PlanePort> {
    let (commands, command_inbox) = channel();
    let (answer_outbox, answers) = channel();
    let (ready, started) = channel();
    let name = format!("plane-{}", plan.share.0);
    let builder = LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&name)
        .io_memory(64 * 1024)
        .preempt_timer(PREEMPT);
    let spawned = builder.spawn(move || async move {
        let made = Wake::new().and_then(|wake| Ok((Plane::new(plan, &wake)?, wake)));
        match made {
            Ok((plane, wake)) => {
                report_start(&ready, Ok(wake.waker()));
                plane.run(&wake, &command_inbox, &answer_outbox);
            }
            Err(error) => report_start(&ready, Err(error)),
        }
    });
    let refused = |why: String| {
        io::Error::other(format!("cannot start a load generator thread on CPU {cpu}: {why}"))
    };
    let died = |why: String| refused(uproar_ring::explain_executor(&why));
    let executor = spawned.map_err(|error| died(error.to_string()))?;
    let Ok(made) = started.recv() else {
        // It ended before its task began.
        let ended = executor.join();
        return Err(died(ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned())));
    };
    let waker = made.map_err(|error| refused(error.to_string()))?;
    let name = format!("the load generator thread on CPU {cpu}");
    Ok(PlanePort { name, commands, answers, waker: Some(waker) })
}

fn report_start<T>(ready: &Sender<io::Result<T>>, result: io::Result<T>) {
    // Nobody listens only when the process is already ending.
    let _ = ready.send(result);
}
