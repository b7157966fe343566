//! Reading a committed artifact.

use bytes::Bytes;
use serde::Deserialize;

use super::{Key, Manifest, ObjectEntry, Store};
use crate::id::{ArtifactId, digest};
use crate::{Error, Result};

/// A committed artifact, read through its manifest only.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub store: Store,
    pub manifest: Manifest,
}

/// The one field that every layout of the manifest has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Artifact {
    /// Opens artifact `id`; `None` when it is not committed.
    pub async fn open(store: &Store, id: &ArtifactId) -> Result<Option<Self>> {
        let key = Key::Manifest(id.clone());
        let Some(bytes) = store.get(&key).await? else { return Ok(None) };
        let broken = |why: String| Error::data(format!("{}: {why}", store.place(&key)));
        let Format { format } =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("no manifest: {e}")))?;
        if format != Manifest::FORMAT {
            return Err(broken(format!(
                "manifest layout {format} where this triad reads {}; use a newer triad",
                Manifest::FORMAT
            )));
        }
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("no manifest: {e}")))?;
        if manifest.id != *id || ArtifactId::of(&manifest.identity) != *id {
            return Err(broken("the identity inside is another artifact's".into()));
        }
        Ok(Some(Self { store: store.clone(), manifest }))
    }

    /// Reads one object and checks its size and digest.
    ///
    /// # Errors
    /// [`Error::Data`] when the object is missing, cut short or changed.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.read_entry(&self.manifest.id, self.manifest.object(path)?).await
    }
}

impl Store {
    /// Reads `entry` of artifact `id` and checks its size and digest.
    pub(super) async fn read_entry(&self, id: &ArtifactId, entry: &ObjectEntry) -> Result<Bytes> {
        let key = entry.key(id);
        let broken = |why: String| Error::data(format!("{}: {why}", self.place(&key)));
        let bytes = self
            .get(&key)
            .await?
            .ok_or_else(|| broken("no such object, though its commit record lists it".into()))?;
        if bytes.len() as u64 != entry.size {
            return Err(broken(format!(
                "{} bytes where its commit record says {}",
                bytes.len(),
                entry.size
            )));
        }
        let found = digest(&bytes);
        if found != entry.digest {
            return Err(broken(format!(
                "digest {found} where its commit record says {}",
                entry.digest
            )));
        }
        Ok(bytes)
    }

    /// Checks that `entries` of artifact `id` are there in their full size, without reading them.
    pub(super) async fn check_entries(
        &self,
        id: &ArtifactId,
        entries: &[ObjectEntry],
    ) -> Result<()> {
        for entry in entries {
            let key = entry.key(id);
            let found = self.size(&key).await?;
            if found != Some(entry.size) {
                return Err(Error::data(format!(
                    "{}: {} where its commit record says {} bytes",
                    self.place(&key),
                    found.map_or("no such object".into(), |size| format!("{size} bytes")),
                    entry.size
                )));
            }
        }
        Ok(())
    }
}
