//! What a report is made of: its settings and the rows of the artifacts it covers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::samples::{self, Chosen, Response};
use crate::dataset::{Delta, Metric, Rollout, Row, Score, Trial, Verdict, decode_parquet};
use crate::store::{Artifact, Manifest, ObjectEntry};
use crate::{Error, Result};

/// Settings of a report. Models and task sets go by their names in the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub title: String,
    /// The model that everything started from. The others' cells are marked where they differ.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The models of the oracle ensemble, each compared with the baseline on its own family: the
    /// set at the same place in `families`.
    #[serde(default)]
    pub specialists: Vec<String>,
    /// The task sets of the headline mean. Default: those called like the specialists, or all.
    #[serde(default)]
    pub families: Vec<String>,
    /// The columns of means by name, each over sets that weigh alike. Default: `family mean` over
    /// `families`, and `mean` over all sets.
    #[serde(default)]
    pub means: BTreeMap<String, Vec<String>>,
    /// The accuracy tables, each with some of the models. Default: one with all.
    #[serde(default)]
    pub tables: Vec<Group>,
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// Tasks of each set whose responses are shown side by side: this many on which the models
    /// disagree, and this many that none solves.
    #[serde(default = "one")]
    pub samples: usize,
}

fn one() -> usize {
    1
}

/// Rows that make a table of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub title: String,
    /// `oracle ensemble` is that of the specialists.
    pub models: Vec<String>,
}

/// `model` minus `against`, over the same problems of `sets` (default: the families).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub model: String,
    pub against: String,
    #[serde(default)]
    pub sets: Vec<String>,
}

/// An artifact's place in the report and its manifest.
#[derive(Debug, Clone)]
pub struct Source {
    /// `scores` or `runs`.
    pub port: &'static str,
    pub name: String,
    pub manifest: Manifest,
}

/// One model's rows.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub name: String,
    pub scores: Vec<Score>,
    /// Of the kept responses in the headline mode, by set: tokens, and whether it is right.
    pub lengths: BTreeMap<String, Vec<(u32, bool)>>,
    /// To the tasks that are shown.
    pub responses: Vec<Response>,
}

/// One training run's numbers, a merge search's or a comparison's.
#[derive(Debug, Clone, Default)]
pub struct TrainingRun {
    pub name: String,
    pub metrics: Vec<Metric>,
    /// Of a merge search.
    pub trials: Vec<Trial>,
    /// Of specialists, beside each other.
    pub deltas: Vec<Delta>,
    /// Rewards in the first and in the last iterations of an RL run.
    pub rewards: [Vec<f32>; 2],
}

/// Everything a report shows, apart from when and where it was made.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub spec: Spec,
    pub models: Vec<Model>,
    pub runs: Vec<TrainingRun>,
    pub sources: Vec<Source>,
    pub chosen: Vec<Chosen>,
}

/// Most iterations at each end of a run whose rewards are counted.
const ITERATIONS: usize = 8;

impl Data {
    /// Reads the rows of `scores` (by model name) and the metrics of `runs` (by run name).
    ///
    /// # Errors
    /// `Data` for artifacts without the dataset or with unreadable objects, `TryAgain` from the store.
    pub async fn read(
        spec: Spec,
        scores: &[(String, Artifact)],
        runs: &[(String, Artifact)],
    ) -> Result<Self> {
        let mut data = Self { spec, ..Self::default() };
        for (name, artifact) in scores {
            let scores = rows(artifact, true).await?;
            data.models.push(Model { name: name.clone(), scores, ..Model::default() });
            data.source("scores", name, artifact);
        }
        data.chosen = samples::choose(&data.models, data.spec.samples);
        for (model, (_, artifact)) in data.models.iter_mut().zip(scores) {
            responses(model, &data.chosen, artifact).await?;
        }
        for (name, artifact) in runs {
            let verdicts: Vec<_> = artifact.manifest.parts(Verdict::NAME).collect();
            let ends = verdicts.len().div_ceil(10).min(ITERATIONS);
            data.runs.push(TrainingRun {
                name: name.clone(),
                metrics: rows(artifact, false).await?,
                trials: rows(artifact, false).await?,
                deltas: rows(artifact, false).await?,
                rewards: [
                    rewards(artifact, &verdicts[..ends]).await?,
                    rewards(artifact, &verdicts[verdicts.len() - ends..]).await?,
                ],
            });
            data.source("runs", name, artifact);
        }
        Ok(data)
    }

    fn source(&mut self, port: &'static str, name: &str, artifact: &Artifact) {
        let manifest = artifact.manifest.clone();
        self.sources.push(Source { port, name: name.into(), manifest });
    }
}

impl Source {
    /// The resolved parameters.
    pub fn params(&self) -> &Value {
        &self.manifest.identity["params"]
    }
}

async fn rewards(artifact: &Artifact, parts: &[&ObjectEntry]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for object in parts {
        all.extend(part::<Verdict>(artifact, &object.path).await?.iter().map(|v| v.reward));
    }
    Ok(all)
}

/// Goes through the kept responses part by part, since all of them may be more than memory holds.
async fn responses(model: &mut Model, chosen: &[Chosen], artifact: &Artifact) -> Result<()> {
    let manifest = &artifact.manifest;
    for object in manifest.parts(Rollout::NAME) {
        let beside = |name: &str| object.path.replacen(Rollout::NAME, name, 1);
        let rollouts: Vec<Rollout> = part(artifact, &object.path).await?;
        let verdicts: Vec<Verdict> = part(artifact, &beside(Verdict::NAME)).await?;
        // A task may stand in several sets, in one of each part.
        let scores: Vec<Score> = part(artifact, &beside(Score::NAME)).await?;
        let sets: BTreeMap<&str, &str> =
            model.scores.iter().chain(&scores).map(|s| (&s.task_id[..], &s.set[..])).collect();
        let sampled: BTreeMap<&str, bool> =
            scores.iter().map(|s| (&s.set[..], s.mode == "sampled")).collect();
        for (rollout, verdict) in rollouts.into_iter().zip(verdicts) {
            let Some(set) = sets.get(&rollout.task_id[..]) else { continue };
            let headline = sampled.get(set).copied().unwrap_or(true) == (rollout.temperature > 0.0);
            if headline {
                let lengths = model.lengths.entry(set.to_string()).or_default();
                lengths.push((rollout.tokens.len() as u32, verdict.correct));
            }
            if chosen.iter().any(|c| c.set == *set && c.task_id == rollout.task_id) {
                model.responses.push(Response { set: set.to_string(), rollout, verdict });
            }
        }
    }
    Ok(())
}

/// All rows of dataset `R`; none when the artifact has no such dataset, unless it is `needed`.
pub async fn rows<R: Row>(artifact: &Artifact, needed: bool) -> Result<Vec<R>> {
    let manifest = &artifact.manifest;
    let id = manifest.id.short();
    if needed && !manifest.datasets.contains_key(R::NAME) {
        let job = manifest.job();
        return Err(Error::data(format!("artifact {id} ({job}) has no dataset `{}`", R::NAME)));
    }
    let mut rows = Vec::new();
    for object in manifest.parts(R::NAME) {
        rows.append(&mut part(artifact, &object.path).await?);
    }
    Ok(rows)
}

async fn part<R: Row>(artifact: &Artifact, path: &str) -> Result<Vec<R>> {
    let place = || format!("artifact {} {path}", artifact.manifest.id.short());
    decode_parquet(artifact.read(path).await?).map_err(|e| e.at(place()))
}
