//! An order as one Argo Workflow: a task for each stage, a pod for each shard.
//!
//! Argo counts every try, so a process that leaves with 75 has [`TRIES`] of them, over hours, where
//! a Job has no limit. The processes get no token for the cluster's API; Argo's own container
//! beside them reports with that of the service account [`EXECUTOR`].

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Site, manifest, names};
use crate::order::{Order, Task};
use crate::{Error, Result};

const TRIES: u32 = 50;
/// Has the right to create and patch `workflowtaskresults`, and no other.
const EXECUTOR: &str = "triad-argo";

/// The order as a Workflow, to be created (not applied: each has a name of its own).
pub fn workflow(order: &Order, site: &Site) -> Result<Value> {
    let mut templates = vec![dag(order)];
    for task in &order.tasks {
        templates.push(template(order, task, site)?);
    }
    let patch = json!({
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": manifest::grace(site),
    });
    let workflow = without_nulls(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "generateName": format!("triad-{}-", names::dns(&order.pipeline, 40)),
            "namespace": site.namespace,
            "labels": { names::MANAGED_BY: names::US },
        },
        "spec": {
            "entrypoint": "all",
            "serviceAccountName": site.service_account,
            "automountServiceAccountToken": false,
            "executor": { "serviceAccountName": EXECUTOR },
            // Templates have no fields for these.
            "podSpecPatch": patch.to_string(),
            "ttlStrategy": { "secondsAfterCompletion": site.ttl.as_secs() },
            "templates": templates,
        },
    }));
    // Argo replaces `{{…}}` wherever it stands: only what is written here may have them.
    let texts = order.tasks.iter().flat_map(|task| {
        order.arguments(task).into_iter().chain([task.artifact.clone(), order.pipeline.clone()])
    });
    match texts.chain(site.environment.values().cloned()).find(|text| text.contains("{{")) {
        Some(text) => Err(Error::Usage(format!(
            "`{text}`: Argo takes `{{{{` for a template of its own; without it, or as Jobs: `triad \
             render kubernetes`"
        ))),
        None => Ok(workflow),
    }
}

/// Which template runs after which.
fn dag(order: &Order) -> Value {
    let tasks = order.tasks.iter().map(|task| {
        let after: BTreeSet<String> = task
            .after
            .iter()
            .filter_map(|&other| Some(names::job(order, order.tasks.get(other)?)))
            .collect();
        let name = names::job(order, task);
        let mut entry = json!({ "name": name, "template": name });
        if !after.is_empty() {
            entry["dependencies"] = json!(after);
        }
        if task.shards > 1 {
            entry["withSequence"] = json!({ "count": task.shards.to_string() });
            entry["arguments"] =
                json!({ "parameters": [{ "name": "shard", "value": "{{item}}" }] });
        }
        entry
    });
    json!({ "name": "all", "dag": { "tasks": tasks.collect::<Vec<_>>() } })
}

fn template(order: &Order, task: &Task, site: &Site) -> Result<Value> {
    manifest::shards(task)?;
    let value = |err| Error::Defect(format!("a Workflow as JSON: {err}"));
    let mut container =
        serde_json::to_value(manifest::container(order, task, site)?).map_err(value)?;
    // Argo starts the process itself, and would ask the registry for the image's entrypoint.
    container["command"] = json!(["triad"]);
    let mut inputs = Value::Null;
    if task.shards > 1 {
        inputs = json!({ "parameters": [{ "name": "shard" }] });
        let index = json!({
            "name": "JOB_COMPLETION_INDEX",
            "value": "{{inputs.parameters.shard}}",
        });
        if let Some(environment) = container["env"].as_array_mut() {
            environment.push(index);
        }
    }
    let pod = serde_json::to_value(manifest::pod(task, site)).map_err(value)?;
    let mut labels = names::labels(order, task);
    if let Some(queue) = &site.queue {
        labels.insert(manifest::QUEUE.into(), queue.clone());
    }
    Ok(json!({
        "name": names::job(order, task),
        "metadata": { "labels": labels, "annotations": names::annotations(order, task) },
        "inputs": inputs,
        "activeDeadlineSeconds": task.resources.time.map(|time| manifest::deadline(time).to_string()),
        "nodeSelector": pod["nodeSelector"],
        "tolerations": pod["tolerations"],
        "securityContext": pod["securityContext"],
        "volumes": pod["volumes"],
        "retryStrategy": {
            "limit": TRIES.to_string(),
            "retryPolicy": "Always",
            "expression": expression(),
            "backoff": { "duration": "10s", "factor": "2", "cap": "10m" },
        },
        "container": container,
    }))
}

/// When a pod is tried again. Killed for memory is final; killed with its node is not, and both are
/// 137.
fn expression() -> String {
    let last: Vec<String> = manifest::FINAL
        .iter()
        .filter(|&&code| code != manifest::KILLED)
        .map(|code| code.to_string())
        .collect();
    format!(
        "not (asInt(lastRetry.exitCode) in [{}]) and not (lastRetry.message contains 'OOMKilled')",
        last.join(", ")
    )
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(all) => all.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
