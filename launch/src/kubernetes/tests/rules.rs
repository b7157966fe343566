//! What the API server refuses though the schema allows it, and what restricted Pod Security asks.
//! From the documentation of Kubernetes' API, not from what the manifests happen to be.

use std::collections::BTreeSet;

use serde_json::Value;

const LABEL: usize = 63;

/// A line for each rule of a Job that is broken.
pub fn job(job: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, rule: &str| {
        if !holds {
            broken.push(rule.to_string());
        }
    };
    let spec = &job["spec"];
    let number = |value: &Value| value.as_i64().unwrap_or(-1);
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    let completions = number(&spec["completions"]);
    expect(job["apiVersion"] == "batch/v1" && job["kind"] == "Job", "a Job of batch/v1");
    expect(subdomain(name), "the name is a DNS subdomain");
    // The pods' host names and the label job-name.
    expect(dns_label(&format!("{name}-{}", completions - 1)), "name and index are a DNS label");

    expect(spec["completionMode"] == "Indexed", "only indexed jobs have limits by index");
    expect((1..=100_000).contains(&completions), "1 to 100,000 completions");
    expect((0..=100_000).contains(&number(&spec["parallelism"])), "at most 100,000 at a time");
    expect(number(&spec["parallelism"]) == completions, "all shards at a time");
    expect(number(&spec["backoffLimitPerIndex"]) >= 0, "a limit by index");
    expect(spec["backoffLimit"].is_null(), "a second limit would end the job before the first");
    let failed = number(&spec["maxFailedIndexes"]);
    expect((0..=completions.min(100_000)).contains(&failed), "failed indexes: 0 to completions");
    expect(number(&spec["ttlSecondsAfterFinished"]) >= 0, "a time to live");
    expect(spec["selector"].is_null() && spec["manualSelector"].is_null(), "the server selects");
    let queue = &job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"];
    expect(queue.is_null() || spec["suspend"] == true, "queued jobs are made suspended");

    let template = &spec["template"];
    let pod = &template["spec"];
    expect(pod["restartPolicy"] == "Never", "a podFailurePolicy needs restartPolicy Never");
    for at in [job, template] {
        broken.extend(metadata(&at["metadata"]));
    }
    broken.extend(policy(&spec["podFailurePolicy"], &pod["containers"]));
    broken.extend(self::pod(pod));
    broken
}

fn metadata(metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("!");
        if !(label_value(value) && qualified(key)) {
            broken.push(format!("label {key}: {value:?}"));
        }
        if key.starts_with("batch.kubernetes.io/") || key == "job-name" || key == "controller-uid" {
            broken.push(format!("label {key} is the controller's"));
        }
    }
    let annotations = metadata["annotations"].as_object();
    let size: usize = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(usize::MAX / 4, str::len))
        .sum();
    if size > 256 << 10 {
        broken.push("annotations beyond 256 KiB".into());
    }
    for key in annotations.into_iter().flat_map(|map| map.keys()).filter(|key| !qualified(key)) {
        broken.push(format!("annotation {key}"));
    }
    broken
}

