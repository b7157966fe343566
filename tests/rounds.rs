//! RL in rounds against RL in one process, optimizer state beside checkpoints, rejected updates.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::program::{failure, stdout};

/// The quickstart's base and tasks of two levels, with further stages behind them.
fn folder(stages: &str) -> TempDir {
    let dir = tempdir().unwrap();
    write(&dir, stages);
    dir
}

fn write(dir: &TempDir, stages: &str) {
    let seedling = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let pipeline = format!(
        "\
pipeline: small
stages:
  base: {{job: import-checkpoint, params: {{path: {seedling:?}}}}}
  tasks:
    job: generate
    params: {{family: arithmetic, split: train, levels: [{{level: 1, count: 12}}, {{level: 2, count: 12}}]}}
  texts: {{job: demonstrate, inputs: {{tasks: tasks}}}}
{stages}"
    );
    std::fs::write(dir.path().join("small.yaml"), pipeline).unwrap();
}

fn rl(name: &str, params: &str, placement: &str) -> String {
    format!(
        "  {name}:
    job: rl
    params: {{algorithm: reinforce_pp, reward: released, prompts: 5, samples: 4, max_new_tokens: 48, {params}}}
    inputs: {{base: base, tasks: tasks}}
    placement: {placement}
"
    )
}

/// Path and digest of each object of a stage.
fn objects(dir: &Path, stage: &str) -> BTreeMap<String, String> {
    let shown = stdout(dir, &["show", &format!("small/{stage}"), "--json"]);
    let manifest: Value = serde_json::from_str(&shown).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let objects = manifest["objects"].as_array().unwrap().iter();
    objects.map(|object| (text(&object["path"]), text(&object["digest"]))).collect()
}

/// Those of a training run without its responses, which rounds have elsewhere.
fn trained(dir: &Path, stage: &str) -> BTreeMap<String, String> {
    let mut all = objects(dir, stage);
    all.retain(|path, _| !path.starts_with("rollouts/") && !path.starts_with("verdicts/"));
    all
}

/// The stages of the file after rounds are laid out.
fn stages(dir: &Path) -> Vec<String> {
    let plan: Value =
        serde_json::from_str(&stdout(dir, &["plan", "small.yaml", "--json"])).unwrap();
    let names = plan.as_array().unwrap().iter().map(|line| line["stage"].as_str().unwrap());
    names.map(str::to_string).collect()
}

/// What is hard to carry from one process to the next: moments, a fresh optimizer in the middle, an
/// adaptive coefficient, refills, several updates; masters that the weights are rounded from;
/// adapters that the weights are merged with.
const SETTINGS: [&str; 4] = [
    "curriculum: [{level: 1, steps: 2}, {level: 2, steps: 2, review: 0.4}], learning_rate: 0.0005, \
     block: 2, cache_bytes: 400KB, refills: 1, updates: 2, warmup: 1, final_rate: 0.5, correction: 2, \
     kl: {kind: k1, coefficient: 0.01, place: reward, adaptive: {target: 0.05, horizon: 100}}",
    "curriculum: [{level: 1, steps: 1}, {level: 2, steps: 2}], learning_rate: 0.0005, block: 2, \
     precision: bf16, dtype: bf16, optimizer_state: false, \
     select: 'SELECT task_id, sample FROM verdicts WHERE sample > 0 ORDER BY task_id'",
    "curriculum: [{level: 1, steps: 3}], learning_rate: 0.002, block: 2, lora: {rank: 2}, \
     sampler_precision: bf16",
    "curriculum: [{level: 1, steps: 3}], learning_rate: 0.002, block: 2, lora: {rank: 2}, \
     precision: bf16, kl: {coefficient: 0}, continue_optimizer: false",
];

