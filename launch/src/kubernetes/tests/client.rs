//! The client: what it asks for, what it survives, what it says.

use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use super::failures::{condition, fail, pod};
use super::orders::{order, site, task};
use super::server::{Fault, NAMESPACE, Server};
use crate::kubernetes::{Kubernetes, Site, names};
use crate::order::Order;
use crate::scheduler::{Job, Scheduler, State};
use crate::{Error, Result};

fn config(server: &Server) -> kube::Config {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    config.default_namespace = NAMESPACE.into();
    config
}

pub async fn connected(server: &Server) -> Kubernetes {
    Kubernetes::with(config(server), site()).await.unwrap()
}

/// Waits as a driver does.
pub async fn until(kubernetes: &Kubernetes, job: &Job, wanted: impl Fn(&State) -> bool) -> State {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let state = kubernetes.states(std::slice::from_ref(job)).await.unwrap().remove(0);
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < end, "still {state:?}");
        kubernetes.changed().await;
    }
}

async fn state(kubernetes: &Kubernetes, job: &Job) -> State {
    kubernetes.states(std::slice::from_ref(job)).await.unwrap().remove(0)
}

/// What triad asks of any cluster. `server` is one in this process, whose controller the test is;
/// without it, a real one runs the jobs.
async fn behaves(config: kube::Config, site: Site, server: Option<&Server>) {
    // What a queue holds stays as it is, in a cluster without Kueue too.
    let held = Site { queue: Some("triad-test-no-such-queue".into()), ..site.clone() };
    let first = Kubernetes::with(config.clone(), held.clone()).await.unwrap();
    let second = Kubernetes::with(config.clone(), held).await.unwrap();
    let unique = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let order = Order {
        // No such pipeline: exit code 64, at once.
        source: "triad-test-no-such-pipeline.yaml".into(),
        store: "memory://".into(),
        tasks: vec![
            task("a", &format!("{unique:016x}{:016x}", 0)),
            task("b", &format!("{:016x}{:016x}", unique + 1, 0)),
        ],
        ..order()
    };
    assert_eq!(first.find(&order).await.unwrap(), [None, None]);
    let (one, two) = tokio::join!(first.submit(&order, 0, &[]), second.submit(&order, 0, &[]));
    let job = one.unwrap();
    assert_eq!(job, two.unwrap());
    assert_eq!(second.find(&order).await.unwrap(), [Some(job.clone()), None]);
    let waiting = until(&second, &job, |state| matches!(state, State::Waiting(_))).await;
    assert_eq!(waiting, State::Waiting("suspended, until its queue admits it".into()));
    second.cancel(std::slice::from_ref(&job)).await.unwrap();
    // Whoever watches it does not submit it again.
    let ended = until(&first, &job, |state| matches!(state, State::Failed(_))).await;
    let State::Failed(failure) = ended else { unreachable!() };
    assert_eq!(failure.code, None);
    assert!(failure.reason.ends_with("was deleted before it ended: cancelled"), "{failure:?}");
    first.cancel(std::slice::from_ref(&job)).await.unwrap();
    assert_eq!(first.find(&order).await.unwrap(), [None, None]);

    let runs = Kubernetes::with(config, site).await.unwrap();
    for _ in 0..2 {
        let job = runs.submit(&order, 1, &[]).await.unwrap();
        if let Some(server) = server {
            let pod = pod(server, &job, 0, 64);
            let name = pod["metadata"]["name"].as_str().unwrap().to_string();
            server.cluster.lock().unwrap().logs.insert(name, "one\nno such pipeline\n".into());
            let said = "Container triad for pod team/x failed with exit code 64 matching FailJob";
            fail(server, &job, vec![pod], "PodFailurePolicy", said);
        }
        let failed = until(&runs, &job, |state| matches!(state, State::Failed(_))).await;
        let State::Failed(failure) = failed else { unreachable!() };
        assert_eq!(failure.code, Some(64), "{failure:?}");
        assert!(failure.log.contains("no such pipeline") || server.is_none(), "{failure:?}");
        assert!(!failure.log.is_empty(), "{failure:?}");
        // It does not count as running, and the second time makes room for a new one.
        assert_eq!(runs.find(&order).await.unwrap(), [None, None]);
    }
    let job = Job { name: names::job(&order, &order.tasks[1]) };
    runs.cancel(std::slice::from_ref(&job)).await.unwrap();
    until(&runs, &job, |state| *state == State::Gone).await;
}

