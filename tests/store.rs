//! The store contract: one suite for every kind of store.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::{Error as Cause, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use serde_json::json;
use triad::id::{ArtifactId, digest};
use triad::job::Outcome;
use triad::store::{Artifact, Attempt, Commit, Key, Manifest, ObjectEntry, Producer, Store};

use crate::toy::{self, Toy};

/// Checks everything that triad expects of a store, which must be empty. A listing of `many` names
/// must come back whole; S3 gives 1,000 at a time.
pub async fn conformance(store: &Store, many: usize) {
    an_empty_store_lists_nothing(store).await;
    objects_of_any_size_come_back(store).await;
    one_of_32_creators_wins(store).await;
    a_creator_knows_its_own_bytes(store).await;
    a_stale_version_replaces_nothing(store).await;
    names_follow_every_change(store).await;
    long_listings_are_whole(store, many).await;
    the_faster_commit_stands(store).await;
    a_job_runs_once(store).await;
    any_number_of_shards_gives_one_artifact(store).await;
    a_stopped_job_continues(store).await;
    racing_runs_agree(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_store() {
    conformance(&Store::open("memory://").unwrap(), 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a store #1/größe");
    conformance(&Store::open(path.to_str().unwrap()).unwrap(), 10_000).await;
    let again = Store::open(&format!("{}/", path.to_str().unwrap())).unwrap();
    assert!(!again.artifacts().await.unwrap().is_empty());
}

pub fn id(of: &str) -> ArtifactId {
    ArtifactId::of(&json!({"job": of}))
}

pub fn data_key(path: &str) -> Key {
    Key::Data { id: id("data"), attempt: "a".into(), path: path.into() }
}

async fn an_empty_store_lists_nothing(store: &Store) {
    assert_eq!(store.artifacts().await.unwrap(), []);
    assert_eq!(store.names().await.unwrap(), []);
    assert_eq!(store.steps(&id("none")).await.unwrap(), [0u64; 0]);
    assert_eq!(store.get(&data_key("none")).await.unwrap(), None);
    assert!(Artifact::open(store, &id("none")).await.unwrap().is_none());
}

async fn objects_of_any_size_come_back(store: &Store) {
    let large: Vec<u8> =
        (0..40u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (path, bytes) in [
        ("empty", Bytes::new()),
        ("größe 100%/a#1", Bytes::from_static(b"odd name")),
        ("large", Bytes::from(large)),
    ] {
        store.put(&data_key(path), bytes.clone()).await.unwrap();
        let entry = ObjectEntry {
            path: path.into(),
            attempt: "a".into(),
            size: bytes.len() as u64,
            digest: digest(&bytes),
            ..Default::default()
        };
        let found = store.read_entry(&id("data"), &entry).await.unwrap();
        assert_eq!(found.len(), bytes.len(), "{path}");
        assert_eq!(digest(&found), digest(&bytes), "{path}");
    }
}

async fn one_of_32_creators_wins(store: &Store) {
    let key = data_key("contended");
    let racers = (0..32u32).map(|i| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move {
            let mine = Bytes::from(format!("writer {i}"));
            store.create(&key, mine.clone()).await.unwrap().then_some(mine)
        })
    });
    let won: Vec<_> =
        futures::future::join_all(racers).await.into_iter().filter_map(|r| r.unwrap()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.get(&key).await.unwrap().as_ref(), Some(&won[0]));
}

/// So that an answer that got lost does no harm.
async fn a_creator_knows_its_own_bytes(store: &Store) {
    let key = data_key("created twice");
    let mine = Bytes::from_static(b"mine");
    assert!(store.create(&key, mine.clone()).await.unwrap());
    assert!(store.create(&key, mine.clone()).await.unwrap());
    assert!(!store.create(&key, Bytes::from_static(b"not mine")).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap(), Some(mine));
}

/// A local folder knows no versions, and says so.
async fn a_stale_version_replaces_nothing(store: &Store) {
    let (raw, path) = store.raw(&data_key("swapped"));
    let put = raw.put(&path, "first".into()).await.unwrap();
    let first = UpdateVersion { e_tag: put.e_tag, version: put.version };
    let swap = |bytes: &'static str| {
        let options = PutMode::Update(first.clone()).into();
        raw.put_opts(&path, bytes.into(), options)
    };
    match swap("second").await {
        Ok(_) => {
            let stale = swap("third").await.unwrap_err();
            assert!(matches!(stale, Cause::Precondition { .. }), "{stale}");
            let found = store.get(&data_key("swapped")).await.unwrap();
            assert_eq!(found, Some(Bytes::from_static(b"second")));
        }
        Err(e) => {
            assert!(matches!(e, Cause::NotImplemented { .. }), "{e}");
            assert_eq!(store.url().scheme(), "file");
        }
    }
}

async fn long_listings_are_whole(store: &Store, many: usize) {
    let before = store.names().await.unwrap().len();
    let key = |i: usize| Key::Ref { pipeline: "many".into(), stage: format!("{}/{i}", i % 7) };
    let puts = stream::iter(0..many).map(|i| async move {
        store.put(&key(i), Bytes::from_static(b"{}")).await.unwrap();
    });
    puts.buffer_unordered(16).collect::<()>().await;
    let mut names = store.names().await.unwrap();
    assert_eq!(names.len(), before + many);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), before + many);
}

