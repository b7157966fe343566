//! A cluster: the API server of triad-launch's tests, with a controller that does what the manifests
//! of Jobs say, and machines that run their containers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::container::{Ended, Machines};
use super::server::{NAMESPACE, Server};
use super::{KEYS, PAUSE, Place, array, text};
use crate::s3_server;

pub struct Cluster {
    controller: Controller,
    s3: String,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Controller {
    server: Server,
    machines: Machines,
}

/// What a pod's end means for its Job.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Succeeded,
    /// The pod's index starts again.
    Ignored,
    Counted,
    Fails(String),
}

impl Place for Cluster {
    const ON: &'static str = "kubernetes";

    fn start(s3: &s3_server::Server) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::start());
        let controller = Controller { server, machines: Machines::default() };
        runtime.spawn(controller.clone().control());
        Self { controller, s3: s3.endpoint(), _runtime: runtime }
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
             clusters: [{{name: here, cluster: {{server: '{}'}}}}]\n\
             contexts: [{{name: here, context: {{cluster: here, user: me, namespace: {NAMESPACE}}}}}]\n\
             users: [{{name: me, user: {{}}}}]\n",
            self.controller.server.url()
        );
        let site = format!(
            "kubernetes:\n  images: {{cpu: 'registry.example/triad:cpu'}}\n  secrets: [bucket]\n  \
             environment: {{AWS_ENDPOINT_URL: '{}', AWS_ALLOW_HTTP: 'true', AWS_REGION: us-east-1}}\n",
            self.s3
        );
        vec![("kubeconfig", config), ("site.yaml", site)]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("KUBECONFIG", "kubeconfig".into()), ("AWS_ENDPOINT_URL", self.s3.clone())]
    }

    fn submitted(&self) -> usize {
        self.controller.server.asked("POST", "/jobs").len()
    }

    fn machines(&self) -> &Machines {
        &self.controller.machines
    }
}

impl Controller {
    async fn control(self) {
        let mut known = BTreeSet::new();
        loop {
            tokio::time::sleep(PAUSE).await;
            let jobs: Vec<Value> =
                self.server.cluster.lock().unwrap().jobs.values().cloned().collect();
            for job in jobs {
                if known.insert(text(&job["metadata"]["uid"])) {
                    tokio::spawn(self.clone().run(job));
                }
            }
        }
    }

    async fn run(self, job: Value) {
        let name = text(&job["metadata"]["name"]);
        let completions = job["spec"]["completions"].as_i64().unwrap();
        self.server.status(&name, json!({ "active": completions, "ready": completions }));
        let mut shards = JoinSet::new();
        for index in 0..completions {
            shards.spawn(self.clone().shard(job.clone(), index));
        }
        let (mut succeeded, mut failed) = (0, None);
        while let Some(ended) = shards.join_next().await {
            let conditions = match (ended.unwrap(), &failed) {
                (Ok(()), _) => {
                    succeeded += 1;
                    json!([])
                }
                (Err((reason, message)), None) => {
                    let target = condition("FailureTarget", reason, &message);
                    failed = Some(condition("Failed", reason, &message));
                    json!([target])
                }
                (Err(_), Some(failed)) => json!([failed]),
            };
            let active = completions - succeeded;
            let status = json!({ "active": active, "ready": active, "succeeded": succeeded, "conditions": conditions });
            self.server.status(&name, status);
        }
        let end = failed.unwrap_or_else(|| condition("Complete", "CompletionsReached", ""));
        self.server.status(&name, json!({ "succeeded": succeeded, "conditions": [end] }));
    }

