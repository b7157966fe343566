//! Job definitions and submissions.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{order, rendered, site, task};
use crate::batch::render;
use crate::order::{Order, Resources};

/// The definition that a task's job is submitted with.
fn definition(rendered: &Value, submission: usize) -> Value {
    let name = &rendered["submissions"][submission]["jobDefinition"];
    let all = rendered["jobDefinitions"].as_array().unwrap();
    all.iter().find(|one| one["jobDefinitionName"] == *name).unwrap().clone()
}

#[test]
fn each_set_of_container_settings_is_one_definition() {
    let all = rendered(&order(), &site());
    // The two without a GPU share one: commands come with the jobs.
    assert_eq!(all["jobDefinitions"].as_array().unwrap().len(), 2);
    assert_eq!(definition(&all, 0), definition(&all, 1));

    let container = &definition(&all, 2)["containerProperties"];
    assert_eq!(container["image"], "1234.dkr.ecr.us-east-1.amazonaws.com/triad:torch");
    assert_eq!(
        container["resourceRequirements"],
        json!([
            {"type": "VCPU", "value": "4"},
            {"type": "MEMORY", "value": "14306"}, // 15 GB, rounded up to MiB
            {"type": "GPU", "value": "1"}
        ])
    );
    assert_eq!(container["jobRoleArn"], "arn:aws:iam::1234:role/triad-job");
    assert_eq!(container["executionRoleArn"], "arn:aws:iam::1234:role/triad-execution");
    assert_eq!(container["environment"], json!([{"name": "AWS_REGION", "value": "us-east-1"}]));
    assert_eq!(container["readonlyRootFilesystem"], true);
    assert_eq!(container["mountPoints"][0]["containerPath"], "/tmp");
    assert_eq!(definition(&all, 2)["timeout"], json!({"attemptDurationSeconds": 7200}));
    assert_eq!(definition(&all, 2)["tags"], json!({"team": "alignment"}));
    assert_eq!(definition(&all, 2)["propagateTags"], true);

    let container = &definition(&all, 0)["containerProperties"];
    assert_eq!(
        container["resourceRequirements"],
        json!([{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}])
    );
    assert_eq!(definition(&all, 0).get("timeout"), None);
    assert_eq!(container.get("logConfiguration"), None);
}

#[test]
fn a_definitions_name_holds_a_digest_of_all_it_says() {
    let name = |site, order| {
        definition(&rendered(&order, &site), 0)["jobDefinitionName"].as_str().unwrap().to_owned()
    };
    let base = name(site(), order());
    assert!(base.starts_with("triad-cpu-") && base.len() == 26, "{base}");
    // Another pipeline with the same settings needs no other.
    assert_eq!(name(site(), Order { pipeline: "other".into(), ..order() }), base);

    let mut names = BTreeSet::from([base]);
    let mut sites = [(); 7].map(|()| site());
    sites[0].images.cpu = Some("other".into());
    sites[1].job_role = None;
    sites[2].memory_mib = 4096;
    sites[3].attempts = 9;
    sites[4].log_group = "triad".into();
    sites[5].environment.insert("TRIAD_LOG".into(), "debug".into());
    sites[6].tags.clear();
    names.extend(sites.map(|site| name(site, order())));
    let mut timed = order();
    timed.tasks[0].resources.time = Some(Duration::from_secs(100));
    names.insert(name(site(), timed));
    assert_eq!(names.len(), 9);
}

#[test]
fn limits_are_brought_to_what_batch_takes() {
    let mut order = order();
    order.tasks[0].resources =
        Resources { memory: Some(1), time: Some(Duration::from_millis(1)), ..Resources::default() };
    order.tasks[1].resources.time = Some(Duration::from_millis(90_001));
    let all = rendered(&order, &site());
    assert_eq!(definition(&all, 0)["timeout"], json!({"attemptDurationSeconds": 60}));
    assert_eq!(definition(&all, 1)["timeout"], json!({"attemptDurationSeconds": 91}));
    let memory = &definition(&all, 0)["containerProperties"]["resourceRequirements"][1];
    assert_eq!(*memory, json!({"type": "MEMORY", "value": "4"}));
}

/// What Batch does after an attempt, by its rules: the first whose conditions all hold. A pattern
/// may end in `*`, and matches nothing where nothing is said.
fn action(rules: &Value, status: &str, reason: Option<&str>, code: Option<i32>) -> String {
    let code = code.map(|code| code.to_string());
    let matches = |pattern: &Value, said: Option<&str>| {
        let Some(pattern) = pattern.as_str() else { return true };
        said.is_some_and(|said| match pattern.strip_suffix('*') {
            Some(start) => said.starts_with(start),
            None => said == pattern,
        })
    };
    let rules = rules.as_array().unwrap();
    assert!(rules.len() <= 5, "Batch takes five");
    let decides = rules.iter().find(|rule| {
        matches(&rule["onStatusReason"], Some(status))
            && matches(&rule["onReason"], reason)
            && matches(&rule["onExitCode"], code.as_deref())
    });
    // Batch starts again what no rule matches.
    decides.map_or("RETRY", |rule| rule["action"].as_str().unwrap()).into()
}

