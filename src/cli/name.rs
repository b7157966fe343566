//! The names of a store by pipeline and by artifact.

use std::collections::BTreeMap;
use std::path::Path;

use futures::future::try_join_all;

use crate::id::ArtifactId;
use crate::nearest::hint;
use crate::store::Store;
use crate::{Error, Result};

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
