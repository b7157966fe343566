//! A scheduler that loses answers and jobs, and the store that its jobs commit to.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use crate::drive::Commits;
use crate::order::{Order, Task};
use crate::scheduler::{Failure, Job, Scheduler, State};
use crate::{Error, Result};

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Commits,
    Fails(i32),
    /// Is forgotten with nothing committed.
    Vanishes,
    /// Commits, and is forgotten before anybody asks.
    CommitsAndVanishes,
    /// Commits, and is reported as failed.
    CommitsAndFails,
    /// Ends well with nothing committed.
    EndsEmpty,
}

impl Fate {
    pub fn commits(self) -> bool {
        matches!(self, Self::Commits | Self::CommitsAndVanishes | Self::CommitsAndFails)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    Waiting,
    Running(u64),
    Ended,
    Gone,
}

pub struct FakeJob {
    pub task: usize,
    pub after: Vec<usize>,
    pub phase: Phase,
    pub fate: Fate,
}

/// A scheduler and a store in memory. Time passes when `changed` is awaited.
pub struct World {
    pub seed: u64,
    pub chains: bool,
    /// Of 100 answers, how many get lost.
    pub lost: u64,
    pub tasks: Vec<Task>,
    /// Of a task's jobs, one after another; the last stands for all further ones.
    pub fates: Vec<Vec<Fate>>,
    pub jobs: Vec<FakeJob>,
    pub committed: BTreeSet<String>,
    /// Whether several clients may submit the same task.
    pub crowded: bool,
    pub cancelled: usize,
    /// Whether somebody else submits again what vanished.
    pub helped: bool,
    /// For how many looks an ended job's commit is not seen.
    pub late: u32,
    /// Most jobs at a time so far.
    pub most: usize,
}

impl World {
    /// 0 to `below` - 1.
    pub fn draw(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn answer(&mut self) -> Result<()> {
        if self.draw(100) < self.lost {
            return Err(Error::TryAgain("no answer".into()));
        }
        Ok(())
    }

    pub fn active(&self, task: usize) -> Option<usize> {
        let active = |job: &FakeJob| matches!(job.phase, Phase::Waiting | Phase::Running(_));
        self.jobs.iter().position(|job| job.task == task && active(job))
    }

    pub fn tick(&mut self) {
        for at in 0..self.jobs.len() {
            let FakeJob { task, phase, fate, .. } = self.jobs[at];
            let artifact = self.tasks[task].artifact.clone();
            let after: Vec<(Phase, Fate)> = self.jobs[at]
                .after
                .iter()
                .map(|&from| (self.jobs[from].phase, self.jobs[from].fate))
                .collect();
            let well = |&(phase, fate): &(Phase, Fate)| {
                phase == Phase::Ended && matches!(fate, Fate::Commits | Fate::EndsEmpty)
            };
            let over = |&(phase, _): &(Phase, Fate)| matches!(phase, Phase::Ended | Phase::Gone);
            self.jobs[at].phase = match phase {
                Phase::Waiting if after.iter().all(well) => {
                    let missing = self.tasks[task]
                        .after
                        .iter()
                        .find(|&&from| !self.committed.contains(&self.tasks[from].artifact));
                    // Its inputs are not there: it would leave with 75 for ever, and is lost.
                    if missing.is_some() { Phase::Gone } else { Phase::Running(self.draw(4)) }
                }
                Phase::Waiting if after.iter().any(|from| over(from) && !well(from)) => Phase::Gone,
                Phase::Running(0) => {
                    if fate.commits() {
                        self.committed.insert(artifact);
                    }
                    if self.helped && fate == Fate::Vanishes {
                        let (after, fate) = (Vec::new(), Fate::Commits);
                        self.jobs.push(FakeJob { task, after, phase: Phase::Running(20), fate });
                    }
                    match fate {
                        Fate::Vanishes | Fate::CommitsAndVanishes => Phase::Gone,
                        _ => Phase::Ended,
                    }
                }
                Phase::Running(left) => Phase::Running(left - 1),
                phase => phase,
            };
        }
    }
}

pub struct Fake(pub Mutex<World>);

impl Fake {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Scheduler for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn chains(&self) -> bool {
        self.world().chains
    }

