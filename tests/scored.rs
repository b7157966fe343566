//! `evaluate` and `score`, and how a run of them is watched: models are servers here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use triad::dataset::{Row, Score, Task, Verdict, decode_parquet};
use triad::entropy::Stream;

use crate::completions::{Reply, Seen, Server};
use crate::program::{command, stdout};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling");

/// Two sets, two models of which `good` is right more often, and a report.
const PIPELINE: &str = "\
pipeline: scored
stages:
  easy:
    job: generate
    params: {family: arithmetic, split: heldout, levels: [{level: 1, count: 12, operations: 1}, {level: 2, count: 12}]}
  hard:
    job: generate
    params: {family: arithmetic, split: heldout, seed: 2, levels: [{level: 3, count: 10, operations: 4}]}
  base:
    job: import-checkpoint
    params: {path: MODEL}
  poor:
    job: evaluate
    params: {samples: {easy: 4}, max_new_tokens: 24, block: 8, top_p: 0.95, server: {model: poor, prompt: text}}
    inputs: {checkpoint: base, tasks: [easy, hard]}
  good:
    job: evaluate
    params: {samples: {easy: 4}, max_new_tokens: 24, block: 8, top_p: 0.95, server: {model: good, prompt: text}}
    inputs: {checkpoint: base, tasks: [easy, hard]}
  again:
    job: score
    inputs: {tasks: [easy, hard], rollouts: [good]}
  report:
    job: report
    params:
      title: Poor and good
      baseline: poor
      specialists: [poor, good]
      families: [easy, hard]
      comparisons: [{model: good, against: poor}]
      samples: 2
    inputs: {scores: [poor, good]}
";

pub struct World {
    pub dir: TempDir,
    pub server: Server,
}

impl World {
    /// The pipeline with its tasks made, and a server that knows their answers.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("scored.yaml"), PIPELINE.replace("MODEL", MODEL)).unwrap();
        let mut answers = BTreeMap::new();
        for set in ["easy", "hard"] {
            stdout(dir.path(), &["run", "scored.yaml", "--until", set]);
            for task in rows::<Task>(dir.path(), set) {
                answers.insert(task.prompt, task.answer);
            }
        }
        let server = Server::start(move |seen| answer(&answers, seen));
        Self { dir, server }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// stdout and stderr of `triad ARGS`, which must succeed.
    pub fn triad(&self, args: &[&str]) -> String {
        let mut command = command(self.path(), args);
        let output = command.env("TRIAD_SERVER_URL", &self.server.url).env("NO_PROXY", "*");
        let output = output.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "triad {args:?}: {}: {stderr}", output.status);
        format!("{}{stderr}", String::from_utf8_lossy(&output.stdout))
    }
}

/// Right with a share that depends on the model, else another number; sometimes without an end.
fn answer(answers: &BTreeMap<String, String>, seen: &Seen) -> Reply {
    let body = &seen.body;
    let prompt = body["prompt"].as_str().unwrap();
    let name = format!("{}/{prompt}/{}", body["model"], body["temperature"]);
    let mut stream = Stream::new(body["seed"].as_u64().unwrap(), &name, 0);
    let share = if body["model"] == "good" { 0.8 } else { 0.3 };
    let right = &answers[prompt];
    let said =
        if stream.chance(share) { right.clone() } else { format!("{}", stream.below(3) + 900) };
    let text = match stream.chance(0.1) {
        true => "1+1 and so on".to_string(),
        false => format!("so <it> is</think><answer>{said}</answer>"),
    };
    let reason = if text.ends_with('>') { "stop" } else { "length" };
    let choice = json!({"text": text, "finish_reason": reason});
    Reply::new(200, json!({"choices": [choice]}))
}

/// The rows of a stage's dataset, part by part.
pub fn rows<R: Row>(dir: &Path, stage: &str) -> Vec<R> {
    let out = dir.join(format!("out-{}", triad::entropy::attempt_name()));
    stdout(dir, &["get", stage, out.to_str().unwrap()]);
    let folder = out.join(R::NAME);
    let mut parts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    let read = |path| decode_parquet::<R>(std::fs::read(path).unwrap().into()).unwrap();
    parts.into_iter().flat_map(read).collect()
}

fn manifest(dir: &Path, stage: &str) -> Value {
    serde_json::from_str(&stdout(dir, &["show", stage, "--json"])).unwrap()
}

