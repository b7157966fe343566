//! `triad merge` and the job: the same models give the same bytes, whatever they lie in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use triad::checkpoint::{Dtype, HostTensor, Weights, encode_safetensors};
use triad::entropy::Stream;
use triad::job::{self, Input, Inputs, Job, Outcome, Progress, ProgressSink, Run, Shard, StopFlag};
use triad::store::{Artifact, Attempt, Files, Manifest, Store};

use crate::program::{failure, stdout};
use crate::s3_server::{Fault, Server};
use crate::store::manifest;

const RECIPE: &str = "\
merge_method: ties
base_model: @base
models:
- {model: @a, parameters: {weight: 1.0, density: 0.5}}
- {model: @b, parameters: {weight: [0.2, 0.7], density: 0.8}}
parameters: {normalize: true}
dtype: bfloat16
";

/// The recipe with `prefix` before the models' names.
fn recipe(prefix: &str) -> String {
    RECIPE.replace('@', prefix)
}

/// A folder with recipes of folders and of artifacts, and a store with the latter.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/merge/models");
    let mut pipeline = "pipeline: small\nstages:\n".to_string();
    for name in ["base", "a", "b"] {
        let path = models.join(name);
        pipeline += &format!(
            "  {name}: {{job: import-checkpoint, params: {{path: {}}}}}\n",
            path.display()
        );
    }
    pipeline += "  merged:\n    job: merge\n    inputs: {models: [base, a, b]}\n    params:\n";
    for line in recipe("").lines() {
        pipeline += &format!("      {line}\n");
    }
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("small.yaml", &pipeline);
    write("artifacts.yaml", &recipe("small/"));
    write("folders.yaml", &recipe(&format!("{}/", models.display())));
    write("urls.yaml", &recipe(&format!("file://{}/", models.display())));
    dir
}

fn shown(dir: &Path, artifact: &str) -> Value {
    serde_json::from_str(&stdout(dir, &["show", artifact, "--json"])).unwrap()
}

fn digests(shown: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let objects = shown["objects"].as_array().unwrap().iter();
    objects.map(|object| (text(&object["path"]), text(&object["digest"]))).collect()
}

#[test]
fn folders_urls_artifacts_and_the_job_give_the_same_bytes() {
    let dir = folder();
    let triad = |args: &[&str]| stdout(dir.path(), args);
    triad(&["run", "small.yaml"]);
    let job = digests(&shown(dir.path(), "small/merged"));
    let said = triad(&["merge", "artifacts.yaml", "mine/merged"]);
    assert!(said.starts_with("mine/merged ") && said.ends_with(" committed\n"), "{said}");
    assert!(triad(&["merge", "artifacts.yaml", "mine/again"]).ends_with("found committed\n"));
    assert_eq!(digests(&shown(dir.path(), "mine/merged")), job);
    let url = format!("file://{}/url", dir.path().display());
    for (recipe, out) in [
        ("artifacts.yaml", "one"),
        ("folders.yaml", "two"),
        ("urls.yaml", "three"),
        ("urls.yaml", &url),
    ] {
        let said = triad(&["merge", recipe, out]);
        assert_eq!(
            said,
            format!(
                "{out}: {} parameters\n",
                shown(dir.path(), "small/merged")["summary"]["parameters"]
            )
        );
    }
    for folder in ["one", "two", "three", "url"] {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let digest = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
            found.insert(path.file_name().unwrap().to_str().unwrap().to_string(), digest);
        }
        assert_eq!(found, job, "{folder}");
    }
    assert_eq!(
        failure(dir.path(), &["merge", "folders.yaml", "one"]),
        "64: error: folder `one` is not empty; give a new one"
    );
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let dir = folder();
    let json = stdout(dir.path(), &["merge", "folders.yaml", "out", "--dry-run", "--json"]);
    let facts: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(facts["method"], "ties");
    assert_eq!(facts["bytes_written"].as_u64().unwrap(), 2 * facts["parameters"].as_u64().unwrap());
    assert_eq!(facts["models"][2]["is_base"], true);
    assert_eq!(facts["models"][2]["layers"], 4);
    let text = stdout(dir.path(), &["merge", "folders.yaml", "out", "--dry-run"]);
    for part in
        ["LlamaForCausalLM", "ties: 39 tensors", "bfloat16", "0 requests", "0.5882 to 0.8333"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!dir.path().join("out").exists());
}