#[tokio::test]
async fn jobs_are_found_run_replaced_and_cancelled() {
    let server = Server::start().await;
    behaves(config(&server), site(), Some(&server)).await;
    // A cluster to try the same on, with an image whose entrypoint is triad.
    if let Ok(path) = std::env::var("TRIAD_TEST_KUBECONFIG") {
        let file = Kubeconfig::read_from(path).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        let image = std::env::var("TRIAD_TEST_IMAGE").unwrap();
        let images = crate::kubernetes::Images { cpu: image.clone(), torch: image };
        let site = Site { images, ..Site::default() };
        behaves(config, site, None).await;
    }
}

#[tokio::test]
async fn progress_comes_by_the_watch() {
    let server = Server::start().await;
    let kubernetes = connected(&server).await;
    let order = order();
    let job = kubernetes.submit(&order, 1, &[]).await.unwrap();
    let waiting = |reason: &str| State::Waiting(reason.into());
    assert_eq!(state(&kubernetes, &job).await, waiting("no pod yet"));

    let uid = server.cluster.lock().unwrap().jobs[&job.name]["metadata"]["uid"].clone();
    server.cluster.lock().unwrap().events.push(json!({
        "metadata": { "name": "e" }, "type": "Warning", "reason": "FailedCreate",
        "involvedObject": { "uid": uid }, "message": "exceeded quota:\n triad",
    }));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(state(&kubernetes, &job).await, waiting("FailedCreate: exceeded quota: triad"));

    let mut pending = pod(&server, &job, 0, 0);
    pending["status"] = json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }] });
    server.cluster.lock().unwrap().pods.push(pending);
    server.status(&job.name, json!({ "active": 4, "ready": 0 }));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let wanted = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    assert_eq!(state(&kubernetes, &job).await, waiting(wanted));

    server.status(&job.name, json!({ "active": 4, "ready": 1 }));
    until(&kubernetes, &job, |state| *state == State::Running { done: 0 }).await;
    // As its controller has it while pods end: first not ready, then over, then counted.
    {
        let mut ending = pod(&server, &job, 0, 0);
        ending["status"]["phase"] = json!("Running");
        let pods = &mut server.cluster.lock().unwrap().pods;
        pods.clear();
        pods.push(ending);
    }
    server.status(&job.name, json!({ "active": 4, "ready": 0, "terminating": 0 }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&kubernetes, &job).await, State::Running { done: 0 });
    let uncounted = json!({ "succeeded": ["a", "b"] });
    let status = json!({ "active": 2, "ready": 0, "uncountedTerminatedPods": uncounted });
    server.status(&job.name, status);
    until(&kubernetes, &job, |state| *state == State::Running { done: 2 }).await;
    server.status(&job.name, json!({ "active": 1, "ready": 1, "succeeded": 3 }));
    until(&kubernetes, &job, |state| *state == State::Running { done: 3 }).await;
    let conditions = condition("Complete", "CompletionsReached", "");
    server.status(&job.name, json!({ "succeeded": 4, "conditions": conditions }));
    until(&kubernetes, &job, |state| *state == State::Succeeded).await;
    assert!(server.asked("GET", &job.name).is_empty(), "the watch says it all");
    // One that was removed with its time to live is not known any more.
    server.cluster.lock().unwrap().jobs.remove(&job.name);
    server.forget().await;
    until(&kubernetes, &job, |state| *state == State::Gone).await;
}

