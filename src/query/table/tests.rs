//! What a query reads of a dataset of several parts.

use std::collections::BTreeMap;

use datafusion::arrow::util::pretty::pretty_format_batches;
use serde_json::json;

use crate::dataset::{Rollout, Row, encode_part};
use crate::entropy::Stream;
use crate::id::ArtifactId;
use crate::query::query;
use crate::store::{Attempt, Bounds, Manifest, Producer, SchemaRef, Store};

const PARTS: u32 = 8;
const ROWS: u32 = 1000;

/// Part p holds step p of tasks whose ids lie all over; log-probabilities are as good as noise.
fn part(step: u32) -> Vec<Rollout> {
    let mut stream = Stream::new(1, "rollouts", u64::from(step));
    let row = |sample| Rollout {
        task_id: format!("deduction-{:016x}", stream.next_u64()),
        family: "deduction".into(),
        level: 1 + step / 2,
        sample,
        step,
        response: "word ".repeat(40),
        tokens: vec![sample; 4],
        logprobs: (0..60).map(|_| -stream.uniform() as f32).collect(),
        temperature: 0.5,
        ..Default::default()
    };
    (0..ROWS).map(row).collect()
}

/// A store with those parts as `run.rollouts`, and the size of all objects.
async fn rollouts() -> (Store, u64) {
    let store = Store::open("memory://").unwrap();
    let identity = json!({"job": "toy", "version": 1, "params": {}, "inputs": {}});
    let id = ArtifactId::of(&identity);
    let mut attempt = Attempt::new(&store, &id);
    for step in 0..PARTS {
        let rows = Rollout::encode(&part(step)).unwrap();
        let part = encode_part::<Rollout>(&rows).unwrap();
        attempt.write_part(&format!("rollouts/{step:05}.parquet"), part).await.unwrap();
    }
    let schema = SchemaRef { schema: Rollout::NAME.into(), version: Rollout::VERSION };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        identity,
        kind: Rollout::NAME.into(),
        datasets: BTreeMap::from([(Rollout::NAME.into(), schema)]),
        objects: Vec::new(),
        summary: BTreeMap::new(),
        producer: Producer::default(),
    };
    attempt.commit(manifest).await.unwrap();
    store.set_ref("run", "rollouts", &id).await.unwrap();
    let bytes = store.find("rollouts").await.unwrap().manifest.bytes();
    (store, bytes)
}

/// The rows of `sql` as a table, and how many requests and bytes it took beyond names and
/// manifests.
async fn asked(store: &Store, sql: &str) -> (String, u64, u64) {
    let traffic = async |sql| {
        let store = store.metered();
        let rows = query(&store, sql).await.unwrap().1;
        let traffic = store.traffic();
        let table = pretty_format_batches(&rows).unwrap().to_string();
        (table, traffic.requests, traffic.bytes_read)
    };
    let (_, requests, bytes) = traffic("SELECT 1").await;
    let (table, r, b) = traffic(sql).await;
    (table, r - requests, b - bytes)
}

#[tokio::test]
async fn parts_that_cannot_match_are_not_asked_for() {
    let (store, bytes) = rollouts().await;
    let sql = "SELECT count(*) AS n, min(step) AS low, max(step) AS high, min(level) AS level \
               FROM rollouts";
    let (table, requests, _) = asked(&store, sql).await;
    assert!(table.contains("| 8000 | 0   | 7    | 1     |"), "{table}");
    assert_eq!(requests, 0, "the manifest knows");

    let sql = "SELECT count(*) AS n FROM rollouts WHERE step = 3 AND sample < 10";
    let (table, requests, read) = asked(&store, sql).await;
    assert!(table.contains("| 10 |"), "{table}");
    assert!(requests <= 2 && read < bytes / 20, "{requests} requests, {read} of {bytes} bytes");

    let (table, requests, _) = asked(&store, "SELECT task_id FROM rollouts WHERE level > 9").await;
    assert_eq!((table.lines().count(), requests), (2, 0), "{table}");
}

#[tokio::test]
async fn one_task_is_found_by_the_ends_of_the_parts() {
    let (store, bytes) = rollouts().await;
    let id = &part(5)[77].task_id;
    let sql = format!("SELECT step, sample, tokens[1] AS t FROM rollouts WHERE task_id = '{id}'");
    let (table, requests, read) = asked(&store, &sql).await;
    assert!(table.contains("| 5    | 77     | 77 |"), "{table}");
    assert!(requests <= u64::from(PARTS) + 4, "{requests} requests");
    assert!(read < bytes / 3, "{read} of {bytes} bytes");
}

#[tokio::test]
async fn few_columns_are_read_by_ranges_and_all_of_them_whole() {
    let (store, bytes) = rollouts().await;
    let sql = "SELECT count(DISTINCT task_id) AS n FROM rollouts";
    let (table, _, read) = asked(&store, sql).await;
    assert!(table.contains("| 8000 |") && read < bytes / 2, "{read} of {bytes}\n{table}");
    let sql = "SELECT sum(l) < 0 AS negative FROM (SELECT unnest(logprobs) AS l FROM rollouts)";
    let (table, requests, read) = asked(&store, sql).await;
    let ends = 64 << 10;
    assert!(table.contains("true") && read <= bytes + u64::from(PARTS) * ends, "{read} of {bytes}");
    assert!(requests <= 2 * u64::from(PARTS), "{requests}");
    let artifact = store.find("rollouts").await.unwrap();
    let object = &artifact.manifest.objects[1];
    let mut changed = artifact.read(&object.path).await.unwrap().to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    store.put(&object.key(&artifact.manifest.id), changed.into()).await.unwrap();
    let error = query(&store, sql).await.unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
}

#[tokio::test]
async fn bounds_are_those_of_the_rows() {
    let mut rows = part(1);
    rows[3].temperature = f32::NAN;
    rows[4].prompt = "a long prompt ".repeat(9);
    rows[5].model_logprobs = Some(vec![-1.0]);
    let part = encode_part::<Rollout>(&Rollout::encode(&rows).unwrap()).unwrap();
    let bounds = |min, max| Bounds { min, max, nulls: 0 };
    assert_eq!(part.columns["sample"], bounds(json!(0), json!(ROWS - 1)));
    assert_eq!(part.columns["family"], bounds(json!("deduction"), json!("deduction")));
    let ids = || rows.iter().map(|row| row.task_id.clone());
    assert_eq!(part.columns["task_id"], bounds(ids().min().into(), ids().max().into()));
    for absent in ["temperature", "prompt", "response", "tokens", "model_logprobs"] {
        assert!(!part.columns.contains_key(absent), "{absent}");
    }
    // What an older triad wrote.
    let entry = json!({"path": "x/0.parquet", "attempt": "a", "size": 1, "digest": "d", "rows": 1});
    let entry: crate::store::ObjectEntry = serde_json::from_value(entry).unwrap();
    assert!(entry.columns.is_empty());
}
