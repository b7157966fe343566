//! `triad run --on kubernetes` and `--on aws-batch`, from the command to the artifacts: what is handed
//! over is run as it says, by a scheduler in the test's process.

// Shared with triad-launch's own tests, which use more of them.
#[allow(dead_code)]
#[path = "../../launch/src/batch/tests/amazon.rs"]
mod amazon;
mod batch;
mod container;
#[allow(dead_code)]
#[path = "../../launch/src/kubernetes/tests/http.rs"]
mod http;
mod kubernetes;
#[path = "../../launch/src/kubernetes/tests/rules.rs"]
mod rules;
#[allow(dead_code)]
#[path = "../../launch/src/kubernetes/tests/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use container::Machines;
use serde_json::Value;
use triad::store::{Artifact, Store};

use crate::program;
use crate::s3_server::Server;

/// Two shards where they can be had, a stage that needs all of them, and one beside.
pub const PIPELINE: &str = "\
pipeline: small
stages:
  tasks:
    job: generate
    params: {family: arithmetic, split: train, levels: [{level: 1, count: 400}, {level: 2, count: 70000}]}
    placement: {shards: 2}
    resources: {cpus: 1, memory: 300M, time: 20m}
  few:
    job: filter
    params: {output: tasks, sql: !file few.sql}
    inputs: {tables: [tasks]}
  other:
    job: generate
    params: {family: deduction, split: train, levels: [{level: 1, count: 20, variables: 2, formulas: [2, 3], depth: 1}]}
  demonstrations:
    job: demonstrate
    inputs: {tasks: [few, other]}
";

/// A stage that reads a file beside the pipeline, and one that needs it.
const THEIRS: &str = "  \
  theirs:
    job: import-tasks
    params: {paths: [theirs.jsonl], layout: gsm8k}
  theirs-sorted:
    job: filter
    params: {output: tasks, sql: SELECT * FROM theirs ORDER BY task_id}
    inputs: {tables: [theirs]}
";

/// Between two looks of a scheduler.
const PAUSE: Duration = Duration::from_millis(20);

/// What pods and containers get as secrets.
const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "never-shown")];

