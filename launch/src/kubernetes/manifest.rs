//! A stage as a Job.
//!
//! # How a process's end is taken
//! The first rule that fits decides; triad's exit codes are in `Order::arguments`' contract.
//! ```text
//! disrupted        the node went, was drained, preempted, short of memory: again, not counted
//! 64, 65, 70, 137  never passes by trying again (137: killed, for memory or room): all ends
//! 75               try again: again, not counted, after pauses that grow
//! others           again, `retries` times for each shard; then all ends
//! ```
//! All ends (`maxFailedIndexes: 0`) because the stage cannot be committed without the shard, and
//! what the other shards committed stays.
//!
//! # Time
//! `resources.time` is a deadline of the pod, not of the Job: it counts from when a node has the
//! pod, for each try. That of a Job would count while shards wait for nodes, and what disruptions
//! cost. At the deadline a process gets SIGTERM, writes its checkpoint and leaves with 75: the next
//! try goes on from there. One that hangs is killed after the grace period: 137.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvFromSource, EnvVar, PodSecurityContext,
    PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretEnvSource,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{Site, names};
use crate::order::{Order, Resources, Task};
use crate::{Error, Result};

/// Exit codes that do not pass by trying again.
pub const FINAL: [i32; 4] = [64, 65, 70, KILLED];
/// By SIGKILL: out of memory or of room in /tmp, or not ended within the grace period.
pub const KILLED: i32 = 137;
pub const TRY_AGAIN: i32 = 75;
/// How long a process waits for its inputs before it leaves with 75, where nothing else keeps the
/// order.
const WAIT: &str = "10m";
/// The most indexes that the API takes.
const SHARDS: u32 = 100_000;

const GPU: &str = "nvidia.com/gpu";
pub const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const SCRATCH: &str = "tmp";

/// The order's Jobs as manifests, to be applied in this order or all at once: a process whose
/// inputs are not committed yet waits for them.
pub fn render(order: &Order, site: &Site) -> Result<Vec<Value>> {
    let each = order.tasks.iter().map(|task| {
        let waits = !task.after.is_empty();
        let job = job(order, task, site, waits)?;
        serde_json::to_value(job).map_err(|err| Error::Defect(format!("a Job as JSON: {err}")))
    });
    each.collect()
}