#[test]
fn what_is_started_again_is_decided_by_exit_code_and_reason() {
    let retry = definition(&rendered(&order(), &site()), 0)["retryStrategy"].clone();
    assert_eq!(retry["attempts"], 10);
    let ended = "Essential container in task exited";
    let host = "Host EC2 (instance i-0c4c4a9a9d8c2a6b1) terminated.";
    let memory = "OutOfMemoryError: Container killed due to memory usage";
    let pull = "CannotPullContainerError: pull image manifest has been retried 1 time(s)";
    let docker = "DockerTimeoutError: Could not transition to started; timed out";
    for (expected, status, reason, code) in [
        ("RETRY", ended, None, Some(75)),
        ("EXIT", ended, None, Some(64)),
        ("EXIT", ended, None, Some(65)),
        ("EXIT", ended, None, Some(70)),
        // A panic, and what nothing is known of.
        ("EXIT", ended, None, Some(101)),
        ("EXIT", ended, None, Some(1)),
        ("EXIT", ended, Some(memory), Some(137)),
        ("EXIT", ended, Some(memory), None),
        ("EXIT", ended, None, Some(137)),
        // Spot: whether the process got to its end or not.
        ("RETRY", host, None, None),
        ("RETRY", host, None, Some(75)),
        ("RETRY", host, None, Some(137)),
        // It never ran. A name that is wrong stays wrong; the instance may be.
        ("EXIT", "Task failed to start", Some(pull), None),
        ("RETRY", "Task failed to start", Some(docker), None),
    ] {
        let rules = &retry["evaluateOnExit"];
        assert_eq!(action(rules, status, reason, code), expected, "{status}, {reason:?}, {code:?}");
    }
}

#[test]
fn a_stage_with_shards_is_an_array_that_waits_for_whole_jobs() {
    let all = rendered(&order(), &site());
    let [draw, verify, update] = all["submissions"].as_array().unwrap().as_slice() else {
        panic!("{all:#}");
    };
    assert_eq!(draw["arrayProperties"], json!({"size": 2}));
    assert_eq!(draw.get("dependsOn"), None);
    let command = "job store:0123abcd deduction.1.draw --store s3://bucket/prefix --shards 2";
    let command: Vec<_> = command.split(' ').collect();
    assert_eq!(draw["containerOverrides"]["command"], json!(command));
    assert_eq!(draw["jobQueue"], "cpu");

    // As many shards as what it waits for, and yet the whole of it: no `type`, so no N_TO_N.
    assert_eq!(verify["arrayProperties"], json!({"size": 2}));
    let on = |of: &Value| json!({"jobId": format!("${{{}}}", of["jobName"].as_str().unwrap())});
    assert_eq!(verify["dependsOn"], json!([on(draw)]));

    assert_eq!(update.get("arrayProperties"), None);
    assert_eq!(update["dependsOn"], json!([on(draw), on(verify)]));
    assert_eq!(update["jobQueue"], "gpu");
    let command = update["containerOverrides"]["command"].as_array().unwrap();
    assert!(command.ends_with(&[json!("--device"), json!("cuda")]), "{command:?}");
}

#[test]
fn shards_are_no_more_than_an_array_holds() {
    let mut many = order();
    many.tasks[0].shards = 10_000;
    assert_eq!(rendered(&many, &site())["submissions"][0]["arrayProperties"]["size"], 10_000);
    many.tasks[0].shards = 10_001;
    let error = render(&many, &site()).unwrap_err().to_string();
    assert!(error.contains("10001 shards; an array of AWS Batch holds 10000 at most"), "{error}");
}

#[test]
fn names_and_tags_are_what_batch_takes_and_name_the_artifact() {
    let mut long = order();
    long.pipeline = "p".repeat(300);
    for (order, end) in [(order(), "-Qwen--7B---gr--er-deduction-1-draw"), (long, "ppp")] {
        let job = rendered(&order, &site())["submissions"][0].clone();
        let name = job["jobName"].as_str().unwrap();
        assert!(name.starts_with(&format!("triad-{}-", order.mark(&order.tasks[0]))), "{name}");
        assert!(name.len() <= 128 && name.ends_with(end), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let pipeline = job["tags"]["triad:pipeline"].as_str().unwrap();
        assert!(pipeline.chars().count() <= 256);
        if order.pipeline.starts_with('Q') {
            assert_eq!(pipeline, "Qwen -7B-- größer");
        }
        assert_eq!(job["tags"]["triad:stage"], "deduction.1.draw");
        assert_eq!(job["tags"]["triad:artifact"], "aa".repeat(16));
        assert_eq!(job["tags"]["team"], "alignment");
        assert_eq!(job["propagateTags"], true);
    }
}

#[test]
fn more_than_twenty_are_waited_for_through_jobs_that_do_nothing() {
    for (inputs, joins) in [(20, 0), (21, 1), (22, 2), (401, 20 + 1)] {
        let mut tasks: Vec<_> = (0..inputs).map(|n| task(&format!("score{n}"), 0, &[])).collect();
        for (n, task) in tasks.iter_mut().enumerate() {
            task.artifact = format!("{n:032x}");
        }
        tasks.push(task("report", 0xff, &(0..inputs).collect::<Vec<_>>()));
        let all = rendered(&Order { tasks, ..order() }, &site());
        let jobs = all["submissions"].as_array().unwrap();
        assert_eq!(jobs.len(), inputs + joins + 1);

        // Everything is waited for, by names of jobs that come before.
        let mut known = BTreeSet::new();
        let mut waited = BTreeSet::new();
        for job in jobs {
            let on = job["dependsOn"].as_array().cloned().unwrap_or_default();
            assert!(on.len() <= 20);
            for one in on {
                let name = one["jobId"].as_str().unwrap().to_owned();
                assert!(known.contains(&name), "{name}");
                waited.insert(name);
            }
            assert!(known.insert(format!("${{{}}}", job["jobName"].as_str().unwrap())));
        }
        assert_eq!(known.len() - waited.len(), 1, "the last is waited for by none");
        for job in &jobs[inputs..inputs + joins] {
            assert_eq!(job["containerOverrides"]["command"], json!(["--version"]));
            assert!(job["jobName"].as_str().unwrap().starts_with("triad-join-ffffffffffff-"));
        }
    }
}