    /// Pods of one index, until one succeeds.
    async fn shard(self, job: Value, index: i64) -> Result<(), (&'static str, String)> {
        let spec = &job["spec"];
        let container = &spec["template"]["spec"]["containers"][0];
        let arguments: Vec<String> = array(&container["args"]).map(literal).collect();
        let mut variables: BTreeMap<String, String> = array(&container["env"])
            .map(|variable| (text(&variable["name"]), literal(&variable["value"])))
            .collect();
        for from in array(&container["envFrom"]) {
            assert_eq!(from["secretRef"]["name"], "bucket");
            variables.extend(KEYS.map(|(name, value)| (name.into(), value.into())));
        }
        variables.insert("JOB_COMPLETION_INDEX".into(), index.to_string());
        let mut counted = 0;
        for attempt in 0.. {
            let pod = format!("{}-{index}-{attempt}", text(&job["metadata"]["name"]));
            let ended = self.machines.run(&arguments, &variables, || self.is_over(&job)).await;
            let verdict = verdict(&spec["podFailurePolicy"], &pod, &ended);
            if verdict != Verdict::Succeeded {
                self.bury(&job, index, &pod, &ended);
            }
            match verdict {
                Verdict::Succeeded => return Ok(()),
                Verdict::Fails(message) => return Err(("PodFailurePolicy", message)),
                Verdict::Counted => counted += 1,
                Verdict::Ignored => {}
            }
            if counted > spec["backoffLimitPerIndex"].as_i64().unwrap() {
                return Err(("MaxFailedIndexesExceeded", String::new()));
            }
            if self.is_over(&job) {
                return Err(("Deleted", String::new()));
            }
        }
        unreachable!()
    }

    /// Whether the job's pods are not wanted any more.
    fn is_over(&self, job: &Value) -> bool {
        let cluster = self.server.cluster.lock().unwrap();
        match cluster.jobs.get(&text(&job["metadata"]["name"])) {
            Some(now) if now["metadata"]["uid"] == job["metadata"]["uid"] => {
                let failed = array(&now["status"]["conditions"]).next().is_some();
                now["metadata"]["deletionTimestamp"].is_string() || failed
            }
            _ => true,
        }
    }

    /// What is left of a pod that failed.
    fn bury(&self, job: &Value, index: i64, pod: &str, ended: &Ended) {
        let disruption = json!([{ "type": "DisruptionTarget", "status": "True" }]);
        let pod_left = json!({
            "metadata": {
                "name": pod,
                "labels": { "batch.kubernetes.io/controller-uid": job["metadata"]["uid"] },
                "annotations": { "batch.kubernetes.io/job-completion-index": index.to_string() },
            },
            "spec": job["spec"]["template"]["spec"],
            "status": {
                "phase": "Failed",
                "conditions": if ended.lost { disruption } else { json!([]) },
                "containerStatuses": [{
                    "name": "triad", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                    "state": { "terminated": {
                        "exitCode": ended.code, "reason": "Error",
                        "finishedAt": "2026-01-01T00:00:00Z",
                    } },
                }],
            },
        });
        let mut cluster = self.server.cluster.lock().unwrap();
        cluster.pods.push(pod_left);
        cluster.logs.insert(pod.into(), ended.log.clone());
    }
}

/// By the first rule that fits.
fn verdict(policy: &Value, pod: &str, ended: &Ended) -> Verdict {
    if ended.code == 0 {
        return Verdict::Succeeded;
    }
    for (position, rule) in array(&policy["rules"]).enumerate() {
        let disrupted = array(&rule["onPodConditions"])
            .any(|condition| condition["type"] == "DisruptionTarget" && ended.lost);
        let codes = &rule["onExitCodes"];
        let fits = array(&codes["values"]).any(|code| *code == ended.code);
        assert!(codes.is_null() || codes["operator"] == "In");
        if !disrupted && !fits {
            continue;
        }
        let message = format!(
            "Container triad for pod {NAMESPACE}/{pod} failed with exit code {} matching FailJob rule \
             at index {position}",
            ended.code
        );
        return match rule["action"].as_str().unwrap() {
            "Ignore" => Verdict::Ignored,
            "Count" => Verdict::Counted,
            "FailJob" => Verdict::Fails(message),
            other => panic!("{other}"),
        };
    }
    Verdict::Counted
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "message": message })
}

/// As Kubernetes reads arguments and variables.
fn literal(value: &Value) -> String {
    text(value).replace("$$", "$")
}
