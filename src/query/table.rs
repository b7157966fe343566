//! One dataset of a committed artifact as a table: the scan is built from manifest entries.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, ToDFSchema};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, Statistics};
use object_store::ObjectMeta;
use serde_json::Value;

use crate::store::{Artifact, Bounds, ObjectEntry};

/// The URL under which a session knows the store: its own scheme, so that it hides no other.
pub const STORE_URL: &str = "triad://store";

/// What one GET of a file's tail brings: the footer of all but giant files.
const FOOTER_BYTES: usize = 64 << 10;

/// The Parquet parts of one dataset. Sizes, row counts and bounds are the manifest's.
#[derive(Debug)]
pub struct DatasetTable {
    schema: SchemaRef,
    parts: Vec<PartitionedFile>,
    known: Statistics,
}

impl DatasetTable {
    pub(super) fn new(artifact: &Artifact, dataset: &str, schema: SchemaRef) -> Result<Self> {
        let manifest = &artifact.manifest;
        let parts: Vec<_> = manifest
            .parts(dataset)
            .map(|entry| {
                let meta = ObjectMeta {
                    location: artifact.store.raw(&entry.key(&manifest.id)).1,
                    last_modified: manifest.producer.started,
                    size: entry.size,
                    e_tag: None,
                    version: None,
                };
                PartitionedFile::new_from_meta(meta)
                    .with_metadata_size_hint(FOOTER_BYTES)
                    .with_statistics(Arc::new(statistics(entry, &schema)))
            })
            .collect();
        let known = merged(&parts, &schema)?;
        Ok(Self { schema, parts, known })
    }

    /// The table that [`Self::parts`] of another process describe, with what is known of each.
    pub fn of_parts(schema: SchemaRef, parts: Vec<PartitionedFile>) -> Result<Self> {
        let hinted = |part: PartitionedFile| part.with_metadata_size_hint(FOOTER_BYTES);
        let parts: Vec<_> = parts.into_iter().map(hinted).collect();
        let known = merged(&parts, &schema)?;
        Ok(Self { schema, parts, known })
    }

    pub fn parts(&self) -> &[PartitionedFile] {
        &self.parts
    }

    /// The parts in which, for all that the manifest knows, rows may pass all `filters`.
    fn matching(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(self.parts.clone()) };
        let schema = self.schema.clone().to_dfschema()?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(self.schema.clone())
            .try_build(filter)?;
        let known = self.parts.iter().filter_map(|part| part.statistics.clone());
        let kept =
            predicate.prune(&PrunableStatistics::new(known.collect(), self.schema.clone()))?;
        let parts = self.parts.iter().zip(kept);
        Ok(parts.filter(|(_, kept)| *kept).map(|(part, _)| part.clone()).collect())
    }
}

/// What is known of some parts together.
fn merged(parts: &[PartitionedFile], schema: &SchemaRef) -> Result<Statistics> {
    if parts.is_empty() {
        return Ok(Statistics::new_unknown(schema).with_num_rows(Precision::Exact(0)));
    }
    let known = parts.iter().filter_map(|part| part.statistics.as_deref());
    Statistics::try_merge_iter(known, schema)
}

/// What a manifest says of a part. Bounds that are no values of their column count for nothing.
fn statistics(entry: &ObjectEntry, schema: &Schema) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    if let Some(rows) = entry.rows {
        statistics.num_rows = Precision::Exact(rows as usize);
    }
    for (field, known) in schema.fields().iter().zip(&mut statistics.column_statistics) {
        let Some(Bounds { min, max, nulls }) = entry.columns.get(field.name()) else { continue };
        let value = |value| scalar(value, field.data_type());
        if let (Some(min), Some(max)) = (value(min), value(max)) {
            known.min_value = Precision::Exact(min);
            known.max_value = Precision::Exact(max);
            known.null_count = Precision::Exact(*nulls as usize);
        }
    }
    statistics
}

fn scalar(value: &Value, data_type: &DataType) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::UInt32 => ScalarValue::UInt32(Some(value.as_u64()?.try_into().ok()?)),
        DataType::UInt64 => ScalarValue::UInt64(Some(value.as_u64()?)),
        DataType::Float32 => ScalarValue::Float32(Some(value.as_f64()? as f32)),
        DataType::Float64 => ScalarValue::Float64(Some(value.as_f64()?)),
        DataType::Boolean => ScalarValue::Boolean(Some(value.as_bool()?)),
        DataType::Utf8 => ScalarValue::Utf8(Some(value.as_str()?.into())),
        DataType::Utf8View => ScalarValue::Utf8View(Some(value.as_str()?.into())),
        _ => return None,
    })
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// None is settled by the manifest alone, but parts are skipped by them.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut parts = self.matching(state, filters)?;
        if let (Some(limit), true) = (limit, filters.is_empty()) {
            // As many parts as hold that many rows.
            let mut before = 0;
            parts.retain(|part| {
                let needed = before < limit;
                let rows = part.statistics.as_ref().and_then(|known| known.num_rows.get_value());
                before += rows.copied().unwrap_or_default();
                needed
            });
        }
        if parts.is_empty() {
            let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let known = match parts.len() == self.parts.len() {
            true => self.known.clone(),
            false => merged(&parts, &self.schema)?,
        };
        let groups = FileGroup::new(parts).split_files(state.config().target_partitions().max(1));
        let source = Arc::new(ParquetSource::new(self.schema.clone()));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(groups)
            .with_statistics(known)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.known.clone())
    }
}

#[cfg(test)]
mod tests;
