//! Data objects on their way up: in parts, side by side, in bounded memory. A part that fails is
//! sent again by itself.

use std::fmt::Display;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error as Cause, ObjectStoreExt};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::Store;
use super::client::LOCAL_FILE;
use crate::{Error, Result};

/// Larger objects go in parts of this size.
pub(super) const PART: u64 = 8 << 20;
/// Bytes of a part, of all but the largest objects.
pub const PIECE: usize = PART as usize;
/// Parts on their way at a time: with one being hashed, the memory that an upload takes.
pub(super) const PARTS_AT_ONCE: usize = 8;
/// Most parts that S3 takes for one object.
const PARTS: u64 = 10_000;
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
        part.await.map_err(|source| Cause::Generic { store: LOCAL_FILE, source: Box::new(source) })
    }
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// Consecutive ranges of `part` bytes over `from..size`.
pub(super) fn ranges(from: u64, size: u64, part: u64) -> impl Iterator<Item = Range<u64>> {
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
