//! What `rl` measures and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tempfile::TempDir;

use crate::program::{failure, stdout};

/// Two iterations on level 1, then two on level 2 that review level 1.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let seedling = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let pipeline = format!(
        "\
pipeline: small
stages:
  base: {{job: import-checkpoint, params: {{path: {seedling:?}}}}}
  tasks:
    job: generate
    params:
      family: deduction
      split: train
      levels:
        - {{level: 1, count: 20, variables: 2, formulas: [2, 3], depth: 1}}
        - {{level: 2, count: 20, variables: 2, formulas: [1, 2], depth: 2}}
  trained:
    job: rl
    params:
      algorithm: grpo
      reward: released
      curriculum: [{{level: 1, steps: 2}}, {{level: 2, steps: 2, review: 0.5}}]
      prompts: 2
      samples: 4
      max_new_tokens: 24
      learning_rate: 0.0001
      cache_bytes: 1MiB
    inputs: {{base: base, tasks: tasks}}
"
    );
    std::fs::write(dir.path().join("small.yaml"), pipeline).unwrap();
    dir
}

/// The metrics of stage `trained` by step and level.
fn metrics(dir: &Path) -> BTreeMap<(u32, u32), BTreeMap<String, f64>> {
    let sql = "SELECT step, level, name, value FROM trained.metrics";
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in stdout(dir, &["query", sql, "--format", "csv"]).lines().skip(1) {
        let [step, level, name, value] = row.split(',').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let place = (step.parse().unwrap(), level.parse().unwrap());
        let before = all.entry(place).or_default().insert(name.into(), value.parse().unwrap());
        assert_eq!(before, None, "{row}");
    }
    all
}

#[test]
fn a_sampler_in_bf16_drifts_from_the_trainer_and_the_gap_shows_it() {
    let gap = |set: &[&str]| {
        let dir = folder();
        stdout(dir.path(), &[&["run", "small.yaml"], set].concat());
        let gaps = metrics(dir.path()).into_values().filter_map(|m| m.get("sampler_gap").copied());
        gaps.fold(0.0, f64::max)
    };
    let same = gap(&[]);
    let apart = gap(&["--set", "trained.sampler_precision=bf16"]);
    assert!(same < 1e-5 && apart > 1e-4 && apart < 0.1, "{same} {apart}");
}

#[test]
fn cuts_are_refused_with_the_reason() {
    let dir = folder();
    for set in ["top_k=5", "top_p=0.9", "min_p=0.1"] {
        let name = set.split('=').next().unwrap();
        assert_eq!(
            failure(dir.path(), &["run", "small.yaml", "--set", &format!("trained.{set}")]),
            format!(
                "64: error: --set trained.{set}: stage `trained`: params: `{name}`: the policy \
                 gradient is that of the whole distribution, so rl cuts nothing off; rollout and \
                 evaluate can"
            )
        );
    }
}
