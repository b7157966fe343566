//! Every object key, built and parsed in this one file.

use crate::id::ArtifactId;

/// The place of one object below the store's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `artifacts/<id>/manifest.json`: the commit record. Existing means complete.
    Manifest(ArtifactId),
    /// `artifacts/<id>/shards/<of>/<index>.json`: the commit record of one shard.
    Shard { id: ArtifactId, index: u32, of: u32 },
    /// `artifacts/<id>/steps/<step>.json`: the commit record of a checkpoint inside a long job.
    Step { id: ArtifactId, step: u64 },
    /// `artifacts/<id>/data/<attempt>/<path>`: a data object. Two attempts never share a key.
    Data { id: ArtifactId, attempt: String, path: String },
    /// `refs/<pipeline>/<stage>.json`: a name for an id.
    Ref { pipeline: String, stage: String },
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(id) => write!(f, "artifacts/{id}/manifest.json"),
            Self::Shard { id, index, of } => write!(f, "artifacts/{id}/shards/{of}/{index}.json"),
            Self::Step { id, step } => write!(f, "artifacts/{id}/steps/{step:08}.json"),
            Self::Data { id, attempt, path } => write!(f, "artifacts/{id}/data/{attempt}/{path}"),
            Self::Ref { pipeline, stage } => write!(f, "refs/{pipeline}/{stage}.json"),
        }
    }
}

impl Key {
    /// The key that `text` (as printed by `Display`) stands for; `None` for a foreign object.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        match (parts.next()?, parts.next()?, parts.next()?) {
            ("refs", pipeline, rest) => {
                let stage = rest.strip_suffix(".json").filter(|s| !s.contains('/'))?;
                Some(Self::Ref { pipeline: pipeline.into(), stage: stage.into() })
            }
            ("artifacts", id, rest) => {
                let id = ArtifactId::try_from(id.to_string()).ok()?;
                if rest == "manifest.json" {
                    return Some(Self::Manifest(id));
                }
                let (folder, rest) = rest.split_once('/')?;
                match folder {
                    "shards" => {
                        let (of, index) = rest.strip_suffix(".json")?.split_once('/')?;
                        Some(Self::Shard { id, index: index.parse().ok()?, of: of.parse().ok()? })
                    }
                    "steps" => {
                        Some(Self::Step { id, step: rest.strip_suffix(".json")?.parse().ok()? })
                    }
                    "data" => {
                        let (attempt, path) = rest.split_once('/')?;
                        Some(Self::Data { id, attempt: attempt.into(), path: path.into() })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The folder of an artifact's step records.
    pub(super) fn steps_folder(id: &ArtifactId) -> String {
        format!("artifacts/{id}/steps")
    }

    /// The folder that holds all artifacts.
    pub(super) const ARTIFACTS: &str = "artifacts";

    /// The folder that holds all names.
    pub(super) const REFS: &str = "refs";
}
