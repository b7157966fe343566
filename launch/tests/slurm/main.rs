//! The driver and a real Slurm, with a script in triad's place.

mod cluster;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::Cluster;
use triad_launch::drive::{Commits, End, Observer, drive};
use triad_launch::order::{Order, Resources, Task};
use triad_launch::scheduler::{Job, Scheduler, State};
use triad_launch::slurm::{Site, Slurm};
use triad_launch::{Error, Result};

/// Commits by making a file named by the stage; what a stage's name says decides how it fares.
const PROGRAM: &str = r#"#!/bin/bash
stage=$3 store=$5
shift 5
shards= index=${SLURM_ARRAY_TASK_ID:-0}
[ "$1" = --shards ] && shards=$2
echo "$stage $index begins" >>"$store/began"
case $stage in
bad*) echo "bad row 3" >&2; exit 65 ;;
killed*) kill -9 $$ ;;
slow*)
    trap 'echo "$stage: checkpoint" >&2; touch "$store/$stage.checkpoint"; exit 75' TERM
    [ -e "$store/$stage.checkpoint" ] || for i in $(seq 600); do sleep 0.1; done
    ;;
busy*) [ -e "$store/$stage.$index.tried" ] || { touch "$store/$stage.$index.tried"; exit 75; } ;;
esac
if [ -n "$shards" ]; then
    touch "$store/$stage.shard.$index"
    [ "$(ls "$store/$stage".shard.* | wc -l)" = "$shards" ] || exit 0
fi
touch "$store/$stage"
"#;

struct Place {
    folder: tempfile::TempDir,
    store: PathBuf,
    site: Site,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whatever a folder may be called.
        let store = folder.path().join("it's a store");
        std::fs::create_dir(&store).unwrap();
        let program = folder.path().join("triad");
        std::fs::write(&program, PROGRAM).unwrap();
        let site = Site {
            program: Some(format!("bash {}", program.display())),
            logs: folder.path().join("100% logs"),
            setup: "set -eu\necho set up".into(),
            interval: Duration::from_secs(1),
            ..Site::default()
        };
        Self { folder, store, site }
    }

    fn order(&self, stages: &[(&str, &[usize], u32)]) -> Order {
        let task = |&(stage, after, shards): &(&str, &[usize], u32)| Task {
            stage: stage.into(),
            job: "job".into(),
            artifact: stage.into(),
            after: after.to_vec(),
            shards,
            computes: false,
            resources: Resources { cpus: Some(1), memory: Some(50 << 20), ..Resources::default() },
        };
        Order {
            pipeline: "test".into(),
            source: "store:0".into(),
            store: self.store.display().to_string(),
            tasks: stages.iter().map(task).collect(),
        }
    }

    fn began(&self, stage: &str) -> usize {
        let began = std::fs::read_to_string(self.store.join("began")).unwrap_or_default();
        began.lines().filter(|line| line.split(' ').next() == Some(stage)).count()
    }
}

#[async_trait]
impl Commits for Place {
    async fn committed(&self, artifact: &str) -> Result<bool> {
        Ok(self.store.join(artifact).exists())
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
    fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|said| said.contains(line))
    }
}

impl Observer for Log {
    fn submitted(&self, task: &Task, _: &Job, found: bool) {
        self.add(format!("{} {}", task.stage, if found { "found" } else { "submitted" }));
    }
    fn changed(&self, task: &Task, state: &State) {
        self.add(format!("{} {state:?}", task.stage));
    }
    fn ended(&self, task: &Task, end: &End) {
        self.add(format!("{} {end:?}", task.stage));
    }
    fn unanswered(&self, error: &Error) {
        self.add(error.to_string());
    }
}

/// Drives the order to its end, while `meanwhile` is looked at again and again.
async fn run(cluster: &Cluster, place: &Place, order: &Order, log: &Log) -> Vec<End> {
    let slurm = Slurm::new(place.site.clone()).unwrap();
    let hurry = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.hurry();
        }
    };
    tokio::select! {
        ends = drive(order, &slurm, place, log, std::future::pending()) => ends.unwrap(),
        () = hurry => Vec::new(),
        () = tokio::time::sleep(Duration::from_secs(240)) => {
            panic!("not at an end: {:?}\n{}", log.0.lock().unwrap(), cluster.ask("squeue", &[]))
        }
    }
}

async fn until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_secs(60), "no {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One cluster for all, one after another: two cores are what it has.
#[test]
fn a_real_slurm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cluster = Cluster::start(root, 16917);
    // SAFETY: nothing else in this process reads the environment at the same time.
    unsafe { std::env::set_var("SLURM_CONF", &cluster.config) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stages_and_shards_run_in_order(&cluster).await;
        failures_say_why(&cluster).await;
        what_leaves_with_75_comes_back(&cluster).await;
        a_time_limit_is_announced(&cluster).await;
        a_client_goes_and_another_comes(&cluster).await;
        a_lost_node_costs_a_task_nothing(&cluster).await;
        a_step_killed_as_a_whole_comes_back(&cluster).await;
    });
}

