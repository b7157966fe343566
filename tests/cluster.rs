//! Queries on a cluster of real processes on loopback: a scheduler and two executors.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Tasks in two parts, rollouts of three samples each with right and wrong answers, what the checker
/// says of them, and a checkpoint with a tokenizer.
const PIPELINE: &str = "\
pipeline: small
stages:
  tasks:
    job: generate
    params:
      family: arithmetic
      split: train
      levels:
        - {level: 1, count: 3000}
        - {level: 2, count: 2000, operations: 2}
  heldout:
    job: generate
    params:
      family: arithmetic
      split: heldout
      levels:
        - {level: 1, count: 100}
  rollouts:
    job: filter
    params:
      sql: |
        SELECT task_id, family, level, sample, CAST(0 AS INT) AS step, 'none' AS policy, prompt,
          'so</think><answer>' ||
            CASE WHEN (ascii(right(task_id, 1)) + sample) % 3 < level THEN answer ELSE '?' END ||
            '</answer>' AS response,
          arrow_cast([CAST(level AS BIGINT), sample, 40 + sample], 'List(UInt32)') AS tokens,
          arrow_cast([], 'List(Float32)') AS logprobs, 'end' AS stop,
          arrow_cast(1, 'Float32') AS temperature, arrow_cast(NULL, 'List(Float32)') AS model_logprobs
        FROM tasks CROSS JOIN (SELECT unnest([0, 1, 2]) AS sample)
        ORDER BY task_id, sample
      output: rollouts
    inputs: {tables: [tasks]}
  verdicts:
    job: verify
    params: {reward: released}
    inputs: {tasks: tasks, rollouts: rollouts}
  demonstrations:
    job: demonstrate
    inputs: {tasks: [heldout]}
  init:
    job: init
    params: {vocab_size: 263, hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, context: 256}
    inputs: {texts: demonstrations}
";

/// Queries with our own functions, and of every kind of table.
const QUERIES: [&str; 10] = [
    "SELECT 1 + 1 AS two",
    "SELECT * FROM tasks WHERE false",
    "SELECT level, count(*) AS n, min(task_id) AS first FROM tasks GROUP BY level ORDER BY level",
    "SELECT bootstrap_ci(correct) AS ci FROM (SELECT task_id, avg(CAST(correct AS DOUBLE)) AS correct \
     FROM verdicts GROUP BY task_id)",
    "SELECT level, round(avg(pass_at_k(n, 3, 2)), 9) AS pass, round(avg(avg_at_k(n, 3)), 9) AS mean FROM (SELECT level, \
     task_id, sum(CAST(correct AS INT)) AS n FROM verdicts GROUP BY level, task_id) \
     GROUP BY level ORDER BY level",
    "SELECT verdict(t.family, t.puzzle, r.response) AS said, \
     sum(reward(t.family, t.puzzle, t.prompt, r.response, 'paper')) AS reward, count(*) AS n, \
     count(DISTINCT canonical(t.family, t.puzzle)) AS puzzles, sum(token_count(r.tokens)) AS tokens \
     FROM rollouts r JOIN tasks t ON t.task_id = r.task_id GROUP BY said ORDER BY said",
    "SELECT task_id, sample, decode(tokens, 'init') AS text FROM rollouts ORDER BY task_id, sample \
     LIMIT 20",
    "SELECT s.stage, l.port, l.name FROM triad.lineage l JOIN triad.stages s ON s.id = l.id \
     ORDER BY s.stage, l.port, l.name",
    "SELECT t.rows, (SELECT count(*) FROM small.tasks) AS counted FROM triad.tables t \
     WHERE t.stage = 'tasks'",
    "SELECT count(*) AS n FROM artifact('small/rollouts') r \
     WHERE r.task_id NOT IN (SELECT task_id FROM verdicts WHERE correct)",
];

fn command(store: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triad-cluster"));
    command.args(args).arg("--store").arg(store).stdin(Stdio::null());
    for name in ["STORE", "DEVICE", "THREADS", "MEMORY", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("TRIAD_{name}"));
    }
    command
}

/// A process that says on stdout where it is, killed in the end.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(store: &str, args: &[&str]) -> Self {
        let mut command = command(store, args);
        // What a killed executor leaves behind goes with the store.
        command.env("TMPDIR", Path::new(store).parent().unwrap());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().into() }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    scheduler: Process,
    executors: Vec<Process>,
}

