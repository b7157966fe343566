//! Files outside the catalog, by path or URL: of this machine and of S3, read as tables and written
//! by COPY.

use std::fmt::{Debug, Formatter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{TableProvider, UrlTableFactory};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use url::{Position, Url};

use super::table::STORE_URL;
use crate::Error;
use crate::store::{Key, Store, Traffic};

/// The object stores of a session. A bucket is opened when a query first names it, by the rules
/// that stores follow.
#[derive(Default)]
pub(super) struct Buckets {
    known: DefaultObjectStoreRegistry,
    opened: Mutex<Vec<Store>>,
}

impl Buckets {
    /// What was asked of all buckets together.
    pub fn traffic(&self) -> Traffic {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().map(Store::traffic).fold(Traffic::default(), |sum, one| sum + one)
    }
}

impl Debug for Buckets {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buckets({:?})", self.opened)
    }
}

impl ObjectStoreRegistry for Buckets {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.known.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if let Ok(found) = self.known.get_store(url) {
            return Ok(found);
        }
        if url.scheme() != "s3" {
            let said = format!("{url}: a file's URL begins with s3:// or file://");
            return Err(failed(Error::usage(said)));
        }
        let bucket = Store::open(&url[..Position::BeforePath]).map_err(failed)?.metered();
        let (objects, _) = bucket.raw(&Key::Run(String::new()));
        self.known.register_store(url, objects.clone());
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(bucket);
        Ok(objects)
    }
}

fn failed(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Makes tables of paths and URLs in the place of a table's name.
#[derive(Debug)]
pub(super) struct FileTables(pub Arc<RuntimeEnv>);

#[async_trait]
impl UrlTableFactory for FileTables {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let ending = name.rsplit(['.', '/']).next().unwrap_or_default();
        if !name.contains('/') && format_of(ending).is_none() {
            return Ok(None);
        }
        let url = parse(name)?;
        let config = SessionConfig::new();
        let state = SessionContext::new_with_config_rt(config, self.0.clone()).state();
        let store = state.runtime_env().object_store(&url)?;
        let first = url.list_all_files(&state, store.as_ref(), "").await?.try_next().await?;
        let first = first.ok_or_else(|| {
            failed(Error::usage(format!("`{name}`: no such file, and none that it matches")))
        })?;
        let ending = first.location.extension().unwrap_or_default();
        let mut format = format_of(ending).ok_or_else(|| {
            failed(Error::usage(format!(
                "`{name}`: `.{ending}` is none of .parquet, .csv, .json, .ndjson, .jsonl; \
                 CREATE EXTERNAL TABLE … STORED AS says what it is"
            )))
        })?;
        // What `--format json` writes is an array.
        if ending == "json" && first.size > 0 {
            let start = store.get_range(&first.location, 0..1).await?;
            let array = start.starts_with(b"[");
            format = Arc::new(JsonFormat::default().with_newline_delimited(!array));
        }
        let options = ListingOptions::new(format).with_file_extension(format!(".{ending}"));
        let config = ListingTableConfig::new(url).with_listing_options(options);
        let config = config.infer_partitions_from_path(&state).await?.infer_schema(&state).await?;
        Ok(Some(Arc::new(ListingTable::try_new(config)?)))
    }
}

fn format_of(ending: &str) -> Option<Arc<dyn FileFormat>> {
    Some(match ending {
        "parquet" => Arc::new(ParquetFormat::default()),
        "csv" => Arc::new(CsvFormat::default()),
        "json" | "ndjson" | "jsonl" => Arc::new(JsonFormat::default()),
        _ => return None,
    })
}

/// A path or URL, which may hold `*`, `?` and `[…]` from some folder on.
fn parse(name: &str) -> Result<ListingTableUrl> {
    if !name.contains("://") {
        return ListingTableUrl::parse(name);
    }
    let Some(wild) = name.find(['*', '?', '[']) else { return ListingTableUrl::parse(name) };
    let folder = name[..wild].rfind('/').map_or(wild, |slash| slash + 1);
    ListingTableUrl::parse(&name[..folder])?.with_glob(&name[folder..])
}

/// Whether `target`, a path or URL that COPY would write, lies in `store`.
pub(super) fn inside(store: &Store, target: &str) -> Result<bool> {
    let target = parse(target)?;
    let (ours, theirs) = (store.url(), target.get_url());
    if theirs.as_str().starts_with(STORE_URL) {
        return Ok(true);
    }
    if ours.scheme() != theirs.scheme() || ours.host_str() != theirs.host_str() {
        return Ok(false);
    }
    if let (Ok(ours), Ok(theirs)) = (ours.to_file_path(), theirs.to_file_path()) {
        return Ok(real(&theirs).starts_with(real(&ours)));
    }
    Ok(target.prefix().prefix_matches(&ObjectPath::from_url_path(ours.path())?))
}

/// `path` without the links in the part of it that exists.
fn real(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, real)) = existing else { return path.into() };
    path.strip_prefix(part).map(|rest| real.join(rest)).unwrap_or_else(|_| path.into())
}
