//! The commit record of an artifact.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Key, record};
use crate::id::ArtifactId;
use crate::{Error, Result};

/// `manifest.json`: written last, by conditional put. Existing means the artifact is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this record's own layout.
    pub format: u32,
    pub id: ArtifactId,
    /// What the id is the hash of: `{"job", "version", "params", "inputs": {port: {name: id}}}`.
    pub identity: Value,
    /// `tasks`, `rollouts`, `checkpoint`, …: what ports accept it.
    pub kind: String,
    /// Schemas of the datasets inside; the parts of dataset `d` are the objects `d/*.parquet`.
    pub datasets: BTreeMap<String, SchemaRef>,
    pub objects: Vec<ObjectEntry>,
    /// A few numbers for people: rows, accuracy, shares.
    pub summary: BTreeMap<String, Value>,
    pub producer: Producer,
}

/// The one field that every layout of the manifest has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    pub const FORMAT: u32 = 1;

    /// The version of the layout of the manifest in `json`.
    pub(super) fn layout(json: &[u8]) -> Result<u32, String> {
        record::parse(json).map(|Format { format }| format)
    }

    /// The manifest in `json`, which must be that of artifact `id`.
    pub(super) fn parse(json: &[u8], id: &ArtifactId) -> Result<Self, String> {
        let no_manifest = |why: String| format!("no manifest: {why}");
        let format = Self::layout(json).map_err(no_manifest)?;
        if format != Self::FORMAT {
            return Err(format!(
                "manifest layout {format} where this triad reads {}; use a newer triad",
                Self::FORMAT
            ));
        }
        let manifest: Self = record::parse(json).map_err(no_manifest)?;
        if manifest.id != *id || ArtifactId::of(&manifest.identity) != *id {
            return Err("the identity inside is another artifact's".into());
        }
        Ok(manifest)
    }

    pub fn job(&self) -> &str {
        self.identity["job"].as_str().unwrap_or("?")
    }

    /// Rows of dataset `name` over all its parts.
    pub fn rows(&self, name: &str) -> u64 {
        self.parts(name).filter_map(|object| object.rows).sum()
    }

    /// The objects of dataset `name`, in order of part number.
    pub fn parts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObjectEntry> {
        self.objects.iter().filter(move |object| {
            object.path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
        })
    }

    pub fn object(&self, path: &str) -> Result<&ObjectEntry> {
        self.objects.iter().find(|object| object.path == path).ok_or_else(|| {
            Error::data(format!("artifact {} ({}) holds no `{path}`", self.id.short(), self.job()))
        })
    }

    /// The artifacts it was made from.
    pub fn inputs(&self) -> impl Iterator<Item = ArtifactId> {
        let ports = self.identity["inputs"].as_object().into_iter().flat_map(|map| map.values());
        let ids = ports.filter_map(Value::as_object).flat_map(|named| named.values());
        ids.filter_map(|id| ArtifactId::try_from(id.as_str()?.to_string()).ok())
    }

    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}

/// Name and version of a dataset's schema, as published under schemas/.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRef {
    pub schema: String,
    pub version: u32,
}

/// One data object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectEntry {
    /// Path within the artifact, the same for every attempt.
    pub path: String,
    /// The attempt that wrote it.
    pub attempt: String,
    /// Bytes.
    pub size: u64,
    /// blake3, 64 hex digits.
    pub digest: String,
    /// Rows, for a dataset's part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What lies in columns of a dataset's part, as far as it is known: readers skip parts by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Bounds>,
}

/// What the values of a column lie between. The bounds are values of the column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub min: Value,
    pub max: Value,
    /// How many are null.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nulls: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One part of a dataset, to be written.
#[derive(Debug, Clone)]
pub struct Part {
    /// Parquet.
    pub bytes: Bytes,
    pub rows: u64,
    pub columns: BTreeMap<String, Bounds>,
}

impl ObjectEntry {
    pub fn key(&self, id: &ArtifactId) -> Key {
        Key::Data { id: id.clone(), attempt: self.attempt.clone(), path: self.path.clone() }
    }
}

/// What was asked of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Tries included; a listing counts once, however many pages it has.
    pub requests: u64,
    /// How many of them repeated one that failed.
    pub retries: u64,
    /// Of objects, as received.
    pub bytes_read: u64,
    /// Of objects, as acknowledged.
    pub bytes_written: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            retries: self.retries + other.retries,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
        }
    }
}

/// Who made it, where and how long it took: outside the identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    pub triad: String,
    /// The commit it was built from, where the build knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    pub device: String,
    pub started: DateTime<Utc>,
    pub seconds: f64,
    /// Measured rates and durations by name (`sample_tokens_per_second`, …).
    #[serde(default)]
    pub timings: BTreeMap<String, f64>,
    /// The logical plan of a `filter`'s query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What the committing process asked of the store before the commit.
    #[serde(default)]
    pub storage: Traffic,
}
