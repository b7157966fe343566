//! Data objects on their way down: in parts, side by side, in bounded memory. A part that fails is
//! asked again by itself.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as Cause, GetOptions, GetRange};
use tokio::task::JoinHandle;

use super::client::{Client, LOCAL_FILE};
use super::digest::Digest;
use super::object::is_absence;
use super::transfer::{PART, PARTS_AT_ONCE, blocking, ranges};
use super::{Key, ObjectEntry, Store};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// How often an object is read before its digest counts as wrong: bytes can change on their way.
const READS: usize = 3;

/// What has arrived of a part is hashed and written when it has so many bytes, or ends.
const BATCH: usize = 1 << 20;

impl Store {
    /// Reads `entry` of artifact `id` whole and checks its size and digest.
    ///
    /// # Errors
    /// [`Error::Data`] when it is missing, cut short or changed.
    pub async fn read_entry(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<Bytes> {
        let mut all = BytesMut::new();
        self.receive(id, entry, &Sink::Memory, 0, Digest::default(), |part| {
            // The digest was wrong, and all comes again.
            if part.start == 0 {
                all.clear();
                all.reserve(part.object as usize);
            }
            part.kept.iter().for_each(|piece| all.extend_from_slice(piece));
        })
        .await?;
        Ok(all.freeze())
    }

    /// Checks `entry` of artifact `id` as [`Store::read_entry`] does, in bounded memory.
    pub async fn verify_entry(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<()> {
        self.receive(id, entry, &Sink::Nothing, 0, Digest::default(), |_| ()).await
    }

    /// Gives the bytes of `entry` of artifact `id` to `take` in order, each piece with its place, in
    /// bounded memory. They may be believed once this returns: it has checked size and digest. Where
    /// the digest was wrong, all comes again from byte 0.
    pub async fn scan_entry(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        mut take: impl FnMut(u64, &[u8]),
    ) -> Result<()> {
        self.receive(id, entry, &Sink::Memory, 0, Digest::default(), |part| {
            let mut at = part.start;
            for piece in &part.kept {
                take(at, piece);
                at += piece.len() as u64;
            }
        })
        .await
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
        let failed = |e| Error::try_again(format!("{}: {e}", part.display()));
        let (name, size) = (part.clone(), entry.size);
        let (file, from, digest) =
            blocking(move || continued(&name, size)).await.map_err(failed)?;
        let sink = Sink::File(Arc::new(file), part.clone());
        let received = self.receive(id, entry, &sink, from, digest, |_| ()).await;
        if let Err(Error::Data(_)) = received {
            // Nothing to continue from.
            std::fs::remove_file(&part).ok();
        }
        received?;
        std::fs::rename(&part, target).map_err(failed)
    }

    /// Gives the parts of `entry` from byte `from` on to `sink`, and in order to `arrived`, and
    /// checks size and digest. `digest` has taken in what lies before `from`. Where it is wrong in
    /// the end, all is read once more from the start.
    async fn receive(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        sink: &Sink,
        mut from: u64,
        mut digest: Digest,
        mut arrived: impl FnMut(Part),
    ) -> Result<()> {
        let key = entry.key(id);
        let path = self.path(&key);
        let mut found = String::new();
        for _ in 0..READS {
            // Alone, as it tells whether the object has the size that the others are cut from.
            let first = from..entry.size.min(from.saturating_add(PART));
            let others = ranges(first.end, entry.size, PART);
            let whole = from == 0 && entry.size <= PART;
            let (client, place) = (self.client.clone(), path.clone());
            let first = match fetch(client, place, first, whole, sink.clone()).await {
                Ok(part) if part.object == entry.size => part,
                Ok(part) => return Err(self.missized(&key, Some(part.object), entry)),
                Err(e) if is_absence(&e) => return Err(self.missized(&key, None, entry)),
                // The range may lie behind its end.
                Err(e) => match self.size(&key).await {
                    Ok(size) if size != Some(entry.size) => {
                        return Err(self.missized(&key, size, entry));
                    }
                    _ => return Err(self.failure(&key, &e)),
                },
            };
            let parts = stream::iter(others).map(|range| {
                let (client, path, sink) = (self.client.clone(), path.clone(), sink.clone());
                // It goes on while others are looked at.
                let task = Task(tokio::spawn(fetch(client, path, range, false, sink)));
                async {
                    let mut task = task;
                    (&mut task.0).await?
                }
            });
            let parts = stream::iter([Ok(first)]).chain(parts.buffered(PARTS_AT_ONCE));
            let mut parts = std::pin::pin!(parts);
            while let Some(part) = parts.try_next().await.map_err(|e| self.failure(&key, &e))? {
                digest.push(part.hasher.clone());
                arrived(part);
            }
            found = std::mem::take(&mut digest).finish().to_hex().to_string();
            if found == entry.digest {
                return Ok(());
            }
            from = 0;
        }
        let expected = &entry.digest;
        let why = format!("digest {found} where its commit record says {expected}");
        Err(self.broken(&key, why))
    }

    /// Checks that the object of `entry` is there in its full size, without reading it.
    pub(super) async fn check_size(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<()> {
        let key = entry.key(id);
        match self.size(&key).await? {
            Some(size) if size == entry.size => Ok(()),
            found => Err(self.missized(&key, found, entry)),
        }
    }

    fn missized(&self, key: &Key, found: Option<u64>, entry: &ObjectEntry) -> Error {
        let why = match found {
            None => "no such object, though its commit record lists it".into(),
            Some(size) => format!("{size} bytes where its commit record says {}", entry.size),
        };
        self.broken(key, why)
    }

    fn broken(&self, key: &Key, why: String) -> Error {
        Error::data(format!("{}: {why}", self.place(key)))
    }
}

/// A file to go on with, from which byte, and the digest of what lies before. The download before
/// wrote its parts in any order, but none that was [`PARTS_AT_ONCE`] ahead of one unfinished.
fn continued(part: &std::path::Path, size: u64) -> std::io::Result<(File, u64, Digest)> {
    let mut open = File::options();
    let file = open.read(true).write(true).create(true).truncate(false).open(part)?;
    let found = file.metadata()?.len();
    let whole = if found > size { 0 } else { (found / PART).saturating_sub(PARTS_AT_ONCE as u64) };
    let mut digest = Digest::default();
    let mut bytes = vec![0; PART as usize];
    for range in ranges(0, whole * PART, PART) {
        file.read_exact_at(&mut bytes, range.start)?;
        let mut hasher = Digest::hasher(range.start);
        hasher.update(&bytes);
        digest.push(hasher);
    }
    file.set_len(whole * PART)?;
    Ok((file, whole * PART, digest))
}

/// Where the bytes of a download go.
#[derive(Clone)]
enum Sink {
    Nothing,
    /// They stay in the part.
    Memory,
    File(Arc<File>, PathBuf),
}

/// What has arrived of a part.
struct Part {
    /// Bytes of the whole object.
    object: u64,
    /// Where in the object it begins.
    start: u64,
    /// Where in the object the next bytes belong that are hashed and written.
    at: u64,
    hasher: Hasher,
    waiting: Vec<Bytes>,
    /// Bytes in `waiting`.
    bytes: usize,
    /// All of it, where it stays in memory.
    kept: Vec<Bytes>,
}

impl Part {
    fn new(at: u64) -> Self {
        let hasher = Digest::hasher(at);
        Self { object: 0, start: at, at, hasher, waiting: Vec::new(), bytes: 0, kept: Vec::new() }
    }

    async fn take(mut self, piece: Bytes, sink: Sink) -> Result<Self, Cause> {
        self.bytes += piece.len();
        self.waiting.push(piece);
        if self.bytes < BATCH { Ok(self) } else { self.store(sink).await }
    }

    /// Hashes and writes what waits, while it is in the processor's cache.
    async fn store(mut self, sink: Sink) -> Result<Self, Cause> {
        let stored = blocking(move || {
            let pieces = std::mem::take(&mut self.waiting);
            for piece in &pieces {
                self.hasher.update(piece);
            }
            if let Sink::File(file, path) = &sink {
                let mut at = self.at;
                for piece in &pieces {
                    let failed = |e| std::io::Error::other(format!("{}: {e}", path.display()));
                    file.write_all_at(piece, at).map_err(failed)?;
                    at += piece.len() as u64;
                }
            }
            self.at += self.bytes as u64;
            if let Sink::Memory = sink {
                self.kept.extend(pieces);
            }
            self.bytes = 0;
            Ok(self)
        });
        stored.await.map_err(|e| Cause::Generic { store: LOCAL_FILE, source: Box::new(e) })
    }
}

/// Fetches `range` of an object into `sink`, or the whole object.
async fn fetch(
    client: Client,
    path: Path,
    range: Range<u64>,
    whole: bool,
    sink: Sink,
) -> Result<Part, Cause> {
    let (at, limit) = (range.start, range.end - range.start);
    // A whole object by a plain GET, which an empty one allows as well.
    let options =
        GetOptions { range: (!whole).then_some(GetRange::Bounded(range)), ..Default::default() };
    let take = |part: Part, piece| part.take(piece, sink.clone());
    let (found, part) = client.fetch_into(&path, options, limit, || Part::new(at), take).await?;
    let part = part.store(sink).await?;
    Ok(Part { object: found.meta.size, ..part })
}

/// A task that ends with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
