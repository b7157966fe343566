use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::order::Resources;

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
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
    fn commits(self) -> bool {
        matches!(self, Self::Commits | Self::CommitsAndVanishes | Self::CommitsAndFails)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Waiting,
    Running(u64),
    Ended,
    Gone,
}

struct FakeJob {
    task: usize,
    after: Vec<usize>,
    phase: Phase,
    fate: Fate,
}

/// A scheduler and a store in memory. Time passes when `changed` is awaited.
struct World {
    seed: u64,
    chains: bool,
    /// Of 100 answers, how many get lost.
    lost: u64,
    tasks: Vec<Task>,
    /// Of a task's jobs, one after another; the last stands for all further ones.
    fates: Vec<Vec<Fate>>,
    jobs: Vec<FakeJob>,
    committed: BTreeSet<String>,
    /// Whether several clients may submit the same task.
    crowded: bool,
    cancelled: usize,
    /// Whether somebody else submits again what vanished.
    helped: bool,
    /// For how many looks an ended job's commit is not seen.
    late: u32,
    /// Most jobs at a time so far.
    most: usize,
}

impl World {
    /// 0 to `below` - 1.
    fn draw(&mut self, below: u64) -> u64 {
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

    fn active(&self, task: usize) -> Option<usize> {
        let active = |job: &FakeJob| matches!(job.phase, Phase::Waiting | Phase::Running(_));
        self.jobs.iter().position(|job| job.task == task && active(job))
    }

    fn tick(&mut self) {
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

struct Fake(Mutex<World>);

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
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

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Observer for Log {
    fn submitted(&self, task: &Task, _: &Job, found: bool) {
        self.add(format!("{} {}", task.stage, if found { "found" } else { "submitted" }));
    }
    fn changed(&self, _: &Task, _: &State) {}
    fn ended(&self, task: &Task, end: &End) {
        self.add(format!("{} {end:?}", task.stage));
    }
    fn unanswered(&self, _: &Error) {}
}

/// Tasks `0`, `1`, ... after those given.
fn order(after: &[&[usize]]) -> Order {
    let task = |(at, after): (usize, &&[usize])| Task {
        stage: at.to_string(),
        job: "job".into(),
        artifact: format!("artifact-{at}"),
        after: after.to_vec(),
        shards: 1,
        computes: false,
        resources: Resources::default(),
    };
    let tasks = after.iter().enumerate().map(task).collect();
    Order { pipeline: "p".into(), source: "s".into(), store: "memory".into(), tasks }
}

fn fake(order: &Order, chains: bool, fates: Vec<Vec<Fate>>) -> Fake {
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

async fn ends(order: &Order, fake: &Fake) -> Vec<End> {
    drive(order, fake, fake, &Log::default(), std::future::pending()).await.unwrap()
}

/// How a task must end whose jobs fare like this, if what it is made from is committed.
fn expected(fates: &[Fate]) -> &'static str {
    let second = fates[1.min(fates.len() - 1)];
    match fates[0] {
        fate if fate.commits() => "committed",
        Fate::Fails(_) => "failed",
        _ if second.commits() => "committed",
        _ => "failed",
    }
}

#[tokio::test]
async fn every_order_ends_as_its_jobs_fare() {
    for seed in 0..400 {
        let mut dice = fake(&order(&[]), seed % 2 == 0, Vec::new()).0.into_inner().unwrap();
        dice.seed = seed;
        let count = 1 + dice.draw(8) as usize;
        let after: Vec<Vec<usize>> = (0..count)
            .map(|at| (0..at).filter(|_| dice.draw(3) == 0).collect::<Vec<usize>>())
            .collect();
        let fates: Vec<Vec<Fate>> = (0..count)
            .map(|_| {
                (0..3)
                    .map(|_| match dice.draw(14) {
                        0 => Fate::Fails(65),
                        1 | 2 => Fate::Vanishes,
                        3 => Fate::CommitsAndVanishes,
                        4 => Fate::EndsEmpty,
                        5 => Fate::CommitsAndFails,
                        _ => Fate::Commits,
                    })
                    .collect()
            })
            .collect();
        let after: Vec<&[usize]> = after.iter().map(Vec::as_slice).collect();
        let order = order(&after);
        let fake = fake(&order, dice.chains, fates.clone());
        fake.world().seed = seed;
        fake.world().lost = [0, 20][(seed / 2 % 2) as usize];
        let ends = ends(&order, &fake).await;
        let mut wanted: Vec<&str> = Vec::new();
        for at in 0..count {
            let cut = after[at].iter().any(|&from| wanted[from] != "committed");
            wanted.push(if cut { "not started" } else { expected(&fates[at]) });
        }
        let word = |end: &End| match end {
            End::Committed => "committed",
            End::Failed(_) => "failed",
            End::NotStarted => "not started",
            End::Left => "left",
        };
        let got: Vec<&str> = ends.iter().map(word).collect();
        // Chained jobs go with those before them: a task may have lost its first job without a run.
        // What was not committed by a job that counts is then committed by a further one, or not.
        let world = fake.world();
        let settled = |at: usize| {
            let jobs = world.jobs.iter().filter(|job| job.task == at).count();
            !world.chains || jobs <= 1
        };
        for at in 0..count {
            let there = world.committed.contains(&order.tasks[at].artifact);
            assert_eq!(got[at] == "committed", there, "seed {seed}, task {at}: {got:?}");
            let cut = after[at].iter().any(|&from| got[from] != "committed");
            assert_eq!(got[at] == "not started", cut, "seed {seed}, task {at}: {got:?}");
            if (0..=at).all(settled) {
                assert_eq!(got[at], wanted[at], "seed {seed}, task {at}: {fates:?}");
            }
            let jobs = world.jobs.iter().filter(|job| job.task == at).count();
            assert!(jobs <= 2, "seed {seed}, task {at}: {jobs} jobs");
        }
        assert_eq!(world.cancelled, 0);
    }
}

#[tokio::test]
async fn what_is_committed_is_not_submitted() {
    let order = order(&[&[], &[0], &[1]]);
    let fake = fake(&order, true, vec![vec![Fate::Commits]; 3]);
    fake.world().committed.extend(["artifact-0".into(), "artifact-1".into()]);
    assert_eq!(ends(&order, &fake).await, vec![End::Committed; 3]);
    assert_eq!(fake.world().jobs.len(), 1);
}

#[tokio::test]
async fn a_scheduler_is_not_flooded() {
    let after: Vec<Vec<usize>> =
        (0..500).map(|at| (at % 5 > 0).then(|| at - 1).into_iter().collect()).collect();
    let after: Vec<&[usize]> = after.iter().map(Vec::as_slice).collect();
    let order = order(&after);
    let fake = fake(&order, true, vec![vec![Fate::Commits]; 500]);
    assert_eq!(ends(&order, &fake).await, vec![End::Committed; 500]);
    assert_eq!(fake.world().most, AHEAD);
}

#[tokio::test]
async fn after_a_failure_the_others_go_on() {
    for chains in [false, true] {
        let order = order(&[&[], &[0], &[1], &[], &[3]]);
        let mut fates = vec![vec![Fate::Commits]; 5];
        fates[0] = vec![Fate::Fails(65)];
        let ends = ends(&order, &fake(&order, chains, fates)).await;
        let failure = Failure { code: Some(65), reason: "it fell".into(), log: "x".into() };
        assert_eq!(
            ends,
            [
                End::Failed(failure),
                End::NotStarted,
                End::NotStarted,
                End::Committed,
                End::Committed
            ]
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_leaves_everything_and_the_next_goes_on() {
    for seed in 0..100 {
        for chains in [false, true] {
            let order = order(&[&[], &[0], &[0], &[1, 2]]);
            let fake = fake(&order, chains, vec![vec![Fate::Commits]; 4]);
            (fake.world().seed, fake.world().lost) = (seed, 10);
            let mut clients = 0;
            let ends = loop {
                clients += 1;
                let rounds = 1 + seed % 7;
                let stop = async {
                    for _ in 0..rounds * clients {
                        tokio::task::yield_now().await;
                    }
                };
                let log = Log::default();
                let ends = drive(&order, &fake, &fake, &log, stop).await.unwrap();
                if !ends.iter().any(|end| matches!(end, End::Left | End::NotStarted)) {
                    break ends;
                }
                // The world goes on without anybody looking.
                fake.world().tick();
            };
            assert_eq!(ends, vec![End::Committed; 4]);
            let mut jobs: BTreeMap<usize, usize> = BTreeMap::new();
            for job in &fake.world().jobs {
                *jobs.entry(job.task).or_default() += 1;
            }
            assert_eq!(jobs.values().copied().max(), Some(1), "seed {seed}: {jobs:?}");
            assert_eq!(fake.world().cancelled, 0);
        }
    }
}

#[tokio::test]
async fn what_somebody_else_submits_again_is_found() {
    let order = order(&[&[], &[0]]);
    let fake = fake(&order, false, vec![vec![Fate::Vanishes], vec![Fate::Commits]]);
    fake.world().helped = true;
    assert_eq!(ends(&order, &fake).await, vec![End::Committed; 2]);
    assert_eq!(fake.world().jobs.len(), 3);
}

#[tokio::test]
async fn a_commit_may_be_seen_late() {
    let order = order(&[&[]]);
    let fake = fake(&order, true, vec![vec![Fate::Commits]]);
    fake.world().late = LOOKS - 1;
    assert_eq!(ends(&order, &fake).await, vec![End::Committed]);
    assert_eq!(fake.world().jobs.len(), 1);
}

#[tokio::test]
async fn two_clients_at_once_come_to_the_same_end() {
    for seed in 0..100 {
        let order = order(&[&[], &[0], &[0], &[1, 2]]);
        let fake = fake(&order, seed % 2 == 0, vec![vec![Fate::Commits]; 4]);
        (fake.world().seed, fake.world().crowded) = (seed, true);
        let (one, two) = tokio::join!(ends(&order, &fake), ends(&order, &fake));
        assert_eq!((one, two), (vec![End::Committed; 4], vec![End::Committed; 4]));
    }
}

#[tokio::test]
async fn a_scheduler_that_never_answers_is_given_up() {
    let order = order(&[&[]]);
    let fake = fake(&order, true, vec![vec![Fate::Commits]]);
    fake.world().lost = 100;
    let ended = drive(&order, &fake, &fake, &Log::default(), std::future::pending()).await;
    assert!(matches!(ended, Err(Error::TryAgain(_))), "{ended:?}");
}
