//! Naming an artifact: `pipeline/stage`, a bare stage, or the beginning of an id.

use std::collections::BTreeSet;

use super::{Artifact, Store};
use crate::id::ArtifactId;
use crate::nearest::hint;
use crate::{Error, Result};

/// Fewest digits of an id that name an artifact.
const PREFIX: usize = 6;

impl Store {
    /// Opens the artifact that `name` stands for.
    ///
    /// # Errors
    /// `Usage` when there is none, or more than one.
    pub async fn find(&self, name: &str) -> Result<Artifact> {
        let id = self.lookup(name).await?;
        Artifact::open(self, &id).await?.ok_or_else(|| {
            Error::data(format!(
                "`{name}` names artifact {}, which is gone from the store",
                id.short()
            ))
        })
    }

    /// The id of the artifact that `name` stands for, whether it is there or not.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn lookup(&self, name: &str) -> Result<ArtifactId> {
        let names = self.names().await?;
        if let Some((pipeline, stage)) = name.split_once('/') {
            return self.get_ref(pipeline, stage).await?.ok_or_else(|| {
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
                let found = self.get_ref(pipeline, name).await?;
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
        self.by_prefix(name, &names).await
    }

    async fn by_prefix(&self, name: &str, names: &[(String, String)]) -> Result<ArtifactId> {
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
        let ids = self.artifacts().await?;
        let found: Vec<_> = ids.iter().filter(|id| id.as_str().starts_with(name)).collect();
        match found[..] {
            [id] => Ok(id.clone()),
            [] => Err(Error::usage(format!(
                "no artifact id begins with `{name}`; `triad ls` lists them"
            ))),
            _ => {
                let all: Vec<_> = found.iter().map(|id| id.as_str()).collect();
                Err(Error::usage(format!("several ids begin with `{name}`: {}", all.join(", "))))
            }
        }
    }
}
