//! Audit, import and export of tasks, on triad's own and on other people's files.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{failure, run, stdout};

/// Tasks of each family in a fresh store.
const PIPELINE: &str = "
pipeline: own
stages:
  deduction:
    job: generate
    params: {family: deduction, split: train, form: {style: paper}, levels: [{level: 1, count: 300}]}
  induction:
    job: generate
    params: {family: induction, split: train, form: {style: paper}, levels: [{level: 1, count: 300}]}
  abduction:
    job: generate
    params: {family: abduction, split: train, form: {style: paper, chat: true}, levels: [{level: 2, count: 300}]}
";

fn own() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("own.yaml"), PIPELINE).unwrap();
    stdout(folder.path(), &["run", "own.yaml"]);
    folder
}

fn audit(folder: &Path, arguments: &[&str]) -> Value {
    let arguments = [&["audit", "--json"], arguments].concat();
    serde_json::from_str(&stdout(folder, &arguments)).unwrap()
}

fn line<'a>(report: &'a Value, family: &str, level: u64, set: &str) -> &'a Value {
    let lines = report["sets"].as_array().unwrap();
    lines
        .iter()
        .find(|line| line["family"] == family && line["level"] == level && line["set"] == set)
        .unwrap_or_else(|| panic!("no {family} {level} {set} in {report:#}"))
}

#[test]
fn generated_tasks_pass_their_own_audit() {
    let folder = own();
    let names = ["own/deduction", "own/induction", "own/abduction"];
    let report = audit(folder.path(), &names);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(line(&report, "abduction", 2, "train")["distinct"], 300);
    assert!(report["shortcuts"].as_array().unwrap().len() > 10);
    let strict = run(folder.path(), &[&["audit", "--strict"], &names[..]].concat());
    assert!(strict.status.success());
    // The figures of the panel stand in the manifest as well.
    let shown = stdout(folder.path(), &["show", "own/abduction"]);
    assert!(shown.contains("summary   level 2 chance"), "{shown}");
}

#[test]
fn tasks_go_out_to_verl_and_come_back() {
    let folder = own();
    let path = folder.path();
    for (format, file) in
        [("verl", "tasks.parquet"), ("jsonl", "tasks.jsonl"), ("parquet", "tasks.parquet")]
    {
        for family in ["deduction", "induction", "abduction"] {
            let (from, to) = (format!("own/{family}"), format!("{format}/{family}"));
            stdout(path, &["get", &from, &to, "--format", format]);
            let read = audit(path, &[&from]);
            let back = audit(path, &[&format!("{to}/{file}")]);
            assert_eq!(read["sets"][0]["distinct"], back["sets"][0]["distinct"], "{format}");
            assert_eq!(back["clean"], true, "{format} {back:#}");
        }
    }
    let import = "
pipeline: back
stages:
  tasks: {job: import-tasks, params: {paths: [verl/abduction/tasks.parquet], on_fault: fail, form: {style: paper}}}
";
    std::fs::write(path.join("back.yaml"), import).unwrap();
    stdout(path, &["run", "back.yaml"]);
    let sql = "SELECT count(*) AS n FROM own.abduction.tasks a JOIN back.tasks.tasks b \
               ON a.canonical = b.canonical AND a.answer = b.answer AND a.level = b.level";
    let joined: Value =
        serde_json::from_str(&stdout(path, &["query", sql, "--format", "json"])).unwrap();
    assert_eq!(joined[0]["n"], 300);
}

