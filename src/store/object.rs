//! A store: put, create, replace, get, list and delete objects by [`Key`].

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as Cause, GetOptions, GetRange};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use url::Url;

use super::bucket::Amazon;
use super::client::Client;
use super::{Key, Patience, Traffic, record};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// An object store and the prefix below which triad keeps everything.
#[derive(Clone)]
pub struct Store {
    pub(super) client: Client,
    prefix: Path,
    url: Url,
    pub(super) amazon: Option<Amazon>,
}

/// How often a conditional put is repeated when the store reports a conflict without a winner.
const CONFLICTS: u32 = 6;

/// How often a record is read before it counts as damaged: bytes can change on their way.
const READS: usize = 3;

/// An object as a listing shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// `None`: no key of triad's.
    pub key: Option<Key>,
    /// Below the store's prefix.
    pub path: String,
    pub size: u64,
    /// By the store's clock.
    pub modified: DateTime<Utc>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    pub(super) fn new(client: Client, prefix: Path, url: Url, amazon: Option<Amazon>) -> Self {
        Self { client, prefix, url, amazon }
    }

    /// A store in `inner`, whole: how wrappers (faults) come in. `url` is for messages.
    pub fn over(inner: Arc<dyn ObjectStore>, url: Url) -> Self {
        Self::new(Client::new(inner, None, Patience::LOCAL), Path::default(), url, None)
    }

    /// The same store with another patience.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.client = self.client.with_patience(patience);
        self
    }

    /// The same store, for a process that dies after its `writes`-th write: for tests of resumption.
    pub fn dying_after(mut self, writes: u64) -> Self {
        self.client = self.client.dying_after(writes);
        self
    }

    /// The same store, counting its traffic from zero.
    pub fn metered(&self) -> Self {
        Self { client: self.client.counting_anew(), ..self.clone() }
    }

    /// What was asked of it, by this value and its clones.
    pub fn traffic(&self) -> Traffic {
        self.client.traffic()
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The object store below and the path of `key` in it, for readers of their own (DataFusion).
    pub fn raw(&self, key: &Key) -> (Arc<dyn ObjectStore>, Path) {
        (Arc::new(self.client.clone()), self.path(key))
    }

    /// The key of an object that [`Self::raw`] gave the path of.
    pub fn key_at(&self, path: &Path) -> Option<Key> {
        let parts: Vec<_> = path.prefix_match(&self.prefix)?.collect();
        Key::parse(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>().join("/"))
    }

    /// Whether it answers over a network: slowly, and many at a time.
    pub fn is_remote(&self) -> bool {
        !matches!(self.url.scheme(), "file" | "memory")
    }

    /// `key` with the store's URL before it, for messages.
    pub(super) fn place(&self, key: &dyn Display) -> String {
        format!("{}/{key}", self.url.as_str().trim_end_matches('/'))
    }

    pub(super) fn at_endpoint(&self) -> String {
        let endpoint = self.amazon.as_ref().and_then(|amazon| amazon.endpoint.as_ref());
        endpoint.map(|at| format!(" at {at}")).unwrap_or_default()
    }

    /// The path of a key or folder: their text as it is, encoded already.
    pub(super) fn path(&self, key: &dyn Display) -> Path {
        let text = format!("{}/{key}", self.prefix);
        Path::parse(&text).unwrap_or_else(|_| Path::from(text))
    }

    /// Writes an object that nobody else writes.
    pub async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.upload(key, &bytes.into()).await.map(drop)
    }

    /// Writes an object unless it exists; `false` when somebody else's does.
    ///
    /// The answer to a put can get lost, and a repeated put then meets its own object: so before
    /// this fails or reports `false`, it reads what is there. The same bytes count as ours.
    pub async fn create(&self, key: &Key, bytes: Bytes) -> Result<bool> {
        let path = self.path(key);
        for turn in 0..CONFLICTS {
            let put = self.client.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
            let error = match put.await {
                Ok(_) => return Ok(true),
                Err(error @ (Cause::AlreadyExists { .. } | Cause::Generic { .. })) => error,
                Err(error) => return Err(self.failure(key, &error)),
            };
            match self.get(key).await {
                Ok(Some(found)) => return Ok(found == bytes),
                // S3 answers 409 while another put is under way, and that one may fail.
                Ok(None) if matches!(error, Cause::AlreadyExists { .. }) => {
                    tokio::time::sleep(Duration::from_millis(100 << turn)).await;
                }
                Ok(None) | Err(_) => return Err(self.failure(key, &error)),
            }
        }
        Err(Error::try_again(format!(
            "{}: others keep writing it; run the same command again",
            self.place(key)
        )))
    }

    /// Overwrites the object that [`Store::get_version`] found; `false` when it has changed since.
    /// A local folder knows no such condition: there the last writer wins.
    pub(super) async fn replace(
        &self,
        key: &Key,
        bytes: Bytes,
        version: UpdateVersion,
    ) -> Result<bool> {
        let (path, mode) = (self.path(key), PutMode::Update(version));
        match self.client.put_opts(&path, bytes.clone().into(), mode.into()).await {
            Ok(_) => Ok(true),
            Err(Cause::NotImplemented { .. }) => self.put(key, bytes).await.map(|()| true),
            // 409 while another put is under way reads as AlreadyExists.
            Err(
                Cause::Precondition { .. } | Cause::NotFound { .. } | Cause::AlreadyExists { .. },
            ) => Ok(false),
            Err(e) => Err(self.failure(key, &e)),
        }
    }

    /// Reads a record whole; `None` when it does not exist.
    ///
    /// # Errors
    /// [`Error::Data`] for an object larger than any record.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        Ok(self.get_version(key).await?.map(|(bytes, _)| bytes))
    }

    /// [`Store::get`], and which version of the object it is.
    pub(super) async fn get_version(&self, key: &Key) -> Result<Option<(Bytes, UpdateVersion)>> {
        let path = self.path(key);
        let (found, bytes) =
            match self.client.fetch(&path, GetOptions::default(), record::BYTES).await {
                Ok(found) => found,
                Err(e) if is_absence(&e) => return Ok(None),
                Err(e) => return Err(self.failure(key, &e)),
            };
        if found.meta.size > record::BYTES {
            return Err(Error::data(format!(
                "{}: {} bytes, where a record has {} at most",
                self.place(key),
                found.meta.size,
                record::BYTES
            )));
        }
        let version = UpdateVersion { e_tag: found.meta.e_tag, version: found.meta.version };
        Ok(Some((bytes, version)))
    }

    /// Reads the record at `key` with `parse`; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Data`] for one that is damaged, on a third look too.
    pub(super) async fn record<R>(
        &self,
        key: &Key,
        parse: impl Fn(&[u8]) -> Result<R, String>,
    ) -> Result<Option<R>> {
        let mut why = String::new();
        for _ in 0..READS {
            let Some(bytes) = self.get(key).await? else { return Ok(None) };
            match record::unseal(&bytes).and_then(|json| parse(&json)) {
                Ok(record) => return Ok(Some(record)),
                Err(found) => why = found,
            }
        }
        Err(Error::data(format!("{}: {why}", self.place(key))))
    }

    /// The size of an object; `None` when it does not exist.
    pub(super) async fn size(&self, key: &(dyn Display + Sync)) -> Result<Option<u64>> {
        match self.client.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) if is_absence(&e) => Ok(None),
            Err(e) => Err(self.failure(key, &e)),
        }
    }

    /// Reads `range` of the object at `key`, which has `size` bytes. What is read is not checked: a
    /// digest is that of a whole object.
    ///
    /// # Errors
    /// [`Error::Data`] when it does not exist or has another size.
    pub(super) async fn range(
        &self,
        key: &(dyn Display + Sync),
        size: u64,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let limit = range.end - range.start;
        let bounded = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
        let found = match self.client.fetch(&self.path(key), bounded, limit).await {
            Ok((found, bytes)) if found.meta.size == size => return Ok(bytes),
            Ok((found, _)) => Some(found.meta.size),
            Err(e) if is_absence(&e) => None,
            // The range may lie behind the end.
            Err(e) => match self.size(key).await {
                Ok(found) if found != Some(size) => found,
                _ => return Err(self.failure(key, &e)),
            },
        };
        let found = found.map_or("it is gone".into(), |size| format!("it has {size} bytes"));
        Err(Error::data(format!("{}: {found}, where {size} are expected", self.place(key))))
    }

    /// Deletes objects by their paths below the store's prefix. What is gone already is no error.
    pub(super) async fn delete(&self, paths: impl IntoIterator<Item = String>) -> Result<()> {
        let paths: Vec<_> = paths.into_iter().map(|path| Ok(self.path(&path))).collect();
        let mut deleted = self.client.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = deleted.next().await {
            result.map_err(|e| self.failure(&"", &e))?;
        }
        Ok(())
    }

    /// Everything below `folder`, in order of path. Only maintenance and resuming list; readers
    /// never do.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let path = if folder.is_empty() { self.prefix.clone() } else { self.path(&folder) };
        let found = match self.client.list(Some(&path)).try_collect::<Vec<_>>().await {
            Ok(found) => found,
            Err(e) if is_absence(&e) => return Ok(Vec::new()),
            Err(e) => return Err(self.failure(&folder, &e)),
        };
        let depth = self.prefix.parts().count();
        let mut listed: Vec<_> = found
            .into_iter()
            .map(|meta| {
                let parts: Vec<_> = meta.location.parts().skip(depth).collect();
                let path = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
                let key = Key::parse(&path);
                Listed { key, path, size: meta.size, modified: meta.last_modified }
            })
            .collect();
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }

    /// Deletes everything of artifact `id`.
    pub async fn purge(&self, id: &ArtifactId) -> Result<()> {
        let listed = self.list(&Key::artifact_folder(id)).await?;
        self.delete(listed.into_iter().map(|object| object.path)).await
    }

    /// Deletes everything.
    pub async fn clear(&self) -> Result<()> {
        let listed = self.list("").await?;
        self.delete(listed.into_iter().map(|object| object.path)).await
    }

    async fn keys(&self, folder: &str) -> Result<Vec<Key>> {
        Ok(self.list(folder).await?.into_iter().filter_map(|listed| listed.key).collect())
    }

    /// The committed steps of a long job, ascending.
    pub async fn steps(&self, id: &ArtifactId) -> Result<Vec<u64>> {
        let keys = self.keys(&Key::steps_folder(id)).await?;
        let mut steps: Vec<u64> = keys
            .into_iter()
            .filter_map(|key| if let Key::Step { step, .. } = key { Some(step) } else { None })
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Every committed artifact, by id. For `ls` and maintenance.
    pub async fn artifacts(&self) -> Result<Vec<ArtifactId>> {
        let keys = self.keys(Key::ARTIFACTS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| if let Key::Manifest(id) = key { Some(id) } else { None })
            .collect())
    }

    /// When each name was last set, by the store's clock: what changes when one moves.
    pub async fn names_set(&self) -> Result<Vec<(String, DateTime<Utc>)>> {
        let listed = self.list(Key::REFS).await?;
        Ok(listed.into_iter().map(|found| (found.path, found.modified)).collect())
    }

    /// Every name, as (pipeline, stage).
    pub async fn names(&self) -> Result<Vec<(String, String)>> {
        let keys = self.keys(Key::REFS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| match key {
                Key::Ref { pipeline, stage } => Some((pipeline, stage)),
                _ => None,
            })
            .collect())
    }
}

/// Whether `error` says that the object, rather than the bucket, does not exist.
pub(super) fn is_absence(error: &Cause) -> bool {
    matches!(error, Cause::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}
