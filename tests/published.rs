//! A manifest as it is written, against the published schemas/manifest.v1.json.

use serde_json::{Value, json};
use triad::store::{Manifest, Store};

use crate::toy::{self, Toy};

fn schema() -> Value {
    let path =
        format!("{}/schemas/manifest.v{}.json", env!("CARGO_MANIFEST_DIR"), Manifest::FORMAT);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What in `value` does not follow `schema`: the keywords that the published schema uses.
fn faults(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let right_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !right_type || schema.get("const").is_some_and(|constant| constant != value) {
        faults.push(format!("{at}: {value}"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        let hex = value.as_str().unwrap_or("");
        let length = hex.len().to_string();
        let right = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !right || pattern != format!("^[0-9a-f]{{{length}}}$") {
            faults.push(format!("{at}: {value} is not {pattern}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        let further = &schema["additionalProperties"];
        match &schema["properties"][key] {
            Value::Null if further == &json!(false) => faults.push(format!("{at}: unknown")),
            Value::Null => faults.extend(self::faults(further, inner, &at)),
            known => faults.extend(self::faults(known, inner, &at)),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            faults.push(format!("{at}: no {key}"));
        }
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        faults.extend(self::faults(&schema["items"], inner, &format!("{at}/{index}")));
    }
    faults
}

#[tokio::test]
async fn manifests_follow_their_published_schema() {
    let store = Store::open("memory://").unwrap();
    let manifest = toy::committed(&store, Toy::new("published"), 0, 1).await;
    let mut manifest = serde_json::to_value(manifest).unwrap();
    manifest["producer"]["timings"]["sample_seconds"] = json!(1.5);
    manifest["identity"]["inputs"] = json!({"port": {"name": manifest["id"]}});
    assert_eq!(faults(&schema(), &manifest, ""), Vec::<String>::new());

    manifest["producer"]["host"] = json!("here");
    manifest["objects"][0]["digest"] = json!("xyz");
    manifest.as_object_mut().unwrap().remove("kind");
    let found = faults(&schema(), &manifest, "");
    assert_eq!(found.len(), 3, "{found:?}");
}