#[test]
fn scores_say_how_they_were_drawn_and_whom_the_majority_is_with() {
    let world = World::new();
    world.triad(&["run", "scored.yaml", "--until", "good"]);
    let scores: Vec<Score> = rows(world.path(), "good");
    let count = |set: &str, mode: &str| {
        scores.iter().filter(|score| score.set == set && score.mode == mode).count()
    };
    assert_eq!(
        [count("easy", "greedy"), count("easy", "sampled"), count("hard", "greedy")],
        [24, 24, 10]
    );
    assert_eq!(count("hard", "sampled"), 0, "`samples` names only `easy`");
    let verdicts: Vec<Verdict> = rows(world.path(), "good");
    assert_eq!(verdicts.len(), 24 * 5 + 10);
    for score in &scores {
        let sampled = score.mode == "sampled";
        assert_eq!(score.server.as_deref(), Some("good"));
        assert_eq!(score.top_p, Some(if sampled { 0.95 } else { 1.0 }));
        assert_eq!((score.seed, score.max_new_tokens), (Some(0), Some(24)));
        assert_eq!(score.model.len(), 32);
        // The greedy answer to a task of `easy` has the number after its four samples.
        let own = verdicts.iter().filter(|v| {
            let first = if sampled {
                0..4
            } else if score.set == "easy" {
                4..5
            } else {
                0..1
            };
            v.task_id == score.task_id && first.contains(&v.sample)
        });
        let own: Vec<&Verdict> = own.collect();
        assert_eq!(own.len() as u32, score.samples);
        assert_eq!(own.iter().filter(|v| v.correct).count() as u32, score.correct);
        assert_eq!(own.iter().filter(|v| v.format != "ok").count() as u32, score.cut_off.unwrap());
        let voting = own.iter().filter(|v| !v.extracted.is_empty()).count() as u32;
        if 2 * score.correct > voting {
            assert_eq!(score.majority, Some(1.0), "{score:?}");
        }
    }
    let query = "SELECT avg_at_k(correct, samples) AS a FROM scored.good.scores WHERE samples = 4";
    assert!(world.triad(&["query", query, "--format", "csv"]).lines().count() == 25);
}

#[test]
fn shards_of_an_evaluation_make_what_one_process_makes() {
    let (whole, parts) = (World::new(), World::new());
    whole.triad(&["run", "scored.yaml", "--until", "good"]);
    parts.triad(&["run", "scored.yaml", "--until", "base"]);
    // A watcher sees the first shard, and the end.
    parts.triad(&["job", "scored.yaml", "good", "--shard", "1/3"]);
    let mut watching = command(parts.path(), &["status", "scored.yaml", "--watch"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    let seen = lines.by_ref().find(|line| line.contains("▸ good")).unwrap();
    assert!(seen.contains("evaluate  2/5 parts  shards 1/3"), "{seen}");
    assert!(seen.contains("last write"), "{seen}");
    for shard in ["2/3", "3/3"] {
        parts.triad(&["job", "scored.yaml", "good", "--shard", shard]);
    }
    parts.triad(&["run", "scored.yaml"]);
    let last = lines.filter(|line| line.starts_with("scored: ")).last().unwrap();
    assert!(last.starts_with("scored: 7 of 7 stages committed"), "{last}");
    assert!(watching.wait().unwrap().success());

    let (one, two) = (manifest(whole.path(), "good"), manifest(parts.path(), "good"));
    let objects = |manifest: &Value| {
        let objects = manifest["objects"].as_array().unwrap().clone();
        objects.iter().map(|o| json!([o["path"], o["digest"]])).collect::<Vec<_>>()
    };
    assert_eq!(objects(&one), objects(&two));
    assert_eq!(objects(&one).len(), 3 * 5);
    assert_eq!(one["summary"], two["summary"]);
    assert!(one["summary"]["easy avg"].as_f64().unwrap() > 0.5, "{}", one["summary"]);
}

#[test]
fn kept_responses_are_scored_again_without_asking_for_any() {
    let world = World::new();
    world.triad(&["run", "scored.yaml", "--until", "good"]);
    let asked = world.server.seen().len();
    world.triad(&["run", "scored.yaml", "--until", "again"]);
    assert_eq!(world.server.seen().len(), asked);
    let [first, again] = ["good", "again"].map(|stage| rows::<Score>(world.path(), stage));
    assert_eq!(first, again);
    let [first, again] = ["good", "again"].map(|stage| rows::<Verdict>(world.path(), stage));
    assert_eq!(first, again);
    let summary = |stage: &str| manifest(world.path(), stage)["summary"]["easy avg"].clone();
    assert_eq!(summary("good"), summary("again"));

    let few = &["run", "scored.yaml", "--until", "again", "--set", "good.keep=3"];
    let mut run = command(world.path(), few);
    let output =
        run.env("TRIAD_SERVER_URL", &world.server.url).env("NO_PROXY", "*").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains("keeps the responses behind 6 of 16 scores"), "{stderr}");
}

#[test]
fn a_set_that_is_not_there_is_named() {
    let world = World::new();
    let args = ["run", "scored.yaml", "--until", "good", "--set", "good.samples={esy: 4}"];
    let mut run = command(world.path(), &args);
    let output = run.env("TRIAD_SERVER_URL", &world.server.url).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("samples: no task set `esy`; port `tasks` has easy, hard"), "{stderr}");
}