#[test]
fn rounds_give_the_same_bits_as_one_process() {
    for (number, params) in SETTINGS.into_iter().enumerate() {
        let rounds = |shards| rl("rounds", params, &format!("{{rounds: {{shards: {shards}}}}}"));
        let dir = folder(&(rl("fused", params, "fused") + &rounds(3)));
        let triad = |args: &[&str]| stdout(dir.path(), args);
        triad(&["run", "small.yaml", "--workers", "3"]);
        let fused = trained(dir.path(), "fused");
        assert!(
            fused.contains_key("model.safetensors") && fused.contains_key("metrics/00000.parquet")
        );
        let state = !params.contains("optimizer_state: false");
        assert_eq!(fused.contains_key("training/moments.safetensors"), state, "{params}");
        assert_eq!(trained(dir.path(), "rounds"), fused, "{params}");
        for pipeline in ["small.yaml", "small"] {
            let said = triad(&["tensorboard", pipeline, "events"]);
            assert!(said.starts_with("runs: 2; "), "{said}");
        }
        let weights = |stage| objects(dir.path(), stage)["model.safetensors"].clone();
        assert_ne!(weights("rounds.1.update"), weights("rounds.2.update"), "{params}");
        let drawn = objects(dir.path(), "rounds.1.draw");

        // The number of shards changes no identity, and any step runs from stored artifacts alone: the
        // first two settings go step by step, each in a process of its own.
        write(&dir, &(rl("fused", params, "fused") + &rounds(1)));
        assert!(triad(&["run", "small.yaml"]).starts_with("Nothing to do"), "{params}");
        let fresh = folder(&rounds(1));
        let stages = if number < 2 { stages(fresh.path()) } else { vec!["rounds".into()] };
        for stage in stages {
            stdout(fresh.path(), &["run", "small.yaml", "--until", &stage]);
        }
        assert_eq!(trained(fresh.path(), "rounds"), fused, "{params}");
        assert_eq!(objects(fresh.path(), "rounds.1.draw"), drawn, "{params}");
    }
}

