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

async fn commit<R: Row>(store: &Store, rows: &[R]) -> Artifact {
    let identity = json!({"job": R::NAME, "version": 1, "params": {}, "inputs": {}});
    let id = ArtifactId::of(&identity);
    let mut attempt = Attempt::new(store, &id);
    let path = format!("{}/00000.parquet", R::NAME);
    let bytes = dataset::encode_parquet(rows).unwrap();
    attempt.write(&path, bytes, Some(rows.len() as u64)).await.unwrap();
    let schema = SchemaRef { schema: R::NAME.into(), version: R::VERSION };
    let producer = Producer {
        triad: "test".into(),
        commit: None,
        device: "cpu".into(),
        started: entropy::now(),
        seconds: 0.0,
        timings: BTreeMap::new(),
        storage: Default::default(),
    };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        identity,
        kind: R::NAME.into(),
        datasets: BTreeMap::from([(R::NAME.into(), schema)]),
        objects: Vec::new(),
        summary: BTreeMap::new(),
        producer,
    };
    attempt.commit(manifest).await.unwrap();
    Artifact::open(store, &id).await.unwrap().unwrap()
}

/// Two tasks of two samples each: both right (the second shorter), and one right, one wrong.
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
    let input = |name: &str, artifact| job::Input { name: name.into(), artifact };
    let tables = vec![
        input("rollouts", commit(store, &rollouts).await),
        input("verdicts", commit(store, &verdicts).await),
    ];
    Inputs::from([("tables".into(), tables)])
}

async fn filter(sql: &str, output: &str) -> Result<(Store, Manifest)> {
    let store = Store::open("memory://")?;
    let run = Run {
        job: &Filter,
        params: Filter.resolve(&json!({"sql": sql, "output": output}))?,
        inputs: inputs(&store).await,
        shard: Shard::WHOLE,
        device: "cpu".into(),
        server: None,
        stop: StopFlag::default(),
        progress: Progress { stage: "filter".into(), sink: Arc::new(Quiet) },
    };
    match job::run(&store, run).await? {
        Outcome::Committed(manifest) => Ok((store, *manifest)),
        other => panic!("{other:?}"),
    }
}

async fn rows<R: Row>(file: &str) -> Vec<R> {
    let path = format!("{}/jobs/{file}", env!("CARGO_MANIFEST_DIR"));
    let sql = std::fs::read_to_string(path).unwrap();
    let (store, manifest) = filter(&sql, R::NAME).await.unwrap();
    assert_eq!(manifest.kind, R::NAME);
    assert_eq!(manifest.summary["rows in"], 8);
    let artifact = Artifact::open(&store, &manifest.id).await.unwrap().unwrap();
    let bytes = artifact.read(&format!("{}/00000.parquet", R::NAME)).await.unwrap();
    dataset::decode_parquet(bytes).unwrap()
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
