//! Whole orders, by clients that come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::client::connected;
use super::failures::{condition, fail, pod};
use super::orders::order;
use super::server::Server;
use crate::drive::{Commits, End, Observer, drive};
use crate::kubernetes::names;
use crate::order::{Order, Task};
use crate::scheduler::{Job, State};
use crate::{Error, Result};

/// What is committed, and what was said of tasks.
#[derive(Clone, Default)]
struct Seen {
    committed: Arc<Mutex<BTreeSet<String>>>,
    said: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Commits for Seen {
    async fn committed(&self, artifact: &str) -> Result<bool> {
        Ok(self.committed.lock().unwrap().contains(artifact))
    }
}

impl Observer for Seen {
    fn submitted(&self, task: &Task, _job: &Job, found: bool) {
        let said = if found { "found" } else { "submitted" };
        self.said.lock().unwrap().push(format!("{said} {}", task.stage));
    }

    fn changed(&self, _task: &Task, _state: &State) {}

    fn ended(&self, _task: &Task, _end: &End) {}

    fn unanswered(&self, error: &Error) {
        panic!("{error}");
    }
}

/// A controller whose pods commit what they should; of jobs in `failing` they leave with 65.
async fn controller(server: Server, order: Order, seen: Seen, failing: Option<usize>) {
    let mut ended = BTreeSet::new();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (at, task) in order.tasks.iter().enumerate() {
            let job = Job { name: names::job(&order, task) };
            let there = server.cluster.lock().unwrap().jobs.contains_key(&job.name);
            if !there || ended.contains(&job.name) {
                continue;
            }
            server.status(&job.name, json!({ "active": task.shards, "ready": task.shards }));
            tokio::time::sleep(Duration::from_millis(300)).await;
            if failing == Some(at) {
                let pods = vec![pod(&server, &job, 0, 65)];
                fail(&server, &job, pods, "PodFailurePolicy", "");
            } else {
                seen.committed.lock().unwrap().insert(task.artifact.clone());
                let done = condition("Complete", "CompletionsReached", "");
                let done = json!({ "succeeded": task.shards, "conditions": done });
                server.status(&job.name, done);
            }
            ended.insert(job.name);
        }
    }
}

#[tokio::test]
async fn a_client_may_go_and_the_next_one_goes_on() {
    let (server, order, seen) = (Server::start().await, order(), Seen::default());
    let first = connected(&server).await;
    let going = tokio::time::sleep(Duration::from_millis(300));
    let ends = drive(&order, &first, &seen, &seen, going).await.unwrap();
    // Jobs of the others are created when the first is committed, which now nobody does.
    assert_eq!(ends, [End::Left, End::NotStarted, End::NotStarted]);
    drop(first);
    let cluster = tokio::spawn(controller(server.clone(), order.clone(), seen.clone(), None));
    let next = connected(&server).await;
    let ends = drive(&order, &next, &seen, &seen, std::future::pending()).await.unwrap();
    assert_eq!(ends, [End::Committed, End::Committed, End::Committed]);
    let said = seen.said.lock().unwrap().clone();
    let wanted = ["submitted deduction.1.tasks", "found deduction.1.tasks"];
    assert_eq!(said[..2], wanted);
    assert_eq!(said[2..], ["submitted deduction.1.draw", "submitted examples"]);
    assert_eq!(server.asked("POST", "/jobs").len(), 3, "each once, after what it is made from");

    // All is committed: nothing is asked of the cluster.
    let ends = drive(&order, &next, &seen, &seen, std::future::pending()).await.unwrap();
    assert_eq!(ends, [End::Committed, End::Committed, End::Committed]);
    assert_eq!(server.asked("POST", "/jobs").len(), 3);
    cluster.abort();
}

#[tokio::test]
async fn what_needs_a_failed_stage_is_not_started() {
    let (server, order, seen) = (Server::start().await, order(), Seen::default());
    let cluster = tokio::spawn(controller(server.clone(), order.clone(), seen.clone(), Some(1)));
    let kubernetes = connected(&server).await;
    let ends = drive(&order, &kubernetes, &seen, &seen, std::future::pending()).await.unwrap();
    assert_eq!((&ends[0], &ends[2]), (&End::Committed, &End::NotStarted));
    let End::Failed(failure) = &ends[1] else { panic!("{:?}", ends[1]) };
    assert_eq!(failure.code, Some(65));
    assert!(failure.reason.contains("shard 0 (pod triad-rollout-"), "{}", failure.reason);
    cluster.abort();
}
