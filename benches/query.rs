//! The shipped filters and some analysis queries over ten million rollouts, beside DuckDB on the same
//! Parquet.
//!
//! ```text
//! make setup
//! cargo bench --bench query -- [--folder DIR] [--rows N] [--turns N] [--only NAME,…] [--memory SIZE]
//! ```
//! Makes a store of 3 GB below DIR (`/var/tmp/triad-query`) unless it is there already. Every run is a
//! process of its own, in turns; what was read before is in the page cache. Filters run as jobs, which
//! check digests and commit; DuckDB copies the same rows, in zstd as well. Both run on `--cores` (2), and
//! within SIZE where it is given, as `512MiB`.
//! Results are compared: of queries as text, of filters by rows and a hash of each. Prints the median
//! and the spread of the seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;
use serde_json::json;
use triad::dataset::{Rollout, Row, Task, Verdict, encode_part};
use triad::entropy::Stream;
use triad::id::ArtifactId;
use triad::job::{self, Input, Inputs, Progress, ProgressSink, Run, Shard, StopFlag};
use triad::store::{Artifact, Attempt, Manifest, Part, Producer, SchemaRef, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: usize = 8;
/// Tasks whose rollouts make one part.
const TASKS: usize = 8192;
const FAMILIES: [&str; 3] = ["abduction", "deduction", "induction"];

/// By name: the SQL that both run.
const QUERIES: [(&str, &str); 6] = [
    (
        "accuracy by level",
        "SELECT family, level, count(*) AS n, avg(CAST(correct AS DOUBLE)) AS accuracy, \
         max(reward) AS best FROM verdicts GROUP BY family, level ORDER BY family, level",
    ),
    (
        "solve rates",
        "SELECT solved, count(*) AS tasks FROM (SELECT task_id, sum(CAST(correct AS INT)) AS solved \
         FROM verdicts GROUP BY task_id) GROUP BY solved ORDER BY solved",
    ),
    (
        "length by verdict",
        "SELECT v.verdict, r.level, count(*) AS n, sum(array_length(r.tokens)) AS tokens \
         FROM rollouts r JOIN verdicts v \
         ON v.task_id = r.task_id AND v.step = r.step AND v.sample = r.sample \
         GROUP BY v.verdict, r.level ORDER BY v.verdict, r.level",
    ),
    (
        "token counts",
        "SELECT token, count(*) AS n FROM (SELECT unnest(tokens) AS token FROM rollouts) \
         GROUP BY token ORDER BY n DESC, token LIMIT 20",
    ),
    (
        "longest of a step",
        "SELECT task_id, sample, array_length(tokens) AS n, response FROM rollouts \
         WHERE step BETWEEN 40 AND 60 AND stop = 'length' \
         ORDER BY n DESC, task_id, sample LIMIT 20",
    ),
    (
        "one task",
        "SELECT sample, response, array_length(tokens) AS n FROM rollouts \
         WHERE task_id = 'TASK' ORDER BY sample",
    ),
];

/// The shipped filters, with what they make.
const FILTERS: [(&str, &str); 6] = [
    ("verified", "examples"),
    ("groups-with-variance", "rollouts"),
    ("shortest-correct", "examples"),
    ("without-heldout", "tasks"),
    ("balanced-levels", "tasks"),
    ("by-solve-rate", "tasks"),
];

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).cloned()
    };
    let folder = PathBuf::from(value("--folder").unwrap_or("/var/tmp/triad-query".into()));
    let cores: usize = value("--cores").map_or(2, |n| n.parse().unwrap());
    let memory = value("--memory");
    if let Some(name) = value("--filter") {
        if let Some(memory) = memory {
            triad::query::allow(memory.parse::<ByteSize>().unwrap().as_u64() as usize);
        }
        return runtime(cores).block_on(filter(&folder, &name));
    }
    let rows: usize = value("--rows").map_or(10_000_000, |n| n.parse().unwrap());
    let turns: usize = value("--turns").map_or(5, |n| n.parse().unwrap());
    let only = value("--only").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.contains(part));
    let bench = Bench::open(folder, rows, cores, memory);
    let mut sums = [0.0; 2];
    println!("{:<22} {:>20} {:>20}  ratio", "seconds", "triad", "duckdb");
    for (name, sql) in QUERIES.into_iter().filter(|(name, _)| wanted(name)) {
        let sql = sql.replace("TASK", &bench.task);
        bench.measure(name, turns, &mut sums, || bench.ours(&sql), || bench.theirs(&sql));
    }
    for (name, output) in FILTERS.into_iter().filter(|(name, _)| wanted(name)) {
        let ours = || bench.our_filter(name, output);
        bench.measure(name, turns, &mut sums, ours, || bench.their_filter(name));
    }
    println!("in sum {:.2} and {:.2}: {:.2}", sums[0], sums[1], sums[0] / sums[1]);
}

