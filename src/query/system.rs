//! The tables under `triad`: what the manifests say, and the training metrics.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, SessionContext, ident, lit};

use super::catalog::{Named, quoted};
use super::{Catalog, tensors};
use crate::dataset::{Metric, Row};
use crate::store::{Manifest, Traffic};
use crate::{Error, Result};

const NAMES: [&str; 7] =
    ["artifacts", "lineage", "metrics", "requests", "stages", "tables", "timings"];

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

/// Each table's name and rows, but for `metrics`.
pub(super) fn tables(catalog: &Catalog) -> Result<Vec<(&'static str, RecordBatch)>> {
    Ok(vec![
        ("artifacts", artifacts(catalog)?),
        ("lineage", lineage(catalog)?),
        ("requests", requests(catalog)?),
        ("stages", stages(catalog)?),
        ("tables", listing(catalog)?),
        ("timings", timings(catalog)?),
    ])
}

/// The named artifacts, each once, by id.
fn manifests(catalog: &Catalog) -> Vec<&Manifest> {
    let mut all: Vec<_> = catalog.named.iter().map(|n| &n.artifact.manifest).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.dedup_by(|a, b| a.id == b.id);
    all
}

/// One row for each named artifact, however many names it has.
fn artifacts(catalog: &Catalog) -> Result<RecordBatch> {
    let all = manifests(catalog);
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

/// One row for each input of a named artifact.
fn lineage(catalog: &Catalog) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for manifest in manifests(catalog) {
        for (port, named) in manifest.identity["inputs"].as_object().into_iter().flatten() {
            for (name, input) in named.as_object().into_iter().flatten() {
                all.push((manifest, port, name, input.as_str().unwrap_or_default()));
            }
        }
    }
    batch([
        ("id", text(all.iter().map(|(m, ..)| m.id.to_string()))),
        ("job", text(all.iter().map(|(m, ..)| m.job().to_string()))),
        ("port", text(all.iter().map(|(_, port, ..)| port.to_string()))),
        ("name", text(all.iter().map(|(_, _, name, _)| name.to_string()))),
        ("input", text(all.iter().map(|(.., input)| input.to_string()))),
    ])
}

/// One row for each name: what the process that committed it asked of the store.
fn requests(catalog: &Catalog) -> Result<RecordBatch> {
    let all = &catalog.named;
    let each = |value: fn(&Traffic) -> u64| {
        count(all.iter().map(move |n| value(&n.artifact.manifest.producer.storage)))
    };
    batch([
        ("pipeline", text(all.iter().map(|n| n.pipeline.clone()))),
        ("stage", text(all.iter().map(|n| n.stage.clone()))),
        ("requests", each(|t| t.requests)),
        ("retries", each(|t| t.retries)),
        ("bytes_read", each(|t| t.bytes_read)),
        ("bytes_written", each(|t| t.bytes_written)),
    ])
}

/// The training metrics of all stages, by pipeline and stage. They are read when a query asks.
pub(super) fn metrics(
    context: &SessionContext,
    tables: Vec<(&Named, Arc<dyn TableProvider>)>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let mut all = None;
    for (named, table) in tables {
        let mut columns = vec![
            lit(named.pipeline.as_str()).alias("pipeline"),
            lit(named.stage.as_str()).alias("stage"),
        ];
        columns.extend(Metric::schema().fields().iter().map(|field| ident(field.name())));
        let frame = context.read_table(table)?.select(columns)?;
        all = Some(match all {
            None => frame,
            Some(before) => DataFrame::union(before, frame)?,
        });
    }
    if let Some(frame) = all {
        return Ok(frame.into_view());
    }
    let names = ["pipeline", "stage"].map(|name| Field::new(name, DataType::Utf8, false));
    let rest = Metric::schema();
    let columns = names.into_iter().map(Arc::new).chain(rest.fields().iter().cloned());
    let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![]])?))
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
    // The tensors of a checkpoint are not counted in its manifest.
    let rows = |named: &Named, dataset: &str| {
        let manifest = &named.artifact.manifest;
        manifest.datasets.contains_key(dataset).then(|| manifest.rows(dataset))
    };
    let size = |n: usize| {
        let manifest = &all[n].1.artifact.manifest;
        match manifest.datasets.contains_key(all[n].2) {
            true => manifest.parts(all[n].2).map(|o| o.size).sum(),
            false => tensors::files(manifest).map(|o| o.size).sum(),
        }
    };
    batch([
        ("name", text(all.iter().map(|(name, ..)| name.clone()))),
        ("pipeline", text(all.iter().map(|(_, n, _)| n.pipeline.clone()))),
        ("stage", text(all.iter().map(|(_, n, _)| n.stage.clone()))),
        ("dataset", text(all.iter().map(|(_, _, d)| d.to_string()))),
        ("rows", Arc::new(all.iter().map(|(_, n, d)| rows(n, d)).collect::<UInt64Array>())),
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
