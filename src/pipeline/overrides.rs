//! `--set stage.key=value`: one parameter changed from the command line, `--set '*.key=value'`
//! the same one of every stage that writes it down.

use std::path::Path;

use super::parse::{RawPipeline, RawStage};
use super::yaml::{Key, Node, Place, Tree};
use crate::job::Job;
use crate::nearest::hint;
use crate::{Error, Result};

/// Applies `sets` in order. A dotted path leads into the parameters, through lists by number;
/// its last part may be new there, everything before it must exist.
pub(super) fn apply(
    raw: &mut RawPipeline,
    sets: &[String],
    kinds: &[&'static dyn Job],
) -> Result<()> {
    for set in sets {
        let fail = |message: String| Error::usage(format!("--set {set}: {message}"));
        let (path, value) =
            set.split_once('=').ok_or_else(|| fail("no `=`; write stage.key=value".into()))?;
        let (stage, path) = path
            .split_once('.')
            .ok_or_else(|| fail(format!("`{path}` names no parameter; write stage.key=value")))?;
        if stage == "*" {
            let value = Node::parse_override(set, value)?;
            everywhere(raw, path, &value, &Place::Set(set.clone())).map_err(fail)?;
            continue;
        }
        let names: Vec<String> = raw.stages.iter().map(|stage| stage.key.name.clone()).collect();
        let Some(found) = raw.stages.iter_mut().find(|other| other.key.name == stage) else {
            let hint = hint(stage, names.iter().map(String::as_str));
            return Err(fail(format!("no stage `{stage}`{hint}")));
        };
        let mut value = Node::parse_override(set, value)?;
        value.read_files(&raw.file, Path::new(""))?;
        if parent(&mut found.params, path).is_err() {
            with_defaults(found, kinds);
        }
        insert(&mut found.params, path, value, &Place::Set(set.clone())).map_err(fail)?;
    }
    Ok(())
}

/// Sets a parameter in every stage of the file that gives it a value already.
fn everywhere(
    raw: &mut RawPipeline,
    path: &str,
    value: &Node,
    place: &Place,
) -> Result<(), String> {
    let mut found = false;
    for stage in &mut raw.stages {
        if exists(&mut stage.params, path) {
            insert(&mut stage.params, path, value.clone(), place)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(format!("no stage in the file has a parameter `{path}`")) }
}

fn exists(root: &mut Node, path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    match parent(root, path).map(|node| &node.tree) {
        Ok(Tree::Map(entries)) => entries.iter().any(|(key, _)| key.name == last),
        Ok(Tree::List(items)) => last.parse::<usize>().is_ok_and(|i| i < items.len()),
        _ => false,
    }
}

/// Replaces the parameters by the resolved ones, so that a path may lead into a default.
fn with_defaults(stage: &mut RawStage, kinds: &[&'static dyn Job]) {
    let job = kinds.iter().find(|job| job.name() == stage.job.name);
    if let Some(Ok(resolved)) = job.map(|job| job.resolve(&stage.params.to_json())) {
        stage.params = Node::from_json(&resolved, &stage.params.place);
    }
}

/// The node above the last part of `path`.
fn parent<'a>(node: &'a mut Node, path: &str) -> Result<&'a mut Node, String> {
    let Some((above, _)) = path.rsplit_once('.') else { return Ok(node) };
    let mut node = node;
    for part in above.split('.') {
        let found = match &mut node.tree {
            Tree::Map(entries) => {
                let known: Vec<String> = entries.iter().map(|(key, _)| key.name.clone()).collect();
                let missing = hint(part, known.iter().map(String::as_str));
                entries
                    .iter_mut()
                    .find(|(key, _)| key.name == part)
                    .map(|(_, value)| value)
                    .ok_or(format!("no parameter `{part}`{missing}"))
            }
            Tree::List(items) => {
                let len = items.len();
                part.parse::<usize>()
                    .ok()
                    .and_then(|i| items.get_mut(i))
                    .ok_or(format!("no item `{part}` in a list of {len}; items count from 0"))
            }
            Tree::Scalar(_) | Tree::File(_) => Err(format!("nothing lies below `{part}`")),
        };
        node = found?;
    }
    Ok(node)
}

fn insert(root: &mut Node, path: &str, value: Node, place: &Place) -> Result<(), String> {
    let last = path.rsplit('.').next().unwrap_or(path);
    match &mut parent(root, path)?.tree {
        Tree::Map(entries) => {
            let key = Key { name: last.into(), place: place.clone() };
            match entries.iter_mut().find(|(key, _)| key.name == last) {
                Some(entry) => *entry = (key, value),
                None => entries.push((key, value)),
            }
            Ok(())
        }
        Tree::List(items) => {
            let len = items.len();
            match last.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                Some(item) => *item = value,
                None => {
                    return Err(format!("no item `{last}` in a list of {len}; items count from 0"));
                }
            }
            Ok(())
        }
        Tree::File(value) => Err(format!("`{value}` has no parameter `{last}`")),
        Tree::Scalar(value) => Err(format!("`{value}` has no parameter `{last}`")),
    }
}