fn runtime(cores: usize) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(cores).enable_all().build().unwrap()
}

struct Bench {
    folder: PathBuf,
    cores: usize,
    memory: Option<String>,
    duckdb: PathBuf,
    /// DuckDB's views of the datasets.
    views: String,
    /// The id of a task.
    task: String,
}

impl Bench {
    fn open(folder: PathBuf, rows: usize, cores: usize, memory: Option<String>) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let duckdb = here.join(".tools/duckdb/duckdb_cli/duckdb");
        assert!(duckdb.exists(), "{} is missing; run `make setup`", duckdb.display());
        std::fs::create_dir_all(&folder).unwrap();
        let (views, bytes) = runtime(cores).block_on(async {
            let store = Store::open(folder.to_str().unwrap()).unwrap();
            if store.get_ref("bench", "verdicts").await.unwrap().is_none() {
                let started = Instant::now();
                make(&store, rows).await;
                println!("made in {:.0} s", started.elapsed().as_secs_f64());
            }
            let (mut views, mut bytes) = (String::new(), 0);
            for (name, artifact) in inputs(&store).await {
                let kind = &artifact.manifest.kind;
                let files = artifact.manifest.parts(kind);
                let files: Vec<_> = files
                    .map(|part| {
                        let key = part.key(&artifact.manifest.id);
                        format!("'{}/{key}'", folder.display())
                    })
                    .collect();
                let files = files.join(",");
                views += &format!("CREATE VIEW {name} AS FROM read_parquet([{files}]);");
                bytes += artifact.manifest.bytes();
                println!("{name}: {} rows", artifact.manifest.rows(kind));
            }
            (views, bytes)
        });
        println!("{} MB in all, {cores} cores", bytes / 1_000_000);
        Self { folder, cores, memory, duckdb, views, task: task_id(rows / SAMPLES / 3) }
    }

    /// Two runs in turn, `turns` times, and once before that.
    fn measure(
        &self,
        name: &str,
        turns: usize,
        sums: &mut [f64; 2],
        ours: impl Fn() -> (f64, String),
        theirs: impl Fn() -> (f64, String),
    ) {
        let mut times = [Vec::new(), Vec::new()];
        for turn in 0..=turns {
            let (ours, theirs) = (ours(), theirs());
            assert_eq!(ours.1, theirs.1, "{name}");
            if turn > 0 {
                times[0].push(ours.0);
                times[1].push(theirs.0);
            }
        }
        let mut medians = [0.0; 2];
        let shown = [0, 1].map(|who| {
            times[who].sort_by(f64::total_cmp);
            let (least, most) = (times[who][0], times[who][turns - 1]);
            medians[who] = times[who][turns / 2];
            sums[who] += medians[who];
            format!("{:.2} ({least:.2}-{most:.2})", medians[who])
        });
        println!("{name:<22} {:>20} {:>20}  {:.2}", shown[0], shown[1], medians[0] / medians[1]);
    }

    fn ours(&self, sql: &str) -> (f64, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triad"));
        command.args(["query", sql, "--format", "csv", "--store"]).arg(&self.folder);
        timed(command.args(self.bound()))
    }

    fn theirs(&self, sql: &str) -> (f64, String) {
        let bound = self.memory.iter().map(|size| format!("SET memory_limit = '{size}';"));
        let bound: String = bound.collect();
        let sql = format!("SET threads = {}; {bound} {} {sql}", self.cores, self.views);
        let mut command = Command::new(&self.duckdb);
        timed(command.args(["-init", "/dev/null", "-csv", "-c", &sql]))
    }

    fn bound(&self) -> impl Iterator<Item = &str> {
        self.memory.iter().flat_map(|size| ["--memory", size])
    }

    fn our_filter(&self, name: &str, output: &str) -> (f64, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--filter", name, "--cores", &self.cores.to_string(), "--folder"]);
        let (seconds, said) = timed(command.arg(&self.folder).args(self.bound()));
        let id = ArtifactId::try_from(said.trim().to_string()).unwrap();
        let files = runtime(1).block_on(async {
            let store = Store::open(self.folder.to_str().unwrap()).unwrap();
            let manifest = Artifact::open(&store, &id).await.unwrap().unwrap().manifest;
            let part = |part: &triad::store::ObjectEntry| {
                format!("'{}/{}'", self.folder.display(), part.key(&id))
            };
            manifest.parts(output).map(part).collect::<Vec<_>>().join(",")
        });
        let digest = self.digest(&format!("[{files}]"));
        runtime(1).block_on(async {
            let store = Store::open(self.folder.to_str().unwrap()).unwrap();
            store.purge(&id).await.unwrap();
        });
        (seconds, digest)
    }

    fn their_filter(&self, name: &str) -> (f64, String) {
        let file = self.folder.join("duckdb.parquet");
        let sql = self::sql(name);
        let sql =
            format!("COPY ({sql}) TO '{}' (FORMAT parquet, COMPRESSION zstd)", file.display());
        let (seconds, _) = self.theirs(&sql);
        (seconds, self.digest(&format!("'{}'", file.display())))
    }

    /// How many rows there are, and what they come to, in order.
    fn digest(&self, files: &str) -> String {
        let sql = format!(
            "SELECT count(*), sum(hash(t, file_row_number + 65536 * \
             coalesce(try_cast(regexp_extract(filename, '([0-9]{{5}})\\.parquet$', 1) AS INT), 0)) \
             // 1048576) \
             FROM (SELECT t, file_row_number, filename FROM read_parquet({files}, \
             file_row_number = true, filename = true) x, LATERAL (SELECT x.task_id) AS l(t))"
        );
        self.theirs(&sql).1
    }
}

