//! The report of a run: accuracy with intervals, curves, samples, provenance; as a page and as text.

mod statistics;

pub use statistics::{Estimate, bootstrap_difference, bootstrap_mean, oracle, pass_at_k};

use std::path::Path;

use crate::store::{Artifact, Store};
use crate::{Error, Result};

/// The result table in plain text, for a terminal.
#[derive(Debug, Clone)]
pub struct ReportText(pub String);

impl std::fmt::Display for ReportText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes the page of `pipeline`'s report stage to `out`, with the timings of every stage.
///
/// # Errors
/// `Usage` when the pipeline has no finished report stage, `TryAgain` when `out` cannot be written.
pub async fn write(store: &Store, pipeline: &str, out: &Path) -> Result<ReportText> {
    for (_, stage) in store.names().await?.into_iter().filter(|(run, _)| run == pipeline) {
        let Some(id) = store.get_ref(pipeline, &stage).await? else { continue };
        let Some(artifact) = Artifact::open(store, &id).await? else { continue };
        if artifact.manifest.kind == "report" {
            let page = artifact.read("report.html").await?;
            std::fs::write(out, page)
                .map_err(|e| Error::try_again(format!("{}: {e}", out.display())))?;
            return Ok(ReportText(String::new()));
        }
    }
    Err(Error::usage(format!(
        "run `{pipeline}` has no finished report stage; `triad status` lists its stages"
    )))
}
