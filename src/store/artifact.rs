//! Reading a committed artifact.

use bytes::Bytes;
use serde::Deserialize;

use super::{Key, Manifest, ObjectEntry, Store, record};
use crate::Result;
use crate::id::ArtifactId;

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

/// The version of the layout of the manifest in `json`.
pub(super) fn layout(json: &[u8]) -> Result<u32, String> {
    record::parse(json).map(|Format { format }| format)
}

/// The manifest in `json`, which must be that of artifact `id`.
pub(super) fn parse(json: &[u8], id: &ArtifactId) -> Result<Manifest, String> {
    let no_manifest = |why: String| format!("no manifest: {why}");
    let format = layout(json).map_err(no_manifest)?;
    if format != Manifest::FORMAT {
        return Err(format!(
            "manifest layout {format} where this triad reads {}; use a newer triad",
            Manifest::FORMAT
        ));
    }
    let manifest: Manifest = record::parse(json).map_err(no_manifest)?;
    if manifest.id != *id || ArtifactId::of(&manifest.identity) != *id {
        return Err("the identity inside is another artifact's".into());
    }
    Ok(manifest)
}

impl Artifact {
    /// Opens artifact `id`; `None` when it is not committed.
    pub async fn open(store: &Store, id: &ArtifactId) -> Result<Option<Self>> {
        let key = Key::Manifest(id.clone());
        let manifest = store.record(&key, |json| parse(json, id)).await?;
        Ok(manifest.map(|manifest| Self { store: store.clone(), manifest }))
    }

    /// Reads one object and checks its size and digest.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) when the object is missing, cut short or changed.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.read_entry(&self.manifest.id, self.manifest.object(path)?).await
    }
}

impl Store {
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
