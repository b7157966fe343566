//! `fsck` finds every kind of damage and repairs what can be made again; `gc` takes what nobody
//! needs and nothing else, whatever runs beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::TimeDelta;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use triad::id::ArtifactId;
use triad::job;
use triad::pipeline::{self, Pipeline};
use triad::store::{
    Artifact, Attempt, Collected, Key, Manifest, Problem, Reason, SchemaRef, Store, check, collect,
};

use crate::hooked::{Fate, Operation, hooked};
use crate::program::{TASKS, failure, stdout};
use crate::s3_faults::options;
use crate::store::manifest;
use crate::toy::{self, Toy};

/// A committed artifact with one object `x`, made from `inputs`.
async fn commit(store: &Store, of: &str, inputs: &[&ArtifactId]) -> Manifest {
    let inputs: BTreeMap<_, _> =
        inputs.iter().enumerate().map(|(i, id)| (i.to_string(), id.as_str())).collect();
    let identity = json!({"job": of, "version": 1, "params": {}, "inputs": {"from": inputs}});
    let id = ArtifactId::of(&identity);
    let schema = SchemaRef { schema: "metrics".into(), version: 1 };
    let datasets = BTreeMap::from([("metrics".to_string(), schema)]);
    let manifest = Manifest { id: id.clone(), identity, datasets, ..manifest(of) };
    let mut attempt = Attempt::new(store, &id);
    attempt.write("x", Bytes::from(format!("object of {of}")), None).await.unwrap();
    attempt.commit(manifest).await.unwrap();
    Artifact::open(store, &id).await.unwrap().unwrap().manifest
}

async fn delete(store: &Store, key: &Key) {
    let (raw, path) = store.raw(key);
    raw.delete(&path).await.unwrap();
}

/// What `fsck` finds, with the end of each path.
async fn problems(store: &Store) -> Vec<(Problem, String)> {
    let known = |schema: &SchemaRef| schema.version == 1;
    let found = check(store, true, &known).await.unwrap();
    let end = |path: &str| path.rsplit('/').next().unwrap().to_string();
    found.findings.iter().map(|finding| (finding.problem, end(&finding.path))).collect()
}

#[tokio::test]
async fn fsck_finds_each_kind_of_damage() {
    for kind in [
        "none",
        "missing",
        "truncated",
        "flipped",
        "stray",
        "dangling",
        "schema",
        "layout",
        "manifest",
        "input",
        "checkpoint",
    ] {
        let store = Store::open("memory://").unwrap();
        let below = commit(&store, "below", &[]).await;
        let above = commit(&store, "above", &[&below.id]).await;
        store.set_ref("run", "above", &above.id).await.unwrap();
        let object = below.objects[0].key(&below.id);
        let record = Key::Manifest(below.id.clone());
        let expected: Vec<(Problem, &str)> = match kind {
            "missing" => {
                delete(&store, &object).await;
                vec![(Problem::MissingObject, "x")]
            }
            "truncated" => {
                store.put(&object, Bytes::from_static(b"object")).await.unwrap();
                vec![(Problem::Truncated, "x")]
            }
            "flipped" => {
                store.put(&object, Bytes::from_static(b"object of Below")).await.unwrap();
                vec![(Problem::ChangedObject, "x")]
            }
            "stray" => {
                let mut attempt = Attempt::new(&store, &below.id);
                attempt.write("y", Bytes::from_static(b"left behind"), None).await.unwrap();
                vec![(Problem::StrayAttempt, below.id.as_str())]
            }
            "dangling" => {
                store.set_ref("run", "gone", &crate::store::id("gone")).await.unwrap();
                vec![(Problem::DanglingRef, "gone.json")]
            }
            "schema" => {
                let id = commit(&store, "newer", &[]).await.id;
                edit(&store, &id, |value| value["datasets"]["metrics"]["version"] = json!(9)).await;
                vec![(Problem::UnknownVersion, "manifest.json")]
            }
            "layout" => {
                edit(&store, &below.id, |value| value["format"] = json!(2)).await;
                vec![(Problem::UnknownVersion, "manifest.json")]
            }
            "manifest" => {
                let bytes = store.get(&record).await.unwrap().unwrap();
                let text = String::from_utf8(bytes.to_vec()).unwrap().replace("tasks", "taskz");
                store.put(&record, text.into()).await.unwrap();
                vec![(Problem::BadManifest, "manifest.json")]
            }
            "input" => {
                delete(&store, &record).await;
                let mut expected = vec![
                    (Problem::Unfinished, below.id.as_str(), &below.id),
                    (Problem::MissingInput, "manifest.json", &above.id),
                ];
                expected.sort_by_key(|(_, _, id)| id.as_str().to_string());
                expected.into_iter().map(|(problem, path, _)| (problem, path)).collect()
            }
            "checkpoint" => {
                let toy = Toy::new("steps").stepwise().stopping_after(1);
                toy::run(&store, toy, 0, 1).await.unwrap_err();
                let id = check(&store, true, &|_| true).await.unwrap().findings[0].artifact.clone();
                let step = Key::Step { id: id.clone().unwrap(), step: 1 };
                store.put(&step, Bytes::from_static(b"{")).await.unwrap();
                let found = problems(&store).await;
                assert!(found.contains(&(Problem::BadCheckpoint, "00000001.json".into())));
                assert!(found.iter().all(|(problem, _)| !problem.is_damage()), "{found:?}");
                continue;
            }
            _ => vec![],
        };
        let expected: Vec<_> = expected.into_iter().map(|(p, path)| (p, path.into())).collect();
        assert_eq!(problems(&store).await, expected, "{kind}");
    }
}

