//! What statements may do beside reading, and files outside the store.

use datafusion::arrow::util::pretty::pretty_format_batches;

use super::super::tests::store;
use super::*;

async fn text(session: &Session, sql: &str) -> String {
    let Outcome::Rows(mut rows) = session.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    else {
        panic!("{sql}: no rows")
    };
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await.unwrap() {
        batches.push(batch);
    }
    pretty_format_batches(&batches).unwrap().to_string()
}

async fn said(session: &Session, sql: &str) -> String {
    let Err(error) = session.run(sql).await else { panic!("{sql} runs") };
    assert!(error.exit_code() == 64 && !error.to_string().contains('\n'), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_session_has_tables_and_views_of_its_own() {
    let disk = tempfile::tempdir().unwrap();
    let at = |name: &str| disk.path().join(name).display().to_string();
    let session = Session::open(&store("memory://").await).await.unwrap();
    let copy = format!("COPY (SELECT task_id, level FROM \"sft-data\") TO '{}'", at("rows.csv"));
    assert!(matches!(session.run(&copy).await.unwrap(), Outcome::Written(3)));
    let create = format!("CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '{}'", at("rows.csv"));
    assert!(matches!(session.run(&create).await.unwrap(), Outcome::Done));
    session.run("CREATE VIEW low AS SELECT * FROM mine WHERE level = 1").await.unwrap();
    session.refresh().await.unwrap();
    assert!(text(&session, "SELECT task_id FROM low").await.contains("| a       |"));
    assert!(session.tables().contains(&"low".to_string()));
    let wrong = said(&session, "SELECT * FROM lwo").await;
    assert_eq!(wrong, "1:15: no table `lwo`; did you mean `low`?");

    session.run("DROP VIEW low").await.unwrap();
    said(&session, "SELECT * FROM low").await;
    for sql in ["DROP TABLE quick.tasks", "DROP TABLE \"sft-data\"", "DROP VIEW triad.stages"] {
        assert!(said(&session, sql).await.contains("which is not of this session"), "{sql}");
    }
    let taken = said(&session, "CREATE VIEW tasks AS SELECT 1").await;
    assert_eq!(taken, "`tasks` is a stage's name; choose another");
    assert!(said(&session, "CREATE VIEW quick.v AS SELECT 1").await.contains("has a plain name"));
}

#[tokio::test]
async fn nothing_is_written_but_by_copy_and_never_in_the_store() {
    let disk = tempfile::tempdir().unwrap();
    let root = disk.path().join("a store");
    let store = store(root.to_str().unwrap()).await;
    std::os::unix::fs::symlink(&root, disk.path().join("link")).unwrap();
    let session = Session::open(&store).await.unwrap();
    let at = |name: &str| disk.path().join(name).display().to_string();
    for path in ["a store/x.csv", "a store/new/x.csv", "link/x.csv", "b/../a store/x.csv"] {
        let refused = said(&session, &format!("COPY quick.tasks TO '{}'", at(path))).await;
        assert!(refused.contains("it lies in the store"), "{refused}");
    }
    let refused = said(&session, "COPY quick.tasks TO 'triad://store/x.csv'").await;
    assert!(refused.contains("it lies in the store"), "{refused}");
    session.run(&format!("COPY other.tasks TO '{}'", at("a store 2/x.csv"))).await.unwrap();
    let create = format!("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '{}'", at("a store 2/"));
    session.run(&create).await.unwrap();
    for sql in [
        "INSERT INTO e SELECT * FROM other.tasks",
        "CREATE TABLE t AS SELECT 1",
        "CREATE SCHEMA s",
        "DELETE FROM quick.tasks",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN ANALYZE INSERT INTO e SELECT * FROM other.tasks",
    ] {
        let refused = said(&session, sql).await;
        assert!(refused.starts_with("SQL that changes something is refused"), "{sql}: {refused}");
        assert!(refused.ends_with("a query writes with COPY (…) TO '…' only"), "{refused}");
    }
}

#[tokio::test]
async fn files_of_every_format_and_many_at_once_are_tables() {
    let disk = tempfile::tempdir().unwrap();
    let at = |name: &str| disk.path().join(name).display().to_string();
    let session = Session::open(&Store::open("memory://").unwrap()).await.unwrap();
    std::fs::write(at("a.csv"), "n,t\n1,x\n2,y\n").unwrap();
    std::fs::write(at("b.csv"), "n,t\n3,z\n").unwrap();
    std::fs::write(at("c.ndjson"), "{\"n\": 4}\n{\"n\": 5}\n").unwrap();
    std::fs::write(at("d.jsonl"), "{\"n\": 6}\n").unwrap();
    std::fs::write(at("e.json"), "[{\"n\": 7}, {\"n\": 8}]").unwrap();
    for (file, sum) in [("*.csv", 6), ("c.ndjson", 9), ("d.jsonl", 6), ("e.json", 15)] {
        let sql = format!("SELECT sum(n) AS s FROM '{}'", at(file));
        assert!(text(&session, &sql).await.contains(&format!("| {sum} ")), "{file}");
    }
    let sql = format!("COPY (SELECT n, t FROM '{}') TO '{}'", at("*.csv"), at("parted"));
    session.run(&format!("{sql} STORED AS PARQUET PARTITIONED BY (t)")).await.unwrap();
    let sql = format!("SELECT n FROM '{}' WHERE t = 'y'", at("parted/"));
    assert!(text(&session, &sql).await.contains("| 2 |"));
    let gone = said(&session, &format!("SELECT * FROM '{}'", at("*.parquet"))).await;
    assert!(gone.contains("no such file, and none that it matches"), "{gone}");
    std::fs::write(at("f.xlsx"), "x").unwrap();
    let unknown = said(&session, &format!("SELECT * FROM '{}'", at("f.xlsx"))).await;
    assert!(unknown.contains("`.xlsx` is none of"), "{unknown}");
}

#[tokio::test]
async fn mistakes_point_at_their_place() {
    let session = Session::open(&store("memory://").await).await.unwrap();
    for (sql, expected) in [
        ("SELECT 1\n  FORM x", "2:8: Expected: end of statement, found: x"),
        ("SELECT (1", "1:10: Expected: ), found the end"),
        ("SELECT 'a", "1:8: Unterminated string literal"),
        ("SELECT *\nFROM quick.task", "2:6: no table `quick.task`; did you mean `quick.tasks`?"),
        (
            "SELECT level,\n x.task FROM other.tasks x",
            "2:4: no column `task`; did you mean `task_id`?",
        ),
        (
            "SELECT 1,\n avg(family) FROM other.tasks",
            "2:2: no function avg(Utf8View); there are avg(Decimal) avg(Duration) avg(Float64)",
        ),
        ("SELECT abss(1)", "1:8: no function `abss`; did you mean `abs`?"),
        ("SELECT pas_at_k(1, 2, 1)", "1:8: no function `pas_at_k`; did you mean `pass_at_k`?"),
    ] {
        assert_eq!(said(&session, sql).await, expected, "{sql}");
    }
    let sql = "SELECT\n\ttaskid FROM other.tasks";
    let error = session.run(sql).await.err().unwrap();
    let pointed = super::super::pointed(sql, &error).unwrap();
    assert_eq!(pointed, "   taskid FROM other.tasks\n   ^^^^^^");
    assert_eq!(super::super::pointed(sql, &Error::usage("no place")), None);
}

#[tokio::test]
async fn the_parts_of_a_dataset_are_a_column() {
    let session = Session::open(&store("memory://").await).await.unwrap();
    let found =
        text(&session, "SELECT part, task_id FROM parts('sft-data') ORDER BY task_id").await;
    assert!(
        found.contains("| 0    | a       |\n| 0    | b       |\n| 1    | c       |"),
        "{found}"
    );
    let sql = "SELECT count(*) AS n FROM parts('quick/sft-data', 'examples') WHERE part = 1";
    assert!(text(&session, sql).await.contains("| 1 |"));
    let whole = text(&session, "SELECT * FROM \"sft-data\"").await;
    assert!(!whole.contains("part "), "{whole}");
    let unknown = said(&session, "SELECT * FROM parts('sft-data', 'task')").await;
    assert!(unknown.contains("parts('sft-data'): no dataset `task`"), "{unknown}");
}
