//! Who of the specialists solves what, and where the oracle's gain over the best of them comes from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::shares::Shares;
use crate::Result;
use crate::statistics::{mean, oracle};

/// The specialists on one set.
#[derive(Debug, Clone, Serialize)]
pub struct Complement {
    pub set: String,
    pub mode: String,
    pub specialists: Vec<String>,
    pub problems: usize,
    /// Which of the specialists solve a problem, and how many problems are of that
    /// kind, the most first. At a temperature above 0 a model solves what it gets right half of the
    /// time or more.
    pub patterns: Vec<(Vec<bool>, usize)>,
    /// The best specialist, then the one that adds most to those before, and so on: (model, oracle
    /// accuracy of all so far).
    pub steps: Vec<(String, f64)>,
    /// The best one alone, with as many answers to each problem as there are specialists. At
    /// temperature 0 all its answers are the same.
    pub again: f64,
}

/// Greedy where all specialists answered greedily, else in `mode`.
///
/// # Errors
/// `Data` when specialists were scored on different tasks.
pub fn complement(
    shares: &Shares,
    specialists: &[String],
    sets: &[String],
    mode: &str,
) -> Result<Vec<Complement>> {
    let mut found = Vec::new();
    if specialists.len() < 2 {
        return Ok(found);
    }
    for set in sets {
        for mode in ["greedy", mode] {
            if let Some(tasks) = shares.beside(specialists, set, mode)? {
                found.push(of_set(specialists, set, mode, &tasks));
                break;
            }
        }
    }
    Ok(found)
}

/// `tasks`: each specialist's share of right answers, task by task.
fn of_set(specialists: &[String], set: &str, mode: &str, tasks: &[Vec<f64>]) -> Complement {
    let mut counts: BTreeMap<Vec<bool>, usize> = BTreeMap::new();
    for shares in tasks {
        *counts.entry(shares.iter().map(|share| *share >= 0.5).collect()).or_default() += 1;
    }
    let mut patterns: Vec<_> = counts.into_iter().collect();
    patterns.sort_by(|a, b| b.1.cmp(&a.1).then(b.0.cmp(&a.0)));
    let together = |chosen: &[usize]| {
        let of = |shares: &Vec<f64>| oracle(&chosen.iter().map(|i| shares[*i]).collect::<Vec<_>>());
        mean(&tasks.iter().map(of).collect::<Vec<_>>())
    };
    let mut chosen: Vec<usize> = Vec::new();
    let mut steps = Vec::new();
    while chosen.len() < specialists.len() {
        let with = |i: usize| together(&[&chosen[..], &[i]].concat());
        let rest = (0..specialists.len()).filter(|i| !chosen.contains(i));
        // `rev`: of equal ones the first.
        let Some(best) = rest.rev().max_by(|a, b| with(*a).total_cmp(&with(*b))) else { break };
        steps.push((specialists[best].clone(), with(best)));
        chosen.push(best);
    }
    let best = chosen.first().copied().unwrap_or(0);
    let again = together(&vec![best; specialists.len()]);
    let (set, mode) = (set.to_string(), mode.to_string());
    let specialists = specialists.to_vec();
    Complement { set, mode, specialists, problems: tasks.len(), patterns, steps, again }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gain_is_what_each_adds_to_those_before() {
        let names = ["a", "b", "c"].map(String::from);
        let rows: [[f64; 3]; 4] =
            [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]];
        let found = of_set(&names, "x", "greedy", &rows.map(|row| row.to_vec()));
        let steps: Vec<_> = found.steps.iter().map(|(name, share)| (&name[..], *share)).collect();
        assert_eq!(steps, [("b", 0.75), ("a", 1.0), ("c", 1.0)]);
        assert_eq!(found.again, 0.75);
        assert_eq!(found.patterns.len(), 4);
        assert!(found.patterns.contains(&(vec![true, true, false], 1)));
        // Two samplers that are alike gain by answering twice, and that is said.
        let found = of_set(&names[..2], "x", "sampled", &[vec![0.5, 0.5]]);
        assert_eq!((found.steps[1].1, found.again), (0.75, 0.75));
    }
}
