//! Writing one attempt at an artifact, and committing it: whole, by shards, or step by step.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{parse, seal};
use super::{Artifact, Key, Manifest, ObjectEntry, Part, SchemaRef, Source, Store};
use crate::id::ArtifactId;
use crate::{Error, Result, entropy};

/// One attempt at making artifact `id`: writes objects below its own name, then commits them.
pub struct Attempt {
    store: Store,
    id: ArtifactId,
    name: String,
    objects: Vec<ObjectEntry>,
    /// Commit records found unusable, which this attempt may overwrite.
    broken: BTreeSet<String>,
}

/// What a checkpoint or a shard has finished of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portion {
    pub objects: Vec<ObjectEntry>,
    pub datasets: BTreeMap<String, SchemaRef>,
    pub summary: BTreeMap<String, Value>,
}

impl Portion {
    /// Takes in another shard's portion. Counts are added up; any other summary entry stays only
    /// where both say the same, for it would depend on the number of shards.
    fn merge(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.datasets.extend(other.datasets);
        let theirs = &other.summary;
        self.summary.retain(|name, ours| match theirs.get(name) {
            None => ours.is_u64(),
            Some(value) => (ours.is_u64() && value.is_u64()) || ours == value,
        });
        for (name, value) in theirs {
            let ours = self.summary.get(name).map_or(Some(0), Value::as_u64);
            if let (Some(a), Some(b)) = (ours, value.as_u64()) {
                self.summary.insert(name.clone(), (a + b).into());
            }
        }
    }
}

/// The commit record of a checkpoint inside a long job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    pub step: u64,
    pub portion: Portion,
    /// State that only a resumed attempt reads (weights, optimizer).
    pub state: Vec<ObjectEntry>,
}

impl Store {
    /// The state object `path` of the newest checkpoint inside artifact `id`; `None` without one.
    pub async fn latest_state(&self, id: &ArtifactId, path: &str) -> Result<Option<Bytes>> {
        let Some(step) = self.steps(id).await?.pop() else { return Ok(None) };
        let key = Key::Step { id: id.clone(), step };
        let Some(record) = self.record(&key, parse::<StepRecord>).await? else { return Ok(None) };
        let path = format!("steps/{step:08}/{path}");
        let Some(entry) = record.state.iter().find(|entry| entry.path == path) else {
            return Ok(None);
        };
        self.read_entry(id, entry).await.map(Some)
    }
}

/// Where a long job continues.
pub struct Resumed {
    pub step: u64,
    /// State objects by path.
    pub state: Vec<(String, Bytes)>,
    pub datasets: BTreeMap<String, SchemaRef>,
    pub summary: BTreeMap<String, Value>,
}

/// Whose manifest stands after a commit.
#[derive(Debug, Clone)]
pub enum Commit {
    Ours(Manifest),
    /// Another attempt was faster; this attempt's objects are garbage.
    Theirs(Manifest),
}

impl Attempt {
    pub fn new(store: &Store, id: &ArtifactId) -> Self {
        Self {
            store: store.clone(),
            id: id.clone(),
            name: entropy::attempt_name(),
            objects: Vec::new(),
            broken: BTreeSet::new(),
        }
    }

    /// An attempt whose commit takes the place of a damaged artifact's.
    pub fn again(store: &Store, id: &ArtifactId) -> Self {
        let broken = BTreeSet::from([Key::Manifest(id.clone()).to_string()]);
        Self { broken, ..Self::new(store, id) }
    }

    async fn upload(&self, path: &str, source: Source) -> Result<ObjectEntry> {
        let mut entry = ObjectEntry {
            path: path.into(),
            attempt: self.name.clone(),
            size: source.size(),
            ..Default::default()
        };
        entry.digest = self.store.upload(&entry.key(&self.id), &source).await?;
        Ok(entry)
    }

    /// Writes one output object. `rows` for a dataset's part.
    pub async fn write(
        &mut self,
        path: &str,
        source: impl Into<Source>,
        rows: Option<u64>,
    ) -> Result<()> {
        let entry = ObjectEntry { rows, ..self.upload(path, source.into()).await? };
        self.add(entry);
        Ok(())
    }

    /// Writes one part of a dataset.
    pub async fn write_part(&mut self, path: &str, part: Part) -> Result<()> {
        let Part { bytes, rows, columns } = part;
        let entry = self.upload(path, bytes.into()).await?;
        self.add(ObjectEntry { rows: Some(rows), columns, ..entry });
        Ok(())
    }

    fn add(&mut self, entry: ObjectEntry) {
        self.objects.retain(|object| object.path != entry.path);
        self.objects.push(entry);
    }

    /// Whether the artifact has object `path` by now, of this attempt or one that it continues.
    pub fn has(&self, path: &str) -> bool {
        self.objects.iter().any(|object| object.path == path)
    }

    /// Reads an object of this attempt and takes it out of the artifact: it was for the attempts to
    /// read.
    pub async fn take(&mut self, path: &str) -> Result<Bytes> {
        let place = self.objects.iter().position(|object| object.path == path);
        let place = place.ok_or_else(|| Error::data(format!("no object `{path}`")))?;
        let entry = self.objects.swap_remove(place);
        self.store.read_entry(&self.id, &entry).await
    }

