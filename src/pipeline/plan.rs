//! What is committed, what would run, and why.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use serde_json::Value;

use super::{Pipeline, Stage};
use crate::Result;
use crate::store::{Artifact, Manifest, Store};

/// One stage's state in a store.
#[derive(Debug)]
pub struct Plan {
    /// Position in [`Pipeline::stages`].
    pub stage: usize,
    pub state: State,
}

#[derive(Debug)]
pub enum State {
    Committed(Box<Manifest>),
    Missing {
        /// The changed fields, or that it was never run.
        why: Vec<String>,
        /// The newest checkpoint of an earlier attempt, from which a run would continue.
        step: Option<u64>,
    },
}

/// The state of every stage. Reads manifests and names, runs nothing.
pub async fn plan(store: &Store, pipeline: &Pipeline) -> Result<Vec<Plan>> {
    try_join_all(pipeline.stages.iter().enumerate().map(|(position, stage)| async move {
        let state = match Artifact::open(store, &stage.id).await? {
            Some(artifact) => State::Committed(Box::new(artifact.manifest)),
            None => State::Missing {
                why: why(store, &pipeline.name, stage).await?,
                step: store.steps(&stage.id).await?.last().copied(),
            },
        };
        Ok(Plan { stage: position, state })
    }))
    .await
}

async fn why(store: &Store, pipeline: &str, stage: &Stage) -> Result<Vec<String>> {
    let Some(id) = store.get_ref(pipeline, &stage.name).await? else {
        return Ok(vec!["never run".into()]);
    };
    Ok(match Artifact::open(store, &id).await? {
        Some(artifact) if id != stage.id => {
            differences(&artifact.manifest.identity, &stage.identity)
        }
        _ => vec![format!("artifact {} is gone from the store", id.short())],
    })
}

/// What changed from one identity to another, a line for each field.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    if old["job"] != new["job"] {
        return vec![format!("job {} -> {}", short(&old["job"]), short(&new["job"]))];
    }
    let mut out = Vec::new();
    if old["version"] != new["version"] {
        out.push(format!("job version {} -> {}", old["version"], new["version"]));
    }
    compare("params", &old["params"], &new["params"], &mut out);
    let none = serde_json::Map::new();
    let ports = |identity: &'_ Value| identity["inputs"].as_object().unwrap_or(&none).clone();
    let (old, new) = (ports(old), ports(new));
    for port in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let names = |ports: &serde_json::Map<String, Value>| -> serde_json::Map<String, Value> {
            ports.get(port).and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let (old, new) = (names(&old), names(&new));
        for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let label = if name == port { port.clone() } else { format!("{port}.{name}") };
            match (old.get(name), new.get(name)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(_), Some(_)) => out.push(format!("input {label}: changed")),
                (None, _) => out.push(format!("input {label}: added")),
                (_, None) => out.push(format!("input {label}: removed")),
            }
        }
    }
    out
}

fn compare(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(&path, a, b, out),
                    (None, Some(b)) => out.push(format!("{path}: added {}", short(b))),
                    (Some(a), None) => out.push(format!("{path}: removed, was {}", short(a))),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}.{i}"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{path}: {} -> {}", short(a), short(b))),
    }
}

/// A value on one line of bounded length.
fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_changed_field_is_named() {
        let old = json!({"job": "rl", "version": 1, "params": {"lr": 0.1, "levels": [{"n": 1}]},
            "inputs": {"base": {"base": "a"}, "models": {"x": "1", "y": "2"}}});
        let new = json!({"job": "rl", "version": 2, "params": {"lr": 0.2, "levels": [{"n": 3}]},
            "inputs": {"base": {"base": "b"}, "models": {"x": "1", "z": "2"}}});
        assert_eq!(
            differences(&old, &new),
            [
                "job version 1 -> 2",
                "params.levels.0.n: 1 -> 3",
                "params.lr: 0.1 -> 0.2",
                "input base: changed",
                "input models.y: removed",
                "input models.z: added",
            ]
        );
    }
}