async fn stages_and_shards_run_in_order(cluster: &Cluster) {
    let place = Place::new();
    let order = place.order(&[("tasks", &[], 3), ("few", &[0], 1), ("other", &[], 1)]);
    let log = Log::default();
    assert_eq!(run(cluster, &place, &order, &log).await, vec![End::Committed; 3]);
    assert_eq!((place.began("tasks"), place.began("few")), (3, 1));
    let began = std::fs::read_to_string(place.store.join("began")).unwrap();
    assert!(began.find("few") > began.rfind("tasks"), "{began}");
    let jobs =
        cluster.ask("squeue", &["--noheader", "--array", "--states=all", "--format=%j|%k|%i"]);
    let shards = jobs.lines().filter(|line| line.starts_with("triad:test:tasks:tasks-"));
    assert_eq!(shards.clone().count(), 3, "{jobs}");
    assert!(shards.clone().all(|line| line.contains("|tasks|") && line.contains('_')), "{jobs}");
    // All is committed: nothing is asked of Slurm.
    let again = Log::default();
    assert_eq!(run(cluster, &place, &order, &again).await, vec![End::Committed; 3]);
    assert!(!again.has("submitted"), "{:?}", again.0);
}

async fn failures_say_why(cluster: &Cluster) {
    let place = Place::new();
    let stages: &[(&str, &[usize], u32)] =
        &[("bad", &[], 2), ("after", &[0], 1), ("killed", &[], 1), ("good", &[], 1)];
    let ends = run(cluster, &place, &place.order(stages), &Log::default()).await;
    let End::Failed(bad) = &ends[0] else { panic!("{ends:?}") };
    assert_eq!(bad.code, Some(65));
    assert!(bad.reason.starts_with("Slurm job ") && bad.reason.contains("exit code 65"), "{bad:?}");
    assert!(bad.log.contains("set up\n") && bad.log.ends_with("bad row 3"), "{}", bad.log);
    assert_eq!(ends[1], End::NotStarted);
    let End::Failed(killed) = &ends[2] else { panic!("{ends:?}") };
    assert_eq!(killed.code, Some(137));
    assert!(killed.reason.contains("resources.memory"), "{killed:?}");
    assert_eq!(ends[3], End::Committed);
    assert_eq!(place.began("after"), 0);
    // What Slurm does not take fails with its words.
    let mut place = Place::new();
    place.site.partition = Some("nowhere".into());
    let ends = run(cluster, &place, &place.order(&[("good", &[], 1)]), &Log::default()).await;
    let End::Failed(refused) = &ends[0] else { panic!("{ends:?}") };
    assert_eq!(refused.code, Some(64));
    assert!(refused.reason.contains("invalid partition"), "{refused:?}");
}

async fn what_leaves_with_75_comes_back(cluster: &Cluster) {
    let place = Place::new();
    let log = Log::default();
    let order = place.order(&[("busy", &[], 2), ("next", &[0], 1), ("slow", &[], 1)]);
    let preempt = async {
        until("start", || place.began("slow") == 1).await;
        let job = cluster.ask("squeue", &["--noheader", "--states=RUNNING", "--format=%i|%j"]);
        let slow = job.lines().find(|line| line.contains("slow")).unwrap();
        // As Slurm does when it warns of a time limit or a preemption.
        let id = slow.split_once('|').unwrap().0;
        cluster.ask("scancel", &["--signal=TERM", "--batch", id]);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ends = run(cluster, &place, &order, &log) => assert_eq!(ends, vec![End::Committed; 3]),
        () = preempt => {}
    }
    assert_eq!((place.began("slow"), place.began("next")), (2, 1));
    assert_eq!(place.began("busy"), 4);
    assert!(log.has("slow Waiting(\"BeginTime\")"), "{:?}", log.0);
    // Past the bound it is the end.
    let mut place = Place::new();
    place.site.requeues = 0;
    let ends = run(cluster, &place, &place.order(&[("busy", &[], 1)]), &Log::default()).await;
    let End::Failed(stopped) = &ends[0] else { panic!("{ends:?}") };
    assert_eq!(stopped.code, Some(75));
}

async fn a_time_limit_is_announced(cluster: &Cluster) {
    let place = Place::new();
    let mut order = place.order(&[("slow", &[], 1)]);
    // Slurm looks at limits every half minute, and may be a minute early.
    order.tasks[0].resources.time = Some(Duration::from_secs(120));
    let ends = run(cluster, &place, &order, &Log::default()).await;
    assert_eq!((ends, place.began("slow")), (vec![End::Committed], 2));
}

