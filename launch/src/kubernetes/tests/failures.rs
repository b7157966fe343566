//! What is said of jobs that failed.

use serde_json::{Value, json};

use super::client::{connected, until};
use super::orders::order;
use super::server::Server;
use crate::scheduler::{Failure, Job, Scheduler, State};

pub fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!([{ "type": kind, "status": "True", "reason": reason, "message": message }])
}

/// A pod of the job, ended with a code.
pub fn pod(server: &Server, job: &Job, index: u32, code: i64) -> Value {
    let uid = server.cluster.lock().unwrap().jobs[&job.name]["metadata"]["uid"].clone();
    json!({
        "metadata": {
            "name": format!("{}-{index}-abcde", job.name),
            "labels": { "batch.kubernetes.io/controller-uid": uid },
            "annotations": { "batch.kubernetes.io/job-completion-index": index.to_string() },
        },
        "spec": { "containers": [{ "name": "triad" }] },
        "status": {
            "phase": "Failed",
            "containerStatuses": [{
                "name": "triad", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": { "terminated": {
                    "exitCode": code, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z",
                } },
            }],
        },
    })
}

pub fn fail(server: &Server, job: &Job, pods: Vec<Value>, reason: &str, message: &str) {
    server.cluster.lock().unwrap().pods.extend(pods);
    server.status(&job.name, json!({ "conditions": condition("Failed", reason, message) }));
}

async fn failure(server: &Server, edit: impl Fn(&Server, &Job)) -> Failure {
    let kubernetes = connected(server).await;
    let job = kubernetes.submit(&order(), 1, &[]).await.unwrap();
    edit(server, &job);
    match until(&kubernetes, &job, |state| matches!(state, State::Failed(_))).await {
        State::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn failures_say_why() {
    let server = Server::start().await;
    // Which of many ended it all: neither the disrupted one nor those told to leave.
    let found = failure(&server, |server, job| {
        let mut disrupted = pod(server, job, 0, 137);
        disrupted["status"]["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI" }]);
        let mut memory = pod(server, job, 2, 137);
        let name = memory["metadata"]["name"].as_str().unwrap().to_string();
        memory["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] =
            json!("OOMKilled");
        let log: String = (0..100).map(|n| format!("line {n}\n")).collect();
        server.cluster.lock().unwrap().logs.insert(name.clone(), log);
        let said =
            format!("Container triad for pod team/{name} failed with exit code 137 matching");
        let pods = vec![disrupted, pod(server, job, 1, 75), memory, pod(server, job, 3, 75)];
        fail(server, job, pods, "PodFailurePolicy", &said);
    });
    let found = found.await;
    assert_eq!(found.code, Some(137));
    assert!(found.reason.starts_with("shard 2 (pod triad-rollout-"), "{}", found.reason);
    assert!(found.reason.ends_with("out of memory: more than `resources.memory` allows"));
    assert_eq!((found.log.lines().next(), found.log.lines().count()), (Some("line 60"), 40));

    // The node went with its logs: the status keeps the last lines.
    let found = failure(&server, |server, job| {
        let mut evicted = pod(server, job, 1, 137);
        evicted["status"]["reason"] = json!("Evicted");
        evicted["status"]["message"] =
            json!("Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Gi\".");
        evicted["status"]["containerStatuses"][0]["state"]["terminated"]["message"] =
            json!("last words\n");
        fail(server, job, vec![evicted], "PodFailurePolicy", "");
    });
    let found = found.await;
    assert!(found.reason.contains("Evicted: Usage of EmptyDir"), "{}", found.reason);
    assert_eq!(found.log, "last words");

    let found = failure(&server, |server, job| {
        let pods = vec![pod(server, job, 0, 139), pod(server, job, 0, 75)];
        fail(server, job, pods, "MaxFailedIndexesExceeded", "Job has exceeded");
    });
    let found = found.await;
    assert_eq!(found.code, Some(139));
    assert!(found.reason.ends_with("exit code 139 (MaxFailedIndexesExceeded)"), "{}", found.reason);

    // Pods that are gone leave what the controller said; what is decided counts already.
    let found = failure(&server, |server, job| {
        let said = "Container triad for pod team/x failed with exit code 65 matching FailJob rule";
        let conditions = condition("FailureTarget", "PodFailurePolicy", said);
        server.status(&job.name, json!({ "active": 3, "ready": 3, "conditions": conditions }));
    });
    let found = found.await;
    assert_eq!((found.code, &*found.log), (Some(65), ""));
    assert!(found.reason.contains("exit code 65"), "{}", found.reason);
}
