//! One order at one scheduler: submit what is missing, watch it, end each task as it ends.
//!
//! The client that does this may go away at any time. Whoever comes next finds the jobs by what they
//! make, and asks the store what of it is there.

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;

use crate::order::{Order, Task};
use crate::scheduler::{Failure, Job, Scheduler, State};
use crate::{Error, Result};

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Committed,
    Failed(Failure),
    /// Something that it is made from failed, or the client was asked to go before it was submitted.
    NotStarted,
    /// With the scheduler as before, when the client was asked to go.
    Left,
}

/// The store, as far as it matters here.
#[async_trait]
pub trait Commits: Send + Sync {
    /// Whether the artifact of this id is committed.
    async fn committed(&self, artifact: &str) -> Result<bool>;
}

/// Hears of every task.
pub trait Observer: Send + Sync {
    /// `found`: by an earlier client, or another.
    fn submitted(&self, task: &Task, job: &Job, found: bool);
    fn changed(&self, task: &Task, state: &State);
    fn ended(&self, task: &Task, end: &End);
    /// The scheduler or the store does not answer, and is asked again.
    fn unanswered(&self, error: &Error);
}

/// How often something that does not answer is asked before it is given up: for ten minutes.
const PATIENCE: u32 = 40;

/// Before the second time; before each further one that much longer, half a minute at most.
const PAUSE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

/// Jobs at the scheduler at a time: no more than it takes well, and enough to be busy without a client
/// for a while.
const AHEAD: usize = 200;

/// How often the store is asked for what an ended job should have committed: a shared folder may show
/// it late.
const LOOKS: u32 = 4;

/// Brings all of the order's tasks to an end, or leaves them with the scheduler when `stop` is ready.
/// Ends are in the order of its tasks.
///
/// # Errors
/// What the scheduler or the store says about all of it. Nothing that was submitted is lost.
pub async fn drive(
    order: &Order,
    scheduler: &dyn Scheduler,
    commits: &dyn Commits,
    observer: &dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Vec<End>> {
    let tasks = order.tasks.iter().map(|_| Progress::default()).collect();
    let mut drive = Drive { order, scheduler, commits, observer, tasks, unsure: true };
    tokio::pin!(stop);
    tokio::select! {
        biased;
        () = &mut stop => {}
        ended = drive.run() => ended?,
    }
    let unsure = drive.unsure;
    let ends = drive.tasks.into_iter().map(|task| match task {
        Progress { end: Some(end), .. } => end,
        // What may be there counts as there: the next client looks for it.
        Progress { job, .. } if unsure || job.is_some() => End::Left,
        Progress { .. } => End::NotStarted,
    });
    Ok(ends.collect())
}

#[derive(Default)]
struct Progress {
    job: Option<Job>,
    state: Option<State>,
    /// Looks at the store since the job ended.
    looks: u32,
    /// Whether a job of it went without a trace before.
    lost: bool,
    end: Option<End>,
}

struct Drive<'a> {
    order: &'a Order,
    scheduler: &'a dyn Scheduler,
    commits: &'a dyn Commits,
    observer: &'a dyn Observer,
    tasks: Vec<Progress>,
    /// Whether the scheduler may have jobs of this order that are not known here: somebody else's, or
    /// one whose submission got no answer.
    unsure: bool,
}

