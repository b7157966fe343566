//! Queries over a small store in memory and on disk.

use std::collections::BTreeMap;

use datafusion::arrow::util::pretty::pretty_format_batches;
use serde_json::json;

use super::*;
use crate::dataset::{
    Example, Metric, Rollout, Row, Score, Task, Verdict, encode_parquet, open_parquet,
};
use crate::id::ArtifactId;
use crate::store::{Artifact, Attempt, Manifest, Producer, SchemaRef, Store, Traffic};
use crate::{Result, entropy};

/// Commits `parts` of dataset `R`, and a second dataset of metrics, as `pipeline/stage`.
async fn commit<R: Row>(
    store: &Store,
    pipeline: &str,
    stage: &str,
    parts: &[Vec<R>],
    metrics: &[Metric],
) {
    let at = json!([pipeline, stage]);
    let inputs = json!({"tasks": {"heldout": "0123456789abcdef0123456789abcdef"}});
    let identity = json!({"job": "toy", "version": 1, "params": {"at": at}, "inputs": inputs});
    let id = ArtifactId::of(&identity);
    let mut attempt = Attempt::new(store, &id);
    let mut datasets = BTreeMap::new();
    let schema = |name: &str, version| SchemaRef { schema: name.into(), version };
    for (part, rows) in parts.iter().enumerate() {
        let path = format!("{}/{part:05}.parquet", R::NAME);
        attempt.write(&path, encode_parquet(rows).unwrap(), Some(rows.len() as u64)).await.unwrap();
        datasets.insert(R::NAME.to_string(), schema(R::NAME, R::VERSION));
    }
    if !metrics.is_empty() {
        let bytes = encode_parquet(metrics).unwrap();
        attempt.write("metrics/00000.parquet", bytes, Some(metrics.len() as u64)).await.unwrap();
        datasets.insert("metrics".into(), schema("metrics", 1));
    }
    let producer = Producer {
        triad: "test".into(),
        commit: None,
        device: "cpu".into(),
        started: entropy::now(),
        seconds: 1.5,
        timings: BTreeMap::from([("sample_tokens_per_second".into(), 9.0)]),
        storage: Traffic { requests: 7, bytes_read: 99, ..Default::default() },
        ..Default::default()
    };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        identity,
        kind: R::NAME.into(),
        datasets,
        objects: Vec::new(),
        summary: BTreeMap::new(),
        producer,
    };
    attempt.commit(manifest).await.unwrap();
    store.set_ref(pipeline, stage, &id).await.unwrap();
}

fn example(task: &str, level: u32) -> Example {
    let text = |what: &str| format!("{what} of {task}");
    Example {
        task_id: task.into(),
        family: "deduction".into(),
        level,
        prompt: text("prompt"),
        response: text("response\nin two lines"),
    }
}

pub(super) async fn store(url: &str) -> Store {
    let store = Store::open(url).unwrap();
    let parts = [vec![example("a", 1), example("b", 2)], vec![example("c", 2)]];
    let metrics = [1, 2].map(|step| Metric {
        step,
        level: 1,
        name: "loss".into(),
        value: f64::from(step) / 3.0,
    });
    commit(&store, "quick", "sft-data", &parts, &metrics).await;
    commit::<Task>(&store, "quick", "tasks", &[vec![]], &[]).await;
    commit(&store, "other", "tasks", &[vec![example("z", 9)]], &[]).await;
    store
}

async fn table(store: &Store, sql: &str) -> String {
    pretty_format_batches(&query(store, sql).await.unwrap().1).unwrap().to_string()
}

async fn refused(store: &Store, sql: &str) -> String {
    let error = query(store, sql).await.unwrap_err();
    let text = error.to_string();
    assert!(error.exit_code() == 64 && !text.contains('\n'), "{} {text}", error.exit_code());
    text
}

