//! What a user meets when storage fails: lost answers, damage, full disks, no permission.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use triad::Error;
use triad::job::Outcome;
use triad::store::{Artifact, Attempt, Key, Portion, StepRecord, Store};

use crate::hooked::{Fate, Operation, hooked};
use crate::store::{data_key, id, manifest};
use crate::toy::{self, Toy};

/// A store whose first conditional put meets `fate`; a full disk meets every put.
fn faulty(fate: Fate) -> Store {
    let armed = AtomicBool::new(true);
    let full = fate == Fate::Fail(ErrorKind::StorageFull);
    hooked(&Arc::default(), move |operation, _| {
        let put = matches!(operation, Operation::Put | Operation::PutIf);
        let first = operation == Operation::PutIf && armed.swap(false, Ordering::SeqCst);
        let met = if first || (full && put) { fate } else { Fate::Pass };
        Box::pin(async move { met })
    })
}

/// Not worth a repetition, so that the caller hears of it.
const REQUEST_LOST: Fate = Fate::Fail(ErrorKind::InvalidInput);

#[tokio::test]
async fn a_commit_whose_answer_got_lost_is_recognised() {
    for fault in [Fate::AnswerLost, Fate::Repeated] {
        let store = faulty(fault);
        let first = toy::committed(&store, Toy::new("lost"), 0, 1).await;
        let found = Artifact::open(&store, &first.id).await.unwrap().unwrap();
        assert_eq!(found.manifest, first, "{fault:?}");
    }
}

#[tokio::test]
async fn a_commit_that_was_not_made_fails_and_succeeds_later() {
    let store = faulty(REQUEST_LOST);
    let error = toy::run(&store, Toy::new("lost"), 0, 1).await.map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 75);
    assert!(error.to_string().starts_with("test://bucket/run/artifacts/"), "{error}");
    assert!(store.artifacts().await.unwrap().is_empty());
    toy::committed(&store, Toy::new("lost"), 0, 1).await;
}

#[tokio::test]
async fn a_full_disk_commits_nothing_and_says_where() {
    let store = faulty(Fate::Fail(ErrorKind::StorageFull));
    let error = toy::run(&store, Toy::new("full"), 0, 1).await.map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 75);
    let text = error.to_string();
    assert!(text.starts_with("test://bucket/run/artifacts/"), "{text}");
    assert!(text.contains("disk is full; free some space"), "{text}");
    assert!(store.artifacts().await.unwrap().is_empty());
}

#[tokio::test]
async fn damaged_objects_are_named_and_refused() {
    let store = Store::open("memory://").unwrap();
    let mut attempt = Attempt::new(&store, &id("damaged"));
    for path in ["changed", "short", "gone", "whole"] {
        attempt.write(path, Bytes::from_static(b"0123456789"), None).await.unwrap();
    }
    attempt.commit(manifest("damaged")).await.unwrap();
    let artifact = Artifact::open(&store, &id("damaged")).await.unwrap().unwrap();
    let key = |path: &str| artifact.manifest.object(path).unwrap().key(&artifact.manifest.id);
    store.put(&key("changed"), Bytes::from_static(b"0123456788")).await.unwrap();
    store.put(&key("short"), Bytes::from_static(b"01234")).await.unwrap();
    delete(&store, &key("gone")).await;
    for (path, said) in [
        ("changed", "digest"),
        ("short", "5 bytes where its commit record says 10"),
        ("gone", "no such object"),
    ] {
        let error = artifact.read(path).await.unwrap_err();
        assert_eq!(error.exit_code(), 65);
        let text = error.to_string();
        assert!(text.contains(said) && text.contains(&format!("/{path}: ")), "{text}");
    }
    assert_eq!(artifact.read("whole").await.unwrap().len(), 10);
}

async fn delete(store: &Store, key: &Key) {
    let (raw, path) = store.raw(key);
    raw.delete(&path).await.unwrap();
}

