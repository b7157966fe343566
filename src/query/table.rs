//! One dataset of a committed artifact as a table: the scan is built from manifest entries.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::stats::Precision;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, Statistics};
use object_store::ObjectMeta;

use crate::store::Artifact;

/// The URL under which a session knows the store: its own scheme, so that it hides no other.
pub(super) const STORE_URL: &str = "triad://store";

/// What one GET of a file's tail brings: the footer of all but giant files.
const FOOTER_BYTES: usize = 64 << 10;

/// The Parquet parts of one dataset. Sizes and row counts are the manifest's.
#[derive(Debug)]
pub(super) struct DatasetTable {
    schema: SchemaRef,
    parts: Vec<PartitionedFile>,
    rows: u64,
}

impl DatasetTable {
    pub(super) fn new(artifact: &Artifact, dataset: &str, schema: SchemaRef) -> Self {
        let manifest = &artifact.manifest;
        let parts = manifest
            .parts(dataset)
            .map(|entry| {
                let meta = ObjectMeta {
                    location: artifact.store.raw(&entry.key(&manifest.id)).1,
                    last_modified: manifest.producer.started,
                    size: entry.size,
                    e_tag: None,
                    version: None,
                };
                PartitionedFile::new_from_meta(meta).with_metadata_size_hint(FOOTER_BYTES)
            })
            .collect();
        Self { schema, parts, rows: manifest.rows(dataset) }
    }

    fn known(&self) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(self.rows as usize);
        statistics
    }
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.parts.is_empty() {
            let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let groups = FileGroup::new(self.parts.clone())
            .split_files(state.config().target_partitions().max(1));
        let source = Arc::new(ParquetSource::new(self.schema.clone()));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(groups)
            .with_statistics(self.known())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.known())
    }
}