#[tokio::test]
async fn datasets_go_by_pipeline_stage_and_name() {
    let disk = tempfile::tempdir().unwrap();
    for url in ["memory://", disk.path().join("with space").to_str().unwrap()] {
        let store = store(url).await;
        let by_level = |name: &str| {
            format!(
                "SELECT level, count(*) AS n, min(task_id) AS first FROM {name} GROUP BY level ORDER BY level"
            )
        };
        let names = [
            "\"sft-data\"",
            "quick.\"sft-data\"",
            "quick.\"sft-data\".examples",
            "\"sft-data\".examples",
        ];
        for name in names {
            let found = table(&store, &by_level(name)).await;
            assert!(
                found.contains("| 1     | 1 | a     |\n| 2     | 2 | b     |"),
                "{name}\n{found}"
            );
        }
        let sum = "SELECT sum(value) AS total FROM \"sft-data\".metrics WHERE name = 'loss'";
        assert!(table(&store, sum).await.contains("| 1.0   |"));
        assert!(table(&store, "SELECT count(*) AS n FROM quick.tasks").await.contains("| 0 |"));
        assert!(table(&store, "SELECT task_id FROM other.tasks").await.contains("| z       |"));
    }
}

#[tokio::test]
async fn manifests_are_tables() {
    let store = store("memory://").await;
    let listing = table(&store, "show tables;").await;
    assert!(
        listing.contains("| \"sft-data\"         | quick    | sft-data | examples | 3    |"),
        "{listing}"
    );
    assert!(listing.contains("| \"sft-data\".metrics |"), "{listing}");
    assert!(listing.contains("| quick.tasks "), "two pipelines have `tasks`\n{listing}");
    let stages =
        "SELECT pipeline, stage, device FROM triad.stages WHERE kind = 'examples' ORDER BY stage";
    assert!(table(&store, stages).await.contains("| quick    | sft-data | cpu    |"));
    assert!(table(&store, "SELECT params FROM triad.artifacts").await.contains("sft-data"));
    assert!(table(&store, "SELECT value FROM triad.timings LIMIT 1").await.contains("9.0"));
    let asked = "SELECT requests, bytes_read FROM triad.requests WHERE pipeline = 'other'";
    assert!(table(&store, asked).await.contains("| 7        | 99         |"));
    let lineage = "SELECT s.stage, l.port, l.name, l.input FROM triad.lineage l \
                   JOIN triad.stages s ON s.id = l.id WHERE s.pipeline = 'other'";
    let found = table(&store, lineage).await;
    assert!(found.contains("| tasks | tasks | heldout | 0123456789abcdef0123"), "{found}");
}

#[tokio::test]
async fn training_metrics_of_all_stages_are_one_table() {
    let store = store("memory://").await;
    let metric = Metric { step: 5, level: 0, name: "loss".into(), value: 0.25 };
    commit(&store, "other", "sft", &[vec![example("q", 1)]], &[metric]).await;
    let sql = "SELECT pipeline, stage, max(step) AS last FROM triad.metrics WHERE name = 'loss' \
               GROUP BY pipeline, stage ORDER BY pipeline";
    let found = table(&store, sql).await;
    assert!(
        found.contains("| other    | sft      | 5    |\n| quick    | sft-data | 2    |"),
        "{found}"
    );
    let empty = Store::open("memory://").unwrap();
    let (schema, _) = query(&empty, "SELECT * FROM triad.metrics").await.unwrap();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["pipeline", "stage", "step", "level", "name", "value"]);
}

#[tokio::test]
async fn any_version_is_a_table_by_its_id() {
    let store = store("memory://").await;
    let id = store.get_ref("quick", "sft-data").await.unwrap().unwrap();
    store.unset_ref("quick", "sft-data").await.unwrap();
    refused(&store, "SELECT * FROM quick.\"sft-data\"").await;
    for name in [id.as_str(), &id.as_str()[..8]] {
        let sql = format!("SELECT count(*) AS n FROM artifact('{name}') a WHERE a.level = 2");
        assert!(table(&store, &sql).await.contains("| 2 |"), "{name}");
    }
    let sql = format!("SELECT step FROM artifact ( '{id}', 'metrics' ) WHERE step = 2");
    assert!(table(&store, &sql).await.contains("| 2    |"));
    assert!(table(&store, "SELECT task_id FROM artifact('other/tasks')").await.contains("| z "));

    let said = refused(&store, &format!("SELECT * FROM artifact('{id}', 'metric')")).await;
    let place = format!("1:15: artifact('{id}'): no dataset `metric`; did you mean `metrics`?");
    assert_eq!(said, place);
    let said = refused(&store, "SELECT * FROM artifact('000000000')").await;
    assert!(said.contains("no artifact id begins with `000000000`"), "{said}");
    let said = refused(&store, "SELECT * FROM artifact(7)").await;
    assert!(said.contains("artifact takes ("), "{said}");
}

