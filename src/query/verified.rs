//! What SQL reads of the store, with digests checked: an object comes whole, once, and the ranges
//! that a scan asks for are cut from it.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Display, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as Cause, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};

use crate::id::ArtifactId;
use crate::store::{Artifact, Key, ObjectEntry, Store};

/// Larger objects are read by ranges and not checked: a scan of one column should not fetch them.
const WHOLE: u64 = 64 << 20;
/// Bytes kept of objects read.
const KEPT: usize = 256 << 20;

/// The data objects of a catalog's artifacts, by their paths.
pub(super) struct Verified {
    store: Store,
    inner: Arc<dyn ObjectStore>,
    entries: HashMap<Path, (ArtifactId, ObjectEntry)>,
    kept: Mutex<VecDeque<(Path, Bytes)>>,
}

impl Verified {
    pub fn new<'a>(store: &Store, artifacts: impl Iterator<Item = &'a Artifact>) -> Self {
        let (inner, _) = store.raw(&Key::Run(String::new()));
        let entries = artifacts.flat_map(|artifact| {
            let id = &artifact.manifest.id;
            artifact
                .manifest
                .objects
                .iter()
                .map(|entry| (store.raw(&entry.key(id)).1, (id.clone(), entry.clone())))
        });
        Self { store: store.clone(), inner, entries: entries.collect(), kept: Mutex::default() }
    }

    async fn whole(
        &self,
        path: &Path,
        id: &ArtifactId,
        entry: &ObjectEntry,
    ) -> crate::Result<Bytes> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = kept().iter().find(|(known, _)| known == path) {
            return Ok(bytes.clone());
        }
        let bytes = self.store.read_entry(id, entry).await?;
        let mut kept = kept();
        kept.push_back((path.clone(), bytes.clone()));
        while kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > KEPT {
            kept.pop_front();
        }
        Ok(bytes)
    }
}

impl Debug for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified({:?})", self.store)
    }
}

impl Display for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Verified {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult, Cause> {
        let known = self.entries.get(path).filter(|(_, entry)| entry.size <= WHOLE);
        let Some((id, entry)) = known.filter(|_| !options.head) else {
            return self.inner.get_opts(path, options).await;
        };
        let bytes = self
            .whole(path, id, entry)
            .await
            .map_err(|e| Cause::Generic { store: "triad", source: Box::new(e) })?;
        let size = entry.size;
        let range = match options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) => range.start.min(size)..range.end.min(size),
            Some(GetRange::Offset(from)) => from.min(size)..size,
            Some(GetRange::Suffix(length)) => size.saturating_sub(length)..size,
        };
        let part = bytes.slice(range.start as usize..range.end.max(range.start) as usize);
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: Default::default(),
            size,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::Stream(stream::iter([Ok(part)]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Cause>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Cause> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult, Cause> {
        Err(read_only())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Cause> {
        Err(read_only())
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path, Cause>>,
    ) -> BoxStream<'static, Result<Path, Cause>> {
        paths.and_then(async |_| Err(read_only())).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<(), Cause> {
        Err(read_only())
    }
}

fn read_only() -> Cause {
    Cause::NotImplemented { operation: "writing".into(), implementer: "SQL".into() }
}
