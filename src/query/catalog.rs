//! The tables of a store, and a session over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::datasource::file_format::parquet::transform_schema_to_view;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt};

use super::session::Session;
use super::table::DatasetTable;
use super::verified::{Check, Verified};
use super::version::Versions;
use super::{system, tensors};
use crate::dataset::{Metric, Row};
use crate::store::{Artifact, Manifest, Store};
use crate::{Error, Result, dataset, store};

/// The session's own catalog, where two-part names are looked up.
pub(super) const HOME: &str = "store";
/// Where one-part names are looked up.
pub(super) const BARE: &str = "bare";
/// Manifests read at the same time.
const READS: usize = 16;

/// A named artifact.
pub(super) struct Named {
    pub pipeline: String,
    pub stage: String,
    pub artifact: Artifact,
}

impl Named {
    pub(super) fn main(&self) -> Option<&str> {
        main_table(&self.artifact.manifest)
    }
}

/// What an artifact's own name stands for in a query: a checkpoint's tensors, or its main dataset.
pub(super) fn main_table(manifest: &Manifest) -> Option<&str> {
    tensors::has(manifest).then_some(tensors::DATASET).or_else(|| main_dataset(manifest))
}

/// The dataset called like the artifact's kind, or the only one.
pub fn main_dataset(manifest: &Manifest) -> Option<&str> {
    let only = manifest.datasets.keys().next().filter(|_| manifest.datasets.len() == 1);
    manifest
        .datasets
        .contains_key(&manifest.kind)
        .then_some(&manifest.kind)
        .or(only)
        .map(|n| n.as_str())
}

/// Every named artifact of a store, as SQL tables.
pub struct Catalog {
    store: Store,
    pub(super) named: Vec<Named>,
}

impl Catalog {
    /// Reads the names and their manifests. A name whose artifact is gone is left out.
    pub async fn open(store: &Store) -> Result<Self> {
        let read = |(pipeline, stage): (String, String)| async move {
            let Some(id) = store.get_ref(&pipeline, &stage).await? else { return Ok(None) };
            let artifact = Artifact::open(store, &id).await?;
            Ok::<_, Error>(artifact.map(|artifact| Named { pipeline, stage, artifact }))
        };
        let found: Vec<_> = futures::stream::iter(store.names().await?)
            .map(read)
            .buffered(READS)
            .try_collect()
            .await?;
        let mut named: Vec<_> = found.into_iter().flatten().collect();
        named.sort_by(|a, b| (&a.pipeline, &a.stage).cmp(&(&b.pipeline, &b.stage)));
        Ok(Self { store: store.clone(), named })
    }