#[tokio::test]
async fn a_damaged_manifest_is_named_and_refused() {
    let store = Store::open("memory://").unwrap();
    Attempt::new(&store, &id("a")).commit(manifest("a")).await.unwrap();
    let good = store.get(&Key::Manifest(id("a"))).await.unwrap().unwrap();
    let text = String::from_utf8(good.to_vec()).unwrap();
    // As a program that knows no digests writes it.
    let (open, _) = text.rsplit_once(",\n  \"digest\"").unwrap();
    let open = format!("{open}\n}}");
    for (bytes, said) in [
        (text[..text.len() / 2].to_string(), "no manifest: EOF"),
        (text.replace("tasks", "tusks"), "changed since it was written"),
        (open.replace(r#""format": 1"#, r#""format": 2"#), "layout 2 where this triad reads 1"),
        (open.replace(r#""job": "a""#, r#""job": "b""#), "another artifact's"),
    ] {
        store.put(&Key::Manifest(id("a")), Bytes::from(bytes)).await.unwrap();
        let error = Artifact::open(&store, &id("a")).await.unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("manifest.json"), "{error}");
    }
}

/// A record without the digest at its end.
async fn record<R: serde::de::DeserializeOwned>(store: &Store, key: &Key) -> R {
    let bytes = store.get(key).await.unwrap().unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    value.as_object_mut().unwrap().remove("digest").unwrap();
    serde_json::from_value(value).unwrap()
}

/// The data object of a checkpoint's state.
async fn state_key(store: &Store, id: &triad::id::ArtifactId, step: u64) -> Key {
    let record: StepRecord = record(store, &Key::Step { id: id.clone(), step }).await;
    record.state[0].key(id)
}

#[tokio::test]
async fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let whole = {
        let store = Store::open("memory://").unwrap();
        toy::committed(&store, Toy::new("steps").stepwise(), 0, 1).await
    };
    for damage in ["state gone", "state changed", "record cut", "part gone", "all records cut"] {
        let store = Store::open("memory://").unwrap();
        let toy = || Toy::new("steps").stepwise();
        toy::run(&store, toy().stopping_after(3), 0, 1).await.map(drop).unwrap_err();
        let step = |step| Key::Step { id: whole.id.clone(), step };
        match damage {
            "state gone" => delete(&store, &state_key(&store, &whole.id, 3).await).await,
            "state changed" => {
                let key = state_key(&store, &whole.id, 3).await;
                store.put(&key, Bytes::from_static(b"17.5")).await.unwrap();
            }
            "part gone" => {
                let found: StepRecord = record(&store, &step(3)).await;
                delete(&store, &found.portion.objects[2].key(&whole.id)).await;
            }
            "record cut" => store.put(&step(3), Bytes::from_static(b"{")).await.unwrap(),
            _ => {
                for number in 1..=3 {
                    store.put(&step(number), Bytes::from_static(b"{")).await.unwrap();
                }
            }
        }
        // Stopped again before it is done: what it repaired must serve the next attempt.
        toy::run(&store, toy().stopping_after(4), 0, 1).await.map(drop).unwrap_err();
        let manifest = toy::committed(&store, toy(), 0, 1).await;
        assert_eq!(toy::contents(&manifest), toy::contents(&whole), "{damage}");
        assert_eq!(manifest.datasets, whole.datasets, "{damage}");
        assert_eq!(manifest.summary, whole.summary, "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_shard_is_named_and_made_again() {
    let store = Store::open("memory://").unwrap();
    let toy = || Toy::new("shards");
    toy::run(&store, toy(), 1, 2).await.unwrap();
    let whole = {
        let store = Store::open("memory://").unwrap();
        toy::committed(&store, toy(), 0, 1).await
    };
    let shard = Key::Shard { id: whole.id.clone(), index: 1, of: 2 };
    let portion: Portion = record(&store, &shard).await;
    delete(&store, &portion.objects[0].key(&whole.id)).await;

    let error = toy::run(&store, toy(), 0, 2).await.map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().starts_with("shard 1 of 2 must run again: "), "{error}");
    let manifest = toy::committed(&store, toy(), 1, 2).await;
    assert_eq!(toy::contents(&manifest), toy::contents(&whole));
}

#[tokio::test]
async fn a_run_that_died_before_the_manifest_is_finished_by_any_shard() {
    let store = faulty(REQUEST_LOST);
    let toy = || Toy::new("shards");
    // The first conditional put is lost: shard 1's record. Then all go through.
    toy::run(&store, toy(), 1, 2).await.map(drop).unwrap_err();
    toy::run(&store, toy(), 1, 2).await.unwrap();
    let manifest = toy::committed(&store, toy(), 0, 2).await;
    // As if the last shard had died between its own record and the manifest.
    delete(&store, &Key::Manifest(manifest.id.clone())).await;
    let again = toy::committed(&store, toy(), 1, 2).await;
    assert_eq!(again.objects, manifest.objects);
    assert_eq!(again.summary, manifest.summary);
}

#[tokio::test]
async fn shards_that_do_not_exist_are_refused() {
    let store = Store::open("memory://").unwrap();
    for (index, of) in [(3, 3), (0, 0)] {
        let error = toy::run(&store, Toy::new("x"), index, of).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
    }
}

#[tokio::test]
async fn a_folder_without_permission_is_a_usage_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere but below /proc.
    let path = if std::fs::write(closed.join("probe"), "").is_ok() {
        "/proc/x"
    } else {
        closed.to_str().unwrap()
    };
    let store = Store::open(path).unwrap();
    let error = store.put(&data_key("x"), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.to_string().contains(path), "{error}");
    if path != "/proc/x" {
        assert_eq!(error.exit_code(), 64, "{error}");
        assert!(error.to_string().contains("check who owns"), "{error}");
    }
}

#[tokio::test]
async fn a_found_artifact_is_not_made_again_after_its_checkpoints_are_gone() {
    let store = Store::open("memory://").unwrap();
    let toy = || Toy::new("steps").stepwise();
    let manifest = toy::committed(&store, toy(), 0, 1).await;
    for step in store.steps(&manifest.id).await.unwrap() {
        delete(&store, &Key::Step { id: manifest.id.clone(), step }).await;
    }
    let outcome = toy::run(&store, toy(), 0, 1).await.unwrap();
    assert!(matches!(outcome, Outcome::Found(found) if *found == manifest));
}
