//! The tables under `triad`: what the manifests say.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};

use super::Catalog;
use super::catalog::quoted;
use crate::{Error, Result};

const NAMES: [&str; 4] = ["artifacts", "stages", "tables", "timings"];

/// Their SQL names.
pub(super) fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("triad.{}", quoted(name)))
}

fn text(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn count(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn number(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(Error::defect)
}

/// Each table's name and rows.
pub(super) fn tables(catalog: &Catalog) -> Result<Vec<(&'static str, RecordBatch)>> {
    Ok(vec![
        ("artifacts", artifacts(catalog)?),
        ("stages", stages(catalog)?),
        ("tables", listing(catalog)?),
        ("timings", timings(catalog)?),
    ])
}

/// One row for each named artifact, however many names it has.
fn artifacts(catalog: &Catalog) -> Result<RecordBatch> {
    let mut all: Vec<_> = catalog.named.iter().map(|n| &n.artifact.manifest).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.dedup_by(|a, b| a.id == b.id);
    let part = |name: &str| text(all.iter().map(|m| m.identity[name].to_string()));
    batch([
        ("id", text(all.iter().map(|m| m.id.to_string()))),
        ("job", text(all.iter().map(|m| m.job().to_string()))),
        ("kind", text(all.iter().map(|m| m.kind.clone()))),
        ("params", part("params")),
        ("inputs", part("inputs")),
        (
            "summary",
            text(all.iter().map(|m| serde_json::to_string(&m.summary).unwrap_or_default())),
        ),
        ("objects", count(all.iter().map(|m| m.objects.len() as u64))),
        ("bytes", count(all.iter().map(|m| m.bytes()))),
        ("triad", text(all.iter().map(|m| m.producer.triad.clone()))),
    ])
}

/// One row for each name.
fn stages(catalog: &Catalog) -> Result<RecordBatch> {
    let all = &catalog.named;
    let producer = |n: usize| &all[n].artifact.manifest.producer;
    batch([
        ("pipeline", text(all.iter().map(|n| n.pipeline.clone()))),
        ("stage", text(all.iter().map(|n| n.stage.clone()))),
        ("job", text(all.iter().map(|n| n.artifact.manifest.job().to_string()))),
        ("kind", text(all.iter().map(|n| n.artifact.manifest.kind.clone()))),
        ("id", text(all.iter().map(|n| n.artifact.manifest.id.to_string()))),
        ("device", text((0..all.len()).map(|n| producer(n).device.clone()))),
        ("started", text((0..all.len()).map(|n| producer(n).started.to_rfc3339()))),
        ("seconds", number((0..all.len()).map(|n| producer(n).seconds))),
    ])
}

/// One row for each dataset of a named artifact, under its shortest SQL name.
fn listing(catalog: &Catalog) -> Result<RecordBatch> {
    let all = catalog.tables();
    let size = |n: usize| all[n].1.artifact.manifest.parts(all[n].2).map(|o| o.size).sum();
    batch([
        ("name", text(all.iter().map(|(name, ..)| name.clone()))),
        ("pipeline", text(all.iter().map(|(_, n, _)| n.pipeline.clone()))),
        ("stage", text(all.iter().map(|(_, n, _)| n.stage.clone()))),
        ("dataset", text(all.iter().map(|(_, _, d)| d.to_string()))),
        ("rows", count(all.iter().map(|(_, n, d)| n.artifact.manifest.rows(d)))),
        ("bytes", count((0..all.len()).map(size))),
    ])
}

/// One row for each measured rate or duration.
fn timings(catalog: &Catalog) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for named in &catalog.named {
        for (name, value) in &named.artifact.manifest.producer.timings {
            all.push((named, name, *value));
        }
    }
    batch([
        ("pipeline", text(all.iter().map(|(n, ..)| n.pipeline.clone()))),
        ("stage", text(all.iter().map(|(n, ..)| n.stage.clone()))),
        ("name", text(all.iter().map(|(_, name, _)| name.to_string()))),
        ("value", number(all.iter().map(|(.., value)| *value))),
    ])
}