    async fn find(&self, order: &Order) -> Result<Vec<Option<Job>>> {
        tokio::task::yield_now().await;
        let mut world = self.world();
        world.answer()?;
        Ok((0..order.tasks.len())
            .map(|task| world.active(task).map(|at| Job { name: at.to_string() }))
            .collect())
    }

    async fn submit(&self, order: &Order, task: usize, after: &[Job]) -> Result<Job> {
        tokio::task::yield_now().await;
        let mut world = self.world();
        world.answer()?;
        let artifact = &order.tasks[task].artifact;
        if !world.crowded {
            assert!(!world.committed.contains(artifact), "{artifact} is committed");
            assert!(world.active(task).is_none(), "{artifact} is there already");
        }
        let uncommitted: Vec<usize> = order.tasks[task]
            .after
            .iter()
            .copied()
            .filter(|&from| !world.committed.contains(&order.tasks[from].artifact))
            .collect();
        assert!(world.chains || uncommitted.is_empty(), "{artifact} before its inputs");
        let after: Vec<usize> = after.iter().map(|job| job.name.parse().unwrap()).collect();
        for from in uncommitted {
            assert!(after.iter().any(|&job| world.jobs[job].task == from), "{artifact} unchained");
        }
        let before = world.jobs.iter().filter(|job| job.task == task).count();
        let fates = &world.fates[task];
        let fate = fates[before.min(fates.len() - 1)];
        world.jobs.push(FakeJob { task, after, phase: Phase::Waiting, fate });
        let going = (0..world.tasks.len()).filter(|&task| world.active(task).is_some()).count();
        world.most = world.most.max(going);
        let job = Job { name: (world.jobs.len() - 1).to_string() };
        world.answer()?;
        Ok(job)
    }

    async fn states(&self, jobs: &[Job]) -> Result<Vec<State>> {
        let mut world = self.world();
        world.answer()?;
        Ok(jobs
            .iter()
            .map(|job| {
                let job = &world.jobs[job.name.parse::<usize>().unwrap()];
                let failure = |code| Failure { code, reason: "it fell".into(), log: "x".into() };
                match (job.phase, job.fate) {
                    (Phase::Waiting, _) => State::Waiting("in the queue".into()),
                    (Phase::Running(_), _) => State::Running { done: 0 },
                    (Phase::Ended, Fate::Fails(code)) => State::Failed(failure(Some(code))),
                    (Phase::Ended, Fate::CommitsAndFails) => State::Failed(failure(None)),
                    (Phase::Ended, _) => State::Succeeded,
                    (Phase::Gone, _) => State::Gone,
                }
            })
            .collect())
    }

    async fn changed(&self) {
        self.world().tick();
        tokio::task::yield_now().await;
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<()> {
        self.world().cancelled += jobs.len();
        Ok(())
    }
}

#[async_trait]
impl Commits for Fake {
    async fn committed(&self, artifact: &str) -> Result<bool> {
        let mut world = self.world();
        world.answer()?;
        let there = world.committed.contains(artifact);
        let late = there && world.late > 0;
        world.late -= u32::from(late);
        Ok(there && !late)
    }
}

pub fn fake(order: &Order, chains: bool, fates: Vec<Vec<Fate>>) -> Fake {
    Fake(Mutex::new(World {
        seed: 0,
        chains,
        lost: 0,
        tasks: order.tasks.clone(),
        fates,
        jobs: Vec::new(),
        committed: BTreeSet::new(),
        crowded: false,
        cancelled: 0,
        helped: false,
        late: 0,
        most: 0,
    }))
}