/// With `waits`, a process waits for inputs that are not committed yet.
pub fn job(order: &Order, task: &Task, site: &Site, waits: bool) -> Result<Job> {
    let metadata = |name| ObjectMeta {
        name,
        labels: Some(names::labels(order, task)),
        annotations: Some(names::annotations(order, task)),
        ..ObjectMeta::default()
    };
    let mut of_job =
        ObjectMeta { namespace: site.namespace.clone(), ..metadata(Some(names::job(order, task))) };
    if let (Some(labels), Some(queue)) = (&mut of_job.labels, &site.queue) {
        labels.insert(QUEUE.into(), queue.clone());
    }
    let mut container = container(order, task, site)?;
    if waits {
        container.args.get_or_insert_default().extend(["--wait".into(), WAIT.into()]);
    }
    let shards = shards(task)?;
    Ok(Job {
        metadata: of_job,
        spec: Some(JobSpec {
            completion_mode: Some("Indexed".into()),
            completions: Some(shards),
            parallelism: Some(shards),
            backoff_limit_per_index: Some(clamp(site.retries.into())),
            max_failed_indexes: Some(0),
            pod_failure_policy: Some(PodFailurePolicy { rules: rules() }),
            suspend: site.queue.as_ref().map(|_| true),
            ttl_seconds_after_finished: Some(clamp(site.ttl.as_secs())),
            template: PodTemplateSpec {
                metadata: Some(metadata(None)),
                spec: Some(PodSpec {
                    active_deadline_seconds: task.resources.time.map(deadline),
                    restart_policy: Some("Never".into()),
                    termination_grace_period_seconds: Some(grace(site)),
                    containers: vec![container],
                    ..pod(task, site)
                }),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// What a pod's security, place and volumes are.
pub fn pod(task: &Task, site: &Site) -> PodSpec {
    PodSpec {
        // Towards clouds, a token comes by a volume of their own.
        automount_service_account_token: Some(false),
        service_account_name: site.service_account.clone(),
        // A Service named triad would set variables such as TRIAD_PORT.
        enable_service_links: Some(false),
        node_selector: Some(node_selector(task, site)).filter(|labels| !labels.is_empty()),
        tolerations: Some(tolerations(task, site)).filter(|all| !all.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![Volume {
            name: SCRATCH.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: site.scratch.clone().map(Quantity),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

/// The process: the image's entrypoint is `triad`.
pub fn container(order: &Order, task: &Task, site: &Site) -> Result<Container> {
    site.check()?;
    let arguments = order.arguments(task).iter().map(|text| literal(text)).collect();
    let mut environment = BTreeMap::from([("HOME".to_string(), "/tmp".to_string())]);
    environment.extend(site.environment.clone());
    let amounts = amounts(&task.resources, site);
    Ok(Container {
        name: names::CONTAINER.into(),
        image: Some(site.image(task)?.into()),
        args: Some(arguments),
        env: Some(
            environment
                .into_iter()
                .map(|(name, value)| EnvVar {
                    name,
                    value: Some(literal(&value)),
                    ..EnvVar::default()
                })
                .collect(),
        ),
        env_from: Some(site.secrets.iter().map(|name| secret(name)).collect::<Vec<_>>())
            .filter(|secrets| !secrets.is_empty()),
        resources: Some(ResourceRequirements {
            limits: Some(amounts.clone()),
            requests: Some(amounts),
            ..ResourceRequirements::default()
        })
        .filter(|resources| resources.limits.as_ref().is_some_and(|limits| !limits.is_empty())),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // The log's last lines stay with the pod's status, where the node is gone too.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(vec![VolumeMount {
            name: SCRATCH.into(),
            mount_path: "/tmp".into(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    })
}

/// Processes of a task.
pub fn shards(task: &Task) -> Result<i32> {
    match task.shards {
        1..=SHARDS => Ok(clamp(task.shards.into())),
        shards => Err(Error::Usage(format!(
            "stage `{}`: {shards} shards: from 1 to {SHARDS} on Kubernetes",
            task.stage
        ))),
    }
}

/// In seconds, up and at least one.
pub fn deadline(time: Duration) -> i64 {
    clamp(time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1).into()
}

/// In seconds.
pub fn grace(site: &Site) -> i64 {
    clamp(site.grace.as_secs()).into()
}

fn clamp(number: u64) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// In arguments and variables Kubernetes replaces `$(NAME)` and makes `$$` one dollar.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn secret(name: &str) -> EnvFromSource {
    EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: name.into(), optional: Some(false) }),
        ..EnvFromSource::default()
    }
}

/// Requests and limits alike: what is asked for is there, and no more than that is taken.
fn amounts(resources: &Resources, site: &Site) -> BTreeMap<String, Quantity> {
    let amounts = [
        (GPU, (resources.gpus > 0).then(|| resources.gpus.to_string())),
        ("cpu", resources.cpus.map(|cpus| cpus.to_string())),
        ("memory", resources.memory.map(canonical)),
        ("ephemeral-storage", site.scratch.clone()),
    ];
    amounts
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_string(), Quantity(amount?))))
        .collect()
}

/// As the API writes a number of bytes: applied a second time, a manifest then changes nothing.
fn canonical(mut bytes: u64) -> String {
    let mut suffix = "";
    for larger in ["k", "M", "G", "T", "P", "E"] {
        if bytes == 0 || !bytes.is_multiple_of(1000) {
            break;
        }
        (bytes, suffix) = (bytes / 1000, larger);
    }
    format!("{bytes}{suffix}")
}

fn node_selector(task: &Task, site: &Site) -> BTreeMap<String, String> {
    let mut labels = site.node_selector.clone();
    if task.resources.gpus > 0 {
        labels.extend(site.gpu_node_selector.clone());
    }
    labels
}

fn tolerations(task: &Task, site: &Site) -> Vec<Toleration> {
    let mut all: Vec<Toleration> = site.tolerations.iter().map(Toleration::from).collect();
    if task.resources.gpus > 0 {
        all.push(Toleration {
            key: Some(GPU.into()),
            operator: Some("Exists".into()),
            effect: Some("NoSchedule".into()),
            ..Toleration::default()
        });
    }
    all
}

fn rules() -> Vec<PodFailurePolicyRule> {
    let on_codes = |action: &str, values: &[i32]| PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(names::CONTAINER.into()),
            operator: "In".into(),
            values: values.into(),
        }),
        on_pod_conditions: None,
    };
    vec![
        // First: a disrupted process may end with any of the codes below.
        PodFailurePolicyRule {
            action: "Ignore".into(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".into(),
                status: "True".into(),
            }]),
        },
        on_codes("FailJob", &FINAL),
        on_codes("Ignore", &[TRY_AGAIN]),
    ]
}
