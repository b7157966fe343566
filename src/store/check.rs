//! `triad fsck`: whether everything is there, whole, and what its record says.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::record::{self, unseal};
use super::{Key, Listed, Manifest, ObjectEntry, Portion, SchemaRef, StepRecord, Store};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    MissingObject,
    /// An object of another size than its record says.
    Truncated,
    /// An object with another digest than its record says.
    ChangedObject,
    /// A manifest that cannot be read.
    BadManifest,
    /// A manifest or dataset that a newer triad wrote.
    UnknownVersion,
    /// An input of an artifact is not committed.
    MissingInput,
    /// A name that cannot be read, or points to nothing.
    DanglingRef,
    /// A pipeline for jobs on other machines with another digest than its name.
    BadPipeline,
    /// A checkpoint or shard that no run can use. The next run makes it again.
    BadCheckpoint,
    /// Objects that no record lists: of a lost race or a killed attempt.
    StrayAttempt,
    /// Begun and not committed.
    Unfinished,
}

impl Problem {
    /// Whether data are lost or in danger; the others are no more than notes.
    pub fn is_damage(self) -> bool {
        self < Self::BadCheckpoint
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub problem: Problem,
    /// Path below the store's prefix.
    pub path: String,
    pub artifact: Option<ArtifactId>,
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Check {
    pub artifacts: usize,
    pub objects: usize,
    pub bytes: u64,
    /// In order of path.
    pub findings: Vec<Finding>,
}

/// Objects up to this size are checked side by side, larger ones one by one.
const SMALL: u64 = 1 << 20;
const SMALL_AT_ONCE: usize = 16;

/// An object that records list.
struct Listing {
    id: ArtifactId,
    entry: ObjectEntry,
    /// Whether the manifest lists it.
    committed: bool,
    /// Paths of the checkpoints that list it.
    checkpoints: Vec<String>,
}

/// Checks everything in `store`. `known` tells whether this program reads a dataset's schema.
/// With `read` the digests of all objects are checked, else only their sizes.
pub async fn check(
    store: &Store,
    read: bool,
    known: &(dyn Fn(&SchemaRef) -> bool + Sync),
) -> Result<Check> {
    let listing = store.list("").await?;
    let mut found = Check::default();
    let mut artifacts: BTreeMap<&ArtifactId, Vec<&Listed>> = BTreeMap::new();
    for object in &listing {
        if let Some(id) = object.key.as_ref().and_then(Key::artifact) {
            artifacts.entry(id).or_default().push(object);
        }
    }
    let committed: BTreeSet<&ArtifactId> = listing
        .iter()
        .filter_map(|o| if let Some(Key::Manifest(id)) = &o.key { Some(id) } else { None })
        .collect();
    found.artifacts = committed.len();
    let mut listed = Vec::new();
    for (id, objects) in &artifacts {
        inspect(store, id, objects, &committed, known, &mut found.findings, &mut listed).await?;
    }
    let sizes: BTreeMap<&str, u64> = listing.iter().map(|o| (o.path.as_str(), o.size)).collect();
    let verified = |one: Listing| {
        let size = sizes.get(one.entry.key(&one.id).to_string().as_str()).copied();
        async move {
            let problem = verify(store, &one, size, read).await?;
            Ok::<_, Error>((one, problem))
        }
    };
    let (small, large): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|one| one.entry.size <= SMALL);
    let small: Vec<_> =
        stream::iter(small).map(verified).buffered(SMALL_AT_ONCE).try_collect().await?;
    let large: Vec<_> = stream::iter(large).then(verified).try_collect().await?;
    for (one, problem) in small.into_iter().chain(large) {
        found.objects += 1;
        found.bytes += one.entry.size;
        let Some((problem, what)) = problem else { continue };
        let path = one.entry.key(&one.id).to_string();
        for record in &one.checkpoints {
            found.findings.push(Finding {
                problem: Problem::BadCheckpoint,
                path: record.clone(),
                artifact: Some(one.id.clone()),
                what: format!("{path}: {what}"),
            });
        }
        if one.committed {
            found.findings.push(Finding { problem, path, artifact: Some(one.id.clone()), what });
        }
    }
    names(store, &listing, &committed, &mut found.findings).await?;
    pipelines(store, &listing, &mut found.findings).await?;
    found.findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Reads the records of one artifact: what they list, and what is wrong with them.
async fn inspect(
    store: &Store,
    id: &ArtifactId,
    objects: &[&Listed],
    committed: &BTreeSet<&ArtifactId>,
    known: &(dyn Fn(&SchemaRef) -> bool + Sync),
    findings: &mut Vec<Finding>,
    listed: &mut Vec<Listing>,
) -> Result<()> {
    let mut note = |problem, path: &str, what: String| {
        findings.push(Finding { problem, path: path.into(), artifact: Some(id.clone()), what });
    };
    // By key: the manifest and several checkpoints list the same objects.
    let mut entries: BTreeMap<String, Listing> = BTreeMap::new();
    let mut readable = true;
    for object in objects {
        let Some(key) = &object.key else { continue };
        let portion = match key {
            Key::Manifest(_) => match manifest(store, id).await? {
                Ok(None) => None,
                Ok(Some(manifest)) => {
                    for schema in manifest.datasets.values().filter(|schema| !known(schema)) {
                        let what = format!("schema {} {}", schema.schema, schema.version);
                        note(Problem::UnknownVersion, &object.path, what);
                    }
                    for input in manifest.inputs().filter(|input| !committed.contains(input)) {
                        let what = format!("input {input} is not committed");
                        note(Problem::MissingInput, &object.path, what);
                    }
                    Some(manifest.objects)
                }
                Err((problem, why)) => {
                    readable = false;
                    note(problem, &object.path, why);
                    None
                }
            },
            Key::Step { .. } => match store.record(key, record::parse::<StepRecord>).await {
                Ok(step) => step.map(|step| [step.portion.objects, step.state].concat()),
                Err(Error::Data(why)) => {
                    note(Problem::BadCheckpoint, &object.path, why);
                    None
                }
                Err(e) => return Err(e),
            },
            Key::Shard { .. } => match store.record(key, record::parse::<Portion>).await {
                Ok(shard) => shard.map(|shard| shard.objects),
                Err(Error::Data(why)) => {
                    note(Problem::BadCheckpoint, &object.path, why);
                    None
                }
                Err(e) => return Err(e),
            },
            _ => None,
        };
        for entry in portion.into_iter().flatten() {
            let one = entries.entry(entry.key(id).to_string()).or_insert_with(|| Listing {
                id: id.clone(),
                entry,
                committed: false,
                checkpoints: Vec::new(),
            });
            match key {
                Key::Manifest(_) => one.committed = true,
                _ => one.checkpoints.push(object.path.clone()),
            }
        }
    }
    let strays = objects.iter().filter(|object| {
        matches!(object.key, Some(Key::Data { .. })) && !entries.contains_key(&object.path)
    });
    let (count, bytes) = strays.fold((0, 0), |(n, bytes), object| (n + 1, bytes + object.size));
    let place = format!("artifacts/{id}");
    if !committed.contains(id) {
        let what = format!("{} objects, {count} of them in no checkpoint", objects.len());
        note(Problem::Unfinished, &place, what);
    } else if count > 0 && readable {
        note(Problem::StrayAttempt, &place, format!("{count} objects, {bytes} bytes"));
    }
    listed.extend(entries.into_values());
    Ok(())
}

/// The manifest of `id`, or what is wrong with it; `None` when it is gone meanwhile.
async fn manifest(
    store: &Store,
    id: &ArtifactId,
) -> Result<Result<Option<Manifest>, (Problem, String)>> {
    let key = Key::Manifest(id.clone());
    match store.record(&key, |json| Manifest::parse(json, id)).await {
        Ok(manifest) => Ok(Ok(manifest)),
        Err(Error::Data(why)) => {
            let newer = match store.get(&key).await {
                Ok(Some(bytes)) => unseal(&bytes)
                    .and_then(|json| Manifest::layout(&json))
                    .is_ok_and(|format| format != Manifest::FORMAT),
                _ => false,
            };
            let problem = if newer { Problem::UnknownVersion } else { Problem::BadManifest };
            Ok(Err((problem, why)))
        }
        Err(e) => Err(e),
    }
}

/// What is wrong with an object of which a listing says that it has `size` bytes.
async fn verify(
    store: &Store,
    one: &Listing,
    size: Option<u64>,
    read: bool,
) -> Result<Option<(Problem, String)>> {
    let Listing { id, entry, .. } = one;
    // A listing is no snapshot: what it lacks may have come since.
    let size = match size {
        Some(size) => Some(size),
        None => store.size(&entry.key(id)).await?,
    };
    let Some(size) = size else {
        return Ok(Some((Problem::MissingObject, format!("{} bytes are gone", entry.size))));
    };
    if size != entry.size {
        let what = format!("{size} bytes where its record says {}", entry.size);
        return Ok(Some((Problem::Truncated, what)));
    }
    if !read {
        return Ok(None);
    }
    match store.verify_entry(id, entry).await {
        Ok(()) => Ok(None),
        Err(Error::Data(_)) => {
            Ok(Some((Problem::ChangedObject, "another digest than its record says".into())))
        }
        Err(e) => Err(e),
    }
}

/// Names and pins that point to nothing.
async fn names(
    store: &Store,
    listing: &[Listed],
    committed: &BTreeSet<&ArtifactId>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for object in listing {
        let id = match &object.key {
            Some(Key::Ref { pipeline, stage }) => store.get_ref(pipeline, stage).await,
            Some(Key::Pin(id)) => Ok(Some(id.clone())),
            _ => continue,
        };
        let what = match id {
            Ok(Some(id)) if !committed.contains(&id) => format!("{id} is not committed"),
            Ok(_) => continue,
            Err(Error::Data(why)) => why,
            Err(e) => return Err(e),
        };
        let path = object.path.clone();
        findings.push(Finding { problem: Problem::DanglingRef, path, artifact: None, what });
    }
    Ok(())
}

async fn pipelines(store: &Store, listing: &[Listed], findings: &mut Vec<Finding>) -> Result<()> {
    for object in listing {
        let Some(Key::Pipeline(digest)) = &object.key else { continue };
        let what = match store.get_pipeline(digest).await {
            Err(Error::Data(why)) => why,
            // Gone meanwhile.
            Ok(_) | Err(Error::Usage(_)) => continue,
            Err(e) => return Err(e),
        };
        let path = object.path.clone();
        findings.push(Finding { problem: Problem::BadPipeline, path, artifact: None, what });
    }
    Ok(())
}

impl Store {
    /// What artifact `id` is the hash of, out of its manifest, however damaged: the hash tells
    /// whether it is right.
    pub async fn identity(&self, id: &ArtifactId) -> Result<Option<Value>> {
        let Some(bytes) = self.get(&Key::Manifest(id.clone())).await? else { return Ok(None) };
        let label = b"\"identity\": ";
        let Some(at) = bytes.windows(label.len()).position(|window| window == label) else {
            return Ok(None);
        };
        let mut values =
            serde_json::Deserializer::from_slice(&bytes[at + label.len()..]).into_iter::<Value>();
        let identity = values.next().and_then(Result::ok);
        Ok(identity.filter(|identity| ArtifactId::of(identity) == *id))
    }

    /// Takes the records at `paths` away, so that the next run makes anew what they stood for.
    pub async fn forget(&self, paths: impl IntoIterator<Item = String>) -> Result<()> {
        let records = |path: &String| {
            matches!(
                Key::parse(path),
                Some(
                    Key::Manifest(_)
                        | Key::Step { .. }
                        | Key::Shard { .. }
                        | Key::Ref { .. }
                        | Key::Pin(_)
                        | Key::Pipeline(_)
                )
            )
        };
        self.delete(paths.into_iter().filter(records)).await
    }
}