/// A scheduler that runs what it is handed.
trait Place {
    const ON: &'static str;
    /// With a store that its jobs reach.
    fn start(s3: &Server) -> Self;
    /// Beside the pipeline, `site.yaml` among them.
    fn files(&self) -> Vec<(&'static str, String)>;
    /// What clients find it by.
    fn environment(&self) -> Vec<(&'static str, String)>;
    /// Jobs in all.
    fn submitted(&self) -> usize;
    fn machines(&self) -> &Machines;
}

struct Bench<P> {
    place: P,
    s3: Arc<Server>,
    folder: tempfile::TempDir,
}

impl<P: Place> Bench<P> {
    fn new(pipeline: &str) -> Self {
        let s3 = Server::start();
        let (place, folder) = (P::start(&s3), tempfile::tempdir().unwrap());
        let own = [
            ("small.yaml", pipeline.to_string()),
            ("few.sql", "SELECT * FROM tasks ORDER BY task_id LIMIT 5".into()),
            ("theirs.jsonl", "{\"question\": \"6 * 7?\", \"answer\": \"#### 42\"}\n".into()),
        ];
        for (name, text) in own.into_iter().chain(place.files()) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { place, s3, folder }
    }

    fn store(&self) -> Store {
        self.s3.store(Duration::from_secs(10))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command: Command = program::command(self.folder.path(), arguments);
        command.env("TRIAD_SITE", "site.yaml").env("TRIAD_STORE", self.store().url().as_str());
        command.env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1").envs(KEYS);
        command.envs(self.place.environment());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn ask(&self, verb: &str, further: &[&str]) -> Output {
        self.start(&[&[verb, "small.yaml", "--on", P::ON], further].concat())
            .wait_with_output()
            .unwrap()
    }

    fn run(&self, further: &[&str]) -> Output {
        self.ask("run", further)
    }

    /// Waits for both shards of `tasks` to run.
    fn busy(&self) {
        let start = Instant::now();
        while self.place.machines().running("tasks") < 2 {
            assert!(start.elapsed() < Duration::from_secs(120), "no shards of tasks");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn begun(&self) -> [usize; 4] {
        ["tasks", "few", "other", "demonstrations"].map(|stage| self.place.machines().begun(stage))
    }

    fn equals_a_local_run(&self) {
        program::stdout(self.folder.path(), &["run", "small.yaml", "--store", "local"]);
        let local = Store::open(self.folder.path().join("local").to_str().unwrap()).unwrap();
        assert_eq!(digests(&self.store()), digests(&local));
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().into()
}

/// By id: the digests of what it holds.
pub fn digests(store: &Store) -> BTreeMap<String, Vec<(String, String)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut found = BTreeMap::new();
        for id in store.artifacts().await.unwrap() {
            let objects = Artifact::open(store, &id).await.unwrap().unwrap().manifest.objects;
            let mut objects: Vec<_> = objects
                .into_iter()
                .map(|object| (object.path.to_string(), object.digest.to_string()))
                .collect();
            objects.sort();
            found.insert(id.to_string(), objects);
        }
        found
    })
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn makes_what_a_local_run_makes<P: Place>() {
    let bench = Bench::<P>::new(&[PIPELINE, THEIRS].concat());
    let output = bench.run(&[]);
    let table = stdout(&output);
    // What reads a file of this machine was made here, before.
    assert_eq!(table.matches(" committed ").count(), 5, "{table}");
    assert!(table.contains("theirs ") && table.contains(" found "), "{table}");
    bench.equals_a_local_run();
    assert_eq!((bench.begun(), bench.place.submitted()), ([2, 1, 1, 1], 5));
    assert_eq!(bench.place.machines().begun("theirs"), 0);
    let again = stdout(&bench.run(&[]));
    assert_eq!(again, "Nothing to do: all 6 stages of `small` are committed\n");
    assert_eq!(bench.place.submitted(), 5);
    // What is there is not submitted, what has changed is.
    stdout(&bench.run(&["--set", "other.seed=2"]));
    assert_eq!((bench.begun(), bench.place.submitted()), ([2, 1, 2, 2], 7));
    assert!(!stderr(&output).contains("never-shown"), "{}", stderr(&output));
}

fn takes_a_lost_machine_a_gone_client_and_a_cancel<P: Place>() {
    let long = PIPELINE.replace("arithmetic", "deduction").replace("count: 70000", "count: 400000");
    let bench = Bench::<P>::new(&long);
    let client = bench.start(&["run", "small.yaml", "--on", P::ON]);
    bench.busy();
    // The client goes: Ctrl-C.
    // SAFETY: a signal to a child that is not waited for yet.
    unsafe { libc::kill(client.id() as i32, libc::SIGINT) };
    let gone = client.wait_with_output().unwrap();
    assert_eq!(gone.status.code(), Some(75), "{}", stderr(&gone));
    let next = format!("`triad run small.yaml --on {}` watches", P::ON);
    assert!(stderr(&gone).contains(&next), "{}", stderr(&gone));
    // Kubernetes has none yet of what waits for others.
    let rest = stderr(&gone).contains(" and submits the ");
    assert!(rest || P::ON != "kubernetes", "{}", stderr(&gone));
    bench.place.machines().take_away("tasks");
    let output = bench.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("found"), "{}", stderr(&output));
    assert_eq!((bench.begun(), bench.place.submitted()), ([3, 1, 1, 1], 4), "{}", stderr(&output));
    bench.equals_a_local_run();

    // Cancelled, it does not come back by itself, and the next run goes on.
    let other = ["--set", "tasks.seed=5"];
    let client = bench.start(&[&["run", "small.yaml", "--on", P::ON], &other[..]].concat());
    bench.busy();
    let said = stdout(&bench.ask("cancel", &other));
    assert!(said.contains("tasks") && said.contains("cancelled"), "{said}");
    let ended = client.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(75), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("cancelled"), "{}", stderr(&ended));
    assert_eq!(bench.begun(), [5, 1, 1, 1], "{}", stderr(&ended));
    stdout(&bench.run(&other));
    assert_eq!(bench.begun(), [7, 2, 1, 2]);
}

fn shows_why_a_stage_failed<P: Place>() {
    let wrong = PIPELINE.replace(
        "sql: !file few.sql",
        "sql: \"SELECT * FROM tasks WHERE arrow_cast(family, 'Int64') > 0 ORDER BY task_id\"",
    );
    let bench = Bench::<P>::new(&wrong.replace("count: 70000", "count: 70"));
    let local = &["run", "small.yaml", "--store", "local"];
    let local = program::run(bench.folder.path(), local);
    let output = bench.run(&[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), local.status.code(), "{said}");
    // The log's tail, and its last line once more where the command ends.
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: stage `few`: "), "{said}");
    let local = stderr(&local);
    let why = local.lines().last().unwrap().rsplit("error: stage `few`: ").next().unwrap();
    assert!(last.ends_with(why), "{said}\n{local}");
    assert!(said.contains("    error: "), "{said}");
    let table = String::from_utf8_lossy(&output.stdout);
    for (stage, state) in [
        ("tasks", "committed"),
        ("few", "failed"),
        ("other", "committed"),
        ("demonstrations", "not started"),
    ] {
        let line = table.lines().find(|line| line.starts_with(&format!("{stage} "))).unwrap();
        assert!(line.contains(state), "{table}");
    }
    assert_eq!(bench.begun(), [2, 1, 1, 0], "65 is not tried again");
}

#[test]
fn kubernetes_makes_what_a_local_run_makes() {
    makes_what_a_local_run_makes::<kubernetes::Cluster>();
}

#[test]
fn kubernetes_takes_a_lost_machine_a_gone_client_and_a_cancel() {
    takes_a_lost_machine_a_gone_client_and_a_cancel::<kubernetes::Cluster>();
}

#[test]
fn kubernetes_shows_why_a_stage_failed() {
    shows_why_a_stage_failed::<kubernetes::Cluster>();
}

#[test]
fn batch_makes_what_a_local_run_makes() {
    makes_what_a_local_run_makes::<batch::Region>();
}

#[test]
fn batch_takes_a_lost_machine_a_gone_client_and_a_cancel() {
    takes_a_lost_machine_a_gone_client_and_a_cancel::<batch::Region>();
}

#[test]
fn batch_shows_why_a_stage_failed() {
    shows_why_a_stage_failed::<batch::Region>();
}