    /// How often each stage name occurs over all pipelines.
    fn stage_counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for named in &self.named {
            *counts.entry(named.stage.as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// The shortest SQL name of every table with its dataset, for listings and suggestions.
    pub(super) fn tables(&self) -> Vec<(String, &Named, &str)> {
        let counts = self.stage_counts();
        let mut tables = Vec::new();
        for named in &self.named {
            let manifest = &named.artifact.manifest;
            let tensors = tensors::has(manifest).then_some(tensors::DATASET);
            for dataset in manifest.datasets.keys().map(String::as_str).chain(tensors) {
                let mut parts = vec![named.stage.as_str()];
                if counts[named.stage.as_str()] > 1 {
                    parts.insert(0, &named.pipeline);
                }
                if named.main() != Some(dataset) {
                    parts.push(dataset);
                }
                let name = parts.into_iter().map(quoted).collect::<Vec<_>>().join(".");
                tables.push((name, named, dataset));
            }
        }
        tables
    }

    /// Every dataset's pipeline, stage and name, in order.
    pub fn datasets(&self) -> impl Iterator<Item = [&str; 3]> {
        self.tables()
            .into_iter()
            .map(|(_, named, dataset)| [&named.pipeline, &named.stage, dataset])
    }

    /// The same with their columns.
    pub async fn columns(&self) -> Result<Vec<(&str, &str, String, SchemaRef)>> {
        let mut columns = Vec::new();
        for Named { pipeline, stage, artifact } in &self.named {
            for (dataset, table) in tables_of(artifact).await? {
                columns.push((&**pipeline, &**stage, dataset, table.schema()));
            }
        }
        Ok(columns)
    }

    /// Makes all tables known to `context`, in place of those of an earlier catalog.
    pub(super) async fn register(&self, context: &SessionContext) -> Result<()> {
        let mut tree = Tree::default();
        let counts = self.stage_counts();
        let mut metrics = Vec::new();
        for named in &self.named {
            let Named { pipeline, stage, artifact } = named;
            let unique = counts[stage.as_str()] == 1;
            for (name, table) in tables_of(artifact).await? {
                let schema = artifact.manifest.datasets.get(&name);
                if schema.is_some_and(|s| s.schema == Metric::NAME && s.version == Metric::VERSION)
                {
                    metrics.push((named, table.clone()));
                }
                tree.add(pipeline, stage, &name, &table);
                let main = named.main() == Some(&name);
                if main {
                    tree.add(HOME, pipeline, stage, &table);
                }
                if unique {
                    tree.add(HOME, stage, &name, &table);
                    if main {
                        tree.add(HOME, BARE, stage, &table);
                    }
                }
            }
        }
        for (name, batch) in system::tables(self)? {
            let table =
                MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(Error::defect)?;
            let table: Arc<dyn TableProvider> = Arc::new(table);
            tree.add(HOME, "triad", name, &table);
        }
        let metrics = system::metrics(context, metrics).map_err(Error::defect)?;
        tree.add(HOME, "triad", "metrics", &metrics);
        tree.register(context)
    }

    /// What the session reads of the store: the objects of these artifacts and of `versions`.
    pub(super) fn verified(&self, versions: &Versions) -> Verified {
        let named = self.named.iter().map(|named| &named.artifact);
        Verified::new(&self.store, Check::Most, named.chain(versions.artifacts()))
    }
}

/// Runs one SQL statement over the named artifacts of `store`.
///
/// # Errors
/// As [`Session::read`].
pub async fn query(store: &Store, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut rows = Session::open(store).await?.read(sql).await?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await? {
        batches.push(batch);
    }
    Ok((rows.schema(), batches))
}

/// `name` as SQL reads it back: quoted unless it is a lower-case word.
pub(super) fn quoted(name: &str) -> String {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// The datasets of an artifact as tables, and the tensors of a checkpoint.
pub(super) async fn tables_of(
    artifact: &Artifact,
) -> Result<BTreeMap<String, Arc<dyn TableProvider>>> {
    let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    for (dataset, schema) in &artifact.manifest.datasets {
        let schema = schema_of(artifact, dataset, schema).await?;
        // Texts as views into the pages they came in.
        let schema = Arc::new(transform_schema_to_view(&schema));
        let table = DatasetTable::new(artifact, dataset, schema).map_err(Error::defect)?;
        tables.insert(dataset.clone(), Arc::new(table));
    }
    tables.extend(tensors::table(artifact).map(|table| (tensors::DATASET.into(), table)));
    Ok(tables)
}

/// The schema of a stored dataset: the published one, or that of the file when this program does
/// not know its version.
pub(super) async fn schema_of(
    artifact: &Artifact,
    dataset: &str,
    known: &store::SchemaRef,
) -> Result<SchemaRef> {
    let store::SchemaRef { schema, version } = known;
    let published =
        dataset::schemas().into_iter().find(|(name, v, _)| name == schema && v == version);
    if let Some((_, _, schema)) = published {
        return Ok(schema);
    }
    let first = artifact.manifest.parts(dataset).next().map(|entry| entry.path.clone());
    let Some(path) = first else {
        return Ok(Arc::new(Schema::empty()));
    };
    let reader = dataset::open_parquet(artifact.read(&path).await?, &path)
        .map_err(|e| e.at(format!("artifact {}", artifact.manifest.id.short())))?;
    Ok(reader.schema().clone())
}

/// Tables by catalog, schema and name.
#[derive(Default)]
struct Tree(BTreeMap<String, BTreeMap<String, BTreeMap<String, Arc<dyn TableProvider>>>>);

impl Tree {
    fn add(&mut self, catalog: &str, schema: &str, name: &str, table: &Arc<dyn TableProvider>) {
        let tables = self.0.entry(catalog.into()).or_default().entry(schema.into()).or_default();
        tables.entry(name.into()).or_insert_with(|| table.clone());
    }

    fn register(mut self, context: &SessionContext) -> Result<()> {
        self.0.entry(HOME.into()).or_default().entry(BARE.into()).or_default();
        for (catalog, schemas) in self.0 {
            let provider = MemoryCatalogProvider::new();
            for (schema, tables) in schemas {
                let tables_of = MemorySchemaProvider::new();
                for (name, table) in tables {
                    tables_of.register_table(name, table).map_err(Error::defect)?;
                }
                provider.register_schema(&schema, Arc::new(tables_of)).map_err(Error::defect)?;
            }
            context.register_catalog(catalog, Arc::new(provider));
        }
        Ok(())
    }
}

/// Joins whose one side is read into one table, however large, while the other streams by: dividing
/// both by their keys would copy rows with long texts and lists.
pub(super) fn tuned(mut config: SessionConfig) -> SessionConfig {
    let options = &mut config.options_mut().optimizer;
    options.hash_join_single_partition_threshold = usize::MAX;
    options.hash_join_single_partition_threshold_rows = usize::MAX;
    config
}
