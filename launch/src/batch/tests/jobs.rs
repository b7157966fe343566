//! The client against the fake: who submits what, and how often.

use serde_json::{Value, json};

use super::amazon::Fault;
use super::fake::Fake;
use super::{order, rendered, site, task};
use crate::Error;
use crate::order::Order;
use crate::scheduler::{Job, Scheduler, State};

fn job(name: &str) -> Job {
    Job { name: name.into() }
}

/// All of an order, each after what it is made from.
async fn submit_all(batch: &impl Scheduler, order: &Order) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for (position, task) in order.tasks.iter().enumerate() {
        let after: Vec<_> = task.after.iter().map(|&from| jobs[from].clone()).collect();
        jobs.push(batch.submit(order, position, &after).await.unwrap());
    }
    jobs
}

#[tokio::test]
async fn what_is_sent_is_what_is_rendered() {
    let (fake, order) = (Fake::default(), order());
    let jobs = submit_all(&fake.batch(site()), &order).await;
    let mut expected = rendered(&order, &site());

    let mut registered = fake.calls("registerjobdefinition");
    registered.sort_by_key(|one| one["jobDefinitionName"].to_string());
    assert_eq!(json!(registered), expected["jobDefinitions"]);

    // But for what is known only then: ids and ARNs.
    let mut ids = Vec::new();
    for (job, one) in jobs.iter().zip(expected["submissions"].as_array_mut().unwrap()) {
        ids.push((format!("${{{}}}", one["jobName"].as_str().unwrap()), job.name.clone()));
        let name = one["jobDefinition"].as_str().unwrap();
        one["jobDefinition"] =
            json!(format!("arn:aws:batch:us-east-1:1234:job-definition/{name}:1"));
        for on in one.get_mut("dependsOn").and_then(Value::as_array_mut).into_iter().flatten() {
            on["jobId"] = json!(ids.iter().find(|(name, _)| on["jobId"] == *name).unwrap().1);
        }
    }
    assert_eq!(json!(fake.calls("submitjob")), expected["submissions"]);
}

#[tokio::test]
async fn a_second_client_registers_nothing_and_submits_nothing() {
    let (fake, order) = (Fake::default(), order());
    let first = fake.batch(site());
    assert_eq!(first.find(&order).await.unwrap(), [None, None, None]);
    let jobs = submit_all(&first, &order).await;

    let second = fake.batch(site());
    let found: Vec<_> = second.find(&order).await.unwrap().into_iter().flatten().collect();
    assert_eq!(found, jobs);
    assert_eq!(submit_all(&second, &order).await, jobs);
    assert_eq!(fake.calls("submitjob").len(), 3);

    // Of one that has ended a new one is made, from the same definition.
    fake.change(&jobs[0].name, json!({"status": "FAILED"}));
    assert_eq!(second.find(&order).await.unwrap()[0], None);
    assert_ne!(second.submit(&order, 0, &[]).await.unwrap(), jobs[0]);
    assert_eq!(fake.calls("registerjobdefinition").len(), 2);
    // Other pipelines and stages with the same artifact are the same job, those of other stores not.
    let mut other = Order { pipeline: "other".into(), ..order };
    other.tasks[2].stage = "other".into();
    assert_eq!(second.find(&other).await.unwrap()[2], Some(jobs[2].clone()));
    other.store = "s3://bucket/elsewhere".into();
    assert_eq!(second.find(&other).await.unwrap()[2], None);
}

#[tokio::test]
async fn of_two_jobs_of_one_artifact_everybody_takes_the_older() {
    let (fake, order) = (Fake::default(), order());
    let batch = fake.batch(site());
    batch.submit(&order, 0, &[]).await.unwrap();
    let name = fake.amazon().jobs[0]["jobName"].clone();
    // Not listed yet.
    fake.change("job0", json!({"jobName": "unseen"}));
    batch.submit(&order, 0, &[]).await.unwrap();
    fake.change("job0", json!({"jobName": name}));
    assert_eq!(fake.amazon().jobs.len(), 2);
    // The fake's clock goes backwards: the second is the older.
    assert_eq!(batch.find(&order).await.unwrap()[0], Some(job("job1")));
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let (fake, order) = (Fake::default(), order());
    let batch = fake.batch(site());
    let throttled = Fault::Refused(429, "TooManyRequestsException");
    for path in ["listjobs", "describejobdefinitions", "registerjobdefinition", "submitjob"] {
        fake.amazon().faults.extend([(path, throttled), (path, throttled)]);
    }
    let submitted = batch.submit(&order, 0, &[]).await.unwrap();
    fake.amazon().faults.extend([("describejobs", Fault::Refused(500, "ServerException"))]);
    let states = batch.states(&[submitted]).await.unwrap();
    assert_eq!(states, [State::Waiting("for other jobs".into())]);
    let amazon = fake.amazon();
    assert_eq!((amazon.jobs.len(), amazon.faults.len()), (1, 0));
}

