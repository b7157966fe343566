//! Published schemas against their goldens; rows through Parquet and back.

use std::path::PathBuf;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "schemas"].iter().collect()
}

fn golden(name: &str, version: u32, schema: &SchemaRef) -> Value {
    let fields = schema.fields().iter().map(|field| {
        json!({
            "name": field.name(),
            "type": field.data_type().to_string(),
            "nullable": field.is_nullable(),
        })
    });
    json!({"dataset": name, "version": version, "fields": fields.collect::<Vec<_>>()})
}

/// What is wrong with the golden of one dataset, if anything. A golden that exists is never
/// rewritten: readers of stored data rely on it.
fn check(name: &str, version: u32, schema: &SchemaRef, update: bool) -> Result<(), String> {
    let file = |version: u32| format!("{name}.v{version}.json");
    if let Some(gone) = (1..version).find(|old| !folder().join(file(*old)).exists()) {
        return Err(format!(
            "schemas/{} is gone: stored data of that version needs it",
            file(gone)
        ));
    }
    let path = folder().join(file(version));
    let now = golden(name, version, schema);
    let Ok(text) = std::fs::read_to_string(&path) else {
        if update {
            let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
            std::fs::write(&path, text).unwrap();
            return Ok(());
        }
        return Err(format!("schemas/{} is missing: run with UPDATE_GOLDENS=1", file(version)));
    };
    if serde_json::from_str::<Value>(&text).unwrap() == now {
        return Ok(());
    }
    Err(format!(
        "schemas/{} differs: bump VERSION and write schemas/{}; run with UPDATE_GOLDENS=1",
        file(version),
        file(version + 1)
    ))
}

#[test]
fn schemas_are_as_published() {
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let wrong: Vec<_> = schemas()
        .iter()
        .filter_map(|(name, version, schema)| check(name, *version, schema, update).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_changed_schema_needs_a_new_version() {
    let said = check(Metric::NAME, Metric::VERSION, &Task::schema(), false).unwrap_err();
    assert!(said.contains("metrics.v1.json differs: bump VERSION"), "{said}");
    let said = check("metrics", 2, &Metric::schema(), false).unwrap_err();
    assert!(said.contains("metrics.v2.json is missing"), "{said}");
    let said = check("nothing", 2, &Metric::schema(), false).unwrap_err();
    assert!(said.contains("nothing.v1.json is gone"), "{said}");
}

#[test]
fn every_golden_belongs_to_a_dataset() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let (name, version) =
            file.strip_suffix(".json").and_then(|stem| stem.rsplit_once(".v")).unwrap();
        let version: u32 = version.parse().unwrap();
        let known = schemas().iter().any(|(n, v, _)| *n == name && *v >= version);
        assert!(known || name == "manifest", "schemas/{file} is no dataset's");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,12}", "[a-zé⊕\n\t\"]{0,40}"]
}

prop_compose! {
    fn rollout()(
        (task_id, family, policy, stop) in (text(), text(), text(), text()),
        (prompt, response) in (text(), text()),
        (level, sample, step) in any::<(u32, u32, u32)>(),
        tokens in prop::collection::vec(any::<u32>(), 0..20),
        logprobs in prop::collection::vec(-50f32..0f32, 0..20),
        model_logprobs in prop::option::of(prop::collection::vec(-50f32..0f32, 0..20)),
        temperature in 0f32..2f32,
    ) -> Rollout {
        Rollout {
            task_id, family, level, sample, step, policy, prompt, response, tokens, logprobs, stop,
            temperature, model_logprobs,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_from_parquet(rows in prop::collection::vec(rollout(), 0..30)) {
        let bytes = encode_parquet(&rows).unwrap();
        prop_assert_eq!(&encode_parquet(&rows).unwrap(), &bytes, "same rows, same bytes");
        prop_assert_eq!(decode_parquet::<Rollout>(bytes).unwrap(), rows);
    }

    #[test]
    fn verdicts_come_back_from_parquet(
        rows in prop::collection::vec((text(), any::<bool>(), -2f32..3f32), 0..30)
    ) {
        let rows: Vec<Verdict> = rows.into_iter().map(|(text, flag, reward)| Verdict {
            task_id: text.clone(), family: text.clone(), level: 1, sample: 2, step: 3,
            format_ok: !flag, format: text.clone(), verdict: text.clone(), place: text.clone(),
            correct: flag, reward, extracted: text,
        }).collect();
        prop_assert_eq!(decode_parquet::<Verdict>(encode_parquet(&rows).unwrap()).unwrap(), rows);
    }
}

fn without(column: &str) -> bytes::Bytes {
    let batch =
        Metric::encode(&[Metric { step: 1, level: 1, name: "kl".into(), value: 0.5 }]).unwrap();
    let keep: Vec<_> =
        (0..batch.num_columns()).filter(|i| batch.schema().field(*i).name() != column).collect();
    parquet(&batch.project(&keep).unwrap())
}

fn parquet(batch: &RecordBatch) -> bytes::Bytes {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes.into()
}

#[test]
fn a_missing_column_is_named() {
    let error = decode_parquet::<Metric>(without("value")).unwrap_err();
    assert_eq!(error.to_string(), "`metrics` needs a column `value`; found step, level, name");
    assert_eq!(error.exit_code(), 65);
    // Other programs write strings and further columns in their own ways.
    let further = Score::encode(&[]).unwrap();
    let error = decode_parquet::<Metric>(parquet(&further)).unwrap_err();
    assert!(error.to_string().contains("needs a column `step`"), "{error}");
}

#[test]
fn a_column_that_a_later_version_added_reads_as_null() {
    let new = Rollout { model_logprobs: Some(vec![-1.0]), ..Rollout::default() };
    let batch = Rollout::encode(&[new.clone(), new]).unwrap();
    let place = batch.schema().index_of("model_logprobs").unwrap();
    let columns: Vec<_> = (0..batch.num_columns()).filter(|&i| i != place).collect();
    let old = batch.project(&columns).unwrap();
    let published = std::fs::read(folder().join("rollouts.v1.json")).unwrap();
    let published: Value = serde_json::from_slice(&published).unwrap();
    assert_eq!(golden("rollouts", 1, &old.schema()), published);
    let rows: Vec<Rollout> = decode_parquet(parquet(&old)).unwrap();
    assert_eq!(rows, [Rollout::default(), Rollout::default()]);
}

#[test]
fn what_is_no_parquet_is_said_in_one_line() {
    let whole =
        encode_parquet(&[Metric { step: 1, level: 1, name: "kl".into(), value: 0.5 }]).unwrap();
    for bytes in [bytes::Bytes::from_static(b"not parquet"), whole.slice(..whole.len() - 9)] {
        let said = decode_parquet::<Metric>(bytes).unwrap_err().to_string();
        assert!(
            said.starts_with("`metrics` is no readable Parquet") && !said.contains('\n'),
            "{said}"
        );
    }
}
