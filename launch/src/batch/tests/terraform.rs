//! `infra/aws/`, as another parser of Terraform's language reads it. Not `terraform validate`, which
//! wants the provider.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::Site;
use super::moto::python;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("infra/aws")
}

/// All files as one object, by kind of block: `{resource: [{type: {name: {…}}}]}`.
fn parsed() -> Value {
    let program = "
import glob, hcl2, json, sys
whole = {}
def plain(value):
    if isinstance(value, dict):
        return {key.strip('\"'): plain(one) for key, one in value.items() if not key.startswith('__')}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.strip('\"') if isinstance(value, str) else value
for name in sorted(glob.glob(sys.argv[1] + '/*.tf')):
    with open(name) as file:
        for kind, blocks in hcl2.load(file).items():
            if not kind.startswith('__'):
                whole.setdefault(kind, []).extend(plain(blocks))
print(json.dumps(whole))
";
    let ended = python().args(["-c", program]).arg(folder()).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// Of a resource or of data.
fn body<'a>(parsed: &'a Value, kind: &str, r#type: &str, name: &str) -> &'a Value {
    let all = parsed[kind].as_array().unwrap();
    let found = all.iter().find_map(|one| one.get(r#type)?.get(name));
    found.unwrap_or_else(|| panic!("no {kind} {type}.{name}"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

/// What follows `before` wherever it stands, up to the end of the word or of the path.
fn mentioned(text: &str, before: &str, path: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(before) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text[..at].ends_with(|c: char| is_word(c) || c == '.' || c == '"' || c == '/') {
            continue;
        }
        let rest = &text[at + before.len()..];
        let end = rest.find(|c: char| !(is_word(c) || path && c == '.')).unwrap_or(rest.len());
        found.insert(rest[..end].to_owned());
    }
    found
}

#[test]
fn every_reference_is_to_something_declared_and_every_variable_is_used() {
    let parsed = parsed();
    let mut text = String::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        text += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let declared = |kind: &str| -> BTreeSet<String> {
        let all = parsed[kind].as_array().unwrap();
        all.iter().flat_map(|one| one.as_object().unwrap().keys().cloned()).collect()
    };
    assert_eq!(mentioned(&text, "var.", false), declared("variable"));
    assert_eq!(mentioned(&text, "local.", false), declared("locals"));
    for (before, kind) in [("aws_", "resource"), ("data.aws_", "data")] {
        let references: BTreeSet<_> = mentioned(&text, before, true)
            .into_iter()
            .filter_map(|path| {
                let mut parts = path.split('.').map(str::to_owned);
                Some((format!("aws_{}", parts.next()?), parts.next()?))
            })
            .collect();
        assert!(!references.is_empty());
        for (r#type, name) in references {
            body(&parsed, kind, &r#type, &name);
        }
    }
}

#[test]
fn a_job_may_do_what_triad_does_with_a_store_and_no_more() {
    let parsed = parsed();
    let store = body(&parsed, "data", "aws_iam_policy_document", "store");
    let allowed: Vec<_> = store["statement"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (texts(&one["actions"]), texts(&one["resources"])))
        .collect();
    let bucket = "${aws_s3_bucket.store.arn}";
    let [objects, runs] = ["*", "runs/*"].map(|end| format!("{bucket}/${{var.prefix}}/{end}"));
    assert_eq!(
        allowed,
        [
            (vec!["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], vec![&*objects]),
            (vec!["s3:DeleteObject"], vec![&*runs]),
            (vec!["s3:ListBucket"], vec![bucket]),
        ]
    );
    let job = body(&parsed, "resource", "aws_iam_role_policy", "job_store");
    assert_eq!(job["policy"], "${data.aws_iam_policy_document.store.json}");
}

#[test]
fn whoever_submits_may_make_the_calls_that_the_client_makes() {
    let sources = ["mod.rs", "definition.rs", "submission.rs", "logs.rs"].map(|file| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/batch").join(file);
        std::fs::read_to_string(path).unwrap()
    });
    let source = sources.concat();
    let called: BTreeSet<_> = [
        (".describe_job_definitions()", "batch:DescribeJobDefinitions"),
        (".register_job_definition()", "batch:RegisterJobDefinition"),
        (".submit_job()", "batch:SubmitJob"),
        (".list_jobs()", "batch:ListJobs"),
        (".describe_jobs()", "batch:DescribeJobs"),
        (".terminate_job()", "batch:TerminateJob"),
        (".set_tags(", "batch:TagResource"),
        ("Logs_20140328.GetLogEvents", "logs:GetLogEvents"),
        ("job_role_arn", "iam:PassRole"),
    ]
    .into_iter()
    .map(|(call, action)| {
        assert!(source.contains(call), "{call}");
        action
    })
    .collect();
    let parsed = parsed();
    let submitter = body(&parsed, "data", "aws_iam_policy_document", "submitter");
    let statements = submitter["statement"].as_array().unwrap().iter();
    let allowed: BTreeSet<_> = statements.flat_map(|one| texts(&one["actions"])).collect();
    assert_eq!(allowed, called);
}

#[test]
fn the_bucket_is_closed_versioned_and_tidied() {
    let parsed = parsed();
    let block = body(&parsed, "resource", "aws_s3_bucket_public_access_block", "store");
    for key in [
        "block_public_acls",
        "block_public_policy",
        "ignore_public_acls",
        "restrict_public_buckets",
    ] {
        assert_eq!(block[key], true, "{key}");
    }
    let versioning = body(&parsed, "resource", "aws_s3_bucket_versioning", "store");
    assert_eq!(versioning["versioning_configuration"][0]["status"], "Enabled");
    let rules = body(&parsed, "resource", "aws_s3_bucket_lifecycle_configuration", "store");
    let rules = rules["rule"].as_array().unwrap();
    assert_eq!(rules[0]["noncurrent_version_expiration"][0]["noncurrent_days"], 30);
    assert_eq!(rules[1]["abort_incomplete_multipart_upload"][0]["days_after_initiation"], 7);
    let tls = body(&parsed, "data", "aws_iam_policy_document", "tls_only");
    let deny = &tls["statement"][0];
    assert_eq!((&deny["effect"], &deny["actions"][0]), (&"Deny".into(), &"s3:*".into()));
    assert_eq!(deny["condition"][0]["variable"], "aws:SecureTransport");
}

#[test]
fn the_site_that_it_puts_out_is_one() {
    let text = std::fs::read_to_string(folder().join("outputs.tf")).unwrap();
    let (_, site) = text.split_once("aws_batch = merge(").unwrap();
    let words = site.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '='));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let keys = words.windows(2).filter(|pair| pair[1] == "=").map(|pair| pair[0]);
    let keys: Vec<_> = keys.filter(|key| *key != "AWS_REGION").collect();
    assert!(keys.contains(&"queue") && keys.contains(&"gpu_queue"), "{keys:?}");
    let yaml: String = keys
        .into_iter()
        .map(|key| match key {
            "images" => "images: {cpu: a, torch: b}\n".into(),
            "environment" | "secrets" => format!("{key}: {{}}\n"),
            key => format!("{key}: x\n"),
        })
        .collect();
    serde_saphyr::from_str::<Site>(&yaml).unwrap().check().unwrap();
}