impl Drive<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut unanswered = 0;
        while self.tasks.iter().any(|task| task.end.is_none()) {
            match self.step().await {
                Ok(true) => unanswered = 0,
                Ok(false) => {
                    unanswered = 0;
                    self.scheduler.changed().await;
                }
                Err(e @ Error::TryAgain(_)) => {
                    unanswered += 1;
                    if unanswered > PATIENCE {
                        return Err(e);
                    }
                    self.observer.unanswered(&e);
                    tokio::time::sleep(PAUSE * unanswered.min(30)).await;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// One look at everything; whether a task ended.
    async fn step(&mut self) -> Result<bool> {
        if self.unsure {
            let found = self.scheduler.find(self.order).await?;
            self.unsure = false;
            for (at, job) in found.into_iter().enumerate() {
                if let Some(job) = job.filter(|_| self.tasks[at].is_free()) {
                    self.observer.submitted(&self.order.tasks[at], &job, true);
                    self.tasks[at].job = Some(job);
                }
            }
        }
        for at in 0..self.tasks.len() {
            if self.tasks[at].end.is_none() && self.is_cut_off(at) {
                self.end(at, End::NotStarted);
            } else if self.tasks[at].is_free() && self.is_ready(at) && self.going() < AHEAD {
                self.submit(at).await?;
            }
        }
        let watched: Vec<usize> = (0..self.tasks.len())
            .filter(|&at| self.tasks[at].end.is_none() && self.tasks[at].job.is_some())
            .collect();
        let jobs: Vec<Job> = watched.iter().filter_map(|&at| self.tasks[at].job.clone()).collect();
        let states = self.scheduler.states(&jobs).await?;
        let mut ended = false;
        for (at, state) in watched.into_iter().zip(states) {
            ended |= self.look(at, state).await?;
        }
        Ok(ended)
    }

    /// How many tasks have a job.
    fn going(&self) -> usize {
        self.tasks.iter().filter(|task| task.end.is_none() && task.job.is_some()).count()
    }

    /// Whether something that it is made from will not be made.
    fn is_cut_off(&self, at: usize) -> bool {
        self.order.tasks[at]
            .after
            .iter()
            .any(|&from| matches!(self.tasks[from].end, Some(End::Failed(_) | End::NotStarted)))
    }

    fn is_ready(&self, at: usize) -> bool {
        self.order.tasks[at].after.iter().all(|&from| match &self.tasks[from] {
            Progress { end: Some(end), .. } => *end == End::Committed,
            Progress { job, .. } => self.scheduler.chains() && job.is_some(),
        })
    }

    async fn submit(&mut self, at: usize) -> Result<()> {
        let task = &self.order.tasks[at];
        if self.commits.committed(&task.artifact).await? {
            self.end(at, End::Committed);
            return Ok(());
        }
        let after = task.after.iter().map(|&from| &self.tasks[from]);
        let after = after.filter(|from| from.end.is_none());
        let after: Vec<Job> = after.filter_map(|from| from.job.clone()).collect();
        match self.scheduler.submit(self.order, at, &after).await {
            Ok(job) => {
                self.observer.submitted(task, &job, false);
                self.tasks[at].job = Some(job);
            }
            // It may have arrived.
            Err(e @ Error::TryAgain(_)) => {
                self.unsure = true;
                return Err(e);
            }
            Err(e) => {
                let code = Some(e.exit_code().into());
                let failure = Failure { code, reason: e.to_string(), log: String::new() };
                self.end(at, End::Failed(failure));
            }
        }
        Ok(())
    }

    /// Takes in what the scheduler says of a task's job; whether the task ended.
    async fn look(&mut self, at: usize, state: State) -> Result<bool> {
        let task = &self.order.tasks[at];
        if self.tasks[at].state.as_ref() != Some(&state) {
            self.observer.changed(task, &state);
            self.tasks[at].state = Some(state.clone());
        }
        if matches!(state, State::Waiting(_) | State::Running { .. }) {
            self.tasks[at].looks = 0;
            return Ok(false);
        }
        // A job may have ended because of one before it, whose end is not known here yet.
        if task.after.iter().any(|&from| self.tasks[from].end != Some(End::Committed)) {
            return Ok(false);
        }
        if self.commits.committed(&task.artifact).await? {
            self.end(at, End::Committed);
            return Ok(true);
        }
        let reason = match state {
            State::Failed(failure) => {
                self.end(at, End::Failed(failure));
                return Ok(true);
            }
            State::Succeeded => "ended well without committing what it should make",
            _ => "left the scheduler without committing what it should make",
        };
        let progress = &mut self.tasks[at];
        progress.looks += 1;
        if progress.looks < LOOKS {
            return Ok(false);
        }
        let job = progress.job.take();
        if std::mem::replace(&mut progress.lost, true) {
            let name = job.map(|job| format!("job {}", job.name)).unwrap_or_default();
            let reason = format!("{name}, the second for it, {reason}");
            self.end(at, End::Failed(Failure { code: None, reason, log: String::new() }));
            return Ok(true);
        }
        *progress = Progress { lost: true, ..Progress::default() };
        // Another client may have submitted it again.
        self.unsure = true;
        Ok(false)
    }

    fn end(&mut self, at: usize, end: End) {
        self.observer.ended(&self.order.tasks[at], &end);
        self.tasks[at].end = Some(end);
    }
}

impl Progress {
    fn is_free(&self) -> bool {
        self.job.is_none() && self.end.is_none()
    }
}
