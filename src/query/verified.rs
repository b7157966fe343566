//! What SQL reads of the store. An object comes whole, once, with its digest checked, and the ranges
//! that a scan asks for are cut from it; or only those ranges come, where they are a small part of it.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Display, Formatter};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as Cause, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, coalesce_ranges,
};
use tokio::sync::OnceCell;

use crate::Error;
use crate::id::ArtifactId;
use crate::store::{Artifact, Key, ObjectEntry, Store};

/// Larger objects are read by ranges and not checked.
const WHOLE: u64 = 64 << 20;
/// Bytes kept of objects read.
const KEPT: u64 = 256 << 20;
/// What lies between two ranges of a remote object is read with them if it is no more.
const GAP: u64 = 128 << 10;

/// How many ends of objects are kept: they are asked for again soon, or never.
const TAILS: usize = 256;

/// When an object is read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Always.
    All,
    /// When half of it or more is asked for at once.
    Most,
}

/// The data objects of some artifacts, by their paths. What others are is read of their manifests
/// when they are asked for: plans may come from another machine.
pub struct Verified {
    store: Store,
    inner: Arc<dyn ObjectStore>,
    check: Check,
    entries: RwLock<HashMap<Path, Known>>,
    whole: Mutex<VecDeque<(Path, u64, Arc<OnceCell<Bytes>>)>>,
    /// The ends of objects that are read by ranges: footers, and what lies beside them.
    tails: Mutex<HashMap<Path, (u64, Bytes)>>,
}

type Known = Arc<(ArtifactId, ObjectEntry)>;

/// An artifact's objects.
fn objects(artifact: &Artifact) -> impl Iterator<Item = (Path, Known)> {
    let Artifact { store, manifest } = artifact;
    let known = |entry: &ObjectEntry| Arc::new((manifest.id.clone(), entry.clone()));
    manifest.objects.iter().map(move |entry| (store.raw(&entry.key(&manifest.id)).1, known(entry)))
}

impl Verified {
    pub fn new<'a>(
        store: &Store,
        check: Check,
        artifacts: impl Iterator<Item = &'a Artifact>,
    ) -> Self {
        let (inner, _) = store.raw(&Key::Run(String::new()));
        Self {
            store: store.clone(),
            inner,
            check,
            entries: RwLock::new(artifacts.flat_map(objects).collect()),
            whole: Mutex::default(),
            tails: Mutex::default(),
        }
    }

    /// What the manifest says of an object; `None` for one that no manifest lists.
    async fn entry(&self, path: &Path) -> crate::Result<Option<Known>> {
        let known = |path| {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            entries.get(path).cloned()
        };
        if let Some(found) = known(path) {
            return Ok(Some(found));
        }
        let Some(Key::Data { id, .. }) = self.store.key_at(path) else { return Ok(None) };
        let Some(artifact) = Artifact::open(&self.store, &id).await? else {
            let (id, url) = (id.short(), self.store.url());
            return Err(Error::data(format!("artifact {id} is not in the store {url}")));
        };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.extend(objects(&artifact));
        Ok(entries.get(path).cloned())
    }

    /// An object, read once however many ask for it.
    async fn whole(
        &self,
        path: &Path,
        id: &ArtifactId,
        entry: &ObjectEntry,
    ) -> crate::Result<Bytes> {
        let cell = {
            let mut kept = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            let known = kept.iter().find(|(known, ..)| known == path).map(|(.., cell)| cell);
            known.cloned().unwrap_or_else(|| {
                let cell = Arc::default();
                kept.push_back((path.clone(), entry.size, Arc::clone(&cell)));
                while kept.iter().map(|(_, size, _)| size).sum::<u64>() > KEPT {
                    kept.pop_front();
                }
                cell
            })
        };
        cell.get_or_try_init(|| self.store.read_entry(id, entry)).await.cloned()
    }

    /// Ranges of an object that is not read whole.
    async fn parts(
        &self,
        path: &Path,
        id: &ArtifactId,
        entry: &ObjectEntry,
        ranges: &[Range<u64>],
    ) -> crate::Result<Vec<Bytes>> {
        let tails = || self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((start, bytes)) = tails().get(path)
            && ranges.iter().all(|range| range.start >= *start)
        {
            let cut = |range: &Range<u64>| {
                bytes.slice((range.start - start) as usize..(range.end - start) as usize)
            };
            return Ok(ranges.iter().map(cut).collect());
        }
        let gap = if self.store.is_remote() { GAP } else { 0 };
        let fetch = |range| self.store.read_range(id, entry, range);
        let found = coalesce_ranges(ranges, fetch, gap).await?;
        if let ([range], [bytes]) = (ranges, found.as_slice())
            && range.end == entry.size
        {
            let mut tails = tails();
            if tails.len() == TAILS {
                tails.clear();
            }
            tails.insert(path.clone(), (range.start, bytes.clone()));
        }
        Ok(found)
    }
}

fn failed(error: Error) -> Cause {
    Cause::Generic { store: "triad", source: Box::new(error) }
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
        if options.head {
            return self.inner.get_opts(path, options).await;
        }
        let known = self.entry(path).await.map_err(failed)?;
        let Some((_, entry)) = known.as_deref() else {
            return self.inner.get_opts(path, options).await;
        };
        let size = entry.size;
        let range = match options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) => range.start.min(size)..range.end.min(size),
            Some(GetRange::Offset(from)) => from.min(size)..size,
            Some(GetRange::Suffix(length)) => size.saturating_sub(length)..size,
        };
        let parts = self.get_ranges(path, std::slice::from_ref(&range)).await?;
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: Default::default(),
            size,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::Stream(stream::iter(parts).map(Ok).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Cause> {
        let known = self.entry(path).await.map_err(failed)?;
        let Some((id, entry)) = known.as_deref() else {
            return self.inner.get_ranges(path, ranges).await;
        };
        let size = entry.size;
        let fits = |range: &Range<u64>| range.start <= range.end && range.end <= size;
        if let Some(range) = ranges.iter().find(|range| !fits(range)) {
            let said = format!("{path}: its footer names bytes {range:?} of {size}");
            return Err(failed(Error::data(said)));
        }
        let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if size > WHOLE || (self.check == Check::Most && asked < size.div_ceil(2)) {
            return self.parts(path, id, entry, ranges).await.map_err(failed);
        }
        let bytes = self.whole(path, id, entry).await.map_err(failed)?;
        Ok(ranges.iter().map(|r| bytes.slice(r.start as usize..r.end as usize)).collect())
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
