//! `triad run --on slurm` against a real Slurm of one node: the artifacts of a local run, whatever is
//! killed, and nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use triad::store::Store;

use crate::launched::{PIPELINE, digests, stderr};
use crate::program;
use crate::slurm_cluster::Cluster;

/// One Slurm at a time: two would count the same cores.
static TURN: Mutex<()> = Mutex::new(());

struct Place {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(pipeline: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cluster = Cluster::start(root, 17017);
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("small.yaml", pipeline);
        write("few.sql", "SELECT * FROM tasks ORDER BY task_id LIMIT 5");
        write("site.yaml", "slurm:\n  interval: 1s\n");
        Self { cluster, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn digests(&self, store: &str) -> BTreeMap<String, Vec<(String, String)>> {
        digests(&Store::open(self.path().join(store).to_str().unwrap()).unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program::command(self.path(), arguments);
        command.env("SLURM_CONF", &self.cluster.config).env("TRIAD_SITE", "site.yaml");
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits for a command, while jobs that went back into the queue begin at once.
    fn end(&self, mut child: Child) -> Output {
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(400), "{}", self.queue());
            self.cluster.hurry();
            std::thread::sleep(Duration::from_secs(1));
        }
        child.wait_with_output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.end(self.start(arguments))
    }

    /// `id|name|comment|state` of each task of each job, ended ones too.
    fn queue(&self) -> String {
        let format = "--format=%i|%j|%k|%T";
        self.cluster.ask("squeue", &["--noheader", "--array", "--states=all", format])
    }

    fn running(&self, stage: &str) -> Option<String> {
        let queue = self.queue();
        let line = queue
            .lines()
            .find(|line| line.contains(&format!(":{stage}:")) && line.ends_with("|RUNNING"))?;
        Some(line.split('|').next()?.to_string())
    }

    fn until<T>(&self, what: &str, mut there: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = there() {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no {what}: {}", self.queue());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How often a process of a job began, by what its logs say.
    fn begun(&self, stage: &str) -> usize {
        let logs = std::fs::read_dir(self.path().join("triad-logs")).unwrap();
        let text: String =
            logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
        text.lines().filter(|line| line.starts_with(&format!("small/{stage} on "))).count()
    }
}

const RUN: &[&str] = &["run", "small.yaml", "--on", "slurm"];

#[test]
fn slurm_makes_what_a_local_run_makes() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new(PIPELINE);
    program::stdout(place.path(), &["run", "small.yaml", "--store", "local"]);
    let output = place.run(RUN);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(table.matches(" committed ").count(), 4, "{table}");
    let store = place.path().join("triad-store");
    assert_eq!(place.digests("triad-store"), place.digests("local"));
    let queue = place.queue();
    let shards: Vec<_> = queue.lines().filter(|line| line.contains("triad:small:tasks:")).collect();
    assert_eq!(shards.len(), 2, "{queue}");
    assert!(shards.iter().any(|line| line.split('|').next().unwrap().ends_with("_1")), "{queue}");
    for id in place.digests("triad-store").keys() {
        assert!(queue.contains(&format!("|{id}|")), "{id}: {queue}");
    }
    // Nothing outside the store was read: the SQL stands in the pipeline that jobs were given.
    let given = std::fs::read_dir(store.join("pipelines")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read_to_string(given.path()).unwrap().contains("ORDER BY task_id"));
    let again = place.run(RUN);
    let said = String::from_utf8_lossy(&again.stdout);
    assert_eq!(said, "Nothing to do: all 4 stages of `small` are committed\n");
    assert_eq!(place.queue().lines().count(), 5, "{}", place.queue());
    // What is there is not submitted, what has changed is.
    let changed = place.run(&[RUN, &["--set", "other.seed=2"]].concat());
    assert!(changed.status.success(), "{}", stderr(&changed));
    assert_eq!(place.queue().lines().count(), 7, "{}", place.queue());
    let said = program::stdout(place.path(), &["fsck"]);
    assert!(said.contains("no damage"), "{said}");
    let said = program::stdout(place.path(), &["gc", "--grace", "0s"]);
    assert!(!said.contains("pipelines"), "{said}");
}

#[test]
fn slurm_takes_a_killed_task_and_a_gone_client() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new(
        &PIPELINE.replace("arithmetic", "deduction").replace("count: 70000", "count: 400000"),
    );
    let client = place.start(RUN);
    let task = place.until("task", || place.running("tasks"));
    place.until("log", || (place.begun("tasks") == 2).then_some(()));
    // The client goes: Ctrl-C.
    // SAFETY: a signal to a child that is not waited for yet.
    unsafe { libc::kill(client.id() as i32, libc::SIGINT) };
    let gone = place.end(client);
    assert_eq!(gone.status.code(), Some(75), "{}", stderr(&gone));
    assert!(
        stderr(&gone).contains("`triad run small.yaml --on slurm` watches"),
        "{}",
        stderr(&gone)
    );
    // As Slurm does when it warns of a time limit or a preemption.
    place.cluster.ask("scancel", &["--signal=TERM", "--batch", &task]);
    let output = place.run(RUN);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("found"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("submitted"), "{}", stderr(&output));
    let begun: Vec<usize> =
        ["tasks", "few", "other", "demonstrations"].map(|stage| place.begun(stage)).into();
    assert_eq!(begun, [3, 1, 1, 1], "{}", place.queue());
    let local = &["run", "small.yaml", "--store", "local"];
    program::stdout(place.path(), local);
    assert_eq!(place.digests("triad-store"), place.digests("local"));

    // Cancelled, it does not come back, and the next run goes on.
    let other = &[RUN, &["--set", "tasks.seed=5"]].concat();
    let client = place.start(other);
    place.until("task", || place.running("tasks"));
    let cancel = ["cancel", "small.yaml", "--on", "slurm", "--set", "tasks.seed=5"];
    let said = place.run(&cancel);
    assert_eq!(String::from_utf8_lossy(&said.stdout).matches("cancelled").count(), 3, "{said:?}");
    let ended = place.end(client);
    assert_eq!(ended.status.code(), Some(75), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("cancelled"), "{}", stderr(&ended));
    let output = place.run(other);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn slurm_shows_why_a_stage_failed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = PIPELINE.replace(
        "sql: !file few.sql",
        "sql: \"SELECT * FROM tasks WHERE arrow_cast(family, 'Int64') > 0 ORDER BY task_id\"",
    );
    let wrong = wrong.replace("count: 70000", "count: 70");
    let place = Place::new(&wrong);
    let local = program::run(place.path(), &["run", "small.yaml", "--store", "local"]);
    let output = place.run(RUN);
    assert_eq!(output.status.code(), local.status.code(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("left with exit code"), "{said}");
    // The log's tail, and its last line once more where the command ends.
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: stage `few`: Slurm job "), "{said}");
    let local = stderr(&local);
    let why = local.lines().last().unwrap().trim_start_matches("error: ");
    assert!(last.ends_with(why), "{said}\n{local}");
    assert!(said.contains("    error: "), "{said}");
    let table = String::from_utf8_lossy(&output.stdout);
    let state = |stage: &str, state: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{stage} "))).unwrap();
        assert!(line.contains(state), "{table}");
    };
    state("tasks", "committed");
    state("few", "failed");
    state("other", "committed");
    state("demonstrations", "not started");

    // What Slurm itself does not take.
    std::fs::write(place.path().join("site.yaml"), "slurm: {partition: nowhere}\n").unwrap();
    let output = place.run(&[RUN, &["--set", "other.seed=3", "--until", "other"]].concat());
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("invalid partition specified: nowhere"),
        "{}",
        stderr(&output)
    );
    std::fs::write(place.path().join("site.yaml"), "slurm:\n  partitions: main\n").unwrap();
    let output = place.run(RUN);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("site.yaml:2: "), "{}", stderr(&output));
}