    /// Creates a commit record, or overwrites the one that this attempt found unusable. `false`
    /// when an attempt that was faster has committed the same: its record stands.
    async fn record(&self, key: &Key, record: &impl Serialize) -> Result<bool> {
        let json = seal(record)?;
        if self.broken.contains(&key.to_string()) {
            return self.store.put(key, json).await.map(|()| true);
        }
        self.store.create(key, json).await
    }

    /// Commits a checkpoint after `step`: `state` is what a resumed attempt needs besides the
    /// objects written so far, `datasets` and `summary` go into the manifest in the end.
    pub async fn commit_step(
        &mut self,
        step: u64,
        state: Vec<(String, Bytes)>,
        datasets: &BTreeMap<String, SchemaRef>,
        summary: &BTreeMap<String, Value>,
    ) -> Result<()> {
        let mut entries = Vec::with_capacity(state.len());
        for (path, bytes) in state {
            entries.push(self.upload(&format!("steps/{step:08}/{path}"), bytes.into()).await?);
        }
        let portion = Portion {
            objects: self.objects.clone(),
            datasets: datasets.clone(),
            summary: summary.clone(),
        };
        let record = StepRecord { step, portion, state: entries };
        self.record(&Key::Step { id: self.id.clone(), step }, &record).await.map(drop)
    }

    /// The newest usable checkpoint, if any. The objects it lists become this attempt's own.
    ///
    /// A checkpoint with a missing or damaged object (a bucket cleaned up by age, say) gives way
    /// to the one before it: the work is done again, with the same result.
    pub async fn resume(&mut self) -> Result<Option<Resumed>> {
        for step in self.store.steps(&self.id).await?.into_iter().rev() {
            let key = Key::Step { id: self.id.clone(), step };
            match self.read_step(&key, step).await {
                Ok(Some((portion, state))) => {
                    let Portion { objects, datasets, summary } = portion;
                    self.objects = objects;
                    return Ok(Some(Resumed { step, state, datasets, summary }));
                }
                Ok(None) => {}
                Err(Error::Data(why)) => {
                    tracing::warn!("step {step} cannot be resumed, trying the one before: {why}");
                    self.broken.insert(key.to_string());
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    async fn read_step(
        &self,
        key: &Key,
        step: u64,
    ) -> Result<Option<(Portion, Vec<(String, Bytes)>)>> {
        let Some(record) = self.store.record(key, parse::<StepRecord>).await? else {
            return Ok(None);
        };
        self.store.check_entries(&self.id, &record.portion.objects).await?;
        let prefix = format!("steps/{step:08}/");
        let mut state = Vec::with_capacity(record.state.len());
        for entry in &record.state {
            let bytes = self.store.read_entry(&self.id, entry).await?;
            let path = entry.path.strip_prefix(&prefix).unwrap_or(&entry.path);
            state.push((path.to_string(), bytes));
        }
        Ok(Some((record.portion, state)))
    }

    /// Whether shard `index` of `of` is committed, with all its objects.
    pub async fn has_shard(&mut self, index: u32, of: u32) -> Result<bool> {
        let key = Key::Shard { id: self.id.clone(), index, of };
        match self.read_shard(&key).await {
            Ok(record) => Ok(record.is_some()),
            Err(Error::Data(why)) => {
                tracing::warn!("shard {index} of {of} is made again: {why}");
                self.broken.insert(key.to_string());
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn read_shard(&self, key: &Key) -> Result<Option<Portion>> {
        let Some(record) = self.store.record(key, parse::<Portion>).await? else { return Ok(None) };
        self.store.check_entries(&self.id, &record.objects).await?;
        Ok(Some(record))
    }

    /// Commits the objects written so far as shard `index` of `of`.
    pub async fn commit_shard(
        &mut self,
        index: u32,
        of: u32,
        datasets: BTreeMap<String, SchemaRef>,
        summary: BTreeMap<String, Value>,
    ) -> Result<()> {
        let record = Portion { objects: std::mem::take(&mut self.objects), datasets, summary };
        self.record(&Key::Shard { id: self.id.clone(), index, of }, &record).await.map(drop)
    }

    /// All shards together, once every one is committed. Their objects become this attempt's
    /// own: whoever finds the set complete commits the manifest.
    pub async fn shards(
        &mut self,
        of: u32,
    ) -> Result<Option<(BTreeMap<String, SchemaRef>, BTreeMap<String, Value>)>> {
        let mut all = Portion::default();
        for index in 0..of {
            let key = Key::Shard { id: self.id.clone(), index, of };
            let record = self
                .read_shard(&key)
                .await
                .map_err(|e| e.at(format!("shard {index} of {of} must run again")))?;
            match record {
                Some(record) if index == 0 => all = record,
                Some(record) => all.merge(record),
                None => return Ok(None),
            }
        }
        self.objects = all.objects;
        Ok(Some((all.datasets, all.summary)))
    }

    /// Commits the artifact: writes the manifest unless another attempt already has.
    pub async fn commit(&mut self, mut manifest: Manifest) -> Result<Commit> {
        self.objects.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = self.objects.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Error::defect(format!("two shards wrote `{}`", pair[0].path)));
        }
        manifest.objects = std::mem::take(&mut self.objects);
        let key = Key::Manifest(self.id.clone());
        if self.record(&key, &manifest).await? {
            return Ok(Commit::Ours(manifest));
        }
        let winner = Artifact::open(&self.store, &self.id).await?.ok_or_else(|| {
            let place = self.store.place(&key);
            Error::try_again(format!("{place}: gone again; run the same command again"))
        })?;
        Ok(Commit::Theirs(winner.manifest))
    }
}
