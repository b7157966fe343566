//! Kill anything, any time: the next run continues and the finished artifacts are the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use triad::entropy::Stream;

use crate::program::{command, stdout};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/tiny.yaml");
const KILLS: usize = 20;

fn run(dir: &TempDir, more: &[&str]) -> String {
    stdout(dir.path(), &[&["run", TINY][..], more].concat())
}

fn start(dir: &TempDir, workers: &str) -> Child {
    let mut run = command(dir.path(), &["run", TINY, "--workers", workers]);
    run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn store(dir: &TempDir) -> PathBuf {
    dir.path().join("triad-store")
}

/// Every artifact by name: its manifest without what differs from attempt to attempt.
fn artifacts(dir: &TempDir) -> BTreeMap<String, Value> {
    let list: Vec<Value> = serde_json::from_str(&stdout(dir.path(), &["ls", "--json"])).unwrap();
    list.iter()
        .map(|artifact| {
            let shown = stdout(dir.path(), &["show", artifact["id"].as_str().unwrap(), "--json"]);
            let mut manifest: Value = serde_json::from_str(&shown).unwrap();
            manifest.as_object_mut().unwrap().remove("producer");
            for object in manifest["objects"].as_array_mut().unwrap() {
                object.as_object_mut().unwrap().remove("attempt");
            }
            (artifact["names"].to_string(), manifest)
        })
        .collect()
}

fn assert_same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    for (name, manifest) in found {
        let objects = |manifest: &Value| manifest["objects"].as_array().unwrap().clone();
        for (object, expected) in objects(manifest).iter().zip(objects(&expected[name])) {
            assert_eq!(object, &expected, "artifact {name}");
        }
        assert_eq!(manifest, &expected[name], "artifact {name}");
    }
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 }).sum()
}

/// Waits until the store holds `more` further objects; `false` when the run ended before.
fn wait_for_objects(run: &mut Child, store: &Path, more: usize) -> bool {
    let goal = files(store) + more;
    while files(store) < goal {
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Artifacts with a checkpoint and no commit: long jobs that were killed half-way.
fn half_done(store: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(store.join("artifacts")) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.join("steps").is_dir() && !path.join("manifest.json").is_file())
        .count()
}

/// The moments are counted in objects written, not in seconds, so that they fall into every stage
/// on fast and slow machines alike.
#[test]
fn twenty_kills_leave_no_trace() {
    let whole = tempdir().unwrap();
    run(&whole, &["--workers", "1"]);
    let expected = artifacts(&whole);

    let seed = std::env::var("TRIAD_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("TRIAD_TEST_SEED={seed} replays the moments");
    let mut moments = Stream::new(seed, "kills", 0);
    let mut dir = tempdir().unwrap();
    let (mut kills, mut inside) = (0, 0);
    while kills < KILLS {
        let mut run = start(&dir, "2");
        let more = moments.below(12);
        let later = Duration::from_millis(moments.below(40) as u64);
        if wait_for_objects(&mut run, &store(&dir), more) {
            std::thread::sleep(later);
            run.kill().unwrap();
            run.wait().unwrap();
            kills += 1;
            inside += half_done(&store(&dir));
        } else {
            assert_same(&artifacts(&dir), &expected);
            dir = tempdir().unwrap();
        }
    }
    run(&dir, &[]);
    assert_same(&artifacts(&dir), &expected);
    println!("{inside} long jobs stood between two checkpoints when they were killed");
    assert!(inside > 0);
}

#[test]
fn sigterm_leaves_with_try_again_and_the_next_run_continues() {
    let dir = tempdir().unwrap();
    let mut child = start(&dir, "1");
    assert!(wait_for_objects(&mut child, &store(&dir), 20));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    run(&dir, &[]);
    assert!(run(&dir, &[]).starts_with("Nothing to do: all "));
}

/// Everything downstream of a changed parameter runs again, nothing else.
#[test]
fn a_changed_parameter_reruns_what_depends_on_it() {
    let dir = tempdir().unwrap();
    run(&dir, &[]);
    let changed = ["--set", "abduction.learning_rate=0.002"];
    let plan = stdout(dir.path(), &[&["plan", TINY, "--json"][..], &changed].concat());
    let plan: Vec<Value> = serde_json::from_str(&plan).unwrap();
    let why = |stage: &str| &plan.iter().find(|line| line["stage"] == stage).unwrap()["why"];
    assert_eq!(why("abduction"), &json!(["params.learning_rate: 0.001 -> 0.002"]));
    assert_eq!(why("merged"), &json!(["input models.abduction: changed"]));
    assert_eq!(why("base"), &Value::Null);
    let would: Vec<&str> = plan
        .iter()
        .filter(|line| line["state"] == "would run")
        .map(|line| line["stage"].as_str().unwrap())
        .collect();
    let table = run(&dir, &changed);
    let ran: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(2) == Some(&"committed"))
        .map(|words| words[0])
        .collect();
    assert_eq!(ran, would);
    assert!(ran.contains(&"report") && !ran.contains(&"induction"), "{ran:?}");
}
