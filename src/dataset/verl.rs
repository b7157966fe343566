//! Tasks in the Parquet layout that verl reads, which is the paper's released one.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::Task;
use crate::{Error, Result};

/// One Parquet file: data_source, prompt (messages), ability, reward_model, extra_info. A prompt in
/// raw form becomes one message of the user's; triad's own columns travel in `extra_info`, so that
/// a verdict does not need to read the text again.
pub fn encode_verl(tasks: &[Task]) -> Result<Bytes> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let record = |name: &str, fields: Vec<Field>| {
        Field::new(name, DataType::Struct(Fields::from(fields)), false)
    };
    let message = record("item", vec![text("role"), text("content")]);
    let schema = Arc::new(Schema::new(vec![
        text("data_source"),
        Field::new("prompt", DataType::List(Arc::new(message)), false),
        text("ability"),
        record("reward_model", vec![text("style"), text("ground_truth")]),
        record(
            "extra_info",
            vec![
                Field::new("index", DataType::UInt64, false),
                text("split"),
                Field::new("level", DataType::UInt32, false),
                text("task_id"),
                text("puzzle"),
            ],
        ),
    ]));
    let rows = tasks.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    let mut decoder = ReaderBuilder::new(schema.clone()).build_decoder().map_err(Error::defect)?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).map_err(Error::defect)?;
    for rows in rows.chunks(1024) {
        decoder.serialize(rows).map_err(Error::defect)?;
        if let Some(batch) = decoder.flush().map_err(Error::defect)? {
            writer.write(&batch).map_err(Error::defect)?;
        }
    }
    writer.close().map_err(Error::defect)?;
    Ok(bytes.into())
}

fn row((index, task): (usize, &Task)) -> Result<Value> {
    let messages: Value = if task.messages.is_empty() {
        json!([{"role": "user", "content": task.prompt}])
    } else {
        serde_json::from_str(&task.messages)
            .map_err(|e| Error::data(format!("task `{}`: column messages: {e}", task.task_id)))?
    };
    Ok(json!({
        "data_source": format!("triad/{}", task.family),
        "prompt": messages,
        "ability": task.family,
        "reward_model": {"style": "rule", "ground_truth": task.answer},
        "extra_info": {
            "index": index,
            "split": task.split,
            "level": task.level,
            "task_id": task.task_id,
            "puzzle": task.puzzle,
        },
    }))
}