/// Changes a manifest as another program would have written it, without a digest.
async fn edit(store: &Store, id: &ArtifactId, change: impl Fn(&mut Value)) {
    let key = Key::Manifest(id.clone());
    let mut value: Value =
        serde_json::from_slice(&store.get(&key).await.unwrap().unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("digest");
    change(&mut value);
    store.put(&key, serde_json::to_vec(&value).unwrap().into()).await.unwrap();
}

fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => file(&path, name),
        false => (path.file_name()? == name).then_some(path),
    })
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_artifacts_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), TASKS).unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    let shown = |stage: &str| {
        let text = stdout(dir.path(), &["show", stage, "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let digests = |manifest: &Value| -> Vec<Value> {
        let objects = manifest["objects"].as_array().unwrap();
        objects.iter().map(|object| object["digest"].clone()).collect()
    };
    let before = [shown("tasks"), shown("few")];
    let clean = stdout(dir.path(), &["fsck"]);
    assert!(clean.contains("2 artifacts") && clean.ends_with(": no damage\n"), "{clean}");

    let store = dir.path().join("triad-store");
    let folder = |manifest: &Value| store.join("artifacts").join(manifest["id"].as_str().unwrap());
    // An object of each, and the record of one, in which the identity is still whole.
    for manifest in &before {
        flip(&file(&folder(manifest), "00000.parquet").unwrap());
    }
    let record = folder(&before[0]).join("manifest.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"kind\": \"tasks\"", "\"kind\": \"tusks\"")).unwrap();
    stdout(dir.path(), &["pin", "few"]);

    let said = failure(dir.path(), &["fsck"]);
    assert!(said.starts_with("65: error: ") && said.contains("fsck --repair"), "{said}");
    let quick = failure(dir.path(), &["fsck", "--quick"]);
    assert!(quick.contains("1 damages"), "{quick}");
    let refused = failure(dir.path(), &["gc"]);
    assert!(refused.contains("manifest.json: changed since it was written"), "{refused}");
    let repaired = stdout(dir.path(), &["fsck", "--repair"]);
    assert_eq!(repaired.matches("made again").count(), 2, "{repaired}");
    assert!(repaired.ends_with(": no damage\n"), "{repaired}");
    for (stage, before) in ["tasks", "few"].into_iter().zip(&before) {
        assert_eq!(digests(&shown(stage)), digests(before), "{stage}");
    }
    stdout(dir.path(), &["get", "few", "out"]);
}

async fn gc(store: &Store, grace: TimeDelta, apply: bool) -> Collected {
    collect(store, grace, apply).await.unwrap()
}

fn reasons(collected: &Collected) -> Vec<(Reason, &str)> {
    let job = |job: &Option<String>| job.as_ref().map_or("", |job| job.as_str()).to_string();
    let mut all: Vec<_> = collected
        .garbage
        .iter()
        .map(|one| (one.reason, &*Box::leak(job(&one.job).into_boxed_str())))
        .collect();
    all.sort();
    all
}

