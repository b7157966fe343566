//! The report of a whole run, from what the store has of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::course::{Course, Prices, stage_of};
use super::data::{Data, Spec};
use super::page::{Again, Beyond};
use super::summary::Summary;
use super::versus::{Side, Versus};
use super::{render, tables};
use crate::id::ArtifactId;
use crate::store::{Artifact, Store};
use crate::{Error, Result};

/// What is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Html,
    Markdown,
    Latex,
}

#[derive(Debug, Default)]
pub struct Request {
    /// The pipeline's name.
    pub run: String,
    pub format: Format,
    /// Another run to set beside it.
    pub compare: Option<String>,
    pub prices: Prices,
}

/// A report in the format asked for, and its accuracy and differences for a terminal.
#[derive(Debug, Clone)]
pub struct Written {
    pub content: String,
    pub text: String,
}

/// A run's named artifacts and what is reported of them.
struct Run {
    stages: Vec<(String, Artifact)>,
    data: Data,
    course: Course,
    params: BTreeMap<String, Value>,
}

/// Makes the report of a run, with the timings of every stage. What it covers is what the run's
/// report stage does; without a finished one, all scores and training runs so far. `again` says how
/// to make the run once more.
///
/// # Errors
/// `Usage` when a run has no scores.
pub async fn write(
    store: &Store,
    request: Request,
    again: impl FnOnce(&[(String, Artifact)]) -> Option<Again>,
) -> Result<Written> {
    let Request { run: name, format, compare, prices } = request;
    let run = Run::read(store, &name, &prices).await?;
    let mut beyond = Beyond { again: again(&run.stages), ..Beyond::default() };
    if let Some(other_name) = compare {
        let other = Run::read(store, &other_name, &prices).await?;
        beyond.versus = Some(Versus::new(&run.side(&name), &other.side(&other_name))?);
    }
    let Run { data, course, .. } = run;
    beyond.course = Some(course);
    let report = render(&data, &beyond)?;
    let mut all = tables::all(&report.summary);
    if let Some(versus) = &beyond.versus {
        all.extend(versus.tables());
    }
    let content = match format {
        Format::Html => report.html,
        Format::Markdown => {
            let mut content = format!("# {}\n", report.summary.title);
            for table in &all {
                content +=
                    &format!("\n## {}\n\n{}\n\n{}", table.title, table.note, table.markdown());
            }
            content
        }
        Format::Latex => all.iter().map(|table| table.latex()).collect::<Vec<_>>().join("\n"),
    };
    Ok(Written { content, text: text(&report.summary) })
}

/// The tables of accuracy and differences.
fn text(summary: &Summary) -> String {
    let mut parts = Vec::new();
    for group in &summary.tables {
        parts
            .extend(summary.modes.iter().map(|mode| tables::accuracy(summary, group, mode).text()));
    }
    parts.extend(tables::all_comparisons(summary).iter().map(|table| table.text()));
    parts.join("\n").trim_end().to_string()
}

impl Run {
    async fn read(store: &Store, name: &str, prices: &Prices) -> Result<Self> {
        let mut stages = Vec::new();
        let mut also: BTreeMap<ArtifactId, Vec<String>> = BTreeMap::new();
        for (run, stage) in store.names().await? {
            let Some(id) = store.get_ref(&run, &stage).await? else { continue };
            if run != name {
                also.entry(id).or_default().push(run);
            } else if let Some(artifact) = Artifact::open(store, &id).await? {
                stages.push((stage, artifact));
            }
        }
        also.values_mut().for_each(|runs| runs.dedup());
        let named: Vec<_> =
            stages.iter().map(|(stage, found)| (stage.clone(), found.manifest.clone())).collect();
        let course = Course::new(&named, &also, prices.clone());
        let params = named
            .into_iter()
            .map(|(stage, manifest)| (stage, manifest.identity["params"].clone()))
            .collect();
        let data = collect(store, name, &stages).await?;
        Ok(Self { stages, data, course, params })
    }

    fn side<'a>(&'a self, name: &'a str) -> Side<'a> {
        Side { name, data: &self.data, course: &self.course, params: &self.params }
    }
}

/// What the run's report covers.
async fn collect(store: &Store, name: &str, stages: &[(String, Artifact)]) -> Result<Data> {
    if let Some((_, report)) = stages.iter().find(|(_, found)| found.manifest.kind == "report") {
        let identity = &report.manifest.identity;
        let wrong = |e| Error::data(format!("report {}: {e}", report.manifest.id.short()));
        let spec = serde_json::from_value(identity["params"].clone()).map_err(wrong)?;
        let scores = inputs(store, &identity["inputs"]["scores"]).await?;
        let runs = inputs(store, &identity["inputs"]["runs"]).await?;
        return Data::read(spec, &scores, &runs).await;
    }
    let of = |test: &dyn Fn(&Artifact) -> bool| {
        stages.iter().filter(|(_, found)| test(found)).cloned().collect::<Vec<_>>()
    };
    let scores = of(&|found| found.manifest.kind == "scores");
    if scores.is_empty() {
        return Err(Error::usage(format!(
            "run `{name}` has no scores to report; `triad status` lists its stages"
        )));
    }
    let mut runs = of(&|found| {
        ["metrics", "trials", "deltas"]
            .iter()
            .any(|name| found.manifest.datasets.contains_key(*name))
    });
    // The steps of rounds, whose last has all metrics under the stage's own name.
    runs.retain(|(stage, _)| stage_of(stage) == stage);
    let spec = Spec { title: name.into(), samples: 1, ..Spec::default() };
    Data::read(spec, &scores, &runs).await
}

/// The artifacts of one port of a manifest's identity: `{name: id}`.
async fn inputs(store: &Store, port: &Value) -> Result<Vec<(String, Artifact)>> {
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
