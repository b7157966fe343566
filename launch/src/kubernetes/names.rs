//! What objects are called and labelled.
//!
//! A job's name follows from the artifact and the store alone, not from who asks or from what a
//! pipeline calls the stage: the second of two clients that submit the same is told that the name
//! is taken. Other pipelines, other runs and [`crate::kubernetes::render`] come to the same name.

use std::collections::BTreeMap;

use crate::order::{Order, Task};

pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const US: &str = "triad";
/// Of the only container.
pub const CONTAINER: &str = "triad";
pub const ARTIFACT: &str = "triad.dev/artifact";
pub const STORE: &str = "triad.dev/store";
const PIPELINE: &str = "triad.dev/pipeline";
const STAGE: &str = "triad.dev/stage";

/// The longest DNS label and the longest label value.
pub const LONGEST: usize = 63;

/// The name of a task's Job, at most 44 bytes: a pod's host name is that and an index.
pub fn job(order: &Order, task: &Task) -> String {
    format!("triad-{}-{}", dns(&task.job, 16), order.mark(task))
}

/// `text` as a part of a DNS label: lower-case letters, digits, single dashes inside.
pub fn dns(text: &str, longest: usize) -> String {
    let mut name = String::new();
    for letter in text.chars().map(|letter| letter.to_ascii_lowercase()) {
        if letter.is_ascii_alphanumeric() {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() == longest {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "x".into() } else { name.into() }
}

/// `text` as a label's value: other characters become dashes, ends are letters or digits. Empty
/// where nothing is left.
pub fn label(text: &str, longest: usize) -> String {
    let kept: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    let outside = |c: char| !c.is_ascii_alphanumeric();
    let start = kept.trim_start_matches(outside);
    start[..start.len().min(longest)].trim_end_matches(outside).into()
}

/// What selects our jobs, those of other pipelines too.
pub fn selector() -> String {
    format!("{MANAGED_BY}={US}")
}

/// Of a Job and its pods.
pub fn labels(order: &Order, task: &Task) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", US.into()),
        (MANAGED_BY, US.into()),
        (PIPELINE, label(&order.pipeline, LONGEST)),
        (STAGE, label(&task.stage, LONGEST)),
        (ARTIFACT, label(&task.artifact, LONGEST)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// The same in full.
pub fn annotations(order: &Order, task: &Task) -> BTreeMap<String, String> {
    [
        (PIPELINE, &*order.pipeline),
        (STAGE, &task.stage),
        (ARTIFACT, &task.artifact),
        (STORE, &order.store),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into()
}

/// Whether an object with these annotations makes the task's artifact in the order's store.
pub fn is_for(annotations: &BTreeMap<String, String>, order: &Order, task: &Task) -> bool {
    annotations.get(ARTIFACT) == Some(&task.artifact)
        && annotations.get(STORE) == Some(&order.store)
}
