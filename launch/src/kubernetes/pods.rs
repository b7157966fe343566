//! Why a job waits, why it failed: what its pods and the events about it say.

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use super::{manifest, names};
use crate::scheduler::Failure;

const LINES: i64 = 40;
const BYTES: i64 = 64 << 10;
/// Pods that are looked at, of a job that may have thousands.
const LOOKED_AT: u32 = 200;

/// Reads what lies around a job. None of it decides anything: what cannot be read is left out.
pub struct Around {
    pods: Api<Pod>,
    events: Api<Event>,
}

impl Around {
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            pods: Api::namespaced(client.clone(), namespace),
            events: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Why none of its pods is ready; nothing where one has started and is ending, which its status
    /// counts a moment later.
    pub async fn waiting(&self, job: &Job) -> Option<String> {
        if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
            return Some("suspended, until its queue admits it".into());
        }
        let pods = self.pods(job, "status.phase=Pending").await;
        if let Some(reason) = pods.iter().find_map(pending) {
            return Some(reason);
        }
        if !pods.is_empty() {
            return Some("its pods start".into());
        }
        if active(job) > 0 {
            let running = self.pods(job, "status.phase=Running").await;
            let ended = self.pods(job, "status.phase=Succeeded").await;
            return (running.is_empty() && ended.is_empty()).then(|| "its pods start".into());
        }
        if let Some(event) = self.warning(job).await {
            return Some(event);
        }
        let failed = self.pods(job, "status.phase=Failed").await;
        Some(match failed.iter().max_by_key(|pod| ended_at(pod)) {
            Some(pod) => format!("between two tries; the last: {}", ending(pod)),
            None => "no pod yet".into(),
        })
    }

    /// Why it failed, with the log's last lines.
    pub async fn failure(&self, job: &Job, condition: &JobCondition) -> Failure {
        let said = condition.message.clone().unwrap_or_default();
        let why = condition.reason.clone().unwrap_or_default();
        let pods = self.pods(job, "status.phase=Failed").await;
        // The controller names the pod that ended all; else what a retry helps least is to blame.
        let blamed = pods
            .iter()
            .find(|pod| said.contains(&format!("/{} ", pod.name_any())))
            .or_else(|| pods.iter().max_by_key(|pod| (blame(pod), ended_at(pod))));
        let Some(pod) = blamed else {
            let reason = if said.is_empty() { why } else { format!("{why}: {said}") };
            return Failure { code: code_in(&said), reason, log: String::new() };
        };
        let mut reason = ending(pod);
        if why != "PodFailurePolicy" && !why.is_empty() {
            reason = format!("{reason} ({why})");
        }
        let terminated = terminated(pod);
        let code = terminated.map(|end| end.exit_code).or_else(|| code_in(&said));
        Failure { code, reason, log: self.log(pod).await }
    }

    async fn log(&self, pod: &Pod) -> String {
        let tail = LogParams {
            container: Some(names::CONTAINER.into()),
            tail_lines: Some(LINES),
            limit_bytes: Some(BYTES),
            ..LogParams::default()
        };
        match self.pods.logs(&pod.name_any(), &tail).await {
            Ok(log) if !log.trim().is_empty() => log.trim_end().into(),
            // The node went: the status still has the last lines.
            _ => terminated(pod)
                .and_then(|end| end.message.as_deref())
                .unwrap_or_default()
                .trim_end()
                .into(),
        }
    }

    /// Of this try, not of an earlier job of the same name.
    async fn pods(&self, job: &Job, phase: &str) -> Vec<Pod> {
        let Some(uid) = job.uid() else { return Vec::new() };
        let chosen = ListParams::default()
            .labels(&format!("batch.kubernetes.io/controller-uid={uid}"))
            .fields(phase)
            .limit(LOOKED_AT);
        let listed = self.pods.list(&chosen).await;
        listed
            .inspect_err(|err| tracing::debug!("pods of job {}: {err}", job.name_any()))
            .map(|pods| pods.items)
            .unwrap_or_default()
    }

    /// The newest about the job itself: a quota that is used up, a refused pod.
    async fn warning(&self, job: &Job) -> Option<String> {
        let about = format!("involvedObject.uid={},type=Warning", job.uid()?);
        let events = self.events.list(&ListParams::default().fields(&about).limit(LOOKED_AT)).await;
        let events = events.ok()?.items;
        let newest = events.into_iter().max_by_key(|event| {
            (
                event.last_timestamp.as_ref().map(|time| time.0),
                event.metadata.creation_timestamp.clone().map(|time| time.0),
            )
        })?;
        Some(join(newest.reason.as_deref(), newest.message.as_deref()))
    }
}

/// Pods of the job that have not ended.
pub fn active(job: &Job) -> i32 {
    job.status.as_ref().and_then(|status| status.active).unwrap_or_default()
}

/// Why a pod does not run, where its status says more than that it starts.
fn pending(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find(|waiting| {
            !matches!(
                waiting.reason.as_deref(),
                None | Some("ContainerCreating" | "PodInitializing")
            )
        })
        .map(|waiting| join(waiting.reason.as_deref(), waiting.message.as_deref()));
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions
            .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| join(condition.reason.as_deref(), condition.message.as_deref()))
            .next()
    };
    waiting.or_else(unscheduled)
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()).next()
}

fn ended_at(pod: &Pod) -> Option<k8s_openapi::jiff::Timestamp> {
    terminated(pod)?.finished_at.as_ref().map(|time| time.0)
}

fn disrupted(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

/// How likely a pod's end is why the job failed.
fn blame(pod: &Pod) -> u8 {
    match terminated(pod).map(|end| end.exit_code) {
        _ if disrupted(pod) => 0,
        Some(manifest::TRY_AGAIN) => 1,
        Some(code) if manifest::FINAL.contains(&code) => 3,
        _ => 2,
    }
}

/// How a pod ended, in a line.
fn ending(pod: &Pod) -> String {
    let index = "batch.kubernetes.io/job-completion-index";
    let shard = match pod.annotations().get(index) {
        Some(index) => format!("shard {index} (pod {})", pod.name_any()),
        None => format!("pod {}", pod.name_any()),
    };
    let status = pod.status.as_ref();
    let of_pod = status.and_then(|status| status.reason.as_deref());
    let container = terminated(pod);
    let how = match (of_pod, container) {
        // Evicted, DeadlineExceeded, NodeShutdown: the kubelet's reason says more than the code.
        (Some(reason), _) => {
            join(Some(reason), status.and_then(|status| status.message.as_deref()))
        }
        (None, Some(end)) => match end.reason.as_deref() {
            Some("OOMKilled") => "out of memory: more than `resources.memory` allows".into(),
            Some("Error" | "Completed") | None => match end.exit_code {
                manifest::KILLED => "exit code 137: killed".into(),
                code => format!("exit code {code}"),
            },
            Some(reason) => join(Some(reason), end.message.as_deref()),
        },
        (None, None) => "ended without a word".into(),
    };
    format!("{shard}: {how}")
}

/// `reason: message`, in one line.
fn join(reason: Option<&str>, message: Option<&str>) -> String {
    let parts: Vec<&str> =
        [reason, message].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// In the controller's words: `Container triad for pod ns/name failed with exit code 65 matching …`.
fn code_in(message: &str) -> Option<i32> {
    let after = message.split("exit code ").nth(1)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
