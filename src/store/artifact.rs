//! Reading a committed artifact.

use std::ops::Range;

use bytes::Bytes;

use super::{Key, Manifest, ObjectEntry, Store};
use crate::Result;
use crate::id::ArtifactId;

/// A committed artifact, read through its manifest only.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub store: Store,
    pub manifest: Manifest,
}

impl Artifact {
    /// Opens artifact `id`; `None` when it is not committed.
    pub async fn open(store: &Store, id: &ArtifactId) -> Result<Option<Self>> {
        let key = Key::Manifest(id.clone());
        let manifest = store.record(&key, |json| Manifest::parse(json, id)).await?;
        Ok(manifest.map(|manifest| Self { store: store.clone(), manifest }))
    }

    /// Reads one object and checks its size and digest.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) when the object is missing, cut short or changed.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.read_entry(&self.manifest.id, self.manifest.object(path)?).await
    }

    /// Reads a range of one object and checks the object's size, not its digest.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        self.store.read_range(&self.manifest.id, self.manifest.object(path)?, range).await
    }
}

impl Store {
    /// Reads a range of `entry` of artifact `id` and checks the object's size, not its digest.
    pub async fn read_range(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        range: Range<u64>,
    ) -> Result<Bytes> {
        self.range(&entry.key(id), entry.size, range).await
    }

    /// Checks that `entries` of artifact `id` are there in their full size, without reading them.
    pub(super) async fn check_entries(
        &self,
        id: &ArtifactId,
        entries: &[ObjectEntry],
    ) -> Result<()> {
        for entry in entries {
            self.check_size(id, entry).await?;
        }
        Ok(())
    }
}
