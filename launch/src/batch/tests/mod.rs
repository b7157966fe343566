//! AWS Batch: what is asked of it, and how its answers are read.

mod amazon;
mod fake;
mod jobs;
mod moto;
mod plans;
mod states;
mod terraform;

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_batch::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, SharedHttpClient,
};
use serde_json::{Value, json};

use super::{Images, Site, render};
use crate::order::{Order, Resources, Task};

/// What the CLI passes on: a config with an HTTP client of its own.
fn config(client: SharedHttpClient, endpoint: &str) -> SdkConfig {
    let keys = Credentials::new("key", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .http_client(client)
        .endpoint_url(endpoint)
        .build()
}

fn site() -> Site {
    let image = |name: &str| Some(format!("1234.dkr.ecr.us-east-1.amazonaws.com/triad:{name}"));
    Site {
        queue: "cpu".into(),
        gpu_queue: Some("gpu".into()),
        images: Images { cpu: image("cpu"), torch: image("torch") },
        job_role: Some("arn:aws:iam::1234:role/triad-job".into()),
        execution_role: Some("arn:aws:iam::1234:role/triad-execution".into()),
        environment: [("AWS_REGION".to_owned(), "us-east-1".to_owned())].into(),
        secrets: [(
            "TRIAD_SERVER_KEY".to_owned(),
            "arn:aws:secretsmanager:us-east-1:1234:secret:key-AbCdEf".to_owned(),
        )]
        .into(),
        tags: [("team".to_owned(), "alignment".to_owned())].into(),
        ..Site::default()
    }
}

fn task(stage: &str, artifact: u8, after: &[usize]) -> Task {
    Task {
        stage: stage.into(),
        job: "generate".into(),
        artifact: format!("{artifact:02x}").repeat(16),
        after: after.into(),
        shards: 1,
        computes: false,
        resources: Resources::default(),
    }
}

/// Two shards, then two shards made from them, then one process on a GPU.
fn order() -> Order {
    let rollouts = Task { shards: 2, ..task("deduction.1.draw", 0xaa, &[]) };
    let verdicts = Task { shards: 2, ..task("deduction.1.verify", 0xbb, &[0]) };
    let update = Task {
        computes: true,
        resources: Resources {
            gpus: 1,
            cpus: Some(4),
            memory: Some(15_000_000_000),
            time: Some(Duration::from_secs(7200)),
        },
        ..task("deduction.1.update", 0xcc, &[0, 1])
    };
    Order {
        pipeline: "Qwen (7B), größer".into(),
        source: "store:0123abcd".into(),
        store: "s3://bucket/prefix".into(),
        tasks: vec![rollouts, verdicts, update],
    }
}

fn rendered(order: &Order, site: &Site) -> Value {
    render(order, site).unwrap()
}

/// The line that a wrong site file gets.
fn refused(change: impl FnOnce(&mut Site)) -> String {
    let mut site = site();
    change(&mut site);
    let error = render(&order(), &site).unwrap_err();
    assert!(matches!(error, crate::Error::Usage(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_site_is_read_and_unknown_keys_are_refused() {
    let text = "queue: cpu\ngpu_queue: gpu\nimages: {cpu: a, torch: b}\nattempts: 3\n";
    let site: Site = serde_saphyr::from_str(text).unwrap();
    assert_eq!((site.queue.as_str(), site.attempts, site.memory_mib), ("cpu", 3, 2048));
    let error = serde_saphyr::from_str::<Site>("queu: cpu").unwrap_err().to_string();
    assert!(error.contains("queu"), "{error}");
}

#[test]
fn a_site_that_no_job_can_be_made_with_is_refused() {
    for (says, change) in [
        ("aws_batch.queue is missing", (|site| site.queue.clear()) as fn(&mut Site)),
        ("aws_batch.images.cpu is missing", |site| site.images.cpu = None),
        ("aws_batch.images.torch is missing", |site| site.images.torch = None),
        ("aws_batch.attempts is 11; Batch starts a job 1 to 10 times", |site| site.attempts = 11),
        ("aws_batch.attempts is 0", |site| site.attempts = 0),
        ("aws_batch.cpus, memory_mib must be at least 1 and 4", |site| site.cpus = 0),
        ("aws_batch.execution_role is missing", |site| site.execution_role = None),
        ("aws_batch.tags.aws:x begins with `aws:`", |site| {
            site.tags.insert("aws:x".into(), String::new());
        }),
        ("aws_batch.tags are more than 47", |site| {
            site.tags = (0..48).map(|n| (format!("tag{n}"), String::new())).collect();
        }),
        ("aws_batch.secrets.AWS_REGION stands under `environment` too", |site| {
            let arn = "arn:aws:ssm:us-east-1:1234:parameter/region";
            site.secrets.insert("AWS_REGION".into(), arn.into());
        }),
    ] {
        let error = refused(change);
        assert!(error.contains(says) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn secrets_go_by_reference_and_stand_in_no_message() {
    for (says, change) in [
        ("secrets.TRIAD_SERVER_KEY is no ARN of Secrets Manager or Parameter Store", {
            |site: &mut Site| drop(site.secrets.insert("TRIAD_SERVER_KEY".into(), "hunter2".into()))
        }
            as fn(&mut Site)),
        ("secrets.TRIAD_SERVER_KEY is no ARN of", |site| {
            let other = "arn:aws:s3:::hunter2";
            site.secrets.insert("TRIAD_SERVER_KEY".into(), other.into());
        }),
        ("environment.AWS_SECRET_ACCESS_KEY looks like a secret", |site| {
            site.environment.insert("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into());
        }),
        ("environment.HF_TOKEN looks like a secret", |site| {
            site.environment.insert("HF_TOKEN".into(), "hunter2".into());
        }),
    ] {
        let error = refused(change);
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    let secrets =
        &rendered(&order(), &site())["jobDefinitions"][0]["containerProperties"]["secrets"];
    let arn = "arn:aws:secretsmanager:us-east-1:1234:secret:key-AbCdEf";
    assert_eq!(*secrets, json!([{"name": "TRIAD_SERVER_KEY", "valueFrom": arn}]));
}