#[tokio::test]
async fn a_changed_byte_is_refused_wherever_it_stands() {
    let store = store("memory://").await;
    let id = store.get_ref("other", "tasks").await.unwrap().unwrap();
    let artifact = Artifact::open(&store, &id).await.unwrap().unwrap();
    let object = artifact.manifest.objects[0].clone();
    let good = artifact.read(&object.path).await.unwrap();
    for at in [good.len() / 3, good.len() / 2] {
        let mut bytes = good.to_vec();
        bytes[at] ^= 4;
        store.put(&object.key(&id), bytes.into()).await.unwrap();
        let error =
            query(&store, "SELECT count(DISTINCT prompt) FROM other.tasks").await.unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains("where its commit record says"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_store_answers() {
    let store = Store::open("memory://").unwrap();
    assert_eq!(query(&store, "SELECT 1 + 1 AS two").await.unwrap().1[0].num_rows(), 1);
    assert_eq!(
        query(&store, "SELECT * FROM triad.stages").await.unwrap().0.field(0).name(),
        "pipeline"
    );
}

#[tokio::test]
async fn mistakes_are_answered_with_the_nearest_name() {
    let store = store("memory://").await;
    let said = refused(&store, "SELECT * FROM quick.task").await;
    assert_eq!(said, "1:15: no table `quick.task`; did you mean `quick.tasks`?");
    let said = refused(&store, "SELECT taskid FROM quick.tasks").await;
    assert!(said.starts_with("1:8: no column `taskid`; did you mean `task_id`?"), "{said}");
    let said = refused(&store, "SELECT * FROM sft-data").await;
    assert!(said.contains("write \"sft-data\", in double quotes"), "{said}");
    let said = refused(&store, "SELECT * FROM zzzzzzzzzzzz").await;
    assert!(said.contains("there are") && said.contains("triad.stages"), "{said}");
    refused(&store, "SELEC 1").await;
    refused(&store, "SELECT nofunction(1)").await;
    refused(&store, "SELECT 1; SELECT 2").await;
}

#[tokio::test]
async fn nothing_is_written() {
    let store = store("memory://").await;
    for sql in [
        "INSERT INTO quick.tasks SELECT * FROM quick.tasks",
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE quick.tasks",
        "DELETE FROM quick.tasks",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let said = refused(&store, sql).await;
        assert!(said.starts_with("SQL that changes something is refused"), "{sql}: {said}");
    }
}

#[tokio::test]
async fn the_examples_of_the_docs_run() {
    let store = Store::open("memory://").unwrap();
    let rollout = Rollout { task_id: "a".into(), ..Default::default() };
    commit(&store, "quickstart", "deduction", &[vec![rollout.clone()]], &[]).await;
    commit(&store, "quickstart", "rollouts", &[vec![rollout]], &[]).await;
    commit::<Verdict>(&store, "quickstart", "verdicts", &[vec![]], &[]).await;
    commit::<Task>(&store, "quickstart", "tasks", &[vec![]], &[]).await;
    commit::<Score>(&store, "quickstart", "evaluate", &[vec![]], &[]).await;
    let id = store.get_ref("quickstart", "rollouts").await.unwrap().unwrap();
    let docs = include_str!("../../docs/query.md").replace("5b0c7e1f", &id.as_str()[..8]);
    let blocks = docs.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> =
        blocks.flat_map(|block| block.split(';')).filter(|sql| !sql.trim().is_empty()).collect();
    for sql in &examples {
        query(&store, sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    }
    assert_eq!(examples.len(), 5);
}

#[tokio::test]
async fn local_files_are_tables_too() {
    let disk = tempfile::tempdir().unwrap();
    let file = disk.path().join("some.parquet");
    std::fs::write(&file, encode_parquet(&[example("f", 5)]).unwrap()).unwrap();
    let store = Store::open("memory://").unwrap();
    let sql = format!("SELECT task_id FROM '{}'", file.display());
    assert!(table(&store, &sql).await.contains("| f       |"));
    let said = refused(&store, "SELECT * FROM 'gone.parquet'").await;
    assert!(said.contains("gone.parquet"), "{said}");
}

async fn written(format: &str) -> String {
    String::from_utf8(written_bytes(format).await).unwrap()
}

async fn written_bytes(format: &str) -> Vec<u8> {
    let store = store("memory://").await;
    let sql = "SELECT task_id, response, level / 3.0 AS third, [level, 7] AS list \
               FROM quick.\"sft-data\" WHERE level = 2 ORDER BY task_id";
    let (schema, batches) = query(&store, sql).await.unwrap();
    let mut out = Vec::new();
    write_results(format.parse().unwrap(), &schema, &batches, &mut out).unwrap();
    out
}

#[tokio::test]
async fn results_are_written_in_every_format() {
    let csv = written("csv").await;
    assert!(
        csv.starts_with("task_id,response,third,list\nb,\"response\nin two lines of b\",0.6"),
        "{csv}"
    );
    assert!(csv.contains("\"[2, 7]\""), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&written("json").await).unwrap();
    assert_eq!((json[1]["task_id"].as_str(), json[1]["list"][0].as_i64()), (Some("c"), Some(2)));
    let ndjson = written("ndjson").await;
    assert_eq!(ndjson.lines().count(), 2);
    let text = written("table").await;
    assert!(text.contains("response⏎in two lines of b") && text.contains("0.666667"), "{text}");
    assert!(text.ends_with("2 rows\n"), "{text}");
    assert!(written("markdown").await.starts_with("| task_id |"));
    let parquet = written_bytes("parquet").await;
    let rows = open_parquet(parquet.into(), "results").unwrap().build().unwrap();
    let rows: Vec<_> = rows.collect::<Result<_, _>>().unwrap();
    let text = pretty_format_batches(&rows).unwrap().to_string();
    assert!(text.contains("in two lines of c") && text.contains("| [2, 7] |"), "{text}");
    assert!("xml".parse::<Format>().unwrap_err().contains("ndjson"));
}

#[test]
fn select_runs_on_batches_in_memory() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batches = vec![Example::encode(&[example("a", 1), example("b", 2)])?];
    let sql = "SELECT x.task_id, m.level FROM x JOIN y.metrics m ON m.level = x.level ORDER BY 1";
    let metric = Metric { step: 1, level: 2, name: "kl".into(), value: 0.0 };
    let tables = || {
        vec![
            ("x", batches.clone()),
            ("y.metrics", vec![Metric::encode(std::slice::from_ref(&metric)).unwrap()]),
        ]
    };
    let found = select(sql, tables(), runtime.handle())?;
    assert!(pretty_format_batches(&found).unwrap().to_string().contains("| b       | 2     |"));
    for function in ["now()", "random()", "uuid()", "current_date()"] {
        let sql = format!("SELECT {function} AS x FROM x");
        let said = select(&sql, tables(), runtime.handle()).unwrap_err().to_string();
        assert!(said.contains("gives something else each time"), "{said}");
    }
    let error = select("SELECT * FROM metric", tables(), runtime.handle()).unwrap_err();
    assert!(error.to_string().starts_with("1:15: no table `metric`"), "{error}");
    assert!(has_order("SELECT 1 ORDER BY 1")? && !has_order("SELECT 1")?);
    assert!(has_order("DROP TABLE x").is_err() && has_order("").is_err());
    Ok(())
}
