//! Reading a committed artifact; writing one attempt at it and committing.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Key, Manifest, ObjectEntry, Store};
use crate::id::{ArtifactId, digest};
use crate::{Error, Result, entropy};

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
        let Some(bytes) = store.get(&key).await? else { return Ok(None) };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| Error::data(format!("{key}: {e}")))?;
        if manifest.id != *id || ArtifactId::of(&manifest.identity) != *id {
            return Err(Error::data(format!("{key}: the identity inside is another artifact's")));
        }
        Ok(Some(Self { store: store.clone(), manifest }))
    }

    /// Reads one object and checks its size and digest.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        read_object(&self.store, &self.manifest.id, self.manifest.object(path)?).await
    }
}

/// Reads `entry` of artifact `id` and checks its size and digest.
async fn read_object(store: &Store, id: &ArtifactId, entry: &ObjectEntry) -> Result<Bytes> {
    let key = entry.key(id);
    let bytes = store.get(&key).await?.ok_or_else(|| {
        Error::data(format!("{key}: the manifest lists it, the store has no such object"))
    })?;
    if bytes.len() as u64 != entry.size {
        return Err(Error::data(format!(
            "{key}: {} bytes where the manifest says {}",
            bytes.len(),
            entry.size
        )));
    }
    let found = digest(&bytes);
    if found != entry.digest {
        return Err(Error::data(format!(
            "{key}: digest {found} where the manifest says {}",
            entry.digest
        )));
    }
    Ok(bytes)
}

/// One attempt at making artifact `id`: writes objects below its own name, then commits them.
pub struct Attempt {
    store: Store,
    id: ArtifactId,
    name: String,
    objects: Vec<ObjectEntry>,
}

/// The commit record of a checkpoint inside a long job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    pub step: u64,
    /// Output objects finished so far; they go into the manifest as they are.
    pub objects: Vec<ObjectEntry>,
    /// State that only a resumed attempt reads (weights, optimizer).
    pub state: Vec<ObjectEntry>,
}

impl Attempt {
    pub fn new(store: &Store, id: &ArtifactId) -> Self {
        Self {
            store: store.clone(),
            id: id.clone(),
            name: entropy::attempt_name(),
            objects: Vec::new(),
        }
    }

    async fn upload(&self, path: &str, bytes: Bytes, rows: Option<u64>) -> Result<ObjectEntry> {
        let entry = ObjectEntry {
            path: path.into(),
            attempt: self.name.clone(),
            size: bytes.len() as u64,
            digest: digest(&bytes),
            rows,
        };
        self.store.put(&entry.key(&self.id), bytes).await?;
        Ok(entry)
    }

    /// Writes one output object. `rows` for a dataset's part.
    pub async fn write(&mut self, path: &str, bytes: Bytes, rows: Option<u64>) -> Result<()> {
        let entry = self.upload(path, bytes, rows).await?;
        self.objects.push(entry);
        Ok(())
    }

    /// Commits a checkpoint after `step`: `state` is what a resumed attempt needs besides the
    /// objects written so far.
    pub async fn commit_step(&mut self, step: u64, state: Vec<(String, Bytes)>) -> Result<()> {
        let mut entries = Vec::with_capacity(state.len());
        for (path, bytes) in state {
            entries.push(self.upload(&format!("steps/{step:08}/{path}"), bytes, None).await?);
        }
        let record = StepRecord { step, objects: self.objects.clone(), state: entries };
        let json = serde_json::to_vec_pretty(&record).map_err(Error::defect)?;
        self.store.create(&Key::Step { id: self.id.clone(), step }, json.into()).await?;
        Ok(())
    }

    /// The newest committed checkpoint, if any: its step and state objects by path. The objects
    /// it lists become this attempt's own.
    pub async fn resume(&mut self) -> Result<Option<(u64, Vec<(String, Bytes)>)>> {
        let Some(&step) = self.store.steps(&self.id).await?.last() else { return Ok(None) };
        let key = Key::Step { id: self.id.clone(), step };
        let Some(json) = self.store.get(&key).await? else { return Ok(None) };
        let record: StepRecord =
            serde_json::from_slice(&json).map_err(|e| Error::data(format!("{key}: {e}")))?;
        let prefix = format!("steps/{step:08}/");
        let mut state = Vec::with_capacity(record.state.len());
        for entry in &record.state {
            let bytes = read_object(&self.store, &self.id, entry).await?;
            let path = entry.path.strip_prefix(&prefix).unwrap_or(&entry.path);
            state.push((path.to_string(), bytes));
        }
        self.objects = record.objects;
        Ok(Some((step, state)))
    }

    /// Commits shard `index` of `of`. When that completes the set, the objects of all shards
    /// become this attempt's own and the answer is `true`: the caller commits the manifest.
    pub async fn commit_shard(&mut self, index: u32, of: u32) -> Result<bool> {
        let json = serde_json::to_vec_pretty(&self.objects).map_err(Error::defect)?;
        self.store.create(&Key::Shard { id: self.id.clone(), index, of }, json.into()).await?;
        let mut all = Vec::new();
        for index in 0..of {
            let key = Key::Shard { id: self.id.clone(), index, of };
            let Some(json) = self.store.get(&key).await? else { return Ok(false) };
            let mut objects: Vec<ObjectEntry> =
                serde_json::from_slice(&json).map_err(|e| Error::data(format!("{key}: {e}")))?;
            all.append(&mut objects);
        }
        self.objects = all;
        Ok(true)
    }

    /// Commits the artifact and returns the manifest that stands: this one, or that of the
    /// attempt that was faster.
    pub async fn commit(&mut self, mut manifest: Manifest) -> Result<Manifest> {
        self.objects.sort_by(|a, b| a.path.cmp(&b.path));
        manifest.objects = std::mem::take(&mut self.objects);
        let json = serde_json::to_vec_pretty(&manifest).map_err(Error::defect)?;
        let key = Key::Manifest(self.id.clone());
        if self.store.create(&key, json.into()).await? {
            return Ok(manifest);
        }
        let winner = Artifact::open(&self.store, &self.id).await?;
        winner.map(|artifact| artifact.manifest).ok_or_else(|| {
            Error::try_again(format!("{key}: exists and cannot be read; run the same command again"))
        })
    }
}
