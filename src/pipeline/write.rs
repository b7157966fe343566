//! Pipeline files: from what a run has made, and for machines that have nothing else.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::parse::{RawPipeline, Wires};
use super::yaml::{Key, Node};
use crate::Result;
use crate::id::ArtifactId;
use crate::job::{self, Arity};
use crate::store::Manifest;

/// A pipeline file whose stages have the ids of `stages`, which are named artifacts of one run, as
/// long as their jobs have the same versions. Resolved parameters stand there in full. A stage that is
/// made from an artifact which has no name any more is left out with a remark.
pub fn write(name: &str, stages: &[(String, Manifest)]) -> Result<String> {
    let mut stages: Vec<_> = stages.iter().collect();
    stages.sort_by_key(|(name, manifest)| (manifest.producer.started, name));
    let names: BTreeMap<&ArtifactId, String> =
        stages.iter().map(|(name, manifest)| (&manifest.id, plain(name))).collect();
    let mut text = format!("pipeline: {name}\nstages:\n");
    for (name, manifest) in stages {
        let name = plain(name);
        let inputs = match inputs(manifest, &names)? {
            Ok(inputs) => inputs,
            Err(lost) => {
                text += &format!("  # `{name}` is made from {lost}, which has no name any more.\n");
                continue;
            }
        };
        text += &format!("  {name}:\n    job: {}\n", manifest.job());
        text += &format!("    params: {}\n", manifest.identity["params"]);
        if !inputs.is_empty() {
            text += &format!("    inputs: {}\n", Value::Object(inputs));
        }
    }
    Ok(text)
}

/// The file `raw` with resolved `params`, of which nothing lies outside.
pub(super) fn whole(raw: &RawPipeline, params: &[Value]) -> String {
    let name = |key: &Key| Value::from(key.name.as_str());
    let mut text = format!("pipeline: {}\nstages:\n", Value::from(raw.name.as_str()));
    for (stage, params) in raw.stages.iter().zip(params) {
        let wires = |wires: &Wires| match wires {
            Wires::One(from) => name(from),
            Wires::List(list) => list.iter().map(name).collect(),
            Wires::Map(map) => {
                Value::Object(map.iter().map(|(to, from)| (to.name.clone(), name(from))).collect())
            }
        };
        let inputs: Map<String, Value> =
            stage.inputs.iter().map(|port| (port.key.name.clone(), wires(&port.wires))).collect();
        text += &format!("  {}:\n    job: {}\n", name(&stage.key), name(&stage.job));
        text += &format!("    params: {params}\n    inputs: {}\n", json!(inputs));
        let settings = [("resources", &stage.resources), ("placement", &stage.placement)];
        for (key, node) in settings {
            if let Some(node) = node {
                text += &format!("    {key}: {}\n", Node::to_json(node));
            }
        }
    }
    text
}

/// The steps of rounds have names that a file cannot give.
fn plain(stage: &str) -> String {
    stage.replace('.', "-")
}

/// Stages by port, or the first input that none of them is.
fn inputs(
    manifest: &Manifest,
    names: &BTreeMap<&ArtifactId, String>,
) -> Result<Result<Map<String, Value>, String>> {
    let job = job::kind(manifest.job())?;
    let mut ports = Map::new();
    for (port, named) in manifest.identity["inputs"].as_object().into_iter().flatten() {
        let mut wires = Map::new();
        for (input, id) in named.as_object().into_iter().flatten() {
            let text = id.as_str().unwrap_or_default().to_string();
            let stage = ArtifactId::try_from(text.clone()).ok().and_then(|id| names.get(&id));
            let Some(stage) = stage else { return Ok(Err(text)) };
            wires.insert(input.clone(), stage.clone().into());
        }
        let arity = job.ports().iter().find(|known| known.name == port).map(|port| port.arity);
        let one = matches!(arity, Some(Arity::One | Arity::Optional));
        let only = wires.values().next().filter(|_| one).cloned();
        ports.insert(port.clone(), only.unwrap_or(Value::Object(wires)));
    }
    Ok(Ok(ports))
}
