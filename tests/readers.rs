//! Datasets as other programs read them: DuckDB, over the files as they lie.

use std::path::Path;
use std::process::Command;

use triad::dataset::{Rollout, encode_parquet};
use triad::store::Manifest;

use crate::program::{TASKS, stdout};

fn duckdb(dir: &Path, sql: &str) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/duckdb/duckdb_cli/duckdb");
    assert!(program.exists(), "{} is missing; run `make setup`", program.display());
    let args = ["-init", "/dev/null", "-csv", "-c", sql];
    let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_store_holds_plain_parquet() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), TASKS).unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    let manifest = stdout(dir.path(), &["show", "small/tasks", "--json"]);
    let manifest: Manifest = serde_json::from_str(&manifest).unwrap();
    let sql = |table: &str| {
        format!(
            "SELECT family, level, count(*) AS n, min(task_id) AS low, max(length(prompt)) AS long, \
             count(DISTINCT canonical) AS different FROM {table} GROUP BY family, level"
        )
    };
    let ours = stdout(dir.path(), &["query", &sql("small.tasks"), "--format", "csv"]);
    assert!(ours.contains("\narithmetic,1,40,"), "{ours}");
    let file = format!("'triad-store/{}'", manifest.objects[0].key(&manifest.id));
    assert_eq!(duckdb(dir.path(), &sql(&file)).replace('\r', ""), ours);
}

#[test]
fn lists_and_nulls_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let rollout = |sample: u32, known: bool| Rollout {
        task_id: "a".into(),
        sample,
        response: "ä\nb".into(),
        tokens: vec![5, 6 + sample, 4_000_000_000],
        logprobs: vec![-0.5, 0.0, -1.25],
        model_logprobs: known.then(|| vec![-0.75, 0.0, -1.0]),
        ..Default::default()
    };
    let bytes = encode_parquet(&[rollout(0, true), rollout(1, false)]).unwrap();
    std::fs::write(dir.path().join("rollouts.parquet"), bytes).unwrap();
    let sql = "SELECT sample, len(tokens) AS n, tokens[2] AS second, tokens[3] AS third, \
               logprobs[3] AS last, model_logprobs IS NULL AS unknown, length(response) AS long \
               FROM 'rollouts.parquet' ORDER BY sample";
    assert_eq!(
        duckdb(dir.path(), sql).replace('\r', ""),
        "sample,n,second,third,last,unknown,long\n\
         0,3,6,4000000000,-1.25,false,3\n\
         1,3,7,4000000000,-1.25,true,3\n"
    );
}