async fn everything(store: &Store) -> Vec<String> {
    let (raw, _) = store.raw(&Key::Run("x".into()));
    let listed: Vec<_> = raw.list(None).collect().await;
    let mut paths: Vec<_> =
        listed.into_iter().map(|meta| meta.unwrap().location.to_string()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn gc_keeps_what_names_pins_runs_and_youth_reach() {
    let store = Store::open("memory://").unwrap();
    let below = commit(&store, "below", &[]).await;
    let named = commit(&store, "named", &[&below.id]).await;
    let pinned_below = commit(&store, "pinned-below", &[]).await;
    let pinned = commit(&store, "pinned", &[&pinned_below.id]).await;
    let held = commit(&store, "held", &[]).await;
    commit(&store, "forgotten", &[&below.id]).await;
    let steps = toy::committed(&store, Toy::new("steps").stepwise(), 0, 1).await;
    store.set_ref("run", "named", &named.id).await.unwrap();
    store.set_ref("run", "steps", &steps.id).await.unwrap();
    store.pin(&pinned.id).await.unwrap();
    let hold = store.hold(vec![held.id.clone()]).await.unwrap();
    let mut abandoned = Attempt::new(&store, &crate::store::id("abandoned"));
    abandoned.write("x", Bytes::from_static(b"x"), None).await.unwrap();

    let before = everything(&store).await;
    assert_eq!(gc(&store, TimeDelta::days(7), true).await.garbage, []);
    let expected =
        [(Reason::Unreachable, "forgotten"), (Reason::Abandoned, ""), (Reason::Leftover, "toy")];
    assert_eq!(reasons(&gc(&store, TimeDelta::zero(), false).await), expected);
    assert_eq!(everything(&store).await, before);
    let collected = gc(&store, TimeDelta::zero(), true).await;
    assert_eq!(reasons(&collected), expected);
    let objects: usize = collected.garbage.iter().map(|one| one.objects).sum();
    assert_eq!(everything(&store).await.len(), before.len() - objects);

    for manifest in [&below, &named, &pinned_below, &pinned, &held, &steps] {
        let artifact = Artifact::open(&store, &manifest.id).await.unwrap().unwrap();
        for object in &manifest.objects {
            artifact.read(&object.path).await.unwrap();
        }
    }
    let notes = problems(&store).await;
    assert_eq!(notes, []);

    hold.release().await;
    assert!(store.unpin(&pinned.id).await.unwrap());
    let collected = gc(&store, TimeDelta::zero(), true).await;
    let unreachable = |job| (Reason::Unreachable, job);
    assert_eq!(reasons(&collected), ["held", "pinned", "pinned-below"].map(unreachable));
    assert!(!store.unpin(&pinned.id).await.unwrap());
}

/// At the worst moment, when `gc` has decided and begins to delete, a run holds an old artifact, or
/// commits one that is made from it.
#[tokio::test]
async fn gc_gives_back_what_a_run_turns_out_to_need() {
    for moment in ["held", "named", "used"] {
        let inner = Arc::new(InMemory::new());
        let store = hooked(&inner, |_, _| Box::pin(async { Fate::Pass }));
        let below = commit(&store, "below", &[]).await;
        let old = commit(&store, "old", &[&below.id]).await;
        let id = old.id.clone();
        let run = store.clone();
        let before = async move {
            match moment {
                "held" => std::mem::forget(run.hold(vec![id]).await.unwrap()),
                "named" => run.set_ref("run", "old", &id).await.unwrap(),
                _ => {
                    let new = commit(&run, "new", &[&id]).await;
                    run.set_ref("run", "new", &new.id).await.unwrap();
                }
            }
        };
        let before = Arc::new(Mutex::new(Some(before.boxed())));
        let meddle = before.clone();
        let collector = hooked(&inner, move |operation, path| {
            let record = operation == Operation::Delete && path.as_ref().ends_with("manifest.json");
            let before = if record { meddle.lock().unwrap().take() } else { None };
            async move {
                if let Some(before) = before {
                    before.await;
                }
                Fate::Pass
            }
            .boxed()
        });
        let plan = collect(&collector, TimeDelta::zero(), false).await.unwrap();
        assert_eq!(plan.garbage.len(), 2, "{plan:?}");
        let collected = collect(&collector, TimeDelta::zero(), true).await.unwrap();
        assert!(before.lock().unwrap().is_none());
        assert_eq!(collected.garbage, [], "{moment}");
        assert_eq!(collected.rescued.len(), 2, "{moment}");
        for manifest in [&below, &old] {
            let artifact = Artifact::open(&store, &manifest.id).await.unwrap().unwrap();
            artifact.read("x").await.unwrap();
        }
        let damage = problems(&store).await;
        assert!(damage.iter().all(|(problem, _)| !problem.is_damage()), "{moment}: {damage:?}");
    }
}

/// Runs of a pipeline with ever-changing parameters, so that old artifacts lose their names and are
/// wanted again, beside a collector that keeps nothing out of youth.
#[tokio::test(flavor = "multi_thread")]
async fn runs_beside_gc_lose_nothing() {
    let store = Store::open("memory://").unwrap();
    let collector = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut rounds = 0;
            loop {
                collect(&store, TimeDelta::zero(), true).await.unwrap();
                rounds += 1;
                if rounds > 5 && store.pins().await.unwrap().len() == 1 {
                    return rounds;
                }
            }
        })
    };
    let runner = |number: u64| {
        let store = store.clone();
        async move {
            for round in 0..12 {
                let text = TASKS.replace("pipeline: small", &format!("pipeline: p{number}"));
                let seed = [format!("tasks.seed={}", (round + number) % 3)];
                let pipeline = Pipeline::parse("small", &text, &seed, job::kinds()).unwrap();
                let ends = pipeline::run(&store, &pipeline, &options()).await.unwrap();
                for end in &ends {
                    let manifest = end.ending.manifest();
                    let manifest = manifest.unwrap_or_else(|| panic!("{:?}", end.ending));
                    let artifact =
                        Artifact::open(&store, &manifest.id).await.unwrap().expect("committed");
                    for object in &artifact.manifest.objects {
                        artifact.read(&object.path).await.unwrap();
                    }
                }
            }
        }
    };
    tokio::join!(runner(0), runner(1));
    store.pin(&store.artifacts().await.unwrap()[0]).await.unwrap();
    let rounds = collector.await.unwrap();
    assert!(rounds > 5);
    let found = check(&store, true, &|_| true).await.unwrap();
    assert!(found.findings.iter().all(|f| !f.problem.is_damage()), "{:?}", found.findings);
}
