//! Data objects on their way: in parts, side by side, in bounded memory. A part that fails is
//! sent or asked again by itself.

use std::fmt::Display;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error as Cause, GetOptions, GetRange, ObjectStoreExt};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::object::is_absence;
use super::{Key, ObjectEntry, Store};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// Larger objects go in parts of this size.
pub(super) const PART: u64 = 8 << 20;
/// Bytes of a part, of all but the largest objects.
pub const PIECE: usize = PART as usize;
/// Parts on their way at a time: with one being hashed, the memory that a transfer takes.
const PARTS_AT_ONCE: usize = 8;
/// Most parts that S3 takes for one object.
const PARTS: u64 = 10_000;
/// How often an object is read before its digest counts as wrong: bytes can change on their way.
const READS: usize = 3;

/// Bytes to upload.
#[derive(Debug, Clone)]
pub enum Source {
    Bytes(Bytes),
    /// A file and its size. It must not change meanwhile.
    File(Arc<File>, u64),
    /// Bytes that are still being made, in order, and how many there will be.
    Flow(Arc<Mutex<Flow>>, u64),
}

/// The end of a [`Source::flow`] from which it is uploaded.
#[derive(Debug)]
pub struct Flow {
    arriving: Receiver<Bytes>,
    rest: Bytes,
}

impl Flow {
    /// The next `length` bytes.
    async fn next(&mut self, length: usize) -> std::io::Result<Bytes> {
        let mut part = BytesMut::new();
        while part.len() < length {
            if self.rest.is_empty() {
                let more = self.arriving.recv().await;
                self.rest = more.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            }
            let taken = self.rest.split_to(self.rest.len().min(length - part.len()));
            if taken.len() == length {
                return Ok(taken);
            }
            part.reserve(length - part.len());
            part.extend_from_slice(&taken);
        }
        Ok(part.freeze())
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Source {
    /// Opens the file at `path`.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok(Self::File(Arc::new(file), size))
        };
        open().map_err(|e: std::io::Error| Error::data(format!("{}: {e}", path.display())))
    }

