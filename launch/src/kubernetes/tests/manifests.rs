//! What is written into manifests.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::orders::{any_order, any_site, order, site, task};
use super::rules;
use crate::Error;
use crate::kubernetes::{Site, names, render, workflow};
use crate::order::Order;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_job_keeps_the_rules(order in any_order(), site in any_site()) {
        for job in render(&order, &site).unwrap() {
            prop_assert_eq!(rules::job(&job), Vec::<String>::new(), "{}", job);
        }
    }

    #[test]
    fn names_tell_artifacts_and_stores_apart_and_nothing_else(order in any_order()) {
        let task = &order.tasks[0];
        let name = names::job(&order, task);
        let mut other = order.clone();
        other.pipeline.push('x');
        other.source.push('x');
        other.tasks[0].stage.push('x');
        other.tasks[0].shards += 1;
        other.tasks[0].resources.gpus += 1;
        prop_assert_eq!(&name, &names::job(&other, &other.tasks[0]));
        other.tasks[0].artifact = format!("{:032x}", 1);
        prop_assert_ne!(&name, &names::job(&other, &other.tasks[0]));
        let elsewhere = Order { store: format!("{}x", order.store), ..order.clone() };
        prop_assert_ne!(&name, &names::job(&elsewhere, task));
    }

    #[test]
    fn any_workflow_is_whole(order in any_order(), site in any_site()) {
        match workflow(&order, &site) {
            Ok(workflow) => whole(&workflow, &order)?,
            Err(err) => prop_assert!(err.to_string().contains("{{"), "{}", err),
        }
    }
}

/// What Argo refuses: names, tasks and templates that are not there, parameters without a value.
fn whole(workflow: &Value, order: &Order) -> Result<(), TestCaseError> {
    let spec = &workflow["spec"];
    let templates = spec["templates"].as_array().unwrap();
    let named: BTreeSet<&str> = templates.iter().map(|t| t["name"].as_str().unwrap()).collect();
    prop_assert!(named.contains(spec["entrypoint"].as_str().unwrap()));
    let tasks = templates[0]["dag"]["tasks"].as_array().unwrap();
    prop_assert_eq!(tasks.len(), order.tasks.len());
    let prefix = workflow["metadata"]["generateName"].as_str().unwrap();
    prop_assert!(rules::dns_label(&format!("{prefix}abcde")), "{}", prefix);
    let mut before = BTreeSet::new();
    for (task, of_order) in tasks.iter().zip(&order.tasks) {
        let name = task["name"].as_str().unwrap();
        prop_assert!(rules::dns_label(name) && named.contains(name), "{}", name);
        for other in task["dependencies"].as_array().into_iter().flatten() {
            prop_assert!(before.contains(other.as_str().unwrap()), "{}", other);
        }
        before.insert(name);
        let template = templates.iter().find(|template| template["name"] == name).unwrap();
        let sharded = of_order.shards > 1;
        prop_assert_eq!(task["withSequence"].is_object(), sharded);
        prop_assert_eq!(task["arguments"].is_object(), sharded);
        prop_assert_eq!(template["inputs"].is_object(), sharded);
        let values = template["container"]["env"].as_array().unwrap().iter();
        let index = values.filter(|variable| variable["name"] == "JOB_COMPLETION_INDEX").count();
        prop_assert_eq!(index, usize::from(sharded));
        prop_assert!(template["container"]["command"].is_array());
    }
    Ok(())
}