async fn a_client_goes_and_another_comes(cluster: &Cluster) {
    let place = Place::new();
    let order = place.order(&[("slow", &[], 1), ("next", &[0], 1)]);
    let slurm = Slurm::new(place.site.clone()).unwrap();
    let log = Log::default();
    let gone = async { until("start", || place.began("slow") == 1).await };
    let ends = drive(&order, &slurm, &place, &log, gone).await.unwrap();
    assert_eq!(ends, vec![End::Left; 2]);
    let found: Vec<_> = slurm.find(&order).await.unwrap().into_iter().flatten().collect();
    assert_eq!(found.len(), 2);
    // The same artifacts on their way to another store are other jobs.
    let mut elsewhere = order.clone();
    elsewhere.store += "-2";
    assert_eq!(slurm.find(&elsewhere).await.unwrap(), vec![None, None]);
    // A second job for the same artifact waits for the first.
    let twin = slurm.submit(&order, 0, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let states = slurm.states(std::slice::from_ref(&twin)).await.unwrap();
    assert_eq!(states, [State::Waiting("Dependency".into())]);
    std::fs::write(place.store.join("slow.checkpoint"), "").unwrap();
    cluster.ask("scancel", &["--signal=TERM", "--batch", &found[0].name]);
    let again = Log::default();
    assert_eq!(run(cluster, &place, &order, &again).await, vec![End::Committed; 2]);
    assert!(again.has("slow found") && again.has("next found"), "{:?}", again.0);
    assert!(!again.has("submitted"), "{:?}", again.0);
    assert_eq!(place.began("next"), 1);

    // Cancelled on request, it does not come back.
    let place = Place::new();
    let order = place.order(&[("slow", &[], 1), ("next", &[0], 1)]);
    let gone = async { until("start", || place.began("slow") == 1).await };
    let ends = drive(&order, &slurm, &place, &log, gone).await.unwrap();
    assert_eq!(ends, vec![End::Left; 2]);
    let jobs: Vec<_> = slurm.find(&order).await.unwrap().into_iter().flatten().collect();
    slurm.cancel(&jobs).await.unwrap();
    until("checkpoint", || place.store.join("slow.checkpoint").exists()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(slurm.find(&order).await.unwrap(), vec![None, None]);
    assert_eq!((place.began("slow"), place.began("next")), (1, 0));
    let states = slurm.states(&jobs).await.unwrap();
    let State::Failed(cancelled) = &states[0] else { panic!("{states:?}") };
    assert!(cancelled.reason.contains("cancelled"), "{cancelled:?}");
    // Jobs that Slurm has never heard of.
    let unknown = [Job { name: "999999".into() }];
    assert_eq!(slurm.states(&unknown).await.unwrap(), [State::Gone]);
}

async fn a_lost_node_costs_a_task_nothing(cluster: &Cluster) {
    let place = Place::new();
    let log = Log::default();
    let order = place.order(&[("slow", &[], 1), ("next", &[0], 1)]);
    let lose = async {
        until("start", || place.began("slow") == 1).await;
        std::fs::write(place.store.join("slow.checkpoint"), "").unwrap();
        let node = cluster.ask("squeue", &["--noheader", "--states=RUNNING", "--format=%N"]);
        let node = format!("nodename={}", node.lines().next().unwrap());
        // It comes back by itself, as its slurmd is well.
        cluster.ask("scontrol", &["update", &node, "state=down", "reason=test"]);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ends = run(cluster, &place, &order, &log) => assert_eq!(ends, vec![End::Committed; 2]),
        () = lose => {}
    }
    assert_eq!((place.began("slow"), place.began("next")), (2, 1));
    drop(place.folder);
}

async fn a_step_killed_as_a_whole_comes_back(cluster: &Cluster) {
    let place = Place::new();
    let log = Log::default();
    let order = place.order(&[("slow", &[], 1), ("next", &[0], 1)]);
    let kill = async {
        until("start", || place.began("slow") == 1).await;
        std::fs::write(place.store.join("slow.checkpoint"), "").unwrap();
        let id = cluster.ask("squeue", &["--noheader", "--states=RUNNING", "--format=%i"]);
        let pids = cluster.ask("scontrol", &["listpids", id.trim()]);
        let pids = pids.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        for pid in pids {
            let _ = std::process::Command::new("kill").args(["-9", pid]).status();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ends = run(cluster, &place, &order, &log) => assert_eq!(ends, vec![End::Committed; 2]),
        () = kill => {}
    }
    assert!(log.has("slow Gone"), "{:?}", log.0);
    assert_eq!((place.began("slow"), place.began("next")), (2, 1));
}