fn policy(policy: &Value, containers: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, rule: &str| {
        if !holds {
            broken.push(format!("podFailurePolicy: {rule}"));
        }
    };
    let rules = policy["rules"].as_array().cloned().unwrap_or_default();
    expect((1..=20).contains(&rules.len()), "1 to 20 rules");
    let names: BTreeSet<&str> =
        containers.as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    for rule in &rules {
        let action = rule["action"].as_str().unwrap_or_default();
        expect(["FailJob", "FailIndex", "Ignore", "Count"].contains(&action), "a known action");
        let (codes, conditions) = (&rule["onExitCodes"], &rule["onPodConditions"]);
        expect(codes.is_null() != conditions.is_null(), "exit codes or conditions, not both");
        for condition in conditions.as_array().into_iter().flatten() {
            let status = condition["status"].as_str().unwrap_or_default();
            expect(["True", "False", "Unknown"].contains(&status), "a condition's status");
            expect(condition["type"].is_string(), "a condition's type");
        }
        if codes.is_null() {
            continue;
        }
        let container = codes["containerName"].as_str();
        expect(container.is_none_or(|name| names.contains(name)), "a container that there is");
        let values: Vec<i64> =
            codes["values"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        expect((1..=255).contains(&values.len()), "1 to 255 exit codes");
        expect(values.windows(2).all(|pair| pair[0] < pair[1]), "exit codes in order, once each");
        expect(["In", "NotIn"].contains(&codes["operator"].as_str().unwrap_or("")), "an operator");
        expect(codes["operator"] != "In" || !values.contains(&0), "0 is no failure");
    }
    broken
}

fn pod(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, rule: String| {
        if !holds {
            broken.push(rule);
        }
    };
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    expect(grace > 0, "time for a checkpoint".into());
    let deadline = &pod["activeDeadlineSeconds"];
    let whole = (1..=i64::from(i32::MAX)).contains(&deadline.as_i64().unwrap_or(0));
    expect(deadline.is_null() || whole, format!("deadline {deadline}"));
    let account = &pod["serviceAccountName"];
    expect(account.as_str().is_none_or(subdomain), format!("service account {account}"));
    expect(pod["automountServiceAccountToken"] == false, "no token for the API".into());
    for (key, value) in pod["nodeSelector"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("!");
        expect(qualified(key) && label_value(value), format!("node selector {key}={value}"));
    }
    for toleration in pod["tolerations"].as_array().into_iter().flatten() {
        let operator = toleration["operator"].as_str().unwrap_or("Equal");
        let value = toleration["value"].as_str().unwrap_or_default();
        expect(operator != "Exists" || value.is_empty(), "Exists with a value".into());
        let all = operator == "Exists" || toleration["key"].is_string();
        expect(all, "a toleration without a key has Exists".into());
        let effect = &toleration["effect"];
        let timed = toleration["tolerationSeconds"].is_null() || effect == "NoExecute";
        expect(timed, "tolerationSeconds are for NoExecute".into());
    }

    // Pod Security, profile restricted.
    let of_pod = &pod["securityContext"];
    expect(of_pod["runAsNonRoot"] == true, "runAsNonRoot".into());
    expect(of_pod["seccompProfile"]["type"] == "RuntimeDefault", "seccomp".into());
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        expect(pod[key].is_null(), key.into());
    }
    let volumes: Vec<&Value> = pod["volumes"].as_array().into_iter().flatten().collect();
    for volume in &volumes {
        let kinds: Vec<_> =
            volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        let allowed = ["emptyDir", "projected", "secret", "configMap", "persistentVolumeClaim"];
        expect(kinds.len() == 1 && allowed.contains(&kinds[0].as_str()), format!("{volume}"));
    }
    let containers: Vec<&Value> = pod["containers"].as_array().into_iter().flatten().collect();
    expect(containers.len() == 1, "one container".into());
    for container in containers {
        let security = &container["securityContext"];
        expect(security["allowPrivilegeEscalation"] == false, "privilege escalation".into());
        expect(security["capabilities"]["drop"][0] == "ALL", "capabilities".into());
        expect(security["capabilities"]["add"].is_null(), "capabilities added".into());
        expect(security["readOnlyRootFilesystem"] == true, "the root is read-only".into());
        expect(security["privileged"].is_null(), "privileged".into());
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            expect(
                volumes.iter().any(|volume| volume["name"] == mount["name"]),
                format!("{mount}"),
            );
        }
        self::container(container).into_iter().for_each(|rule| expect(false, rule));
    }
    broken
}

fn container(container: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, rule: String| {
        if !holds {
            broken.push(rule);
        }
    };
    expect(dns_label(container["name"].as_str().unwrap_or_default()), "a container's name".into());
    let image = container["image"].as_str().unwrap_or_default();
    expect(!image.is_empty() && image.trim() == image, format!("image {image:?}"));
    let mut names = BTreeSet::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default();
        expect(!name.is_empty() && !name.contains('='), format!("variable {name:?}"));
        expect(names.insert(name), format!("variable {name} twice"));
        expect(variable["value"].is_string(), format!("variable {name} has a text"));
    }
    for from in container["envFrom"].as_array().into_iter().flatten() {
        let name = from["secretRef"]["name"].as_str().unwrap_or_default();
        expect(subdomain(name), format!("secret {name:?}"));
    }
    let (limits, requests) =
        (&container["resources"]["limits"], &container["resources"]["requests"]);
    expect(limits == requests, "requests are limits".into());
    for (key, amount) in limits.as_object().into_iter().flatten() {
        let amount = amount.as_str().unwrap_or_default();
        let digits = amount.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let some = digits.parse::<f64>().is_ok_and(|number| number > 0.0);
        expect(some, format!("{key}: {amount:?}"));
        let whole = !key.contains('/') || amount.parse::<u32>().is_ok();
        expect(whole, format!("{key} comes whole"));
    }
    broken
}

/// At most 63 lower-case letters, digits and dashes, the ends no dashes.
pub fn dns_label(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=LABEL).contains(&text.len())
        && text.chars().all(|c| letter(c) || c == '-')
        && text.starts_with(letter)
        && text.ends_with(letter)
}

fn subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(dns_label)
}

pub fn label_value(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || text.len() <= LABEL
            && text.chars().all(|c| ends(c) || "-_.".contains(c))
            && text.starts_with(ends)
            && text.ends_with(ends)
}

/// `prefix/name` or `name`.
fn qualified(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(a, b)| (Some(a), b));
    !name.is_empty() && label_value(name) && prefix.is_none_or(subdomain)
}