#[test]
fn a_job_says_what_it_is_and_asks_for_what_the_stage_does() {
    let site: Site = serde_saphyr::from_str(
        "namespace: team\nimages: {cpu: 'r/triad:1', torch: 'r/triad:1-torch'}\n\
         service_account: bucket\nqueue: research\nnode_selector: {pool: batch}\n\
         gpu_node_selector: {nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB}\n\
         tolerations: [{key: spot, operator: Exists, effect: NoSchedule}]\n\
         environment: {AWS_REGION: eu-central-1, PRICE: '$(x) $$'}\nsecrets: [bucket-keys]\n\
         retries: 3\ngrace: 15m\nttl: 2d\nscratch: 50Gi\n",
    )
    .unwrap();
    let jobs = render(&order(), &site).unwrap();
    assert_eq!(jobs.len(), 3);
    let job = &jobs[1];
    assert_eq!(job["metadata"]["name"], "triad-rollout-000000020000-982985db");
    assert_eq!(job["metadata"]["namespace"], "team");
    let labels = &job["metadata"]["labels"];
    assert_eq!(labels["triad.dev/pipeline"], "quickstart");
    assert_eq!(labels["triad.dev/stage"], "deduction.1.draw");
    assert_eq!(labels["triad.dev/artifact"], order().tasks[1].artifact);
    assert_eq!(labels["kueue.x-k8s.io/queue-name"], "research");
    assert_eq!(job["metadata"]["annotations"]["triad.dev/store"], "s3://bucket/prefix");
    let spec = &job["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(4), &json!(4)));
    assert_eq!(spec["backoffLimitPerIndex"], 3);
    assert_eq!(spec["suspend"], true);
    assert_eq!(spec["ttlSecondsAfterFinished"], 2 * 86400);
    let pod = &spec["template"]["spec"];
    assert_eq!(spec["template"]["metadata"]["labels"]["triad.dev/stage"], "deduction.1.draw");
    assert_eq!(pod["activeDeadlineSeconds"], 7200);
    assert!(spec["activeDeadlineSeconds"].is_null(), "waiting for a node is not running");
    assert_eq!(pod["terminationGracePeriodSeconds"], 900);
    assert_eq!(pod["serviceAccountName"], "bucket");
    assert_eq!(
        pod["nodeSelector"],
        json!({ "pool": "batch", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB" })
    );
    assert_eq!(pod["tolerations"].as_array().unwrap().len(), 2);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "r/triad:1-torch");
    let amounts = json!({
        "nvidia.com/gpu": "1", "cpu": "8", "memory": (64u64 << 30).to_string(),
        "ephemeral-storage": "50Gi",
    });
    assert_eq!(container["resources"], json!({ "limits": amounts, "requests": amounts }));
    let environment = [("AWS_REGION", "eu-central-1"), ("HOME", "/tmp"), ("PRICE", "$$(x) $$$$")];
    let environment = environment.map(|(name, value)| json!({ "name": name, "value": value }));
    assert_eq!(container["env"], json!(environment));
    let secret = json!([{ "secretRef": { "name": "bucket-keys", "optional": false } }]);
    assert_eq!(container["envFrom"], secret);
    let arguments = [
        "job",
        "store:0123abcd",
        "deduction.1.draw",
        "--store",
        "s3://bucket/prefix",
        "--device",
        "cuda",
        "--shards",
        "4",
        "--wait",
        "10m",
    ];
    assert_eq!(container["args"], json!(arguments));
    // The first has no inputs to wait for, and needs no GPU.
    let first = &jobs[0]["spec"]["template"]["spec"];
    assert_eq!(first["containers"][0]["args"].as_array().unwrap().len(), 5);
    assert_eq!(first["containers"][0]["image"], "r/triad:1");
    assert_eq!(first["nodeSelector"], json!({ "pool": "batch" }));
    assert_eq!(first["tolerations"].as_array().unwrap().len(), 1);
}

/// What the job controller does with a pod that failed, by the manifest's own rules.
fn action(job: &Value, code: i64, disrupted: bool) -> &str {
    let rules = job["spec"]["podFailurePolicy"]["rules"].as_array().unwrap();
    let fits = |rule: &&Value| match rule["onExitCodes"]["values"].as_array() {
        Some(values) => values.contains(&json!(code)),
        None => disrupted && rule["onPodConditions"][0]["type"] == "DisruptionTarget",
    };
    rules.iter().find(fits).map_or("Count", |rule| rule["action"].as_str().unwrap())
}

#[test]
fn exit_codes_decide_whether_a_shard_is_tried_again() {
    let job = &render(&order(), &site()).unwrap()[1];
    for code in [64, 65, 70, 137] {
        assert_eq!(action(job, code, false), "FailJob", "{code}");
    }
    assert_eq!(action(job, 75, false), "Ignore");
    for code in [1, 101, 134, 139, 143] {
        assert_eq!(action(job, code, false), "Count", "{code}");
    }
    // A node that goes takes processes with it in any way.
    for code in [65, 75, 137, 143] {
        assert_eq!(action(job, code, true), "Ignore", "{code}");
    }
    assert_eq!(job["spec"]["maxFailedIndexes"], 0);
}

#[test]
fn the_rules_find_what_the_api_would_refuse() {
    let broken = [
        ("/metadata/name", json!("Triad")),
        ("/metadata/name", json!("x".repeat(62))),
        ("/metadata/labels/triad.dev~1stage", json!("-a")),
        ("/metadata/labels/triad.dev~1stage", json!("a".repeat(64))),
        ("/spec/completionMode", json!("NonIndexed")),
        ("/spec/parallelism", json!(1)),
        ("/spec/maxFailedIndexes", json!(5)),
        ("/spec/backoffLimit", json!(6)),
        ("/spec/podFailurePolicy/rules/0/onPodConditions", Value::Null),
        ("/spec/podFailurePolicy/rules/1/action", json!("Fail")),
        ("/spec/podFailurePolicy/rules/1/onExitCodes/values", json!([65, 64])),
        ("/spec/podFailurePolicy/rules/1/onExitCodes/values", json!([0, 64])),
        ("/spec/podFailurePolicy/rules/1/onExitCodes/containerName", json!("main")),
        ("/spec/template/spec/restartPolicy", json!("OnFailure")),
        ("/spec/template/spec/activeDeadlineSeconds", json!(0)),
        ("/spec/template/spec/terminationGracePeriodSeconds", json!(0)),
        ("/spec/template/spec/automountServiceAccountToken", json!(true)),
        ("/spec/template/spec/tolerations/0/value", json!("x")),
        ("/spec/template/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/template/spec/volumes/0", json!({ "name": "tmp", "hostPath": { "path": "/" } })),
        ("/spec/template/spec/containers/0/volumeMounts/0/name", json!("other")),
        ("/spec/template/spec/containers/0/image", json!("")),
        ("/spec/template/spec/containers/0/env/0/name", json!("A=B")),
        ("/spec/template/spec/containers/0/resources/limits/cpu", json!("9")),
        ("/spec/template/spec/containers/0/securityContext/capabilities/drop", json!([])),
        ("/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(false)),
    ];
    let job = render(&order(), &site()).unwrap().remove(1);
    assert_eq!(rules::job(&job), Vec::<String>::new());
    for (place, value) in broken {
        let mut job = job.clone();
        match job.pointer_mut(place) {
            Some(found) => *found = value.clone(),
            None => {
                let (parent, key) = place.rsplit_once('/').unwrap();
                job.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
        assert!(!rules::job(&job).is_empty(), "{place}: {value}");
    }
}

/// `kubectl apply` compares texts: what the API writes otherwise it would change, each time.
#[test]
fn amounts_are_written_as_the_api_writes_them() {
    for (bytes, text) in
        [(300_000_000, "300M"), (1_500, "1500"), (2_000, "2k"), (1 << 30, "1073741824")]
    {
        let mut order = order();
        order.tasks[0].resources.memory = Some(bytes);
        let job = &render(&order, &site()).unwrap()[0];
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["resources"]["limits"]["memory"], text);
    }
}

#[test]
fn a_site_says_what_is_wrong_with_it() {
    let refused = |yaml: &str| {
        let site: Site = match serde_saphyr::from_str(yaml) {
            Ok(site) => site,
            Err(err) => return err.to_string(),
        };
        let order = order();
        match render(&order, &site) {
            Err(Error::Usage(line)) => line,
            other => panic!("{yaml}: {other:?}"),
        }
    };
    let images = "images: {cpu: a, torch: b}\n";
    let with = |line: &str| refused(&format!("{images}{line}"));
    assert!(with("environment: {AWS_SECRET_ACCESS_KEY: x}").contains("under `secrets`"));
    assert!(with("environment: {HF_TOKEN: x}").contains("under `secrets`"));
    assert!(!with("environment: {HF_TOKEN: hush}").contains("hush"));
    assert!(with("environment: {'A B': x}").contains("kubernetes.environment.A B"));
    assert!(with("namespace: Team").contains("kubernetes.namespace: `Team`"));
    assert!(with("secrets: [a_b]").contains("kubernetes.secrets: `a_b`"));
    assert!(with("node_selector: {pool: 'a b'}").contains("node_selector.pool"));
    assert!(with("grace: 0s").contains("checkpoint"));
    assert!(with("grace: soon").contains("`soon`: give a number and s, m, h or d"));
    assert!(with("scratch: much").contains("50Gi"));
    assert!(with("nodes: 3").contains("nodes"));
    assert!(with("tolerations: [{keys: a}]").contains("keys"));
    assert!(
        refused("images: {cpu: a}").contains("images: {torch: …}"),
        "{}",
        refused("images: {cpu: a}")
    );
    let mut order = order();
    order.tasks[0].shards = 0;
    assert!(render(&order, &site()).unwrap_err().to_string().contains("0 shards"));
    let fine = "environment: {TOKENIZERS_PARALLELISM: 'false', AWS_ACCESS_KEY_ID: x}";
    let fine: Site = serde_saphyr::from_str(&format!("{images}{fine}")).unwrap();
    fine.check().unwrap();
}

#[test]
fn argo_runs_stages_after_their_inputs_and_shards_side_by_side() {
    let site = Site { queue: Some("research".into()), ..site() };
    let workflow = workflow(&order(), &site).unwrap();
    let spec = &workflow["spec"];
    let tasks = spec["templates"][0]["dag"]["tasks"].as_array().unwrap();
    assert_eq!(tasks[1]["dependencies"], json!([tasks[0]["name"]]));
    assert_eq!(tasks[1]["withSequence"]["count"], "4");
    assert_eq!(tasks[2]["dependencies"], json!([tasks[1]["name"]]));
    let template = &spec["templates"][2];
    assert_eq!(template["activeDeadlineSeconds"], "7200");
    assert_eq!(template["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "research");
    let again = template["retryStrategy"]["expression"].as_str().unwrap();
    assert!(again.contains("in [64, 65, 70])") && again.contains("OOMKilled"), "{again}");
    let arguments = template["container"]["args"].to_string();
    assert!(arguments.contains("--shards") && !arguments.contains("--wait"), "{arguments}");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let patch: Value = serde_json::from_str(spec["podSpecPatch"].as_str().unwrap()).unwrap();
    assert_eq!(patch["terminationGracePeriodSeconds"], 600);

    let mut order = order();
    order.tasks[0].stage = "{{=sprig.env('PATH')}}".into();
    assert!(crate::kubernetes::workflow(&order, &site).unwrap_err().to_string().contains("Argo"));
}

#[test]
fn manifests_fit_the_schemas_of_1_33_and_1_37() {
    let dir = tempfile::tempdir().unwrap();
    let full = Site {
        namespace: Some("team".into()),
        service_account: Some("bucket".into()),
        queue: Some("research".into()),
        secrets: vec!["keys".into()],
        scratch: Some("50Gi".into()),
        node_selector: [("pool".to_string(), "batch".to_string())].into(),
        ..site()
    };
    let mut plain = order();
    plain.tasks = vec![task("examples", "00000003000000000000000000000015")];
    let mut files = Vec::new();
    for (name, jobs) in [("full", render(&order(), &full)), ("plain", render(&plain, &site()))] {
        for (number, job) in jobs.unwrap().iter().enumerate() {
            let file = dir.path().join(format!("{name}-{number}.json"));
            std::fs::write(&file, job.to_string()).unwrap();
            files.push(file);
        }
    }
    super::validate(&files);
    // The validator does look: a misspelt key is refused.
    let mut wrong = render(&plain, &site()).unwrap().remove(0);
    wrong["spec"]["backoffLimitPerIndexes"] = json!(1);
    let file = dir.path().join("wrong.json");
    std::fs::write(&file, wrong.to_string()).unwrap();
    let output = super::validator("1.37", &[file]).output().unwrap();
    assert!(!output.status.success());
}