#[tokio::test]
async fn a_submission_whose_answer_got_lost_is_looked_for_before_it_is_sent_again() {
    let (fake, order) = (Fake::default(), order());
    let batch = fake.batch(site());
    fake.amazon().faults.push_back(("submitjob", Fault::Lost));
    assert_eq!(batch.submit(&order, 0, &[]).await.unwrap(), job("job0"));
    assert_eq!(fake.calls("submitjob").len(), 1);
    fake.amazon().faults.push_back(("submitjob", Fault::Refused(503, "ServerException")));
    assert_eq!(batch.submit(&order, 1, &[job("job0")]).await.unwrap(), job("job1"));
    assert_eq!(fake.calls("submitjob").len(), 3);
}

#[tokio::test]
async fn what_is_refused_is_the_users_and_what_does_not_answer_may_pass() {
    let (fake, order) = (Fake::default(), order());
    let batch = fake.batch(site());
    let refused = Fault::Refused(403, "AccessDeniedException");
    fake.amazon().faults.push_back(("listjobs", refused));
    let error = batch.find(&order).await.unwrap_err();
    assert!(
        matches!(&error, Error::Usage(text) if text.contains("ListJobs: AccessDenied")),
        "{error}"
    );
    fake.amazon().faults.extend([("describejobs", Fault::Lost); 8]);
    let error = batch.states(&[job("job0")]).await.unwrap_err();
    assert!(
        matches!(&error, Error::TryAgain(text) if text.contains("connection reset")),
        "{error}"
    );
    assert_eq!(error.to_string().lines().count(), 1);
    fake.amazon()
        .faults
        .extend([("submitjob", Fault::Refused(429, "TooManyRequestsException")); 6]);
    let error = batch.submit(&order, 0, &[]).await.unwrap_err();
    assert!(matches!(error, Error::TryAgain(_)), "{error}");
    assert!(fake.amazon().jobs.is_empty());
}

#[tokio::test]
async fn a_task_that_waits_for_many_gets_ids_of_the_jobs_between() {
    let fake = Fake::default();
    let order = Order { tasks: vec![task("report", 1, &[])], ..order() };
    let after: Vec<_> = (0..30).map(|n| job(&format!("upstream{n}"))).collect();
    let submitted = fake.batch(site()).submit(&order, 0, &after).await.unwrap();
    assert_eq!(submitted, job("job2"));
    let sent = fake.calls("submitjob");
    let waited: Vec<_> =
        sent.iter().map(|one| one["dependsOn"].as_array().unwrap().len()).collect();
    assert_eq!(waited, [20, 10, 2]);
    assert_eq!(sent[2]["dependsOn"], json!([{"jobId": "job0"}, {"jobId": "job1"}]));
}

#[tokio::test]
async fn cancelled_jobs_are_terminated_with_a_reason() {
    let (fake, order) = (Fake::default(), order());
    let batch = fake.batch(site());
    let jobs = submit_all(&batch, &order).await;
    batch.cancel(&jobs).await.unwrap();
    assert_eq!(fake.calls("terminatejob").len(), 3);
    for state in batch.states(&jobs).await.unwrap() {
        let State::Failed(failure) = state else { panic!("{state:?}") };
        assert_eq!((failure.code, failure.reason.as_str()), (None, "cancelled (triad cancel)"));
    }
    assert_eq!(batch.find(&order).await.unwrap(), [None, None, None]);
}

#[tokio::test]
async fn jobs_are_described_a_hundred_at_a_time_and_come_in_their_order() {
    let fake = Fake::default();
    for n in 0..250 {
        let status = if n % 2 == 0 { "SUCCEEDED" } else { "RUNNING" };
        let id = format!("job{n}");
        fake.amazon().jobs.insert(
            0,
            json!({
                "jobId": id, "jobName": id, "status": status, "startedAt": 0, "jobDefinition": "x"
            }),
        );
    }
    let jobs: Vec<_> = (0..251).map(|n| job(&format!("job{n}"))).collect();
    let states = fake.batch(site()).states(&jobs).await.unwrap();
    for (n, state) in states.iter().enumerate() {
        let expected = match n {
            250 => State::Gone,
            n if n % 2 == 0 => State::Succeeded,
            _ => State::Running { done: 0 },
        };
        assert_eq!(*state, expected, "{n}");
    }
    assert_eq!(fake.calls("describejobs").len(), 3);
}
