//! Differences between models over the same problems.

use serde::Serialize;

use super::data::{Comparison, Model};
use super::shares::Shares;
use super::summary::Column;
use crate::statistics::{Estimate, bootstrap_difference, holm, sign_flip};
use crate::{Error, Result};

/// Claims are made below this corrected p-value.
const LEVEL: f64 = 0.05;

/// A paired difference in accuracy.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    pub model: String,
    pub against: String,
    pub sets: Vec<String>,
    pub mode: String,
    pub difference: Estimate,
    /// Of the randomization test over the problems.
    pub p: f64,
    /// By Holm, among all comparisons of the mode.
    pub p_holm: f64,
    /// `better`, `worse` or `no difference shown`, by `p_holm` below 0.05.
    pub verdict: String,
}

impl Difference {
    pub fn better(&self) -> Option<bool> {
        shown(self.difference.mean, self.p_holm)
    }
}

fn shown(mean: f64, p_holm: f64) -> Option<bool> {
    (p_holm < LEVEL).then_some(mean > 0.0)
}

/// Every one of `wanted` in one mode, as far as both models were scored in it.
///
/// # Errors
/// `Usage` when a model was not scored on a set that it is to be compared on, in any mode.
pub fn differences(shares: &Shares, wanted: &[Comparison], mode: &str) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for Comparison { model, against, sets } in wanted {
        let Some(pairs) = shares.pairs(model, against, sets, mode)? else {
            let scored = |name: &str, set: &String| {
                shares.modes().iter().any(|mode| shares.of(name, set, &mode.name).is_some())
            };
            for (name, set) in sets.iter().flat_map(|set| [(model, set), (against, set)]) {
                if !scored(name, set) {
                    return Err(Error::usage(format!(
                        "report: `{model}` and `{against}` were not both scored on `{set}`: \
                         `{name}` was not"
                    )));
                }
            }
            continue;
        };
        let (Some(difference), Some(p)) =
            (bootstrap_difference(&pairs, "report/difference"), p_value(&pairs))
        else {
            continue;
        };
        found.push(Difference {
            model: model.clone(),
            against: against.clone(),
            sets: sets.clone(),
            mode: mode.into(),
            difference,
            p,
            p_holm: p,
            verdict: String::new(),
        });
    }
    let corrected = holm(&found.iter().map(|row| row.p).collect::<Vec<_>>());
    for (row, p_holm) in found.iter_mut().zip(corrected) {
        row.p_holm = p_holm;
        row.verdict = match row.better() {
            Some(true) => "better",
            Some(false) => "worse",
            None => "no difference shown",
        }
        .into();
    }
    Ok(found)
}

fn p_value(pairs: &[Vec<(f64, f64)>]) -> Option<f64> {
    let differences: Vec<Vec<f64>> =
        pairs.iter().map(|pairs| pairs.iter().map(|(a, b)| a - b).collect()).collect();
    sign_flip(&differences, "report/p")
}

/// For each model and column whether it differs from the baseline, corrected by Holm over the whole
/// table. Models that were scored on other tasks than the baseline have no marks.
pub fn marks(
    shares: &Shares,
    models: &[&Model],
    baseline: Option<&str>,
    columns: &[Column],
    mode: &str,
) -> Vec<Vec<Option<bool>>> {
    let mut marks = vec![vec![None; columns.len()]; models.len()];
    let Some(baseline) = baseline else { return marks };
    let mut tests = Vec::new();
    for (row, model) in models.iter().enumerate().filter(|(_, model)| model.name != baseline) {
        for (at, column) in columns.iter().enumerate() {
            let pairs = shares.pairs(&model.name, baseline, &column.sets, mode);
            let Ok(Some(pairs)) = pairs else { continue };
            if let Some(p) = p_value(&pairs) {
                let each = pairs.iter().map(|pairs| {
                    pairs.iter().map(|(a, b)| a - b).sum::<f64>() / pairs.len().max(1) as f64
                });
                tests.push((row, at, each.sum::<f64>(), p));
            }
        }
    }
    let corrected = holm(&tests.iter().map(|(.., p)| *p).collect::<Vec<_>>());
    for ((row, at, mean, _), p_holm) in tests.into_iter().zip(corrected) {
        marks[row][at] = shown(mean, p_holm);
    }
    marks
}
