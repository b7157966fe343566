//! A few responses for the eye, chosen by rule: the first right and wrong ones of each model.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Model;
use crate::dataset::{Rollout, Verdict};

/// A response and what the checker said of it.
#[derive(Debug)]
pub struct Sample<'a> {
    pub rollout: &'a Rollout,
    pub verdict: &'a Verdict,
}

/// The first `count` right and the first `count` wrong responses in each family, in the order of
/// task and sample, one for each task.
pub fn choose(model: &Model, count: usize) -> Vec<Sample<'_>> {
    let key = |task: &str, step, sample| (task.to_string(), step, sample);
    let verdicts: BTreeMap<_, &Verdict> =
        model.verdicts.iter().map(|v| (key(&v.task_id, v.step, v.sample), v)).collect();
    let mut all: Vec<Sample> = model
        .rollouts
        .iter()
        .filter_map(|rollout| {
            let verdict = verdicts.get(&key(&rollout.task_id, rollout.step, rollout.sample))?;
            Some(Sample { rollout, verdict })
        })
        .collect();
    all.sort_by_key(|s| {
        let place = key(&s.rollout.task_id, s.rollout.step, s.rollout.sample);
        (s.rollout.family.clone(), !s.verdict.correct, place)
    });
    let mut taken: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    let mut tasks = BTreeSet::new();
    all.retain(|sample| {
        let group = taken.entry((&sample.rollout.family, sample.verdict.correct)).or_default();
        let keep = *group < count && tasks.insert(&sample.rollout.task_id);
        *group += usize::from(keep);
        keep
    });
    all
}
