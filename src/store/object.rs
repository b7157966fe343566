//! A store: put, create, replace, get and list objects by [`Key`].

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as Cause, GetResult, GetResultPayload};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use url::Url;

use super::Key;
use crate::id::ArtifactId;
use crate::{Error, Result};

/// An object store and the prefix below which triad keeps everything.
#[derive(Clone)]
pub struct Store {
    /// Gives up soon; in use until the store has answered once.
    impatient: Arc<dyn ObjectStore>,
    patient: Arc<dyn ObjectStore>,
    answered: Arc<AtomicBool>,
    prefix: Path,
    url: Url,
    /// The S3 server's address when it is not Amazon's.
    endpoint: Option<String>,
}

/// Larger objects go over the network in parts of this size, each tried again by itself.
const PART: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;

/// How often a conditional put is repeated when the store reports a conflict without a winner.
const CONFLICTS: u32 = 6;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    pub(super) fn new(
        impatient: Arc<dyn ObjectStore>,
        patient: Arc<dyn ObjectStore>,
        prefix: Path,
        url: Url,
        endpoint: Option<String>,
    ) -> Self {
        Self { impatient, patient, answered: Arc::default(), prefix, url, endpoint }
    }

    /// A store in `inner`, whole: how wrappers (faults, metrics) come in. `url` is for messages.
    pub fn over(inner: Arc<dyn ObjectStore>, url: Url) -> Self {
        Self::new(inner.clone(), inner, Path::default(), url, None)
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The object store below and the path of `key` in it, for readers that stream (DataFusion).
    pub fn raw(&self, key: &Key) -> (Arc<dyn ObjectStore>, Path) {
        (self.patient.clone(), self.path(key))
    }

    /// `key` with the store's URL before it, for messages.
    pub(super) fn place(&self, key: &dyn Display) -> String {
        format!("{}/{key}", self.url.as_str().trim_end_matches('/'))
    }

    pub(super) fn at_endpoint(&self) -> String {
        self.endpoint.as_ref().map(|at| format!(" at {at}")).unwrap_or_default()
    }

    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The path of a key or folder: their text as it is, encoded already.
    fn path(&self, key: &dyn Display) -> Path {
        let text = format!("{}/{key}", self.prefix);
        Path::parse(&text).unwrap_or_else(|_| Path::from(text))
    }

    fn client(&self) -> &Arc<dyn ObjectStore> {
        if self.answered() { &self.patient } else { &self.impatient }
    }

    /// Remembers whether the store answered at all.
    fn note<T>(&self, result: Result<T, Cause>) -> Result<T, Cause> {
        use Cause::{AlreadyExists, NotFound, NotModified, Precondition};
        if matches!(
            result,
            Ok(_)
                | Err(NotFound { .. }
                    | AlreadyExists { .. }
                    | Precondition { .. }
                    | NotModified { .. })
        ) {
            self.answered.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Writes an object that nobody else writes.
    pub async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let path = self.path(key);
        let result = if bytes.len() > PART {
            self.put_parts(&path, bytes).await
        } else {
            self.client().put(&path, bytes.into()).await.map(drop)
        };
        self.note(result).map_err(|e| self.failure(key, &e))
    }

    async fn put_parts(&self, path: &Path, bytes: Bytes) -> Result<(), Cause> {
        let mut upload = self.client().put_multipart(path).await?;
        let parts: Vec<_> = (0..bytes.len())
            .step_by(PART)
            .map(|at| upload.put_part(bytes.slice(at..bytes.len().min(at + PART)).into()))
            .collect();
        let sent = stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await;
        let done = match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(e) => Err(e),
        };
        if done.is_err()
            && let Err(e) = upload.abort().await
        {
            tracing::debug!("{path}: the parts of a failed upload stay: {e}");
        }
        done
    }

    /// Writes an object unless it exists; `false` when somebody else's does.
    ///
    /// The answer to a put can get lost, and a repeated put then meets its own object: so before
    /// this fails or reports `false`, it reads what is there. The same bytes count as ours.
    pub async fn create(&self, key: &Key, bytes: Bytes) -> Result<bool> {
        let path = self.path(key);
        for turn in 0..CONFLICTS {
            let put = self.client().put_opts(&path, bytes.clone().into(), PutMode::Create.into());
            let error = match self.note(put.await) {
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
        let put = self.client().put_opts(&path, bytes.clone().into(), mode.into());
        match self.note(put.await) {
            Ok(_) => Ok(true),
            Err(Cause::NotImplemented { .. }) => self.put(key, bytes).await.map(|()| true),
            Err(Cause::Precondition { .. } | Cause::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.failure(key, &e)),
        }
    }

    /// Reads an object whole; `None` when it does not exist.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        Ok(self.get_version(key).await?.map(|(bytes, _)| bytes))
    }

    /// [`Store::get`], and which version of the object it is.
    pub(super) async fn get_version(&self, key: &Key) -> Result<Option<(Bytes, UpdateVersion)>> {
        let found = match self.note(self.client().get(&self.path(key)).await) {
            Ok(found) => found,
            Err(e) if self.is_absence(&e) => return Ok(None),
            Err(e) => return Err(self.failure(key, &e)),
        };
        let version =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = self.read(found).await.map_err(|e| self.failure(key, &e))?;
        Ok(Some((bytes, version)))
    }

    async fn read(&self, found: GetResult) -> Result<Bytes, Cause> {
        let size = found.meta.size;
        if size <= PART as u64 || matches!(found.payload, GetResultPayload::File(..)) {
            return found.bytes().await;
        }
        let path = found.meta.location;
        drop(found.payload);
        let ranges = (0..size).step_by(PART).map(|at| at..size.min(at + PART as u64));
        let mut parts = stream::iter(ranges)
            .map(|range| self.client().get_range(&path, range))
            .buffered(PARTS_AT_ONCE);
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// The size of an object; `None` when it does not exist.
    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>> {
        match self.note(self.client().head(&self.path(key)).await) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) if self.is_absence(&e) => Ok(None),
            Err(e) => Err(self.failure(key, &e)),
        }
    }

    /// Whether `error` says that the object, rather than the bucket, does not exist.
    fn is_absence(&self, error: &Cause) -> bool {
        matches!(error, Cause::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
    }

    async fn list(&self, folder: &str) -> Result<Vec<Key>> {
        let listing = self.client().list(Some(&self.path(&folder))).try_collect::<Vec<_>>().await;
        let found = match self.note(listing) {
            Ok(found) => found,
            Err(e) if self.is_absence(&e) => return Ok(Vec::new()),
            Err(e) => return Err(self.failure(&folder, &e)),
        };
        let depth = self.prefix.parts().count();
        let mut keys: Vec<_> = found
            .into_iter()
            .filter_map(|meta| {
                let parts: Vec<_> = meta.location.parts().skip(depth).collect();
                let text = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
                Key::parse(&text)
            })
            .collect();
        keys.sort_by_key(Key::to_string);
        Ok(keys)
    }

    /// The committed steps of a long job, ascending. Only resuming lists; readers never do.
    pub async fn steps(&self, id: &ArtifactId) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> = self
            .list(&Key::steps_folder(id))
            .await?
            .into_iter()
            .filter_map(|key| if let Key::Step { step, .. } = key { Some(step) } else { None })
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Every committed artifact, by id. For `ls` and maintenance.
    pub async fn artifacts(&self) -> Result<Vec<ArtifactId>> {
        let keys = self.list(Key::ARTIFACTS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| if let Key::Manifest(id) = key { Some(id) } else { None })
            .collect())
    }

    /// Every name, as (pipeline, stage).
    pub async fn names(&self) -> Result<Vec<(String, String)>> {
        let keys = self.list(Key::REFS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| match key {
                Key::Ref { pipeline, stage } => Some((pipeline, stage)),
                _ => None,
            })
            .collect())
    }
}
