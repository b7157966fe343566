//! Filters run as jobs over small committed artifacts; every query under jobs/ among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::id::ArtifactId;
use crate::job::{self, Inputs, Outcome, Progress, ProgressSink, Run, Shard, StopFlag};
use crate::store::{Artifact, Attempt, Manifest, Producer, SchemaRef, Store};
use crate::{dataset, entropy};

struct Quiet;

impl ProgressSink for Quiet {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

/// Commits `parts` as the artifact that a filter calls `name`.
async fn commit<R: Row>(store: &Store, name: &str, parts: &[&[R]]) -> job::Input {
    let identity = json!({"job": name, "version": 1, "params": {}, "inputs": {}});
    let id = ArtifactId::of(&identity);
    let mut attempt = Attempt::new(store, &id);
    for (number, rows) in parts.iter().enumerate() {
        let part = encode_part::<R>(&R::encode(rows).unwrap()).unwrap();
        attempt.write_part(&part_path::<R>(number), part).await.unwrap();
    }
    let schema = SchemaRef { schema: R::NAME.into(), version: R::VERSION };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        identity,
        kind: R::NAME.into(),
        datasets: BTreeMap::from([(R::NAME.into(), schema)]),
        objects: Vec::new(),
        summary: BTreeMap::new(),
        producer: Producer::default(),
    };
    attempt.commit(manifest).await.unwrap();
    let artifact = Artifact::open(store, &id).await.unwrap().unwrap();
    job::Input { name: name.into(), artifact }
}

fn task(id: &str, level: u32, canonical: &str) -> Task {
    Task { task_id: id.into(), level, canonical: canonical.into(), ..Default::default() }
}

/// Two tasks of two samples each: both right (the second shorter), and one right, one wrong. `b`
/// stands twice among the tasks, and `d` among the held-out ones under another name.
async fn inputs(store: &Store) -> Inputs {
    let rows = [("a", 0, true, 5), ("a", 1, true, 3), ("b", 0, false, 1), ("b", 1, true, 4)];
    let rollouts = rows.map(|(task, sample, _, length)| Rollout {
        task_id: task.into(),
        family: "deduction".into(),
        level: 1,
        sample,
        step: 0,
        policy: String::new(),
        prompt: format!("solve {task}"),
        response: format!("{task}{sample}"),
        tokens: vec![7; length],
        logprobs: vec![-0.5; length],
        stop: "end".into(),
        temperature: 1.0,
        model_logprobs: (sample == 0).then(|| vec![-0.25; length]),
    });
    let verdicts = rows.map(|(task, sample, correct, _)| Verdict {
        task_id: task.into(),
        family: "deduction".into(),
        level: 1,
        sample,
        step: 0,
        format_ok: true,
        format: "ok".into(),
        verdict: if correct { "correct" } else { "wrong" }.into(),
        correct,
        reward: if correct { 3.0 } else { -0.5 },
        extracted: String::new(),
        place: String::new(),
    });
    let tasks = [("a", 1, "A"), ("b", 1, "B"), ("c", 1, "B"), ("d", 2, "D"), ("e", 2, "E")];
    let tasks = tasks.map(|(id, level, canonical)| task(id, level, canonical));
    let tables = vec![
        commit(store, "heldout", &[&[task("x", 7, "D"), task("y", 7, "Y")]]).await,
        commit(store, "rollouts", &[&rollouts[..3], &rollouts[3..]]).await,
        commit(store, "tasks", &[&tasks]).await,
        commit(store, "verdicts", &[&verdicts]).await,
    ];
    Inputs::from([("tables".into(), tables)])
}

async fn filter(sql: &str, output: &str) -> Result<(Store, Manifest)> {
    let store = Store::open("memory://")?;
    let inputs = inputs(&store).await;
    let manifest = run(&store, &Filter, inputs, sql, output).await?;
    Ok((store, manifest))
}

async fn run(
    store: &Store,
    job: &'static dyn Job,
    inputs: Inputs,
    sql: &str,
    output: &str,
) -> Result<Manifest> {
    let run = Run {
        job,
        params: Filter.resolve(&json!({"sql": sql, "output": output}))?,
        inputs,
        shard: Shard::WHOLE,
        device: "cpu".into(),
        server: None,
        stop: StopFlag::default(),
        progress: Progress { stage: "filter".into(), sink: Arc::new(Quiet) },
    };
    match job::run(store, run).await? {
        Outcome::Committed(manifest) => Ok(*manifest),
        other => panic!("{other:?}"),
    }
}