    /// A source of `size` bytes, and where to put them, in order and in pieces of any length: of
    /// [`PIECE`] they are not copied. An upload that fails closes it; whoever closes it early fails
    /// the upload.
    pub fn flow(size: u64) -> (Sender<Bytes>, Self) {
        let (sender, arriving) = channel(1);
        let flow = Flow { arriving, rest: Bytes::new() };
        (sender, Self::Flow(Arc::new(Mutex::new(flow)), size))
    }

    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) | Self::Flow(_, size) => *size,
        }
    }

    /// The bytes of `range`, taken into `hasher`.
    async fn part(&self, range: Range<u64>, mut hasher: Hasher) -> Result<(Bytes, Hasher), Cause> {
        let length = (range.end - range.start) as usize;
        let source = self.clone();
        let part = async {
            let arrived = match &source {
                Self::Flow(flow, _) => flow.lock().await.next(length).await?,
                _ => Bytes::new(),
            };
            blocking(move || {
                let bytes = match source {
                    Self::Bytes(bytes) => bytes.slice(range.start as usize..range.end as usize),
                    Self::File(file, _) => {
                        let mut bytes = vec![0; length];
                        file.read_exact_at(&mut bytes, range.start)?;
                        bytes.into()
                    }
                    Self::Flow(..) => arrived,
                };
                hasher.update(&bytes);
                Ok((bytes, hasher))
            })
            .await
        };
        part.await.map_err(|source| Cause::Generic { store: "file", source: Box::new(source) })
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// Consecutive ranges of `part` bytes over `from..size`.
fn ranges(from: u64, size: u64, part: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::successors(Some(from), move |at| at.checked_add(part));
    starts.take_while(move |&at| at < size).map(move |at| at..size.min(at.saturating_add(part)))
}

impl Store {
    /// Writes an object that nobody else writes, and gives its digest.
    pub(super) async fn upload(
        &self,
        key: &(dyn Display + Sync),
        source: &Source,
    ) -> Result<String> {
        let path = self.path(key);
        let done = match (source, self.client.parts.clone()) {
            (_, Some(parts)) if source.size() > PART => {
                self.upload_parts(parts, &path, source).await
            }
            (Source::File(..) | Source::Flow(..), None) if source.size() > PART => {
                self.upload_stream(&path, source).await
            }
            _ => {
                let part = source.part(0..source.size(), Hasher::new()).await;
                match part {
                    Ok((bytes, hasher)) => {
                        self.client.put(&path, bytes.into()).await.map(|_| hasher)
                    }
                    Err(e) => Err(e),
                }
            }
        };
        let hasher = done.map_err(|e| self.failure(key, &e))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    async fn upload_parts(
        &self,
        store: Arc<dyn MultipartStore>,
        path: &Path,
        source: &Source,
    ) -> Result<Hasher, Cause> {
        let id = self.client.repeat(|| store.create_multipart(path)).await?;
        let done = match self.send_parts(&store, path, &id, source).await {
            Ok((parts, hasher)) => {
                self.complete(&store, path, &id, parts, source.size()).await.map(|()| hasher)
            }
            Err(e) => Err(e),
        };
        if done.is_err()
            && let Err(e) = store.abort_multipart(path, &id).await
        {
            tracing::debug!("{path}: the parts of a failed upload stay: {e}");
        }
        done
    }

    async fn send_parts(
        &self,
        store: &Arc<dyn MultipartStore>,
        path: &Path,
        id: &str,
        source: &Source,
    ) -> Result<(Vec<PartId>, Hasher), Cause> {
        let size = source.size();
        let mut hasher = Hasher::new();
        let mut sent = Vec::new();
        // Tasks of their own, as each part is also hashed for its signature.
        let mut running: JoinSet<Result<(usize, PartId), Cause>> = JoinSet::new();
        let part = PART.max(size.div_ceil(PARTS));
        for (index, range) in ranges(0, size, part).enumerate() {
            if running.len() >= PARTS_AT_ONCE
                && let Some(done) = running.join_next().await
            {
                sent.push(done??);
            }
            let (bytes, so_far) = source.part(range, hasher).await?;
            hasher = so_far;
            let (client, store) = (self.client.clone(), store.clone());
            let (path, id) = (path.clone(), id.to_string());
            running.spawn(async move {
                let part = client.put_part(&*store, &path, &id, index, bytes).await?;
                Ok((index, part))
            });
        }
        while let Some(done) = running.join_next().await {
            sent.push(done??);
        }
        sent.sort_by_key(|(index, _)| *index);
        Ok((sent.into_iter().map(|(_, part)| part).collect(), hasher))
    }

    /// The answer can get lost, and a repetition then finds no such upload: the object tells.
    async fn complete(
        &self,
        store: &Arc<dyn MultipartStore>,
        path: &Path,
        id: &String,
        parts: Vec<PartId>,
        size: u64,
    ) -> Result<(), Cause> {
        let done = self.client.repeat(|| store.complete_multipart(path, id, parts.clone())).await;
        match done {
            Err(error @ (Cause::NotFound { .. } | Cause::Generic { .. })) => {
                match self.client.head(path).await {
                    Ok(meta) if meta.size == size => Ok(()),
                    _ => Err(error),
                }
            }
            done => done.map(drop),
        }
    }

    /// For stores that take the parts of a stream in order only.
    async fn upload_stream(&self, path: &Path, source: &Source) -> Result<Hasher, Cause> {
        let mut upload = self.client.put_multipart(path).await?;
        let mut hasher = Hasher::new();
        let done = async {
            for range in ranges(0, source.size(), PART) {
                let (bytes, so_far) = source.part(range, hasher).await?;
                hasher = so_far;
                let length = bytes.len() as u64;
                upload.put_part(bytes.into()).await?;
                self.client.wrote(length);
            }
            upload.complete().await.map(|_| hasher)
        };
        let done = done.await;
        if done.is_err()
            && let Err(e) = upload.abort().await
        {
            tracing::debug!("{path}: the part of a failed upload stays: {e}");
        }
        done
    }

    /// The parts of an object from byte `from` on, in order.
    fn parts(
        &self,
        path: &Path,
        size: u64,
        from: u64,
    ) -> impl Stream<Item = Result<Bytes, Cause>> + Send {
        let client = self.client.clone();
        let path = path.clone();
        stream::iter(ranges(from, size, PART))
            .map(move |range| {
                let (client, path) = (client.clone(), path.clone());
                // A task of its own: it goes on while the part before is hashed and written.
                let task = Task(tokio::spawn(async move {
                    let length = range.end - range.start;
                    let range = Some(GetRange::Bounded(range));
                    let options = GetOptions { range, ..Default::default() };
                    client.fetch(&path, options, length).await.map(|(_, bytes)| bytes)
                }));
                async move {
                    let mut task = task;
                    (&mut task.0).await?
                }
            })
            .buffered(PARTS_AT_ONCE)
    }

    /// Checks that the object of `entry` is there in its full size, without reading it.
    pub(super) async fn check_size(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<()> {
        let key = entry.key(id);
        match self.size(&key).await? {
            Some(size) if size == entry.size => Ok(()),
            found => Err(self.broken(&key, missized(found, entry))),
        }
    }

    fn broken(&self, key: &Key, why: String) -> Error {
        Error::data(format!("{}: {why}", self.place(key)))
    }

    /// Reads `entry` of artifact `id` whole and checks its size and digest.
    ///
    /// # Errors
    /// [`Error::Data`] when it is missing, cut short or changed.
    pub async fn read_entry(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<Bytes> {
        let mut sink = Sink::Memory(BytesMut::new());
        self.receive(id, entry, 0, Hasher::new(), &mut sink).await?;
        match sink {
            Sink::Memory(bytes) => Ok(bytes.freeze()),
            _ => Ok(Bytes::new()),
        }
    }

    /// Checks `entry` of artifact `id` as [`Store::read_entry`] does, in bounded memory.
    pub async fn verify_entry(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<()> {
        self.receive(id, entry, 0, Hasher::new(), &mut Sink::Nothing).await
    }

    /// Downloads `entry` of artifact `id` into `target`, checking size and digest, in bounded
    /// memory. It grows in the file beside it, from which an interrupted download continues.
    pub async fn download(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        target: &std::path::Path,
    ) -> Result<()> {
        let part = target.with_added_extension("part");
        let failed = |e| local(&part, e);
        let (name, size) = (part.clone(), entry.size);
        let (file, from, hasher) = blocking(move || {
            let mut open = File::options();
            let file = open.read(true).write(true).create(true).truncate(false).open(&name)?;
            let mut hasher = Hasher::new();
            let from = file.metadata()?.len();
            if from > size {
                file.set_len(0)?;
                return Ok((file, 0, hasher));
            }
            hasher.update_reader(&file)?;
            Ok((file, from, hasher))
        })
        .await
        .map_err(failed)?;
        let mut sink = Sink::File(Arc::new(file), part.clone());
        let received = self.receive(id, entry, from, hasher, &mut sink).await;
        if let Err(Error::Data(_)) = received {
            // Nothing to continue from.
            std::fs::remove_file(&part).ok();
        }
        received?;
        std::fs::rename(&part, target).map_err(failed)
    }

    /// Gives the parts of `entry` from byte `from` on to `sink` and checks size and digest.
    /// `hasher` has taken in what lies before `from`. Where the digest is wrong, all is read once
    /// more from the start.
    async fn receive(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        from: u64,
        mut hasher: Hasher,
        sink: &mut Sink,
    ) -> Result<()> {
        let key = entry.key(id);
        let path = self.path(&key);
        let mut found = String::new();
        let mut at = from;
        for _ in 0..READS {
            if at < entry.size || entry.size == 0 {
                let (size, first) = self.first_part(&key, &path, entry.size, at).await?;
                if size != Some(entry.size) {
                    return Err(self.broken(&key, missized(size, entry)));
                }
                let rest = self.parts(&path, entry.size, at + first.len() as u64);
                let mut parts = std::pin::pin!(stream::iter([Ok(first)]).chain(rest));
                while let Some(bytes) =
                    parts.try_next().await.map_err(|e| self.failure(&key, &e))?
                {
                    let length = bytes.len() as u64;
                    hasher = sink.take(at, bytes, entry.size, hasher).await?;
                    at += length;
                }
            }
            found = hasher.finalize().to_hex().to_string();
            if found == entry.digest {
                return Ok(());
            }
            hasher.reset();
            at = 0;
        }
        let expected = &entry.digest;
        let why = format!("digest {found} where its commit record says {expected}");
        Err(self.broken(&key, why))
    }

    /// The first part from byte `from` on of an object that should have `size` bytes, and the
    /// size that it has; `None` when it does not exist.
    async fn first_part(
        &self,
        key: &Key,
        path: &Path,
        size: u64,
        from: u64,
    ) -> Result<(Option<u64>, Bytes)> {
        // A whole object by a plain GET, which an empty one allows as well.
        let whole = from == 0 && size <= PART;
        let range = from..size.min(from.saturating_add(PART));
        let range = (!whole).then_some(GetRange::Bounded(range));
        let options = GetOptions { range, ..Default::default() };
        match self.client.fetch(path, options, PART).await {
            Ok((found, bytes)) => Ok((Some(found.meta.size), bytes)),
            Err(e) if is_absence(&e) => Ok((None, Bytes::new())),
            // The range lies behind its end.
            Err(e) => match self.size(key).await {
                Ok(found) if found != Some(size) => Ok((found, Bytes::new())),
                _ => Err(self.failure(key, &e)),
            },
        }
    }
}

/// A task that ends with whoever waits for it.
struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a download goes.
enum Sink {
    Nothing,
    Memory(BytesMut),
    File(Arc<File>, PathBuf),
}

impl Sink {
    /// Takes the bytes at `at` of an object of `size` bytes, and `hasher` takes them in. `at` 0
    /// begins anew.
    async fn take(
        &mut self,
        at: u64,
        bytes: Bytes,
        size: u64,
        mut hasher: Hasher,
    ) -> Result<Hasher> {
        let Self::File(file, path) = self else {
            hasher.update(&bytes);
            if let Self::Memory(all) = self {
                if at == 0 {
                    *all = BytesMut::with_capacity(size as usize);
                }
                all.extend_from_slice(&bytes);
            }
            return Ok(hasher);
        };
        let file = file.clone();
        let write = move || {
            if at == 0 {
                file.set_len(0)?;
            }
            file.write_all_at(&bytes, at)?;
            hasher.update(&bytes);
            Ok(hasher)
        };
        blocking(write).await.map_err(|e| local(path, e))
    }
}

/// A failure of this machine's disk.
fn local(path: &std::path::Path, error: std::io::Error) -> Error {
    Error::try_again(format!("{}: {error}", path.display()))
}

fn missized(found: Option<u64>, entry: &ObjectEntry) -> String {
    match found {
        None => "no such object, though its commit record lists it".into(),
        Some(size) => format!("{size} bytes where its commit record says {}", entry.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once() {
        let all = |from, size, part| -> Vec<_> {
            ranges(from, size, part).map(|range| (range.start, range.end)).collect()
        };
        assert_eq!(all(0, 10, 4), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(all(8, 10, 4), [(8, 10)]);
        assert_eq!(all(0, 0, 4), []);
        assert_eq!(all(u64::MAX - 3, u64::MAX, 8), [(u64::MAX - 3, u64::MAX)]);
    }
}
