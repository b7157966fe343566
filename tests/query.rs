//! SQL over committed artifacts, on every kind of store.

use std::time::Duration;

use triad::job::Outcome;
use triad::query::{Format, query, write_results};
use triad::store::Store;

use crate::s3_server::Server;
use crate::toy::{self, Toy};

async fn csv(store: &Store, sql: &str) -> String {
    let (schema, batches) = query(store, sql).await.unwrap();
    let mut out = Vec::new();
    write_results(Format::Csv, &schema, &batches, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What a user asks of a run, whatever its store.
pub async fn conformance(store: &Store) {
    for index in 0..2 {
        toy::run(store, Toy::new("query"), index, 2).await.unwrap();
    }
    let manifest = toy::committed(store, Toy::new("other"), 0, 1).await;
    store.set_ref("run", "other", &manifest.id).await.unwrap();
    let Outcome::Found(manifest) = toy::run(store, Toy::new("query"), 0, 1).await.unwrap() else {
        panic!("two shards make the artifact of one")
    };
    store.set_ref("run", "first-stage", &manifest.id).await.unwrap();

    let sql = "SELECT count(*) AS n, min(step) AS low, max(step) AS high FROM run.\"first-stage\"";
    assert_eq!(csv(store, sql).await, "n,low,high\n60,0,59\n");
    let sql = "SELECT a.step FROM \"first-stage\" a JOIN other b ON a.step = b.step \
               WHERE a.value <> b.value ORDER BY a.step DESC LIMIT 2";
    assert_eq!(csv(store, sql).await, "step\n59\n58\n");
    let sql = "SELECT name, rows FROM triad.tables ORDER BY name";
    assert_eq!(csv(store, sql).await, "name,rows\n\"\"\"first-stage\"\"\",60\nother,60\n");
}

#[tokio::test]
async fn in_memory_and_on_disk() {
    conformance(&Store::open("memory://").unwrap()).await;
    let disk = tempfile::tempdir().unwrap();
    conformance(&Store::open(disk.path().join("a store").to_str().unwrap()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_names_are_listed_and_no_object_is_looked_at_before_it_is_read() {
    let server = Server::start();
    let store = server.store(Duration::from_secs(30));
    let manifest = toy::committed(&store, Toy::new("query"), 0, 1).await;
    store.set_ref("run", "toy", &manifest.id).await.unwrap();
    // Six parts of ten steps each. A name and a manifest come before what is read of them.
    for (sql, found, parts) in [
        ("SELECT count(*) AS n, min(step) AS low, max(step) AS high FROM toy", "60,0,59", 0),
        ("SELECT count(*) AS n FROM toy WHERE step BETWEEN 12 AND 15 AND value >= 0", "4", 1),
        ("SELECT count(*) AS n FROM toy WHERE step = 70", "0", 0),
        ("SELECT max(step) AS n FROM (SELECT step FROM toy LIMIT 10)", "9", 1),
        ("SELECT count(DISTINCT value) AS n FROM toy", "60", 6),
    ] {
        server.requests();
        assert_eq!(csv(&store, sql).await.lines().nth(1), Some(found), "{sql}");
        // Of a part nothing, or at most its end, the page index and the columns.
        let requests = server.requests();
        assert_eq!(requests.keys().copied().collect::<Vec<_>>(), ["get", "list"], "{sql}");
        assert_eq!(requests["list"], 1, "{sql}");
        assert!((2..=2 + 3 * parts).contains(&requests["get"]), "{sql}: {requests:?}");
    }
}
