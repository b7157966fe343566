//! What a report is made of: its settings and the rows of the artifacts it covers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::{Delta, Metric, Rollout, Row, Score, Trial, Verdict, decode_parquet};
use crate::store::{Artifact, Manifest};
use crate::{Error, Result};

/// Settings of a report. Models and task sets go by their names in the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub title: String,
    /// The model that everything started from.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The models of the oracle ensemble, each compared with the baseline on its own family: the
    /// set at the same place in `families`.
    #[serde(default)]
    pub specialists: Vec<String>,
    /// The task sets of the headline mean. Default: those called like the specialists, or all.
    #[serde(default)]
    pub families: Vec<String>,
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// Responses shown of each model on each set: this many right and this many wrong ones.
    #[serde(default = "one")]
    pub samples: usize,
}

fn one() -> usize {
    1
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
    pub rollouts: Vec<Rollout>,
    pub verdicts: Vec<Verdict>,
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
}

/// Everything a report shows, timings aside.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub spec: Spec,
    pub models: Vec<Model>,
    pub runs: Vec<TrainingRun>,
    pub sources: Vec<Source>,
}

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
            data.models.push(Model {
                name: name.clone(),
                scores: rows(artifact, true).await?,
                rollouts: rows(artifact, false).await?,
                verdicts: rows(artifact, false).await?,
            });
            data.source("scores", name, artifact);
        }
        for (name, artifact) in runs {
            data.runs.push(TrainingRun {
                name: name.clone(),
                metrics: rows(artifact, false).await?,
                trials: rows(artifact, false).await?,
                deltas: rows(artifact, false).await?,
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
        let bytes = artifact.read(&object.path).await?;
        let place = format!("artifact {id} {}", object.path);
        rows.append(&mut decode_parquet(bytes).map_err(|e| e.at(place))?);
    }
    Ok(rows)
}
