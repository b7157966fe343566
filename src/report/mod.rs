//! The report of a run: accuracy with intervals, paired differences, curves, samples and
//! provenance, as an HTML page, as numbers and as text.

mod curves;
mod data;
mod events;
mod merging;
mod page;
mod samples;
mod summary;
mod text;
mod timing;

#[cfg(test)]
mod tests;

pub use data::{Comparison, Data, Model, Source, Spec, TrainingRun, rows};
pub use events::EventFile;
pub use summary::Summary;
pub use timing::StageTiming;

use std::path::Path;

use crate::id::ArtifactId;
use crate::store::{Artifact, Store};
use crate::{Error, Result};

/// A finished report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The page, self-contained.
    pub html: String,
    pub summary: Summary,
}

/// The result tables in plain text, for a terminal.
#[derive(Debug, Clone)]
pub struct ReportText(pub String);

impl std::fmt::Display for ReportText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes and lays out the report of `data`. Without `timings` the page's bytes depend on the
/// data alone.
///
/// # Errors
/// As [`Summary::new`].
pub fn render(data: &Data, timings: Option<&[StageTiming]>) -> Result<Report> {
    lay_out(data, Summary::new(data)?, timings)
}

fn lay_out(data: &Data, summary: Summary, timings: Option<&[StageTiming]>) -> Result<Report> {
    let figures = curves::figures(&data.runs)?;
    let merging = merging::section(&data.runs)?;
    Ok(Report { html: page::page(data, &summary, &figures, &merging, timings), summary })
}

/// Writes the page of run `pipeline` to `out`, with the timings of every stage, and returns the
/// result tables. What it covers is what the run's report stage does; without a finished one, all
/// scores and training runs so far.
///
/// # Errors
/// `Usage` when the run has no scores, `TryAgain` when `out` cannot be written.
pub async fn write(store: &Store, pipeline: &str, out: &Path) -> Result<ReportText> {
    let mut stages = Vec::new();
    for (_, stage) in store.names().await?.into_iter().filter(|(run, _)| run == pipeline) {
        let Some(id) = store.get_ref(pipeline, &stage).await? else { continue };
        if let Some(artifact) = Artifact::open(store, &id).await? {
            stages.push((stage, artifact));
        }
    }
    let (data, summary) = collect(store, pipeline, &stages).await?;
    stages.sort_by_key(|(_, artifact)| artifact.manifest.producer.started);
    let timings: Vec<_> =
        stages.iter().map(|(stage, found)| StageTiming::new(stage, &found.manifest)).collect();
    let report = match summary {
        Some(summary) => lay_out(&data, summary, Some(&timings))?,
        None => render(&data, Some(&timings))?,
    };
    std::fs::write(out, &report.html)
        .map_err(|e| Error::try_again(format!("{}: {e}", out.display())))?;
    Ok(ReportText(text::text(&report.summary)))
}

/// What the run's report covers, and its numbers when a report stage has computed them.
async fn collect(
    store: &Store,
    pipeline: &str,
    stages: &[(String, Artifact)],
) -> Result<(Data, Option<Summary>)> {
    if let Some((_, report)) = stages.iter().find(|(_, found)| found.manifest.kind == "report") {
        let identity = &report.manifest.identity;
        let wrong = |e| Error::data(format!("report {}: {e}", report.manifest.id.short()));
        let spec = serde_json::from_value(identity["params"].clone()).map_err(wrong)?;
        let summary = serde_json::from_slice(&report.read("summary.json").await?).map_err(wrong)?;
        let scores = inputs(store, &identity["inputs"]["scores"]).await?;
        let runs = inputs(store, &identity["inputs"]["runs"]).await?;
        return Ok((Data::read(spec, &scores, &runs).await?, Some(summary)));
    }
    let of = |test: &dyn Fn(&Artifact) -> bool| {
        stages.iter().filter(|(_, found)| test(found)).cloned().collect::<Vec<_>>()
    };
    let scores = of(&|found| found.manifest.kind == "scores");
    if scores.is_empty() {
        return Err(Error::usage(format!(
            "run `{pipeline}` has no scores to report; `triad status` lists its stages"
        )));
    }
    let mut runs = of(&|found| {
        ["metrics", "trials", "deltas"]
            .iter()
            .any(|name| found.manifest.datasets.contains_key(*name))
    });
    // The steps of rounds, whose last has all metrics under the stage's own name.
    runs.retain(|(stage, _)| !stage.contains('.'));
    let spec = Spec { title: pipeline.into(), samples: 1, ..Spec::default() };
    Ok((Data::read(spec, &scores, &runs).await?, None))
}

/// The artifacts of one port of a manifest's identity: `{name: id}`.
async fn inputs(store: &Store, port: &serde_json::Value) -> Result<Vec<(String, Artifact)>> {
    let mut found = Vec::new();
    for (name, id) in port.as_object().into_iter().flatten() {
        let id = ArtifactId::try_from(id.as_str().unwrap_or_default().to_string())?;
        let artifact = Artifact::open(store, &id).await?.ok_or_else(|| {
            Error::data(format!(
                "artifact {} (`{name}`) is gone; run the pipeline again",
                id.short()
            ))
        })?;
        found.push((name.clone(), artifact));
    }
    Ok(found)
}