/// The standard output of `command`, and how long it took.
fn timed(command: &mut Command) -> (f64, String) {
    let started = Instant::now();
    let output = command.stderr(Stdio::inherit()).env_remove("TRIAD_STORE").output().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}");
    (seconds, String::from_utf8(output.stdout).unwrap().replace('\r', ""))
}

/// The text of a shipped filter, without the remarks.
fn sql(name: &str) -> String {
    let path = format!("{}/jobs/filters/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n")
}

/// The datasets by the names that the shipped filters call them.
async fn inputs(store: &Store) -> Vec<(&'static str, Artifact)> {
    let mut found = Vec::new();
    for name in ["heldout", "rollouts", "tasks", "verdicts"] {
        found.push((name, store.find(&format!("bench/{name}")).await.unwrap()));
    }
    found
}

struct Quiet;

impl ProgressSink for Quiet {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

/// Runs one filter as a job and prints the artifact's id.
async fn filter(folder: &Path, name: &str) {
    let store = Store::open(folder.to_str().unwrap()).unwrap();
    let job = job::kind("filter").unwrap();
    let (_, output) = FILTERS.into_iter().find(|(known, _)| *known == name).unwrap();
    let tables = inputs(&store).await.into_iter();
    let tables = tables.map(|(name, artifact)| Input { name: name.into(), artifact }).collect();
    let run = Run {
        job,
        params: job.resolve(&json!({"sql": sql(name), "output": output})).unwrap(),
        inputs: Inputs::from([("tables".into(), tables)]),
        shard: Shard::WHOLE,
        device: "cpu".into(),
        server: None,
        stop: StopFlag::default(),
        progress: Progress { stage: "filter".into(), sink: Arc::new(Quiet) },
    };
    match job::run(&store, run).await.unwrap() {
        job::Outcome::Committed(manifest) => println!("{}", manifest.id),
        other => panic!("{other:?}"),
    }
}

/// Ids as triad gives them: digits of a hash, so that neighbours have nothing in common.
fn task_id(task: usize) -> String {
    let mut stream = Stream::new(7, "task", task as u64);
    format!("{}-{:016x}", FAMILIES[task % FAMILIES.len()], stream.next_u64())
}

fn prompt(task: usize) -> String {
    let mut stream = Stream::new(7, "prompt", task as u64);
    let names = ["A", "B", "C", "D", "E", "F", "G", "H"];
    let rule = |stream: &mut Stream| {
        let mut name = || *stream.choose(&names);
        format!("{} & ~{} -> {}", name(), name(), name())
    };
    let rules: Vec<_> = (0..6).map(|_| rule(&mut stream)).collect();
    format!("Find values so that all of these hold.\n{}\n<think>", rules.join("\n"))
}

fn task(number: usize) -> Task {
    let mut stream = Stream::new(7, "puzzle", number as u64);
    let prompt = prompt(number);
    Task {
        task_id: task_id(number),
        family: FAMILIES[number % FAMILIES.len()].into(),
        level: level(number),
        split: "train".into(),
        kind: "unique".into(),
        size: 6 + level(number),
        depth: 3,
        nodes: stream.next_u64() >> 52,
        style: "compact".into(),
        messages: String::new(),
        answer: format!("A={} B={}", number % 2, number / 2 % 2),
        puzzle: format!("{{\"rules\":{:?}}}", prompt.lines().skip(1).collect::<Vec<_>>()),
        certificate: "{\"method\":\"exhaustive\"}".into(),
        canonical: format!("{:016x}{:016x}", stream.next_u64(), stream.next_u64()),
        prompt,
    }
}

/// Higher levels are rarer.
fn level(task: usize) -> u32 {
    [1, 1, 2, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 5][task % 15]
}

fn step(task: usize) -> u32 {
    (task / 12_500) as u32
}

/// One part: the rollouts of the tasks from `first` on, and their verdicts.
fn rollouts(first: usize, last: usize) -> (Vec<Rollout>, Vec<Verdict>) {
    let words = ["so", "then", "if", "A", "B", "C", "not", "holds", "fails", "=1", "=0", "try"];
    let (mut rollouts, mut verdicts) = (Vec::new(), Vec::new());
    for task in first..last {
        let mut stream = Stream::new(7, "rollouts", task as u64);
        let (task_id, prompt, skill) = (task_id(task), prompt(task), stream.uniform());
        for sample in 0..SAMPLES as u32 {
            let length = 4 + (-12.0 * (1.0 - stream.uniform()).ln()) as usize;
            let length = length.min(64);
            let token = |stream: &mut Stream| (stream.uniform() * stream.uniform() * 1000.0) as u32;
            let logprob = |stream: &mut Stream| (stream.uniform() as f32).ln() / 4.0;
            let tokens: Vec<u32> = (0..length).map(|_| token(&mut stream)).collect();
            let logprobs: Vec<f32> = (0..length).map(|_| logprob(&mut stream)).collect();
            let text = tokens.iter().map(|&token| words[token as usize % words.len()]);
            let correct = stream.chance(skill);
            let verdict = match correct {
                true => "correct",
                false => *stream.choose(&["wrong", "wrong", "wrong", "unparsed", "missing"]),
            };
            let reward = if correct { 3.0 } else { -1.5 };
            let response = text.collect::<Vec<_>>().join(" ");
            verdicts.push(Verdict {
                task_id: task_id.clone(),
                family: FAMILIES[task % FAMILIES.len()].into(),
                level: level(task),
                sample,
                step: step(task),
                format_ok: verdict != "missing",
                format: if verdict == "missing" { "missing </think>" } else { "ok" }.into(),
                verdict: verdict.into(),
                place: String::new(),
                correct,
                reward,
                extracted: format!("A={} B={}", tokens[0] % 2, tokens[1] % 2),
            });
            rollouts.push(Rollout {
                task_id: task_id.clone(),
                family: FAMILIES[task % FAMILIES.len()].into(),
                level: level(task),
                sample,
                step: step(task),
                policy: "5b0c7e1f5b0c7e1f5b0c7e1f5b0c7e1f".into(),
                prompt: prompt.clone(),
                response,
                stop: if length == 64 { "length" } else { "end" }.into(),
                temperature: 1.0,
                model_logprobs: Some(logprobs.clone()),
                tokens,
                logprobs,
            });
        }
    }
    (rollouts, verdicts)
}

fn encode<R: Row>(rows: &[R]) -> Part {
    encode_part::<R>(&R::encode(rows).unwrap()).unwrap()
}

/// Commits tasks, held-out tasks, rollouts and verdicts.
async fn make(store: &Store, rows: usize) {
    let tasks = rows / SAMPLES;
    let started = |name: &str| {
        let identity = json!({"job": "bench", "version": 1, "params": {"name": name, "rows": rows},
            "inputs": {}});
        (Attempt::new(store, &ArtifactId::of(&identity)), identity)
    };
    let mut all: BTreeMap<_, _> =
        ["heldout", "rollouts", "tasks", "verdicts"].map(|name| (name, started(name))).into();
    // A hundredth of the held-out tasks are among the others.
    let heldout: Vec<_> = (0..tasks / 10)
        .map(|i| if i % 100 == 0 { task(i * 7 % tasks) } else { task(tasks + i) })
        .collect();
    let part = encode(&heldout);
    all.get_mut("heldout").unwrap().0.write_part("tasks/00000.parquet", part).await.unwrap();
    let lots: Vec<_> = (0..tasks).step_by(TASKS).enumerate().collect();
    for pair in lots.chunks(2) {
        let made = pair.iter().map(|&(number, first)| {
            tokio::task::spawn_blocking(move || {
                let last = tasks.min(first + TASKS);
                let (rollouts, verdicts) = rollouts(first, last);
                let tasks: Vec<_> = (first..last).map(task).collect();
                (number, encode(&rollouts), encode(&verdicts), encode(&tasks))
            })
        });
        for made in made.collect::<Vec<_>>() {
            let (number, rollouts, verdicts, tasks) = made.await.unwrap();
            for (name, part) in [("rollouts", rollouts), ("verdicts", verdicts), ("tasks", tasks)] {
                let path = format!("{name}/{number:05}.parquet");
                all.get_mut(name).unwrap().0.write_part(&path, part).await.unwrap();
            }
        }
    }
    for (name, (mut attempt, identity)) in all {
        let (kind, version) = match name {
            "rollouts" => (Rollout::NAME, Rollout::VERSION),
            "verdicts" => (Verdict::NAME, Verdict::VERSION),
            _ => (Task::NAME, Task::VERSION),
        };
        let id = ArtifactId::of(&identity);
        let manifest = Manifest {
            format: Manifest::FORMAT,
            id: id.clone(),
            identity,
            kind: kind.into(),
            datasets: BTreeMap::from([(kind.into(), SchemaRef { schema: kind.into(), version })]),
            objects: Vec::new(),
            summary: BTreeMap::new(),
            producer: Producer::default(),
        };
        attempt.commit(manifest).await.unwrap();
        store.set_ref("bench", name, &id).await.unwrap();
    }
}
