//! A few tasks whose responses are laid side by side, chosen by rule.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Model;
use crate::dataset::{Rollout, Verdict};

/// A response to a task of `set` and what the checker said of it.
#[derive(Debug, Clone)]
pub struct Response {
    pub set: String,
    pub rollout: Rollout,
    pub verdict: Verdict,
}

/// A task that is shown, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub set: String,
    pub task_id: String,
    /// Whether some models solve it; otherwise none does.
    pub disputed: bool,
}

/// Of each set the first `count` tasks on which the models are most divided, and the first `count`
/// that none solves, in the order of task ids. A model's part is its share of right responses over
/// all modes.
pub fn choose(models: &[Model], count: usize) -> Vec<Chosen> {
    let mut shares: BTreeMap<(&str, &str), BTreeMap<&str, (u32, u32)>> = BTreeMap::new();
    for model in models {
        for score in &model.scores {
            let task = shares.entry((&score.set, &score.task_id)).or_default();
            let (correct, samples) = task.entry(&model.name).or_default();
            *correct += score.correct;
            *samples += score.samples;
        }
    }
    let sets: BTreeSet<&str> = shares.keys().map(|(set, _)| *set).collect();
    let mut chosen = Vec::new();
    for set in sets {
        // How far the best and the worst model are apart, in parts of 100.
        let mut spread: Vec<(u32, bool, &str)> = Vec::new();
        for ((_, task), models) in shares.iter().filter(|((of, _), _)| *of == set) {
            let share = |(correct, samples): &(u32, u32)| 100 * correct / (*samples).max(1);
            let all: Vec<u32> = models.values().map(share).collect();
            let (low, high) = (all.iter().min().copied(), all.iter().max().copied());
            let solved = models.values().any(|(correct, _)| *correct > 0);
            spread.push((high.unwrap_or(0) - low.unwrap_or(0), solved, task));
        }
        spread.sort_by(|a, b| b.0.cmp(&a.0).then(a.2.cmp(b.2)));
        let mut take = |disputed: bool| {
            let fits = |(_, solved, _): &&(u32, bool, &str)| *solved == disputed;
            chosen.extend(spread.iter().filter(fits).take(count).map(|(_, _, task)| Chosen {
                set: set.into(),
                task_id: task.to_string(),
                disputed,
            }));
        };
        take(true);
        take(false);
    }
    chosen
}

/// The response of a model that is shown for a task: the greedy one, or else the first.
pub fn shown<'a>(model: &'a Model, chosen: &Chosen) -> Option<&'a Response> {
    let of = |r: &&Response| r.set == chosen.set && r.rollout.task_id == chosen.task_id;
    model
        .responses
        .iter()
        .filter(of)
        .min_by_key(|r| (r.rollout.temperature > 0.0, r.rollout.sample))
}
