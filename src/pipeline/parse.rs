//! The raw pipeline file: known keys, right shapes, nothing looked up yet.

use std::path::Path;

use serde_json::Value;

use super::yaml::{Key, Node, Place, Tree};
use crate::nearest::hint;
use crate::{Error, Result};

pub(super) struct RawPipeline {
    pub file: String,
    pub name: String,
    pub stages: Vec<RawStage>,
}

pub(super) struct RawStage {
    pub key: Key,
    pub job: Key,
    pub params: Node,
    pub inputs: Vec<RawPort>,
    pub resources: Option<Node>,
    pub placement: Option<Node>,
}

pub(super) struct RawPort {
    pub key: Key,
    pub wires: Wires,
}

/// What stands behind `port:`. The name in each [`Key`] is a stage's.
pub(super) enum Wires {
    One(Key),
    List(Vec<Key>),
    Map(Vec<(Key, Key)>),
}

impl RawPipeline {
    /// The beginning of a message about something in stage `stage` at `place`.
    pub fn at(&self, place: &Place, stage: &str) -> String {
        format!("{}: stage `{stage}`", place.of(&self.file))
    }
}

pub(super) fn parse(file: &str, text: &str) -> Result<RawPipeline> {
    let mut root = Node::parse(file, text)?;
    root.read_files(file, Path::new(file).parent().unwrap_or(Path::new("")))?;
    let fail = |place: &Place, message: String| {
        Err(Error::usage(format!("{}: {message}", place.of(file))))
    };
    let Tree::Map(entries) = root.tree else {
        let found = root.describe();
        return fail(
            &root.place,
            format!("a pipeline is a map with `pipeline` and `stages`, not {found}"),
        );
    };
    let (mut name, mut stages) = (None, None);
    for (key, node) in entries {
        match key.name.as_str() {
            "pipeline" => name = Some(text_of(file, &key, &node)?),
            "stages" => stages = Some((key, node)),
            other => {
                let hint = hint(other, ["pipeline", "stages"]);
                return fail(&key.place, format!("unknown key `{other}`{hint}"));
            }
        }
    }
    let start = Place::Line(1);
    let Some(name) = name else {
        return fail(&start, "missing key `pipeline`; give the pipeline's name".into());
    };
    check_name(file, "pipeline", &name)?;
    let Some((stages_key, stages)) = stages else {
        return fail(&start, "missing key `stages`; give a map of stages".into());
    };
    let Tree::Map(entries) = stages.tree else {
        let found = stages.describe();
        return fail(&stages_key.place, format!("`stages` is a map of stages, not {found}"));
    };
    if entries.is_empty() {
        return fail(&stages_key.place, "`stages` is empty; give at least one stage".into());
    }
    let stages = entries
        .into_iter()
        .map(|(key, node)| {
            check_name(file, "stage", &key)?;
            stage(file, key, node)
        })
        .collect::<Result<_>>()?;
    Ok(RawPipeline { file: file.into(), name: name.name, stages })
}

/// Names become object keys and SQL names.
fn check_name(file: &str, what: &str, key: &Key) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.name.starts_with(|c: char| c.is_ascii_alphanumeric()) && key.name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{}: `{}` is no {what} name; use letters, digits, `-` and `_`",
        key.place.of(file),
        key.name
    )))
}

fn stage(file: &str, key: Key, node: Node) -> Result<RawStage> {
    let at = |place: &Place| format!("{}: stage `{}`", place.of(file), key.name);
    let Tree::Map(entries) = node.tree else {
        let found = node.describe();
        return Err(Error::usage(format!(
            "{}: a stage is a map with `job`, `params` and `inputs`, not {found}",
            at(&key.place)
        )));
    };
    let (mut job, mut params, mut inputs) = (None, None, Vec::new());
    let (mut resources, mut placement) = (None, None);
    for (field, node) in entries {
        match field.name.as_str() {
            "job" => job = Some(text_of(file, &field, &node)?),
            "params" => params = Some(node),
            "inputs" => inputs = ports(file, &key.name, node)?,
            "resources" => resources = Some(node),
            "placement" => placement = Some(node),
            other => {
                let hint = hint(other, ["job", "params", "inputs", "resources", "placement"]);
                return Err(Error::usage(format!(
                    "{}: unknown key `{other}`{hint}",
                    at(&field.place)
                )));
            }
        }
    }
    let Some(job) = job else {
        return Err(Error::usage(format!(
            "{}: missing key `job`; give a job kind",
            at(&key.place)
        )));
    };
    let place = params.as_ref().map_or(&key.place, |node: &Node| &node.place).clone();
    let params = match params {
        Some(node) if !node.is_null() => node,
        _ => Node { place, tree: Tree::Map(Vec::new()) },
    };
    if !matches!(params.tree, Tree::Map(_)) {
        let found = params.describe();
        return Err(Error::usage(format!("{}: `params` is a map, not {found}", at(&params.place))));
    }
    Ok(RawStage { key, job, params, inputs, resources, placement })
}

fn ports(file: &str, stage: &str, node: Node) -> Result<Vec<RawPort>> {
    if node.is_null() {
        return Ok(Vec::new());
    }
    let Tree::Map(entries) = node.tree else {
        let found = node.describe();
        return Err(Error::usage(format!(
            "{}: stage `{stage}`: `inputs` is a map of `port: stage`, not {found}",
            node.place.of(file)
        )));
    };
    entries
        .into_iter()
        .map(|(key, node)| {
            let wires = match node.tree {
                Tree::List(items) => Wires::List(
                    items.iter().map(|item| text_of(file, &key, item)).collect::<Result<_>>()?,
                ),
                Tree::Map(entries) => Wires::Map(
                    entries
                        .into_iter()
                        .map(|(name, item)| {
                            let stage = text_of(file, &name, &item)?;
                            Ok((name, stage))
                        })
                        .collect::<Result<_>>()?,
                ),
                Tree::Scalar(_) | Tree::File(_) => Wires::One(text_of(file, &key, &node)?),
            };
            Ok(RawPort { key, wires })
        })
        .collect()
}

/// The text behind `key`, with its own place.
fn text_of(file: &str, key: &Key, node: &Node) -> Result<Key> {
    match &node.tree {
        Tree::Scalar(Value::String(text)) => {
            Ok(Key { name: text.clone(), place: node.place.clone() })
        }
        _ => Err(Error::usage(format!(
            "{}: `{}` is a name, not {}",
            node.place.of(file),
            key.name,
            node.describe()
        ))),
    }
}
