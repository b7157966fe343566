//! infra/kubernetes: what is applied to a cluster once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{root, tool, validate};
use crate::site::Site;

fn folder(name: &str) -> PathBuf {
    root().join("infra/kubernetes").join(name)
}

/// What `kubectl apply -k` would apply.
fn built(name: &str) -> (String, Vec<Value>) {
    let kubectl = tool("kubectl/bin/kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(folder(name)).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = serde_saphyr::from_multiple(&text).unwrap();
    (text, objects)
}

#[test]
fn what_is_applied_builds_and_fits_the_schemas() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in ["base", "seaweedfs", "eks", "argo"] {
        let (text, objects) = built(name);
        let inside = |object: &Value| object["metadata"]["namespace"] == "triad";
        assert!(objects.iter().all(|object| object["kind"] == "Namespace" || inside(object)));
        files.push(dir.path().join(format!("{name}.yaml")));
        std::fs::write(files.last().unwrap(), text).unwrap();
    }
    validate(&files);
}

/// Requests that the client makes, in the words of RBAC: what [`super::server`] answers.
const ASKED: [(&str, &str, &str); 8] = [
    ("", "events", "list"),
    ("", "pods", "list"),
    ("", "pods/log", "get"),
    ("batch", "jobs", "create"),
    ("batch", "jobs", "delete"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
];

#[test]
fn the_client_has_the_rights_that_it_uses_and_pods_have_none() {
    let (_, objects) = built("base");
    let roles: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Role").collect();
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let mut given = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    given.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    let asked = ASKED.map(|(group, resource, verb)| (group.into(), resource.into(), verb.into()));
    assert_eq!(given, asked.into());
    let bound = objects.iter().filter(|object| object["kind"] == "RoleBinding");
    for subject in bound.flat_map(|binding| binding["subjects"].as_array().unwrap()) {
        assert_eq!(subject["name"], "triad-client");
    }
    assert!(!objects.iter().any(|object| object["kind"].as_str().unwrap().starts_with("Cluster")));
}

#[test]
fn sites_are_read_and_name_what_is_applied() {
    for name in ["seaweedfs", "eks"] {
        let site = Site::read(&folder(name).join("site.yaml")).unwrap().kubernetes;
        site.check().unwrap();
        assert_eq!(site.namespace.as_deref(), Some("triad"));
        let (_, objects) = built(name);
        let account = objects.iter().find(|object| {
            object["kind"] == "ServiceAccount"
                && object["metadata"]["name"].as_str() == site.service_account.as_deref()
        });
        assert_eq!(account.unwrap()["automountServiceAccountToken"], false);
        // Keys are made by hand, never applied from a file.
        assert!(!objects.iter().any(|object| object["kind"] == "Secret"));
    }
}