async fn rows<R: Row>(file: &str) -> Vec<R> {
    let path = format!("{}/jobs/filters/{file}", env!("CARGO_MANIFEST_DIR"));
    let sql = std::fs::read_to_string(path).unwrap();
    let (store, manifest) = filter(&sql, R::NAME).await.unwrap();
    assert_eq!(manifest.kind, R::NAME);
    assert_eq!(manifest.summary["rows in"], 15);
    assert!(manifest.producer.plan.as_ref().unwrap().contains("TableScan: "));
    let artifact = Artifact::open(&store, &manifest.id).await.unwrap().unwrap();
    let bytes = artifact.read(&part_path::<R>(0)).await.unwrap();
    let rows: Vec<R> = dataset::decode_parquet(bytes).unwrap();
    assert_eq!(manifest.summary["rows"], rows.len());
    rows
}

#[tokio::test]
async fn verified_keeps_right_responses() {
    let found: Vec<Example> = rows("verified.sql").await;
    let found: Vec<_> = found.iter().map(|row| row.response.as_str()).collect();
    assert_eq!(found, ["a0", "a1", "b1"]);
}

#[tokio::test]
async fn groups_with_variance_keeps_whole_groups() {
    let found: Vec<Rollout> = rows("groups-with-variance.sql").await;
    let names: Vec<_> = found.iter().map(|row| row.response.as_str()).collect();
    assert_eq!(names, ["b0", "b1"]);
    assert_eq!((found[1].tokens.len(), found[1].logprobs[0]), (4, -0.5));
    assert_eq!(found[0].model_logprobs, Some(vec![-0.25]));
    assert_eq!(found[1].model_logprobs, None);
}

#[tokio::test]
async fn shortest_correct_keeps_one_response_a_task() {
    let found: Vec<Example> = rows("shortest-correct.sql").await;
    let found: Vec<_> = found.iter().map(|row| row.response.as_str()).collect();
    assert_eq!(found, ["a1", "b1"]);
}

#[tokio::test]
async fn without_heldout_keeps_new_tasks_once() {
    let found: Vec<Task> = rows("without-heldout.sql").await;
    let found: Vec<_> = found.iter().map(|row| row.task_id.as_str()).collect();
    assert_eq!(found, ["a", "b", "e"]);
}

#[tokio::test]
async fn balanced_levels_keeps_as_many_of_each() {
    let found: Vec<Task> = rows("balanced-levels.sql").await;
    let found: Vec<_> = found.iter().map(|row| (row.level, row.task_id.as_str())).collect();
    assert_eq!(found, [(1, "a"), (1, "b"), (2, "d"), (2, "e")]);
}

#[tokio::test]
async fn by_solve_rate_orders_what_is_sometimes_solved() {
    let found: Vec<Task> = rows("by-solve-rate.sql").await;
    let found: Vec<_> = found.iter().map(|row| (row.level, row.task_id.as_str())).collect();
    assert_eq!(found, [(2, "b")]);
}

/// The filter within other limits.
struct Within(Limits);

impl Job for Within {
    fn name(&self) -> &'static str {
        Filter.name()
    }
    fn version(&self) -> u32 {
        Filter.version()
    }
    fn ports(&self) -> &'static [Port] {
        Filter.ports()
    }
    fn output(&self) -> &'static str {
        Filter.output()
    }
    fn output_for(&self, params: &Value) -> &'static str {
        Filter.output_for(params)
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        Filter.resolve(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        run_within(context, self.0)
    }
}

/// 24,000 rollouts of 3,000 tasks with their verdicts: 20 MB.
async fn many(store: &Store) -> Inputs {
    let mut stream = entropy::Stream::new(1, "filter", 0);
    let (mut rollouts, mut verdicts) = (Vec::new(), Vec::new());
    for number in 0..24_000 {
        let (task_id, sample) = (format!("task-{:04}", number / 8 * 7 % 3000), number % 8);
        let text = format!("{} ", stream.next_u64());
        rollouts.push(Rollout {
            task_id: task_id.clone(),
            sample,
            level: number % 3,
            response: text.repeat(40),
            tokens: vec![sample; stream.below(30)],
            ..Default::default()
        });
        let reward = stream.uniform() as f32;
        verdicts.push(Verdict {
            task_id,
            sample,
            correct: stream.chance(0.5),
            reward,
            ..Default::default()
        });
    }
    let rollouts: Vec<_> = rollouts.chunks(5000).collect();
    let tables = vec![
        commit(store, "rollouts", &rollouts).await,
        commit(store, "verdicts", &[&verdicts]).await,
    ];
    Inputs::from([("tables".into(), tables)])
}

