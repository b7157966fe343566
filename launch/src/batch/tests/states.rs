//! How Batch's answers are read.

use serde_json::{Value, json};

use super::amazon::Fault;
use super::fake::Fake;
use super::site;
use crate::scheduler::{Failure, Job, Scheduler, State};

async fn state(fake: &Fake, job: Value) -> State {
    let base = json!({"jobId": "job0", "jobName": "n", "startedAt": 0, "jobDefinition": "x"});
    fake.amazon().jobs.retain(|job| job["jobId"] != "job0");
    fake.amazon().jobs.push(base);
    fake.change("job0", job);
    let states = fake.batch(site()).states(&[Job { name: "job0".into() }]).await.unwrap();
    states.into_iter().next().unwrap()
}

async fn failure(job: Value) -> Failure {
    match state(&Fake::default(), job).await {
        State::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn waiting_says_what_for() {
    for (says, job) in [
        ("for other jobs", json!({"status": "SUBMITTED"})),
        ("for other jobs", json!({"status": "PENDING"})),
        ("for a machine", json!({"status": "RUNNABLE"})),
        (
            "for a machine: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
            json!({"status": "RUNNABLE",
                "statusReason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"}),
        ),
        ("for its container", json!({"status": "STARTING"})),
        (
            "for a machine; attempt 2 after exit code 75",
            json!({"status": "RUNNABLE", "attempts": [{"container": {"exitCode": 75}}]}),
        ),
        (
            "for a machine; attempt 2 after Host EC2 (instance i-0) terminated.",
            json!({"status": "RUNNABLE", "attempts": [
                {"container": {}, "statusReason": "Host EC2 (instance i-0) terminated."}]}),
        ),
        // An array that waits for others has no job that could run.
        (
            "for other jobs",
            json!({"status": "PENDING",
                "arrayProperties": {"size": 2, "statusSummary": {"PENDING": 2}}}),
        ),
        (
            "for a machine",
            json!({"status": "PENDING",
                "arrayProperties": {"size": 2, "statusSummary": {"RUNNABLE": 2}}}),
        ),
    ] {
        assert_eq!(state(&Fake::default(), job).await, State::Waiting(says.into()));
    }
}

#[tokio::test]
async fn an_array_runs_while_batch_has_it_pending() {
    let summary = json!({"SUCCEEDED": 3, "RUNNING": 1, "RUNNABLE": 4, "FAILED": 0});
    let job =
        json!({"status": "PENDING", "arrayProperties": {"size": 8, "statusSummary": summary}});
    assert_eq!(state(&Fake::default(), job).await, State::Running { done: 3 });
    let job = json!({"status": "RUNNING"});
    assert_eq!(state(&Fake::default(), job).await, State::Running { done: 0 });
    let summary = json!({"SUCCEEDED": 8});
    let job =
        json!({"status": "SUCCEEDED", "arrayProperties": {"size": 8, "statusSummary": summary}});
    assert_eq!(state(&Fake::default(), job).await, State::Succeeded);
}

#[tokio::test]
async fn a_failure_says_the_exit_code_or_what_kept_the_process_from_one() {
    let ended = "Essential container in task exited";
    for (code, says, job) in [
        (
            Some(65),
            "exit code 65 (Essential container in task exited)",
            json!({"statusReason": ended, "container": {"exitCode": 65}}),
        ),
        (
            Some(75),
            "exit code 75 after 2 attempts (Essential container in task exited)",
            json!({"statusReason": ended, "container": {"exitCode": 75}, "attempts": [{}, {}]}),
        ),
        (
            None,
            "out of memory; raise `memory` under `resources` (OutOfMemoryError: Container killed \
             due to memory usage; Essential container in task exited)",
            json!({"statusReason": ended, "container": {"exitCode": 137,
                "reason": "OutOfMemoryError: Container killed due to memory usage"}}),
        ),
        (
            None,
            "over its time of 60 s; raise `time` under `resources` (Job attempt duration exceeded \
             timeout)",
            json!({"statusReason": "Job attempt duration exceeded timeout",
                "timeout": {"attemptDurationSeconds": 60}, "container": {"exitCode": 75}}),
        ),
        (
            None,
            "its machine was lost in the last of 10 attempts (Host EC2 (instance i-0) terminated.)",
            json!({"statusReason": "Host EC2 (instance i-0) terminated.",
                "attempts": vec![json!({}); 10]}),
        ),
        (
            None,
            "a job that it waits for failed (Dependent Job failed)",
            json!({"statusReason": "Dependent Job failed"}),
        ),
        (
            None,
            "did not start (CannotPullContainerError: no such image; Task failed to start)",
            json!({"statusReason": "Task failed to start",
                "container": {"reason": "CannotPullContainerError: no such image"}}),
        ),
    ] {
        let mut job = job;
        job["status"] = json!("FAILED");
        let failed = failure(job).await;
        assert_eq!((failed.code, failed.reason.as_str()), (code, says));
        assert_eq!(failed.log, "");
    }
}

#[tokio::test]
async fn a_failure_shows_the_end_of_its_last_attempts_log() {
    let fake = Fake::default();
    let lines = ["stage `b`\n", "65: bad data"].map(String::from);
    fake.amazon().logs.insert("second".into(), lines.into());
    let container = |stream| json!({"container": {"exitCode": 65, "logStreamName": stream}});
    let job = json!({"status": "FAILED", "container": {"exitCode": 65},
        "attempts": [container("first"), container("second")]});
    let State::Failed(failed) = state(&fake, job.clone()).await else { panic!() };
    assert_eq!(failed.log, "stage `b`\n65: bad data");
    let asked = json!({"logGroupName": "/aws/batch/job", "logStreamName": "second", "limit": 20,
        "startFromHead": false});
    assert_eq!(fake.calls("Logs_20140328.GetLogEvents"), [asked]);

    // Who may not read it is told how to.
    let denied = Fault::Refused(400, "AccessDeniedException");
    fake.amazon().faults.push_back(("Logs_20140328.GetLogEvents", denied));
    let State::Failed(failed) = state(&fake, job).await else { panic!() };
    assert_eq!(
        failed.log,
        "cannot read the log (400: AccessDeniedException); aws logs get-log-events \
         --log-group-name '/aws/batch/job' --log-stream-name 'second' --limit 20"
    );
}

#[tokio::test]
async fn of_an_array_the_first_shard_that_failed_speaks() {
    let fake = Fake::default();
    for (index, code) in [(3, 70), (1, 65)] {
        let id = format!("job0:{index}");
        fake.amazon().jobs.push(json!({
            "jobId": id, "jobName": "n", "status": "FAILED", "startedAt": 0, "jobDefinition": "x",
            "arrayProperties": {"index": index}, "container": {"exitCode": code}
        }));
    }
    let summary = json!({"SUCCEEDED": 2, "FAILED": 2});
    let array = json!({"status": "FAILED", "statusReason": "Array Child Job failed",
        "arrayProperties": {"size": 4, "statusSummary": summary}});
    let State::Failed(failed) = state(&fake, array).await else { panic!() };
    assert_eq!((failed.code, failed.reason.as_str()), (Some(65), "shard 1 of 4: exit code 65"));

    // One whose shards never started speaks for itself.
    let array = json!({"status": "FAILED", "statusReason": "Dependent Job failed",
        "arrayProperties": {"size": 4}});
    assert_eq!(
        failure(array).await.reason,
        "a job that it waits for failed (Dependent Job failed)"
    );
}