impl Cluster {
    /// Over a store with [`PIPELINE`] in it.
    fn start(executors: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let store = store.to_str().unwrap();
        let pipeline = folder.path().join("small.yaml");
        std::fs::write(&pipeline, PIPELINE).unwrap();
        let made = command(store, &["run", pipeline.to_str().unwrap()]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listen = ["--listen", "127.0.0.1:0"];
        let scheduler =
            Process::start(store, &[&["scheduler", "--patience", "3"][..], &listen].concat());
        let executor = || {
            let asking = ["executor", "--cores", "2", "--scheduler", &scheduler.url];
            Process::start(store, &[&asking[..], &listen].concat())
        };
        let executors = (0..executors).map(|_| executor()).collect();
        Self { folder, scheduler, executors }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn query(&self, sql: &str, on: bool) -> Command {
        let mut args = vec!["query", "--format", "csv"];
        if on {
            args.extend(["--on", &self.scheduler.url]);
        }
        // A filter's text begins with a remark, which is no flag.
        let mut query = command(self.store().to_str().unwrap(), &args);
        query.args(["--", sql]);
        query
    }

    /// The rows of a query as CSV.
    fn rows(&self, sql: &str, on: bool) -> String {
        let output = self.query(sql, on).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, sql: &str, on: bool) -> String {
        failure(self.query(sql, on).output().unwrap())
    }
}

/// The exit code and the one line that says why.
fn failure(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim_end().lines().collect();
    assert_eq!(lines.len(), 1, "one line each\n{said}");
    format!("{}: {}", output.status.code().unwrap(), lines[0].trim_start_matches("error: "))
}

/// Every filter that triad ships.
fn filters() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jobs/filters");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    files.sort();
    files
}

#[test]
fn a_cluster_gives_the_rows_of_one_process() {
    let mut cluster = Cluster::start(2);
    let filters = filters();
    assert!(filters.len() >= 6, "{filters:?}");
    let filters: Vec<_> =
        filters.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for sql in filters.iter().map(String::as_str).chain(QUERIES) {
        let alone = cluster.rows(sql, false);
        assert_eq!(cluster.rows(sql, true), alone, "{sql}");
    }
    let verified = cluster.rows(&filters[filters.len() - 1], true);
    assert!(verified.lines().count() > 100, "{verified}");

    // The same mistakes are said in the same words.
    for sql in ["SELECT levle FROM tasks", "SELEC 1", "SELECT * FROM taks", "DROP TABLE tasks"] {
        let alone = cluster.refused(sql, false);
        assert!(alone.starts_with("64: "), "{alone}");
        assert_eq!(cluster.refused(sql, true), alone);
    }
    for sql in
        ["SELECT verdict(family, '{', answer) FROM tasks", "SELECT 1 / (level - 1) FROM tasks"]
    {
        assert_eq!(cluster.refused(sql, true), cluster.refused(sql, false), "{sql}");
    }
    let file = format!("SELECT * FROM '{}'", part(&cluster.store(), "tasks").display());
    assert!(cluster.refused(&file, true).ends_with("is read by one machine; leave out --on"));

    // One executor is enough, and what the other had is made again.
    cluster.executors[0].kill();
    let sql = "SELECT count(*) AS n FROM tasks t JOIN verdicts v ON v.task_id = t.task_id";
    assert_eq!(cluster.rows(sql, true), "n\n15000\n");

    // What is read on an executor is checked there: an object of which a query needs most.
    let part = part(&cluster.store(), "verdicts");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let sql = "SELECT * FROM verdicts ORDER BY task_id, sample";
    let alone = cluster.refused(sql, false);
    assert!(alone.starts_with("65: ") && alone.contains("digest"), "{alone}");
    // An executor may know the object from before: a new one does not.
    let listen = ["--listen", "127.0.0.1:0", "--scheduler", &cluster.scheduler.url];
    let store = cluster.store();
    let fresh = Process::start(store.to_str().unwrap(), &[&["executor"][..], &listen].concat());
    cluster.executors[1].kill();
    let there = cluster.refused(sql, true);
    assert!(there.starts_with("65: ") && there.contains("digest"), "{there}");
    drop(fresh);
}

/// A Parquet part of a stage's dataset.
fn part(store: &Path, dataset: &str) -> PathBuf {
    let mut folders = vec![store.join("artifacts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.parent().unwrap().ends_with(dataset);
            if inside && path.extension().is_some_and(|ending| ending == "parquet") {
                return path;
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    panic!("no part of {dataset}")
}

#[test]
fn a_lost_cluster_and_a_stopped_query_end_with_try_again() {
    let mut cluster = Cluster::start(1);
    // A few hours of work.
    let endless = "SELECT sum(a.level * b.level + c.level) AS s FROM tasks a CROSS JOIN tasks b \
                   CROSS JOIN tasks c";
    let start = || {
        let query = cluster.query(endless, true).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        query
    };
    let mut stopped = start();
    let clock = Instant::now();
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(stopped.id() as i32, libc::SIGINT) };
    let status = stopped.wait().unwrap();
    let mut said = String::new();
    stopped.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(75), "{said}");
    assert!(clock.elapsed() < Duration::from_secs(8), "{:?}", clock.elapsed());

    let lost = start();
    cluster.executors[0].kill();
    let said = failure(lost.wait_with_output().unwrap());
    assert!(said.starts_with("75: ballista://127.0.0.1:"), "{said}");
    cluster.scheduler.kill();
    let said = cluster.refused("SELECT count(*) FROM tasks", true);
    assert!(said.starts_with("75: ") && said.contains("no scheduler answers"), "{said}");
}

#[test]
fn a_cluster_needs_a_store_that_all_of_it_reads() {
    let on = ["--on", "ballista://127.0.0.1:9"];
    let query = [&["query", "SELECT 1"][..], &on].concat();
    let scheduler = ["scheduler", "--listen", "127.0.0.1:0"];
    for args in [&query[..], &scheduler] {
        for (store, why) in [("memory://", "no other process has it"), ("./here", "relative")] {
            let said = failure(command(store, args).output().unwrap());
            assert!(said.starts_with("64: ") && said.contains(why), "{said}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    let ours = folder.path().join("ours");
    let pipeline = folder.path().join("small.yaml");
    std::fs::write(&pipeline, PIPELINE).unwrap();
    let until = ["run", pipeline.to_str().unwrap(), "--until", "heldout"];
    assert!(command(ours.to_str().unwrap(), &until).output().unwrap().status.success());
    let mut scheduler = Process::start(other.to_str().unwrap(), &scheduler);
    let query = ["query", "SELECT count(*) FROM heldout", "--on", &scheduler.url];
    let said = failure(command(ours.to_str().unwrap(), &query).output().unwrap());
    assert!(said.starts_with("64: the cluster reads the store file://"), "{said}");

    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(scheduler.child.id() as i32, libc::SIGTERM) };
    assert_eq!(scheduler.child.wait().unwrap().code(), Some(0));
}
