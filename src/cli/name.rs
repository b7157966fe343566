//! Naming an artifact: `pipeline/stage`, a bare stage, or the beginning of an id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::future::try_join_all;

use crate::id::ArtifactId;
use crate::pipeline::hint;
use crate::store::{Artifact, Store};
use crate::{Error, Result};

/// Fewest digits of an id that name an artifact.
const PREFIX: usize = 6;

/// Opens the artifact that `name` stands for.
///
/// # Errors
/// `Usage` when there is none, or more than one.
pub async fn find(store: &Store, name: &str) -> Result<Artifact> {
    let id = lookup(store, name).await?;
    Artifact::open(store, &id).await?.ok_or_else(|| {
        Error::data(format!("`{name}` names artifact {}, which is gone from the store", id.short()))
    })
}

pub async fn lookup(store: &Store, name: &str) -> Result<ArtifactId> {
    let names = store.names().await?;
    if let Some((pipeline, stage)) = name.split_once('/') {
        return store.get_ref(pipeline, stage).await?.ok_or_else(|| {
            let known: Vec<_> = names.iter().map(|(p, s)| format!("{p}/{s}")).collect();
            let hint = hint(name, known.iter().map(String::as_str));
            Error::usage(format!("no artifact `{name}`{hint}"))
        });
    }
    let pipelines: Vec<_> =
        names.iter().filter(|(_, stage)| stage == name).map(|(pipeline, _)| pipeline).collect();
    match pipelines[..] {
        [] => {}
        [pipeline] => {
            let found = store.get_ref(pipeline, name).await?;
            return found.ok_or_else(|| Error::usage(format!("no artifact `{name}`")));
        }
        _ => {
            let full: Vec<_> =
                pipelines.iter().map(|pipeline| format!("{pipeline}/{name}")).collect();
            return Err(Error::usage(format!(
                "several pipelines have a stage `{name}`; say which: {}",
                full.join(", ")
            )));
        }
    }
    by_prefix(store, name, &names).await
}

async fn by_prefix(store: &Store, name: &str, names: &[(String, String)]) -> Result<ArtifactId> {
    let digits = name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits || name.len() < PREFIX {
        let stages: BTreeSet<_> = names.iter().map(|(_, stage)| stage.as_str()).collect();
        return Err(Error::usage(format!(
            "no artifact `{name}`: neither a stage nor {PREFIX} or more digits of an id{}",
            hint(name, stages)
        )));
    }
    if let Ok(id) = ArtifactId::try_from(name.to_string()) {
        return Ok(id);
    }
    let ids = store.artifacts().await?;
    let found: Vec<_> = ids.iter().filter(|id| id.as_str().starts_with(name)).collect();
    match found[..] {
        [id] => Ok(id.clone()),
        [] => {
            Err(Error::usage(format!("no artifact id begins with `{name}`; `triad ls` lists them")))
        }
        _ => {
            let all: Vec<_> = found.iter().map(|id| id.as_str()).collect();
            Err(Error::usage(format!("several ids begin with `{name}`: {}", all.join(", "))))
        }
    }
}

/// The file that `pipeline` is, where a file or the name of a pipeline may be given.
pub fn file(pipeline: &str) -> Option<&Path> {
    let file = Path::new(pipeline);
    (pipeline.ends_with(".yaml") || pipeline.ends_with(".yml") || file.is_file()).then_some(file)
}

/// The named stages of `pipeline`, or of all, as (pipeline, stage, id).
///
/// # Errors
/// `Usage` when `pipeline` has none.
pub async fn of_pipeline(
    store: &Store,
    pipeline: Option<&str>,
) -> Result<Vec<(String, String, ArtifactId)>> {
    let mut names = store.names().await?;
    if let Some(wanted) = pipeline {
        let mut known: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        known.dedup();
        names.retain(|(name, _)| name == wanted);
        if names.is_empty() {
            let hint = hint(wanted, known.iter().map(String::as_str));
            return Err(Error::usage(format!("no run of a pipeline `{wanted}`{hint}")));
        }
    }
    let found = try_join_all(names.into_iter().map(|(pipeline, stage)| async move {
        let id = store.get_ref(&pipeline, &stage).await?;
        Ok::<_, Error>(id.map(|id| (pipeline, stage, id)))
    }));
    Ok(found.await?.into_iter().flatten().collect())
}

/// Every `pipeline/stage`, by the id it points to.
pub async fn all(store: &Store) -> Result<BTreeMap<ArtifactId, Vec<String>>> {
    let mut found: BTreeMap<ArtifactId, Vec<String>> = BTreeMap::new();
    for (pipeline, stage, id) in of_pipeline(store, None).await? {
        found.entry(id).or_default().push(format!("{pipeline}/{stage}"));
    }
    Ok(found)
}
