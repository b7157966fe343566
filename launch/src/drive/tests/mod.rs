mod fake;

use std::collections::BTreeMap;
use std::sync::Mutex;

use fake::{Fake, Fate, fake};

use super::*;
use crate::order::Resources;

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
