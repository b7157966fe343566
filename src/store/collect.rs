//! `triad gc`: which objects nobody needs any more, and their removal.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::hold::RunRecord;
use super::record;
use super::{Artifact, Key, Listed, Manifest, Store};
use crate::id::ArtifactId;
use crate::{Error, Result, entropy};

/// Why something is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No name, pin or run reaches the artifact.
    Unreachable,
    /// Begun, never committed, and nobody has gone on with it.
    Abandoned,
    /// Checkpoints and shards of an artifact that is committed, and what lost races left there.
    Leftover,
    /// What a run kept that has died.
    DeadRun,
    /// Pipelines of jobs that a scheduler was given so long ago that none can be waiting.
    OldPipeline,
}

/// What one artifact, dead runs or old pipelines leave to collect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Garbage {
    pub reason: Reason,
    pub artifact: Option<ArtifactId>,
    /// The job kind, where a manifest says so.
    pub job: Option<String>,
    pub objects: usize,
    pub bytes: u64,
    /// When the youngest of them was written.
    pub modified: DateTime<Utc>,
    #[serde(skip)]
    paths: Vec<String>,
}

/// What was, or would be, collected.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Collected {
    pub garbage: Vec<Garbage>,
    /// Artifacts that a run turned out to need after their records were taken away: put back.
    pub rescued: Vec<ArtifactId>,
}

/// A run whose record is older than this has died: a living one writes it again every hour.
const RUN_LIVES: TimeDelta = TimeDelta::days(1);

/// No job waits in a queue for longer.
const JOB_WAITS: TimeDelta = TimeDelta::days(60);

/// Records read at a time.
const READS: usize = 16;

/// Finds everything that no name, pin or run reaches and that is older than `grace`; with `apply`
/// it is deleted.
///
/// Safe beside running pipelines without any lock: a run first writes down what it needs and then
/// looks for commits; this first takes the commit records away, then reads again what runs need,
/// and only then deletes data. Whichever comes second sees the other: the run that the artifact is
/// not committed, or this that it is needed, and then the records are put back.
///
/// # Errors
/// [`Error::Data`] for a manifest that cannot be read: what it needs is unknown.
pub async fn collect(store: &Store, grace: TimeDelta, apply: bool) -> Result<Collected> {
    let now = if apply { store.clock().await? } else { entropy::now() };
    let age = Age { now, grace };
    let mut manifests = BTreeMap::new();
    let survey = Survey::take(store, age, &mut manifests).await?;
    let mut garbage: Vec<_> = survey
        .artifacts
        .iter()
        .filter_map(|(id, objects)| survey.garbage(id, objects, manifests.get(id), age))
        .collect();
    for (reason, found) in
        [(Reason::DeadRun, &survey.dead_runs), (Reason::OldPipeline, &survey.old_pipelines)]
    {
        garbage.extend(sum(reason, None, None, &found.iter().collect::<Vec<_>>()));
    }
    if !apply {
        return Ok(Collected { garbage, rescued: Vec::new() });
    }
    let records = take_records(store, &garbage).await?;
    let survey = Survey::take(store, age, &mut manifests).await?;
    let (needed, garbage): (Vec<_>, Vec<_>) =
        garbage.into_iter().partition(|one| survey.needs(one));
    for path in needed.iter().flat_map(|one| &one.paths) {
        if let (Some(key), Some(bytes)) = (Key::parse(path), records.get(path)) {
            store.create(&key, bytes.clone()).await?;
        }
    }
    store.delete(garbage.iter().flat_map(|one| one.paths.clone())).await?;
    Ok(Collected { garbage, rescued: needed.into_iter().filter_map(|one| one.artifact).collect() })
}

/// What counts as old, by the store's clock.
#[derive(Clone, Copy)]
struct Age {
    now: DateTime<Utc>,
    grace: TimeDelta,
}

impl Age {
    fn is_old(self, object: &Listed) -> bool {
        self.now - object.modified >= self.grace
    }

    fn is_dead(self, run: &Listed) -> bool {
        self.now - run.modified >= self.grace.max(RUN_LIVES)
    }

    fn is_outlived(self, pipeline: &Listed) -> bool {
        self.now - pipeline.modified >= self.grace.max(JOB_WAITS)
    }
}

/// What is there, and what of it must stay.
struct Survey {
    /// The objects of each artifact.
    artifacts: BTreeMap<ArtifactId, Vec<Listed>>,
    dead_runs: Vec<Listed>,
    old_pipelines: Vec<Listed>,
    /// Held by a run, which may be at work in them.
    held: BTreeSet<ArtifactId>,
    /// Held, named, pinned or young, and all that these were made from.
    reached: BTreeSet<ArtifactId>,
}