/// Puzzles in words, as the paper's released files have them.
fn rows() -> Vec<Value> {
    let deduction = |formulas: &[&str], answer: &str| {
        let list: String = formulas.iter().map(|f| format!("  - {f}\n")).collect();
        let text = format!(
            "Below are some nested formulas:\n{list}Please list the truth value of each variable\n"
        );
        json!({"puzzle_text": text, "answer": answer, "level": 1})
    };
    vec![
        deduction(&["(A ∧ ¬B)"], "(1) A is True\n(2) B is False"),
        // The same under other names and in another order.
        deduction(&["(¬A ∧ B)"], "(1) A is False\n(2) B is True"),
        // Two solutions.
        deduction(&["(A ⊕ B)"], "(1) A is True\n(2) B is False"),
        // A wrong answer.
        deduction(&["(A ∧ B)"], "(1) A is True\n(2) B is False"),
        json!({"puzzle_text": "What is love?", "answer": "(1) A is True", "level": 1}),
    ]
}

#[test]
fn every_kind_of_fault_is_counted_and_shown() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let text: String = rows().iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path.join("train.jsonl"), text).unwrap();
    std::fs::write(path.join("test.jsonl"), format!("{}\n", rows()[0])).unwrap();
    let report = audit(path, &["train.jsonl", "test.jsonl"]);
    assert_eq!(report["clean"], false);
    let train = line(&report, "deduction", 1, "train");
    assert_eq!((&train["rows"], &train["distinct"]), (&json!(4), &json!(3)));
    assert_eq!(train["wrong"], 1);
    assert_eq!(line(&report, "deduction", 1, "test")["shared"]["train"], 1);
    assert_eq!(line(&report, "", 1, "train")["unparseable"], 1);
    let found = failure(path, &["audit", "--strict", "train.jsonl"]);
    assert_eq!(found, "65: error: the audit found faults");

    let import = |on_fault: &str| {
        let params = format!("{{paths: [train.jsonl], on_fault: {on_fault}}}");
        let text = format!("pipeline: p\nstages:\n  t: {{job: import-tasks, params: {params}}}\n");
        std::fs::write(path.join("p.yaml"), text).unwrap();
    };
    import("fail");
    let message = failure(path, &["run", "p.yaml"]);
    assert!(
        message.starts_with("65: ") && message.contains("train.jsonl: row 2: duplicate"),
        "{message}"
    );
    import("drop");
    stdout(path, &["run", "p.yaml"]);
    let kept = stdout(path, &["query", "SELECT answer FROM p.t.tasks", "--format", "csv"]);
    assert_eq!(kept, "answer\n10\n");
    std::fs::write(path.join("odd.jsonl"), "{\"question\": \"?\"}\n").unwrap();
    let message = failure(path, &["audit", "odd.jsonl"]);
    assert!(message.contains("odd.jsonl: row 1: no answer"), "{message}");
}

/// What is known of the paper's released data. The data are no part of the project: the test needs
/// TRIAD_RELEASED_DATA, which .ci/run sets.
#[test]
fn the_released_data_are_found_out() {
    let Ok(data) = std::env::var("TRIAD_RELEASED_DATA") else {
        eprintln!("not run: TRIAD_RELEASED_DATA names no folder");
        return;
    };
    let folder = TempDir::new().unwrap();
    let report = audit(folder.path(), &[&data]);
    let induction = line(&report, "induction", 1, "train");
    assert_eq!((&induction["rows"], &induction["distinct_texts"]), (&json!(900), &json!(295)));
    assert_eq!(line(&report, "induction", 1, "test")["shared"]["train"], 92);
    // One puzzle of deduction states every value outright; the rest is sound.
    for (level, set, rows, faults) in [
        (1, "train", 900, json!({"leak": 1})),
        (1, "test", 100, json!({})),
        (3, "train", 900, json!({})),
    ] {
        let deduction = line(&report, "deduction", level, set);
        assert_eq!(deduction["rows"], rows);
        assert_eq!(deduction["wrong"], 0);
        assert_eq!(deduction["faults"], faults);
    }
    let shortcuts = report["shortcuts"].as_array().unwrap();
    let membership = shortcuts
        .iter()
        .find(|finding| finding["group"] == "abduction 2" && finding["accuracy"] == 1.0)
        .unwrap();
    assert!(membership["shortcut"].as_str().unwrap().contains("known"), "{membership}");
}
