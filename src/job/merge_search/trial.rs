//! What a merge search consists of: a candidate, the choice among several, and the best again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{Arity, Context, Job, Port, merge, resolve_as};
use super::{Mode, Settings, with_settings};
use crate::dataset::{Row, Score, Trial};
use crate::merge::Recipe;
use crate::{Error, Result};

/// The best of a choice's trials: its settings.
fn best(trials: &[Trial]) -> Result<Settings> {
    let best = trials.iter().find(|trial| trial.best);
    let best = best.ok_or_else(|| Error::data("dataset `trials` marks none as the best"))?;
    Ok(best.settings.iter().cloned().zip(best.setting_values.iter().copied()).collect())
}

/// A candidate: `settings`, or those of the choice before, but for what it varies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    pub recipe: Recipe,
    pub settings: Settings,
    pub vary: Settings,
}

pub struct Try;

impl Job for Try {
    fn name(&self) -> &'static str {
        "merge-try"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many },
            Port { name: "chosen", accepts: &[Trial::NAME], arity: Arity::Optional },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Candidate>(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let Candidate { recipe, mut settings, vary } = context.spec()?;
        if !context.inputs("chosen").is_empty() {
            settings = best(&context.read_all("chosen")?)?;
        }
        settings.extend(vary);
        context.summarize("settings", json!(settings));
        merge::run(context, with_settings(recipe, &settings)?)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    mode: Mode,
}

pub struct Choose;

impl Job for Choose {
    fn name(&self) -> &'static str {
        "merge-choose"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "candidates", accepts: &["checkpoint"], arity: Arity::Many },
            Port { name: "scores", accepts: &["scores"], arity: Arity::Many },
            Port { name: "chosen", accepts: &[Trial::NAME], arity: Arity::Optional },
        ]
    }
    fn output(&self) -> &'static str {
        Trial::NAME
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Choice>(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let Choice { mode } = context.spec()?;
        let mut trials: Vec<Trial> = context.read_all("chosen")?;
        let mut number = trials.last().map_or(0, |trial| trial.trial);
        // Both ports go by the candidates' numbers.
        for (candidate, scores) in context.inputs("candidates").iter().zip(context.inputs("scores"))
        {
            number += 1;
            let manifest = &candidate.artifact.manifest;
            let settings = manifest.summary.get("settings").cloned().unwrap_or_default();
            let settings: Settings = serde_json::from_value(settings).map_err(|e| {
                Error::data(format!("artifact {}: settings: {e}", manifest.id.short()))
            })?;
            let scores: Vec<Score> = context.read(&scores.artifact)?;
            let accuracies = accuracies(&scores, mode);
            if accuracies.is_empty() {
                return Err(Error::data(format!(
                    "no {} scores of candidate {number}: no tasks",
                    mode.name()
                )));
            }
            let score = accuracies.values().sum::<f64>() / accuracies.len() as f64;
            let (settings, values): (Vec<_>, Vec<_>) = settings.into_iter().unzip();
            trials.extend(accuracies.into_iter().map(|(set, accuracy)| Trial {
                trial: number,
                model: manifest.id.to_string(),
                settings: settings.clone(),
                setting_values: values.clone(),
                set,
                accuracy,
                score,
                best: false,
            }));
        }
        mark(&mut trials);
        summarize(context, &trials)?;
        context.write(0, &trials)
    }
}

/// Marks the first of the trials with the highest score.
fn mark(trials: &mut [Trial]) {
    let highest = trials.iter().map(|trial| trial.score).fold(f64::NEG_INFINITY, f64::max);
    let first = trials.iter().find(|trial| trial.score == highest).map(|trial| trial.trial);
    trials.iter_mut().for_each(|trial| trial.best = Some(trial.trial) == first);
}

/// The share of right responses on each set.
fn accuracies(scores: &[Score], mode: Mode) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for score in scores.iter().filter(|score| score.mode == mode.name()) {
        let (correct, drawn) = counts.entry(score.set.clone()).or_default();
        *correct += u64::from(score.correct);
        *drawn += u64::from(score.samples);
    }
    counts
        .into_iter()
        .map(|(set, (correct, drawn))| (set, correct as f64 / drawn.max(1) as f64))
        .collect()
}

fn summarize(context: &mut Context, trials: &[Trial]) -> Result<()> {
    context.summarize("settings", json!(best(trials)?));
    context.summarize("trials", trials.last().map_or(0, |trial| trial.trial));
    let score = trials.iter().find(|trial| trial.best).map_or(0.0, |trial| trial.score);
    context.summarize("score", (score * 1e4).round() / 1e4);
    Ok(())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    recipe: Recipe,
}

pub struct Best;

impl Job for Best {
    fn name(&self) -> &'static str {
        "merge-best"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many },
            Port { name: "chosen", accepts: &[Trial::NAME], arity: Arity::One },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Last>(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let Last { recipe } = context.spec()?;
        let trials: Vec<Trial> = context.read_all("chosen")?;
        merge::run(context, with_settings(recipe, &best(&trials)?)?)?;
        summarize(context, &trials)?;
        context.write(0, &trials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_wins() {
        let trial = |trial, set: &str, score| Trial {
            trial,
            set: set.into(),
            score,
            settings: vec!["t".into()],
            setting_values: vec![f64::from(trial)],
            ..Trial::default()
        };
        let mut trials: Vec<Trial> =
            vec![trial(1, "x", 0.5), trial(2, "x", 0.7), trial(2, "y", 0.7), trial(3, "x", 0.7)];
        mark(&mut trials);
        assert_eq!(trials.iter().map(|t| t.best).collect::<Vec<_>>(), [false, true, true, false]);
        assert_eq!(best(&trials).unwrap(), Settings::from([("t".into(), 2.0)]));
        let score = |set: &str, mode: &str, correct| Score {
            set: set.into(),
            mode: mode.into(),
            correct,
            samples: 4,
            ..Score::default()
        };
        let scores = [
            score("x", "sampled", 1),
            score("x", "sampled", 2),
            score("x", "greedy", 4),
            score("y", "sampled", 4),
        ];
        let found = accuracies(&scores, Mode::Sampled);
        assert_eq!(found, BTreeMap::from([("x".into(), 0.375), ("y".into(), 1.0)]));
    }
}