impl Survey {
    /// Manifests that are not in `manifests` yet are read into it.
    async fn take(
        store: &Store,
        age: Age,
        manifests: &mut BTreeMap<ArtifactId, Manifest>,
    ) -> Result<Self> {
        // Before all else: a run that lets go now has named or written what the rest shows.
        let (dead_runs, runs): (Vec<_>, Vec<_>) =
            store.list(Key::RUNS).await?.into_iter().partition(|run| age.is_dead(run));
        let mut held = BTreeSet::new();
        for key in runs.iter().filter_map(|run| run.key.as_ref()) {
            if let Some(run) = store.record(key, record::parse::<RunRecord>).await? {
                held.extend(run.artifacts);
            }
        }
        let mut old_pipelines = store.list(Key::PIPELINES).await?;
        old_pipelines.retain(|pipeline| age.is_outlived(pipeline));
        let names = store.names().await?;
        let named: Vec<Option<ArtifactId>> = stream::iter(names)
            .map(|(pipeline, stage)| async move { store.get_ref(&pipeline, &stage).await })
            .buffered(READS)
            .try_collect()
            .await?;
        let pins = store.pins().await?;
        let mut artifacts: BTreeMap<ArtifactId, Vec<Listed>> = BTreeMap::new();
        for object in store.list(Key::ARTIFACTS).await? {
            if let Some(id) = object.key.as_ref().and_then(Key::artifact).cloned() {
                artifacts.entry(id).or_default().push(object);
            }
        }
        read_manifests(store, &artifacts, manifests).await?;
        let young = artifacts
            .iter()
            .filter(|(_, objects)| !objects.iter().all(|object| age.is_old(object)))
            .map(|(id, _)| id.clone());
        let roots = held.iter().cloned().chain(named.into_iter().flatten()).chain(pins);
        let mut todo: Vec<_> = roots.chain(young).collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if reached.insert(id.clone()) {
                todo.extend(manifests.get(&id).into_iter().flat_map(Manifest::inputs));
            }
        }
        Ok(Self { artifacts, dead_runs, old_pipelines, held, reached })
    }

    /// What of artifact `id` nobody needs.
    fn garbage(
        &self,
        id: &ArtifactId,
        objects: &[Listed],
        manifest: Option<&Manifest>,
        age: Age,
    ) -> Option<Garbage> {
        if self.held.contains(id) {
            return None;
        }
        let all = || objects.iter().collect();
        let (reason, objects): (_, Vec<_>) = match (manifest, self.reached.contains(id)) {
            (Some(manifest), true) => {
                let kept: BTreeSet<String> =
                    manifest.objects.iter().map(|entry| entry.key(id).to_string()).collect();
                let leftover = |object: &&Listed| {
                    !matches!(object.key, Some(Key::Manifest(_)))
                        && !kept.contains(&object.path)
                        && age.is_old(object)
                };
                (Reason::Leftover, objects.iter().filter(leftover).collect())
            }
            (Some(_), false) => (Reason::Unreachable, all()),
            (None, true) => return None,
            (None, false) => (Reason::Abandoned, all()),
        };
        let job = manifest.map(|manifest| manifest.job().to_string());
        sum(reason, Some(id.clone()), job, &objects)
    }

    /// Whether what an earlier survey took for garbage is needed after all.
    fn needs(&self, garbage: &Garbage) -> bool {
        if garbage.reason == Reason::OldPipeline {
            // A run that began meanwhile wrote one again.
            let old =
                |path: &String| self.old_pipelines.iter().any(|pipeline| pipeline.path == *path);
            return !garbage.paths.iter().all(old);
        }
        garbage.artifact.as_ref().is_some_and(|id| match garbage.reason {
            Reason::Leftover => self.held.contains(id),
            _ => self.reached.contains(id),
        })
    }
}

async fn read_manifests(
    store: &Store,
    artifacts: &BTreeMap<ArtifactId, Vec<Listed>>,
    manifests: &mut BTreeMap<ArtifactId, Manifest>,
) -> Result<()> {
    let committed = |objects: &[Listed]| {
        objects.iter().any(|object| matches!(object.key, Some(Key::Manifest(_))))
    };
    let unread: Vec<_> = artifacts
        .iter()
        .filter(|(id, objects)| committed(objects) && !manifests.contains_key(*id))
        .map(|(id, _)| id.clone())
        .collect();
    let read: Vec<_> = stream::iter(unread)
        .map(|id| async move {
            Artifact::open(store, &id).await.map_err(|e| match e {
                Error::Data(why) => {
                    Error::data(format!("{why}; `triad fsck --repair` comes before `triad gc`"))
                }
                e => e,
            })
        })
        .buffered(READS)
        .try_collect()
        .await?;
    for artifact in read.into_iter().flatten() {
        manifests.insert(artifact.manifest.id.clone(), artifact.manifest);
    }
    Ok(())
}

fn sum(
    reason: Reason,
    artifact: Option<ArtifactId>,
    job: Option<String>,
    objects: &[&Listed],
) -> Option<Garbage> {
    Some(Garbage {
        reason,
        artifact,
        job,
        objects: objects.len(),
        bytes: objects.iter().map(|object| object.size).sum(),
        modified: objects.iter().map(|object| object.modified).max()?,
        paths: objects.iter().map(|object| object.path.clone()).collect(),
    })
}

/// Deletes the commit records among the garbage, and gives their bytes.
async fn take_records(store: &Store, garbage: &[Garbage]) -> Result<BTreeMap<String, Bytes>> {
    let mut records = BTreeMap::new();
    for path in garbage.iter().flat_map(|one| &one.paths) {
        let key = match Key::parse(path) {
            Some(key @ (Key::Manifest(_) | Key::Step { .. } | Key::Shard { .. })) => key,
            _ => continue,
        };
        if let Some(bytes) = store.get(&key).await? {
            records.insert(path.clone(), bytes);
        }
    }
    store.delete(records.keys().cloned()).await?;
    Ok(records)
}