#[tokio::test]
async fn expired_versions_are_listed_anew() {
    let server = Server::start().await;
    let kubernetes = connected(&server).await;
    let order = order();
    let job = kubernetes.submit(&order, 0, &[]).await.unwrap();
    let running = |done| move |state: &State| *state == State::Running { done };
    // Within the stream, as the API server says it, and as an answer, as proxies do.
    for done in [1, 2] {
        if done == 2 {
            server.fault("WATCH", "jobs", Fault::Status(410, "Expired", "too old"));
        }
        server.status(&job.name, json!({ "active": 1, "ready": 1, "succeeded": done }));
        server.forget().await;
        until(&kubernetes, &job, running(done)).await;
    }
    server.status(&job.name, json!({ "active": 1, "ready": 1, "succeeded": 3 }));
    until(&kubernetes, &job, running(3)).await;
    assert!(server.asked("GET", "/jobs").len() >= 4);
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let server = Server::start().await;
    let kubernetes = connected(&server).await;
    let order = order();
    let job = kubernetes.submit(&order, 0, &[]).await.unwrap();
    server.status(&job.name, json!({ "active": 1, "ready": 1 }));
    until(&kubernetes, &job, |state| *state == State::Running { done: 0 }).await;
    server.stop().await;
    // The last state stands, and requests wait.
    assert_eq!(state(&kubernetes, &job).await, State::Running { done: 0 });
    server.change(&job.name, |job| {
        job["status"] = json!({ "conditions": condition("Complete", "CompletionsReached", "") });
    });
    let asking = kubernetes.submit(&order, 1, std::slice::from_ref(&job));
    let returning = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        server.again().await;
    };
    let (other, ()) = tokio::join!(asking, returning);
    assert_eq!(other.unwrap().name, names::job(&order, &order.tasks[1]));
    until(&kubernetes, &job, |state| *state == State::Succeeded).await;
}

