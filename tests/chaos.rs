//! `triad chaos`, and many runners at one pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use triad::job;
use triad::pipeline::{self, Ending, Pipeline};
use triad::store::Store;

use crate::program::stdout;
use crate::s3_faults::{TINY, options};

#[test]
fn killed_after_every_write_a_pipeline_makes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tiny.yaml"), TINY).unwrap();
    let table = stdout(dir.path(), &["chaos", "tiny.yaml", "--until", "demonstrations", "--json"]);
    let table: Vec<Value> = serde_json::from_str(&table).unwrap();
    let stages: Vec<_> = table.iter().map(|row| row["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["arithmetic", "induction", "demonstrations"]);
    for row in &table {
        // The run's own record, an object at least, the manifest and the name.
        assert!(row["kills"].as_u64().unwrap() >= 4, "{row}");
        assert_eq!(row["kills"], row["same"], "{row}");
    }
    // Nothing stays in the store.
    let clean = stdout(dir.path(), &["fsck"]);
    assert!(clean.starts_with("0 artifacts, 0 objects"), "{clean}");
}

/// However many run it at a time, each artifact is committed by one of them.
#[tokio::test(flavor = "multi_thread")]
async fn racing_runners_commit_each_artifact_once() {
    for runners in [2, 8] {
        let dir = tempfile::tempdir().unwrap();
        for url in ["memory://", dir.path().to_str().unwrap()] {
            let store = Store::open(url).unwrap();
            let pipeline = Arc::new(Pipeline::parse("tiny", TINY, &[], job::kinds()).unwrap());
            let runs = (0..runners).map(|_| {
                let (store, pipeline) = (store.clone(), pipeline.clone());
                tokio::spawn(
                    async move { pipeline::run(&store, &pipeline, &options()).await.unwrap() },
                )
            });
            let mut committed: BTreeMap<usize, usize> = BTreeMap::new();
            let mut digests: BTreeMap<usize, Vec<String>> = BTreeMap::new();
            for run in futures::future::join_all(runs).await {
                for end in run.unwrap() {
                    let manifest = end.ending.manifest().unwrap();
                    let found: Vec<_> =
                        manifest.objects.iter().map(|object| object.digest.clone()).collect();
                    assert_eq!(digests.entry(end.stage).or_insert(found.clone()), &found);
                    let ours = matches!(end.ending, Ending::Committed(_));
                    *committed.entry(end.stage).or_default() += usize::from(ours);
                }
            }
            let once: BTreeMap<_, _> = (0..pipeline.stages.len()).map(|stage| (stage, 1)).collect();
            assert_eq!(committed, once, "{runners} runners in {url}");
            assert_eq!(store.artifacts().await.unwrap().len(), pipeline.stages.len());
        }
    }
}
