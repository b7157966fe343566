//! From the raw file to checked stages: kinds, wiring, order, parameters, ids.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parse::{RawPipeline, RawPort, RawStage, Wires};
use super::yaml::{Key, Node, Place};
use super::{Pipeline, Placement, Resources, Stage, write};
use crate::id::ArtifactId;
use crate::job::{self, Arity, From, Job, Made, Part, Port};
use crate::nearest::hint;
use crate::{Error, Result};

type Wired = BTreeMap<String, BTreeMap<String, usize>>;

pub(super) fn resolve(raw: RawPipeline, kinds: &[&'static dyn Job]) -> Result<Pipeline> {
    let jobs = raw
        .stages
        .iter()
        .map(|stage| {
            kinds.iter().copied().find(|job| job.name() == stage.job.name).ok_or_else(|| {
                Error::usage(format!(
                    "{}: no job kind `{}`{}",
                    raw.at(&stage.job.place, &stage.key.name),
                    stage.job.name,
                    hint(&stage.job.name, kinds.iter().map(|job| job.name()))
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let params = raw
        .stages
        .iter()
        .zip(&jobs)
        .map(|(stage, job)| {
            job.resolve(&stage.params.to_json()).map_err(|e| explain(&raw, stage, e))
        })
        .collect::<Result<Vec<Value>>>()?;
    let made: Vec<_> =
        jobs.iter().zip(&params).map(|(job, params)| job.output_for(params)).collect();
    let wired = (0..raw.stages.len())
        .map(|i| wire(&raw, &jobs, &made, i))
        .collect::<Result<Vec<Wired>>>()?;
    let order = order(&raw, &wired)?;
    for (i, stage) in raw.stages.iter().enumerate() {
        let inputs = wired[i].iter().flat_map(|(port, named)| {
            named.values().map(|&from| Made { port, job: jobs[from].name(), params: &params[from] })
        });
        let inputs: Vec<Made> = inputs.collect();
        jobs[i].check(&params[i], &inputs).map_err(|e| explain(&raw, stage, e))?;
    }
    let drafts = (0..raw.stages.len())
        .map(|i| drafts(&raw, &raw.stages[i], jobs[i], &params[i], &wired[i]))
        .collect::<Result<Vec<_>>>()?;
    let mut end = 0;
    let ends: Vec<usize> = drafts
        .iter()
        .map(|drafts| {
            end += drafts.len();
            end
        })
        .collect();
    let mut stages: Vec<Option<Stage>> = (0..end).map(|_| None).collect();
    for i in order {
        let start = ends[i] - drafts[i].len();
        for (number, draft) in drafts[i].iter().enumerate() {
            let mut inputs = Wired::new();
            let mut ids: BTreeMap<String, BTreeMap<String, ArtifactId>> = BTreeMap::new();
            for (port, name, from) in &draft.inputs {
                let from = match *from {
                    // What a stage makes, its last part makes.
                    Source::Stage(from) => ends[from] - 1,
                    Source::Part(number) => start + number,
                };
                inputs.entry(port.clone()).or_default().insert(name.clone(), from);
                if let Some(from) = &stages[from] {
                    ids.entry(port.clone()).or_default().insert(name.clone(), from.id.clone());
                }
            }
            let identity = job::identity(draft.job, &draft.params, &ids);
            stages[start + number] = Some(Stage {
                name: draft.name.clone(),
                job: draft.job,
                params: draft.params.clone(),
                inputs,
                resources: draft.resources.clone(),
                shards: draft.shards,
                id: ArtifactId::of(&identity),
                identity,
            });
        }
    }
    let text = write::whole(&raw, &params);
    let stages = stages.into_iter().flatten().collect();
    Ok(Pipeline { file: raw.file, name: raw.name, stages, text })
}

/// A stage whose inputs have no ids yet.
struct Draft {
    name: String,
    job: &'static dyn Job,
    params: Value,
    /// Port, name, and what it is.
    inputs: Vec<(String, String, Source)>,
    resources: Resources,
    shards: u32,
}

#[derive(Clone, Copy)]
enum Source {
    /// A stage of the file, by position.
    Stage(usize),
    /// Another draft of the same stage.
    Part(usize),
}

/// What a stage of the file becomes: itself, or the steps of its rounds.
fn drafts(
    raw: &RawPipeline,
    stage: &RawStage,
    job: &'static dyn Job,
    params: &Value,
    wired: &Wired,
) -> Result<Vec<Draft>> {
    let name = &stage.key.name;
    let resources: Resources = settings(raw, stage, &stage.resources, "resources")?;
    let place =
        || raw.at(stage.placement.as_ref().map_or(&stage.key.place, |node| &node.place), name);
    let placement: Placement = settings(raw, stage, &stage.placement, "placement")?;
    let shards = match placement {
        Placement::Rounds { shards } => shards.get(),
        Placement::Fused if job.has_parts() => 1,
        Placement::Shards(_) if !job.shardable() => {
            return Err(Error::usage(format!(
                "{}: placement: job `{}` takes no shards",
                place(),
                job.name()
            )));
        }
        Placement::Fused | Placement::Shards(_) => {
            let named = |(port, named): (&String, &BTreeMap<String, usize>)| {
                let input = |(name, &from): (&String, &usize)| {
                    (port.clone(), name.clone(), Source::Stage(from))
                };
                named.iter().map(input).collect::<Vec<_>>()
            };
            return Ok(vec![Draft {
                name: name.clone(),
                job,
                params: params.clone(),
                inputs: wired.iter().flat_map(named).collect(),
                resources,
                shards: if let Placement::Shards(shards) = placement { shards.get() } else { 1 },
            }]);
        }
    };
    let ports: Vec<&str> = wired.keys().map(String::as_str).collect();
    let parts = job.rounds(params, shards, &ports);
    let parts = parts.map_err(|e| e.at(format!("{}: placement", place())))?;
    let last = parts.len() - 1;
    let draft = |(number, part): (usize, Part)| {
        let input = |(port, label, from): (&str, String, From)| {
            let none = BTreeMap::new();
            let wires = |port| wired.get(port).unwrap_or(&none);
            let sources: Vec<(String, Source)> = match from {
                From::Part(number) => vec![(label, Source::Part(number))],
                From::Port(port) => wires(port)
                    .values()
                    .take(1)
                    .map(|&at| (label.clone(), Source::Stage(at)))
                    .collect(),
                From::Ports(port) => wires(port)
                    .iter()
                    .map(|(name, &at)| (name.clone(), Source::Stage(at)))
                    .collect(),
            };
            let port = port.to_string();
            sources.into_iter().map(move |(label, source)| (port.clone(), label, source))
        };
        Draft {
            name: if number == last { name.clone() } else { format!("{name}.{}", part.name) },
            job: part.job,
            params: part.params,
            inputs: part.inputs.into_iter().flat_map(input).collect(),
            resources: match part.device {
                true => resources.clone(),
                false => Resources { gpus: Some(0), ..resources.clone() },
            },
            shards: part.shards,
        }
    };
    Ok(parts.into_iter().enumerate().map(draft).collect())
}

/// Looks up the ports and stages of stage `i`.
fn wire(raw: &RawPipeline, jobs: &[&'static dyn Job], made: &[&str], i: usize) -> Result<Wired> {
    let stage = &raw.stages[i];
    let name = &stage.key.name;
    let ports = jobs[i].ports();
    let mut wired = Wired::new();
    for RawPort { key, wires } in &stage.inputs {
        let Some(port) = ports.iter().find(|port| port.name == key.name) else {
            return Err(Error::usage(format!(
                "{}: job `{}` has no input `{}`{}",
                raw.at(&key.place, name),
                stage.job.name,
                key.name,
                hint(&key.name, ports.iter().map(|port| port.name))
            )));
        };
        let named: Vec<(&str, &Key)> = match (port.arity, wires) {
            (Arity::One | Arity::Optional, Wires::One(from)) => vec![(port.name, from)],
            (Arity::Many | Arity::Any, Wires::One(from)) => vec![(&from.name, from)],
            (Arity::Many | Arity::Any, Wires::List(list)) => {
                list.iter().map(|from| (from.name.as_str(), from)).collect()
            }
            (Arity::Many | Arity::Any, Wires::Map(map)) => {
                map.iter().map(|(name, from)| (name.name.as_str(), from)).collect()
            }
            (_, Wires::List(_) | Wires::Map(_)) => {
                return Err(Error::usage(format!(
                    "{}: input `{}` of job `{}` takes one stage, not several",
                    raw.at(&key.place, name),
                    key.name,
                    stage.job.name
                )));
            }
        };
        let mut found = BTreeMap::new();
        for (label, from) in named {
            let position = lookup(raw, made, stage, port, from)?;
            if found.insert(label.to_string(), position).is_some() {
                return Err(Error::usage(format!(
                    "{}: input `{}` has `{label}` twice; remove one",
                    raw.at(&from.place, name),
                    key.name
                )));
            }
        }
        if !found.is_empty() {
            wired.insert(port.name.into(), found);
        }
    }
    let missing = ports.iter().find(|port| {
        matches!(port.arity, Arity::One | Arity::Many) && !wired.contains_key(port.name)
    });
    if let Some(port) = missing {
        return Err(Error::usage(format!(
            "{}: missing input `{}`; job `{}` needs a stage that makes {}",
            raw.at(&stage.key.place, name),
            port.name,
            stage.job.name,
            port.accepts.join(" or ")
        )));
    }
    Ok(wired)
}

fn lookup(
    raw: &RawPipeline,
    made: &[&str],
    stage: &RawStage,
    port: &Port,
    from: &Key,
) -> Result<usize> {
    let at = || raw.at(&from.place, &stage.key.name);
    let names = || raw.stages.iter().map(|stage| stage.key.name.as_str());
    let Some(position) = names().position(|name| name == from.name) else {
        return Err(Error::usage(format!(
            "{}: input `{}`: no stage `{}`{}",
            at(),
            port.name,
            from.name,
            hint(&from.name, names().filter(|name| *name != stage.key.name))
        )));
    };
    let made = made[position];
    if !port.accepts.contains(&made) {
        return Err(Error::usage(format!(
            "{}: input `{}` takes {}; stage `{}` (job `{}`) makes {made}",
            at(),
            port.name,
            port.accepts.join(" or "),
            from.name,
            raw.stages[position].job.name
        )));
    }
    Ok(position)
}

/// The stages with every stage behind those it is made from; otherwise in the file's order.
fn order(raw: &RawPipeline, wired: &[Wired]) -> Result<Vec<usize>> {
    /// Depth-first; `path` holds the stages being visited.
    fn visit(
        stage: usize,
        wired: &[Wired],
        path: &mut Vec<usize>,
        order: &mut Vec<usize>,
    ) -> Result<(), Vec<usize>> {
        if order.contains(&stage) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|&other| other == stage) {
            return Err(path[start..].iter().copied().chain([stage]).collect());
        }
        path.push(stage);
        for &from in wired[stage].values().flat_map(BTreeMap::values) {
            visit(from, wired, path, order)?;
        }
        path.pop();
        order.push(stage);
        Ok(())
    }
    let mut order = Vec::new();
    for stage in 0..wired.len() {
        visit(stage, wired, &mut Vec::new(), &mut order).map_err(|cycle| {
            let key = |i: &usize| &raw.stages[*i].key;
            let names: Vec<_> = cycle.iter().map(|i| key(i).name.as_str()).collect();
            Error::usage(format!(
                "{}: its inputs lead back to itself: {}; remove one of these inputs",
                raw.at(&key(&cycle[0]).place, names[0]),
                names.join(" <- ")
            ))
        })?;
    }
    Ok(order)
}

/// What stands behind a stage's key `what`, or the default.
fn settings<T: DeserializeOwned + Default>(
    raw: &RawPipeline,
    stage: &RawStage,
    node: &Option<Node>,
    what: &str,
) -> Result<T> {
    let Some(node) = node.as_ref().filter(|node| !node.is_null()) else {
        return Ok(T::default());
    };
    serde_json::from_value(node.to_json())
        .map_err(|e| locate(raw, stage, node, what, &e.to_string()))
}

/// A job's complaint about its parameters, with the place of what it complains about.
fn explain(raw: &RawPipeline, stage: &RawStage, error: Error) -> Error {
    match error {
        Error::Usage(message) => locate(raw, stage, &stage.params, "params", &message),
        other => other.at(raw.at(&stage.key.place, &stage.key.name)),
    }
}

fn locate(raw: &RawPipeline, stage: &RawStage, node: &Node, what: &str, message: &str) -> Error {
    // A path in front, where there is one.
    let found =
        message.split_once(": ").and_then(|(path, rest)| Some((path, rest, node.at(path)?)));
    let (above, message, below) = found.unwrap_or(("", message, node));
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (place, path) = match place_of(below, message, &quoted) {
        Some(found) => found,
        None if above.is_empty() => (fallback(stage, node), String::new()),
        None => (below.place.clone(), String::new()),
    };
    let message = match message.split_once(", expected ") {
        Some((fact, _)) if fact.starts_with("unknown ") && quoted.len() > 1 => {
            format!("{fact}{}", hint(quoted[0], quoted[1..].iter().copied()))
        }
        _ if message.starts_with("missing field") => format!("{message}; add it"),
        _ => message.to_string(),
    };
    let path: Vec<&str> = [what, above, &path].into_iter().filter(|p| !p.is_empty()).collect();
    Error::usage(format!("{}: {}: {message}", raw.at(&place, &stage.key.name), path.join(".")))
}

/// The key a message names in quotes, or else the only scalar whose value it names, or else the
/// first key that is a word of it.
fn place_of(node: &Node, message: &str, quoted: &[&str]) -> Option<(Place, String)> {
    let key = |name: &str| node.find_key(name).map(|place| (place.clone(), String::new()));
    if let Some(found) = quoted.first().and_then(|name| key(name)) {
        return Some(found);
    }
    let mut scalars = Vec::new();
    node.scalars("", &mut scalars);
    let mut hits = scalars.into_iter().filter(|(_, value, _)| match value {
        Value::String(text) => {
            message.contains(&format!("\"{text}\"")) || quoted.contains(&text.as_str())
        }
        Value::Null => message.contains("null"),
        other => quoted.contains(&other.to_string().as_str()),
    });
    match (hits.next(), hits.next()) {
        (Some((path, _, place)), None) => Some((place.clone(), path)),
        _ => message.split(|c: char| !c.is_alphanumeric() && c != '_').find_map(key),
    }
}

/// The first override, when there is one, is the likelier culprit than the file.
fn fallback(stage: &RawStage, node: &Node) -> Place {
    let mut scalars = Vec::new();
    node.scalars("", &mut scalars);
    scalars
        .into_iter()
        .map(|(_, _, place)| place)
        .find(|place| matches!(place, Place::Set(_)))
        .unwrap_or(&stage.key.place)
        .clone()
}
