//! Names for artifacts: `refs/<pipeline>/<stage>.json`. A convenience, never needed for correctness.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Key, Store};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// What a name points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ref {
    pub id: ArtifactId,
}

impl Store {
    /// Points `pipeline/stage` to `id`. Does not write when it already does.
    pub async fn set_ref(&self, pipeline: &str, stage: &str, id: &ArtifactId) -> Result<()> {
        if self.get_ref(pipeline, stage).await?.as_ref() == Some(id) {
            return Ok(());
        }
        let json = serde_json::to_vec(&Ref { id: id.clone() }).map_err(Error::defect)?;
        self.put(&Key::Ref { pipeline: pipeline.into(), stage: stage.into() }, Bytes::from(json))
            .await
    }

    /// The artifact that `pipeline/stage` names.
    pub async fn get_ref(&self, pipeline: &str, stage: &str) -> Result<Option<ArtifactId>> {
        let key = Key::Ref { pipeline: pipeline.into(), stage: stage.into() };
        let Some(bytes) = self.get(&key).await? else { return Ok(None) };
        let found: Ref =
            serde_json::from_slice(&bytes).map_err(|e| Error::data(format!("{key}: {e}")))?;
        Ok(Some(found.id))
    }
}