#[test]
fn rounds_are_refused_where_they_cannot_be() {
    let params = "curriculum: [{level: 1, steps: 1}], learning_rate: 0.01";
    let said = |stages: String| failure(folder(&stages).path(), &["plan", "small.yaml"]);
    let found = [
        said(rl("rounds", params, "{rounds: {shards: 2}}")),
        said(rl("rounds", params, "{rounds: {shards: 0}}")),
        said(rl("rounds", params, "{rounds: {shard: 2}}")),
        said(rl("rounds", params, "around")),
        said(rl("fused", params, "fused").replace("level: 1", "level: 3")),
        said("  more: {job: demonstrate, inputs: {tasks: tasks}, placement: {rounds: {shards: 1}}}\n".into()),
    ];
    insta::assert_snapshot!(found.join("\n"), @r#"
    64: error: small.yaml:12: stage `rounds`: placement: 2 shards: an iteration's 5 prompts, drawn 5 at a time, make 1; lower `block`
    64: error: small.yaml:12: stage `rounds`: placement.rounds.shards: invalid value: integer `0`, expected a nonzero u32
    64: error: small.yaml:12: stage `rounds`: placement: unknown field `shard`; did you mean `shards`?
    64: error: small.yaml:12: stage `rounds`: placement: unknown variant `around`; did you mean `rounds`?
    64: error: small.yaml:10: stage `fused`: params.curriculum: port `tasks` makes no tasks of level 3, only of [1, 2]
    64: error: small.yaml:8: stage `more`: placement: job `demonstrate` has no rounds; `rl` has
    "#);
}

const BAD: &str = "curriculum: [{level: 1, steps: 4}], learning_rate: 0.01, max_rejected: 1, \
                   entropy: 3.0e+38";

/// The number that the last line of stderr names behind `--replay`.
fn named(error: &str) -> &str {
    let (_, rest) = error.split_once("`triad job --replay ").unwrap_or_else(|| panic!("{error}"));
    rest.split('`').next().unwrap()
}

#[test]
fn a_rejected_update_is_kept_and_replayed() {
    let sft = "  sft:
    job: sft
    params: {steps: 9, batch: 4, learning_rate: 1.0e+15, max_rejected: 1, micro_batch_tokens: 200}
    inputs: {base: base, examples: texts}
";
    let same = "  same: {job: merge, params: {merge_method: passthrough, models: [{model: base}], dtype: float32}, inputs: {models: [base]}}\n";
    let rounds = rl("rounds", BAD, "{rounds: {shards: 1}}");
    let dir = folder(&(rl("fused", BAD, "fused") + sft + &rounds + same));
    let triad = |args: &[&str]| stdout(dir.path(), args);
    for (stage, step) in [("fused", 2), ("sft", 3), ("rounds", 2)] {
        let until = ["run", "small.yaml", "--until", stage];
        let error = failure(dir.path(), &until);
        let start = format!("step {step}: 2 updates in a row had a loss or gradient that is not");
        assert!(error.starts_with("65: ") && error.contains(&start), "{error}");

        let id = named(&error);
        let shown: Value = serde_json::from_str(&triad(&["show", id, "--json"])).unwrap();
        assert_eq!(shown["kind"], "rejected");
        let number = |name: &str| shown["summary"][name].as_str().unwrap().to_string();
        let (loss, norm) = (number("loss"), number("norm"));
        assert!(["inf", "NaN"].contains(&&norm[..]), "{norm}");
        let said = triad(&["job", "--replay", id]);
        let rows = &shown["objects"][0]["rows"];
        let numbers = format!("loss {loss}, gradient norm {norm}");
        assert_eq!(said, format!("step {step}, {rows} sequences: {numbers}\n"));

        // Started again it ends at once, with the same words.
        let before = triad(&["ls"]);
        assert_eq!(failure(dir.path(), &until), error);
        assert_eq!(triad(&["ls"]), before);
    }
    let plan = triad(&["plan", "small.yaml"]);
    for continues in ["continues from step 2", "continues from step 3"] {
        assert!(plan.contains(continues), "{plan}");
    }
    // The rejected update left the weights as they were.
    triad(&["run", "small.yaml", "--until", "same"]);
    let weights = |stage| objects(dir.path(), stage)["model.safetensors"].clone();
    assert_eq!(weights("rounds.1.update"), weights("same"));
    let wrong = failure(dir.path(), &["job", "--replay", "small/base"]);
    assert!(
        wrong.starts_with("64: ") && wrong.ends_with("is no rejected update but checkpoint"),
        "{wrong}"
    );
}

#[test]
fn an_optimizer_is_continued_where_its_state_was_kept() {
    let sft = |name: &str, base: &str, more: &str| {
        format!(
            "  {name}:
    job: sft
    params: {{steps: 3, batch: 4, learning_rate: 0.001{more}}}
    inputs: {{base: {base}, examples: texts}}
"
        )
    };
    let stages = sft("first", "base", "")
        + &sft("bare", "first", ", optimizer_state: false")
        + &sft("fresh", "first", "")
        + &sft("continued", "first", ", continue_optimizer: true")
        + &sft("wrong", "bare", ", continue_optimizer: true");
    let dir = folder(&stages);
    stdout(dir.path(), &["run", "small.yaml", "--until", "fresh"]);
    stdout(dir.path(), &["run", "small.yaml", "--until", "continued"]);
    let progress = |stage: &str| {
        let out = format!("out-{stage}");
        stdout(dir.path(), &["get", stage, &out]);
        let file = dir.path().join(out).join("training/progress.json");
        let progress: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        progress["updates"].as_u64().unwrap()
    };
    assert_eq!(["first", "fresh", "continued"].map(progress), [3, 3, 6]);
    let error = failure(dir.path(), &["run", "small.yaml", "--until", "wrong"]);
    assert!(
        error.starts_with("65: ") && error.contains("no optimizer state lies beside it"),
        "{error}"
    );
    let weights = |stage| objects(dir.path(), stage)["model.safetensors"].clone();
    assert_eq!(weights("bare"), weights("fresh"));
    assert_ne!(weights("fresh"), weights("continued"));
}