async fn names_follow_every_change(store: &Store) {
    let names = [
        ("a pipeline", "stage/1"),
        ("..", "größe 50%.json"),
        ("p", "s"),
        ("~ ", "%2F//.#?&+=*'\"<>|:\\"),
        ("\t\n\u{7f}\u{0}", "🦀"),
        ("NUL", "a.json.json"),
    ];
    for (pipeline, stage) in names {
        assert_eq!(store.get_ref(pipeline, stage).await.unwrap(), None);
        for artifact in ["first", "second", "second"] {
            store.set_ref(pipeline, stage, &id(artifact)).await.unwrap();
            assert_eq!(store.get_ref(pipeline, stage).await.unwrap(), Some(id(artifact)));
        }
    }
    let mut listed = store.names().await.unwrap();
    let mut expected: Vec<_> = names.iter().map(|(p, s)| (p.to_string(), s.to_string())).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);

    let racers = (0..8).map(|i| {
        let store = store.clone();
        tokio::spawn(async move { store.set_ref("p", "raced", &id(&format!("{i}"))).await })
    });
    for racer in futures::future::join_all(racers).await {
        racer.unwrap().unwrap();
    }
    let last = store.get_ref("p", "raced").await.unwrap().unwrap();
    assert!((0..8).any(|i| last == id(&format!("{i}"))));
}

pub fn manifest(of: &str) -> Manifest {
    Manifest {
        format: Manifest::FORMAT,
        id: id(of),
        identity: json!({"job": of}),
        kind: "tasks".into(),
        datasets: BTreeMap::new(),
        objects: Vec::new(),
        summary: BTreeMap::new(),
        producer: Producer {
            triad: "0".into(),
            commit: None,
            device: "cpu".into(),
            started: Default::default(),
            seconds: 0.0,
            timings: BTreeMap::new(),
            plan: None,
            storage: Default::default(),
        },
    }
}

async fn the_faster_commit_stands(store: &Store) {
    let of = "raced commit";
    let (mut fast, mut slow) = (Attempt::new(store, &id(of)), Attempt::new(store, &id(of)));
    fast.write("x", Bytes::from_static(b"same"), None).await.unwrap();
    slow.write("x", Bytes::from_static(b"same"), None).await.unwrap();
    assert!(Artifact::open(store, &id(of)).await.unwrap().is_none());
    let Commit::Ours(first) = fast.commit(manifest(of)).await.unwrap() else {
        panic!("nobody else has committed");
    };
    let Commit::Theirs(second) = slow.commit(manifest(of)).await.unwrap() else {
        panic!("the artifact was committed before");
    };
    assert_eq!(first, second);
    let artifact = Artifact::open(store, &id(of)).await.unwrap().unwrap();
    assert_eq!(artifact.manifest, first);
    assert_eq!(artifact.read("x").await.unwrap(), Bytes::from_static(b"same"));
}

async fn a_job_runs_once(store: &Store) {
    let Outcome::Committed(first) = toy::run(store, Toy::new("once"), 0, 1).await.unwrap() else {
        panic!("the store holds no such artifact");
    };
    let Outcome::Found(again) = toy::run(store, Toy::new("once"), 0, 1).await.unwrap() else {
        panic!("the artifact is committed");
    };
    assert_eq!(first, again);
    assert!(store.artifacts().await.unwrap().contains(&first.id));
}

async fn any_number_of_shards_gives_one_artifact(store: &Store) {
    let whole = toy::committed(store, Toy::new("shards"), 0, 1).await;
    // More shards than parts: some own nothing and still commit.
    for of in [3, 9] {
        // The same job under another salt: another id, the same rows.
        let toy = || Toy::new("shards").salted(of);
        for index in (1..of).rev() {
            let outcome = toy::run(store, toy(), index, of).await.unwrap();
            assert!(matches!(outcome, Outcome::ShardCommitted), "{index}/{of}: {outcome:?}");
        }
        let manifest = toy::committed(store, toy(), 0, of).await;
        assert_eq!(toy::contents(&manifest), toy::contents(&whole), "{of} shards");
        assert_eq!(manifest.datasets, whole.datasets);
        assert_eq!(manifest.summary["rows"], whole.summary["rows"]);
        assert_eq!(manifest.rows("metrics"), whole.rows("metrics"));
        let again = toy::run(store, toy(), 1, of).await.unwrap();
        assert!(matches!(again, Outcome::Found(_)), "{again:?}");
    }
}

async fn a_stopped_job_continues(store: &Store) {
    let whole = toy::committed(store, Toy::new("steps").stepwise(), 0, 1).await;
    for stop_after in [1, 4] {
        let toy = || Toy::new("steps").stepwise().salted(stop_after);
        let error =
            toy::run(store, toy().stopping_after(stop_after), 0, 1).await.map(drop).unwrap_err();
        assert_eq!(error.exit_code(), 75, "{error}");
        let resumed = toy();
        let manifest = toy::committed(store, resumed, 0, 1).await;
        assert_eq!(toy::contents(&manifest), toy::contents(&whole), "stopped at {stop_after}");
        assert_eq!(manifest.datasets, whole.datasets);
        assert_eq!(manifest.summary, whole.summary);
        let attempts: std::collections::BTreeSet<_> =
            manifest.objects.iter().map(|object| &object.attempt).collect();
        assert_eq!(attempts.len(), 2, "the first attempt's parts were made again");
    }
}

async fn racing_runs_agree(store: &Store) {
    let toy = Toy::new("race").meeting(2);
    let (a, b) = tokio::join!(toy::run(store, toy, 0, 1), toy::run(store, toy, 0, 1));
    let (committed, found) = match (a.unwrap(), b.unwrap()) {
        (Outcome::Committed(a), Outcome::Found(b)) | (Outcome::Found(b), Outcome::Committed(a)) => {
            (a, b)
        }
        other => panic!("one commits, the other finds: {other:?}"),
    };
    assert_eq!(committed, found);
}