const AMPLE: Limits = Limits { memory: 1 << 30, cores: 1 };
/// The least of 24, 32, 40, 48 and 64 MiB with which all of these queries end.
const NARROW: Limits = Limits { memory: 64 << 20, cores: 3 };

#[tokio::test(flavor = "multi_thread")]
async fn rows_depend_on_neither_memory_nor_cores() {
    let text = |file| std::fs::read_to_string(format!("jobs/filters/{file}")).unwrap();
    let cases = [
        (text("verified.sql"), "examples"),
        (text("groups-with-variance.sql"), "rollouts"),
        (text("shortest-correct.sql"), "examples"),
        // Rows that the order leaves tied, in a window and at the edge of a LIMIT too.
        ("SELECT * FROM rollouts ORDER BY level".into(), "rollouts"),
        ("SELECT * FROM rollouts ORDER BY level LIMIT 1001".into(), "rollouts"),
        (
            "SELECT task_id, family, level, prompt, response FROM rollouts \
             QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY level) = 1 ORDER BY family"
                .into(),
            "examples",
        ),
    ];
    for (sql, output) in cases {
        let mut made = Vec::new();
        for limits in [AMPLE, Limits { cores: 3, ..AMPLE }, NARROW] {
            let store = Store::open("memory://").unwrap();
            let inputs = many(&store).await;
            let job = Box::leak(Box::new(Within(limits)));
            let manifest = run(&store, job, inputs, &sql, output).await.unwrap();
            let digests = manifest.objects.iter().map(|object| object.digest.clone());
            made.push((digests.collect::<Vec<_>>(), manifest.summary));
        }
        assert!(made[0].1["rows"].as_u64() > Some(1000), "{sql}");
        assert!(made[0] == made[1] && made[0] == made[2], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_depend_on_the_order_runs_in_one_or_not_at_all() {
    let sql = "SELECT r.* FROM rollouts r JOIN (SELECT task_id, avg(reward) AS mean FROM verdicts \
               GROUP BY task_id) v ON v.task_id = r.task_id WHERE mean > 0.5 ORDER BY mean, sample";
    let mut made = Vec::new();
    for cores in [1, 3] {
        let store = Store::open("memory://").unwrap();
        let job = Box::leak(Box::new(Within(Limits { cores, ..AMPLE })));
        let inputs = many(&store).await;
        made.push(
            run(&store, job, inputs, sql, "rollouts").await.unwrap().objects[0].digest.clone(),
        );
        let small = Box::leak(Box::new(Within(Limits { memory: 4 << 20, cores })));
        let store = Store::open("memory://").unwrap();
        let inputs = many(&store).await;
        let error = run(&store, small, inputs, sql, "rollouts").await.unwrap_err();
        assert_eq!(error.exit_code(), 75, "{error}");
        assert!(error.to_string().contains("this one cannot spill"), "{error}");
    }
    assert_eq!(made[0], made[1]);
}

#[tokio::test]
async fn a_query_must_give_the_columns_of_its_output() {
    let cases = [
        ("SELECT task_id FROM rollouts ORDER BY 1", "gives no column `family`"),
        (
            "SELECT task_id, family, response AS level, prompt, response FROM rollouts ORDER BY 1",
            "column `level` is Utf8, in `examples` it is UInt32",
        ),
        ("SELECT * FROM rollouts ORDER BY task_id", "column `sample` is none of `examples`"),
        ("SELECT * FROM rollout ORDER BY 1", "no table `rollout`; did you mean `rollouts`?"),
        ("SELECT * FROM rollouts", "no ORDER BY"),
        (
            "SELECT task_id, family, -1 AS level, prompt, response FROM rollouts ORDER BY 1",
            "column `level`: Cast error",
        ),
    ];
    for (sql, expected) in cases {
        let said = filter(sql, "examples").await.map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(expected) && !said.contains('\n'), "{sql}: {said}");
    }
    let said = filter("SELECT 1 ORDER BY 1", "scores").await.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("a filter makes examples, tasks"), "{said}");
}
