//! The report of a run: accuracy with intervals, paired differences, curves, samples and
//! provenance, as an HTML page, as numbers and as tables.

mod compare;
mod complement;
mod course;
mod curves;
mod data;
mod events;
mod graph;
mod histogram;
mod merging;
mod page;
mod run;
mod samples;
mod shares;
mod summary;
mod table;
mod tables;
mod versus;

#[cfg(test)]
mod tests;

pub use course::{Course, Prices, duration, stage_of};
pub use data::{Comparison, Data, Group, Model, Source, Spec, TrainingRun, rows};
pub use events::EventFile;
pub use page::{Again, Beyond};
pub use run::{Format, Request, Written, write};
pub use summary::Summary;

use crate::Result;

/// A finished report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The page, self-contained.
    pub html: String,
    pub summary: Summary,
}

/// Computes and lays out the report of `data`. With nothing beyond, the page's bytes depend on the
/// data alone.
///
/// # Errors
/// As [`Summary::new`].
pub fn render(data: &Data, beyond: &Beyond) -> Result<Report> {
    let summary = Summary::new(data)?;
    Ok(Report { html: page::page(data, &summary, beyond)?, summary })
}
