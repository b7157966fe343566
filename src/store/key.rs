//! Every object key, built and parsed in this one file.

use std::fmt::{self, Display, Formatter};

use crate::id::ArtifactId;

/// The place of one object below the store's prefix.
///
/// Names that people choose (pipelines, stages, paths inside an artifact) may hold any character:
/// each segment is percent-encoded down to letters, digits, `.`, `_` and `-`, which every object
/// store and file system takes as it is.
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
    /// `pins/<id>.json`: keeps an artifact from `triad gc`.
    Pin(ArtifactId),
    /// `runs/<name>.json`: what a run going on keeps from `triad gc`.
    Run(String),
    /// `pipelines/<digest>.yaml`: a pipeline that jobs on other machines read, by its blake3 hash.
    Pipeline(String),
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(id) => write!(f, "artifacts/{id}/manifest.json"),
            Self::Shard { id, index, of } => write!(f, "artifacts/{id}/shards/{of}/{index}.json"),
            Self::Step { id, step } => write!(f, "artifacts/{id}/steps/{step:08}.json"),
            Self::Data { id, attempt, path } => {
                write!(f, "artifacts/{id}/data/{}", Segment(attempt))?;
                path.split('/').try_for_each(|part| write!(f, "/{}", Segment(part)))
            }
            Self::Ref { pipeline, stage } => {
                write!(f, "refs/{}/{}.json", Segment(pipeline), Segment(stage))
            }
            Self::Pin(id) => write!(f, "pins/{id}.json"),
            Self::Run(name) => write!(f, "runs/{}.json", Segment(name)),
            Self::Pipeline(digest) => write!(f, "pipelines/{}.yaml", Segment(digest)),
        }
    }
}

impl Key {
    /// The key that `text` (as printed by `Display`) stands for; `None` for a foreign object.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text).filter(|key| key.to_string() == text)
    }

    fn read(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("pins", rest) => {
                let id = rest.strip_suffix(".json")?.to_string();
                return Some(Self::Pin(ArtifactId::try_from(id).ok()?));
            }
            ("runs", rest) => return Some(Self::Run(decode(rest.strip_suffix(".json")?)?)),
            ("pipelines", rest) => {
                return Some(Self::Pipeline(decode(rest.strip_suffix(".yaml")?)?));
            }
            _ => {}
        }
        let mut parts = text.splitn(3, '/');
        match (parts.next()?, parts.next()?, parts.next()?) {
            ("refs", pipeline, rest) => {
                let stage = rest.strip_suffix(".json")?;
                Some(Self::Ref { pipeline: decode(pipeline)?, stage: decode(stage)? })
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
                        let path: Option<Vec<_>> = path.split('/').map(decode).collect();
                        Some(Self::Data { id, attempt: decode(attempt)?, path: path?.join("/") })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The artifact that the object belongs to.
    pub fn artifact(&self) -> Option<&ArtifactId> {
        match self {
            Self::Manifest(id)
            | Self::Shard { id, .. }
            | Self::Step { id, .. }
            | Self::Data { id, .. } => Some(id),
            Self::Ref { .. } | Self::Pin(_) | Self::Run(_) | Self::Pipeline(_) => None,
        }
    }

    /// The folder of an artifact.
    pub(super) fn artifact_folder(id: &ArtifactId) -> String {
        format!("artifacts/{id}")
    }

    /// The folder of an artifact's step records.
    pub(super) fn steps_folder(id: &ArtifactId) -> String {
        format!("artifacts/{id}/steps")
    }

    /// The folder that holds all artifacts.
    pub(super) const ARTIFACTS: &str = "artifacts";

    /// The folder that holds all names.
    pub(super) const REFS: &str = "refs";

    /// The folder that holds all pins.
    pub(super) const PINS: &str = "pins";

    /// The folder that holds the records of runs going on.
    pub(super) const RUNS: &str = "runs";

    /// The folder that holds the pipelines of jobs on other machines.
    pub(super) const PIPELINES: &str = "pipelines";
}

/// One path segment, percent-encoded. `%` alone stands for the empty segment, and a segment of
/// dots only has its first dot encoded: stores take neither as it is.
struct Segment<'a>(&'a str);

impl Display for Segment<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("%");
        }
        let only_dots = self.0.bytes().all(|b| b == b'.');
        for (i, byte) in self.0.bytes().enumerate() {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if plain && !(only_dots && i == 0) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// The segment that `text` encodes; `None` when it encodes none.
fn decode(text: &str) -> Option<String> {
    if text == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;
    use proptest::prelude::*;
    use serde_json::json;

    fn keys() -> impl Strategy<Value = Key> {
        let id = any::<u64>().prop_map(|seed| ArtifactId::of(&json!(seed)));
        let name = prop_oneof![
            any::<String>(),
            r"[a-z./%#. ]{0,6}",
            Just("..".to_string()),
            Just("größe 2/3 #1.json".to_string()),
        ];
        prop_oneof![
            id.clone().prop_map(Key::Manifest),
            id.clone().prop_map(Key::Pin),
            (id.clone(), any::<u32>(), any::<u32>()).prop_map(|(id, index, of)| Key::Shard {
                id,
                index,
                of
            }),
            (id.clone(), any::<u64>()).prop_map(|(id, step)| Key::Step { id, step }),
            (id, name.clone(), name.clone()).prop_map(|(id, attempt, path)| Key::Data {
                id,
                attempt,
                path
            }),
            (name.clone(), name.clone()).prop_map(|(pipeline, stage)| Key::Ref { pipeline, stage }),
            name.clone().prop_map(Key::Run),
            name.prop_map(Key::Pipeline),
        ]
    }

    proptest! {
        #[test]
        fn every_key_is_parsed_back_from_its_text(key in keys()) {
            let text = key.to_string();
            prop_assert_eq!(Key::parse(&text), Some(key));
            let path = Path::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(path.as_ref(), text.as_str());
        }

        #[test]
        fn foreign_objects_have_no_key(text in r"(refs|artifacts|pins|runs|pipelines)/[a-f0-9%./]{0,40}(\.json|\.yaml)?") {
            if let Some(key) = Key::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn ordinary_names_stay_readable() {
        let key = Key::Ref { pipeline: "quickstart".into(), stage: "rl-math.2".into() };
        assert_eq!(key.to_string(), "refs/quickstart/rl-math.2.json");
        assert_eq!(Key::parse("artifacts/readme.txt"), None);
        assert_eq!(Key::parse("refs/a/b/c.json"), None);
    }
}