#[test]
fn mistakes_are_named() {
    let dir = folder();
    let said = |from: &str, to: &str, out: &str| {
        let text = std::fs::read_to_string(dir.path().join("folders.yaml")).unwrap();
        assert!(text.contains(from));
        std::fs::write(dir.path().join("wrong.yaml"), text.replace(from, to)).unwrap();
        let text = failure(dir.path(), &["merge", "wrong.yaml", out]);
        text.replace(env!("CARGO_MANIFEST_DIR"), "[root]")
    };
    let found = [
        said("normalize", "normalise", "out"),
        said("merge_method: ties", "merge_method: tie", "out"),
        said("dtype: bfloat16", "dtype: bfloat16\nmodules: {}", "out"),
        said("merge_method: ties", "merge_method: slerp", "out"),
        said("/a, parameters", "/c, parameters", "out"),
        said("normalize: true", "normalize: true", "mine/merged"),
    ];
    insta::assert_snapshot!(found.join("\n"), @r"
    64: error: wrong.yaml: parameters: unknown parameter `normalise`; ties has weight, density, lambda, normalize, rescale, int8_mask
    64: error: wrong.yaml: line 1: unknown variant `tie`, expected one of linear, slerp, nuslerp, multislerp, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties, model_stock, karcher, passthrough
    64: error: wrong.yaml: line 8: unknown field `modules`, expected one of merge_method, models, slices, base_model, parameters, dtype, out_dtype, tokenizer_source, tokenizer, chat_template, seed, allow_non_finite
    64: error: wrong.yaml: parameters: unknown parameter `normalize`; slerp has t
    65: error: wrong.yaml: model `[root]/tests/fixtures/merge/models/c`: config.json is missing
    64: error: model `[root]/tests/fixtures/merge/models/a` is no artifact, so what is made of it has no identity; commit it by a stage of `import-checkpoint`, or merge into a folder
    ");
}

struct Nobody;

impl ProgressSink for Nobody {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

/// A checkpoint of more than one part of a transfer, as an artifact.
async fn checkpoint(store: &Store, name: &str, seed: u64) -> Artifact {
    let rows = 40_003;
    let mut weights = Weights::new();
    for (name, shape) in
        [("model.embed_tokens.weight", vec![rows, 128]), ("model.norm.weight", vec![128])]
    {
        let mut stream = Stream::new(seed, name, 0);
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| stream.uniform() as f32 - 0.5).collect();
        weights.insert(name.into(), HostTensor::from_f32(shape, &values, Dtype::Bf16));
    }
    let config = json!({"architectures": ["LlamaForCausalLM"], "vocab_size": rows,
        "tie_word_embeddings": true, "num_hidden_layers": 0});
    let manifest = Manifest { kind: "checkpoint".into(), ..manifest(name) };
    let mut attempt = Attempt::new(store, &manifest.id);
    attempt.write("config.json", Bytes::from(config.to_string()), None).await.unwrap();
    let bytes = encode_safetensors(&weights).unwrap();
    attempt.write("model.safetensors", bytes, None).await.unwrap();
    let id = manifest.id.clone();
    attempt.commit(manifest).await.unwrap();
    Artifact::open(store, &id).await.unwrap().unwrap()
}

async fn merge(store: &Store) -> triad::Result<Outcome> {
    let mut models = Vec::new();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        models.push(Input {
            name: name.into(),
            artifact: checkpoint(store, name, seed as u64).await,
        });
    }
    let kind: &'static dyn Job = job::kind("merge").unwrap();
    let params = json!({"merge_method": "nuslerp", "parameters": {"weight": 0.3},
        "models": [{"model": "a"}, {"model": "b"}]});
    let run = Run {
        job: kind,
        params: kind.resolve(&params).unwrap(),
        inputs: Inputs::from([("models".into(), models)]),
        shard: Shard::WHOLE,
        device: "cpu".into(),
        server: None,
        stop: StopFlag::default(),
        progress: Progress { stage: "merge".into(), sink: Arc::new(Nobody) },
    };
    job::run(store, run).await
}

fn weights_of(outcome: Outcome) -> String {
    let Outcome::Committed(manifest) = outcome else { panic!("{outcome:?}") };
    manifest.object("model.safetensors").unwrap().digest.clone()
}

/// Read by ranges and written in parts, from a bucket to the same bucket.
#[tokio::test(flavor = "multi_thread")]
async fn large_models_go_from_store_to_store() {
    let expected = weights_of(merge(&Store::open("memory://").unwrap()).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let local = Store::open(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(weights_of(merge(&local).await.unwrap()), expected);
    let server = Server::start();
    let store = server.store(Duration::from_millis(2000));
    let kinds = [Fault::Throttled, Fault::AnswerLost, Fault::RequestLost, Fault::CutBody];
    server.inject(5, 0.1, &kinds);
    assert_eq!(weights_of(merge(&store).await.unwrap()), expected);
    assert_eq!(server.uploads(), 0);
    let found = store.artifacts().await.unwrap();
    for id in found {
        let artifact = Artifact::open(&store, &id).await.unwrap().unwrap();
        for object in &artifact.manifest.objects {
            artifact.read(&object.path).await.unwrap();
        }
    }
}

/// Files of a URL that are no artifacts.
#[tokio::test]
async fn a_file_that_changes_its_size_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path().to_str().unwrap()).unwrap();
    files.write("x", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(files.size("x").await.unwrap(), Some(10));
    assert_eq!(files.size("y").await.unwrap(), None);
    assert_eq!(files.read_range("x", 10, 3..5).await.unwrap(), "34");
    for size in [9, 11] {
        let error = files.read_range("x", size, 3..5).await.unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("it has 10 bytes, where {size} are expected"))
        );
    }
    let error = files.read_range("y", 10, 3..5).await.unwrap_err();
    assert!(error.to_string().contains("it is gone"), "{error}");
}
