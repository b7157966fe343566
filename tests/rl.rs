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
fn each_level_drawn_has_metrics_of_its_own() {
    let dir = folder();
    stdout(dir.path(), &["run", "small.yaml"]);
    let all = metrics(dir.path());
    let places: Vec<(u32, u32)> = all.keys().copied().collect();
    let levels = |step, levels: &[u32]| levels.iter().map(|&l| (step, l)).collect::<Vec<_>>();
    let expected =
        [levels(1, &[0, 1]), levels(2, &[0, 1]), levels(3, &[0, 1, 2]), levels(4, &[0, 1, 2])];
    assert_eq!(places, expected.concat());
    let names =
        |step, level| all[&(step, level)].keys().map(String::as_str).collect::<BTreeSet<_>>();
    let of_whole: BTreeSet<&str> =
        ["loss", "grad_norm", "learning_rate", "kl_coefficient", "selected", "rejected"].into();
    assert_eq!(&names(3, 0) - &names(3, 2), of_whole);
    assert!(names(3, 2).contains("reward_p90") && names(3, 2).contains("sampler_kl"));
    for (name, value) in &all[&(1, 1)] {
        assert_eq!(all[&(1, 0)][name], *value, "{name}");
    }
    // One prompt of each level: as many responses, not as many tokens.
    let (whole, review, own) = (&all[&(3, 0)], &all[&(3, 1)], &all[&(3, 2)]);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * a.abs().max(1.0);
    for name in ["reward", "accuracy", "format", "length", "cut_off", "groups_with_variance"] {
        assert!(near(whole[name], (review[name] + own[name]) / 2.0), "{name}");
    }
    for name in ["kl", "entropy", "clip_fraction", "sampler_gap", "sampler_kl"] {
        let tokens = |of: &BTreeMap<String, f64>| of["length"] * of[name];
        assert!(near(tokens(whole) * 2.0, tokens(review) + tokens(own)), "{name}");
    }
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