#[tokio::test]
async fn a_lost_answer_and_a_busy_server_make_no_second_job() {
    let server = Server::start().await;
    let kubernetes = connected(&server).await;
    let order = order();
    server.fault("POST", "jobs", Fault::CutAfter);
    let job = kubernetes.submit(&order, 0, &[]).await.unwrap();
    assert_eq!(server.asked("POST", "/jobs").len(), 2);
    assert_eq!(server.cluster.lock().unwrap().jobs.len(), 1);
    assert_eq!(kubernetes.find(&order).await.unwrap()[0], Some(job));

    server.fault("POST", "jobs", Fault::Later(429, "Retry-After: 2\r\n"));
    kubernetes.submit(&order, 1, &[]).await.unwrap();
    let asked = server.asked("POST", "/jobs");
    let pause = asked[3].at - asked[2].at;
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
    server.fault("DELETE", "jobs", Fault::Cut);
    let job = Job { name: names::job(&order, &order.tasks[1]) };
    kubernetes.cancel(&[job]).await.unwrap();
    assert_eq!(server.cluster.lock().unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn missing_rights_are_named() {
    let said = "jobs.batch is forbidden: User \"dev\" cannot list resource \"jobs\" in API group \
                \"batch\" in the namespace \"team\"";
    let line = |result: Result<()>| match result {
        Err(Error::Usage(line)) => line,
        other => panic!("{other:?}"),
    };
    let server = Server::start().await;
    server.fault("GET", "/jobs", Fault::Status(403, "Forbidden", said));
    let refused = line(Kubernetes::with(config(&server), site()).await.map(drop));
    assert!(refused.contains(said) && refused.contains("infra/kubernetes"), "{refused}");
    assert!(refused.contains("listing jobs in namespace team"), "{refused}");

    // A quota is no missing right.
    let kubernetes = connected(&server).await;
    let quota = "jobs.batch \"x\" is forbidden: exceeded quota: triad, requested: count/jobs=1";
    server.fault("POST", "/jobs", Fault::Status(403, "Forbidden", quota));
    let refused = line(kubernetes.submit(&order(), 0, &[]).await.map(drop));
    assert!(refused.contains(quota) && !refused.contains("infra/"), "{refused}");
    assert!(refused.contains("stage `deduction.1.tasks`"), "{refused}");

    // Rights to list and none to watch: states say so, and go on when the right comes.
    for _ in 0..3 {
        let said = said.replace("list", "watch").leak();
        server.fault("WATCH", "/jobs", Fault::Status(403, "Forbidden", said));
    }
    let job = kubernetes.submit(&order(), 0, &[]).await.unwrap();
    server.forget().await;
    let end = Instant::now() + Duration::from_secs(30);
    let refused = loop {
        if let Err(err) = kubernetes.states(std::slice::from_ref(&job)).await {
            break line(Err(err));
        }
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(refused.contains("cannot watch"), "{refused}");
    server.status(&job.name, json!({ "active": 1, "ready": 1 }));
    while kubernetes.states(std::slice::from_ref(&job)).await.is_err() {
        assert!(Instant::now() < end);
        kubernetes.changed().await;
    }
    until(&kubernetes, &job, |state| *state == State::Running { done: 0 }).await;
}

#[tokio::test]
async fn an_ended_job_makes_room_when_its_pods_are_gone() {
    let server = Server::start().await;
    server.cluster.lock().unwrap().lingering = Duration::from_secs(2);
    let (kubernetes, other) = (connected(&server).await, connected(&server).await);
    let order = order();
    let job = kubernetes.submit(&order, 0, &[]).await.unwrap();
    let uid = |job: &Job| server.cluster.lock().unwrap().jobs[&job.name]["metadata"]["uid"].clone();
    let old = uid(&job);
    fail(&server, &job, Vec::new(), "DeadlineExceeded", "Job was active longer than specified");
    let begin = Instant::now();
    let (one, two) = tokio::join!(kubernetes.submit(&order, 0, &[]), other.submit(&order, 0, &[]));
    assert_eq!((one.unwrap(), two.unwrap()), (job.clone(), job.clone()));
    assert!(begin.elapsed() >= Duration::from_secs(2), "a new one began beside the old");
    assert_ne!(uid(&job), old);
    for request in server.asked("DELETE", &job.name) {
        assert_eq!(request.body["preconditions"]["uid"], old);
        assert_eq!(request.body["propagationPolicy"], "Foreground");
    }
    for client in [&kubernetes, &other] {
        assert!(matches!(state(client, &job).await, State::Waiting(_)));
    }
    // Of this name, but of another artifact: never taken for ours.
    server
        .change(&job.name, |job| job["metadata"]["annotations"]["triad.dev/artifact"] = json!("x"));
    assert_eq!(kubernetes.find(&order).await.unwrap()[0], None);
    let refused = kubernetes.submit(&order, 0, &[]).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("kubectl delete job {}", job.name)), "{refused}");
}

#[tokio::test]
async fn many_jobs_are_found_page_by_page() {
    let server = Server::start().await;
    let kubernetes = connected(&server).await;
    let mut order = order();
    order.tasks = (0..1100).map(|n| task("stage", &format!("{n:08x}{:024x}", 0))).collect();
    let job = kubernetes.submit(&order, 1050, &[]).await.unwrap();
    {
        let mut cluster = server.cluster.lock().unwrap();
        let one = cluster.jobs[&job.name].clone();
        for task in &order.tasks {
            let (name, mut job) = (names::job(&order, task), one.clone());
            job["metadata"]["name"] = json!(name);
            job["metadata"]["annotations"]["triad.dev/artifact"] = json!(task.artifact);
            cluster.jobs.insert(name, job);
        }
    }
    assert!(kubernetes.find(&order).await.unwrap().iter().all(Option::is_some));
}
