//! Names for artifacts: `refs/<pipeline>/<stage>.json`. A convenience, never needed for correctness.

use serde::{Deserialize, Serialize};

use super::record::{parse, seal};
use super::{Key, Store};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// What a name points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ref {
    pub id: ArtifactId,
}

/// How often a lost race for a name is run again.
const TURNS: usize = 16;

impl Store {
    /// Points `pipeline/stage` to `id`, by compare-and-swap. Does not write when it already does.
    pub async fn set_ref(&self, pipeline: &str, stage: &str, id: &ArtifactId) -> Result<()> {
        let key = Key::Ref { pipeline: pipeline.into(), stage: stage.into() };
        let json = seal(&Ref { id: id.clone() })?;
        for _ in 0..TURNS {
            let done = match self.get_version(&key).await? {
                Some((found, _)) if found == json => true,
                Some((_, version)) => self.replace(&key, json.clone(), version).await?,
                None => self.create(&key, json.clone()).await?,
            };
            if done {
                return Ok(());
            }
        }
        Err(Error::try_again(format!(
            "{}: others keep changing it; run the same command again",
            self.place(&key)
        )))
    }

    /// Takes a name away.
    pub async fn unset_ref(&self, pipeline: &str, stage: &str) -> Result<()> {
        let key = Key::Ref { pipeline: pipeline.into(), stage: stage.into() };
        self.delete([key.to_string()]).await
    }

    /// The artifact that `pipeline/stage` names.
    pub async fn get_ref(&self, pipeline: &str, stage: &str) -> Result<Option<ArtifactId>> {
        let key = Key::Ref { pipeline: pipeline.into(), stage: stage.into() };
        Ok(self.record(&key, parse::<Ref>).await?.map(|found| found.id))
    }
}
