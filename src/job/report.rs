//! `report`: scores and training runs as a page and a summary.

use serde_json::Value;

use super::{Arity, Context, Input, Job, Port, resolve_as};
use crate::report::{Beyond, Data, Spec, render};
use crate::store::Artifact;
use crate::{Error, Result};

pub struct Report;

impl Job for Report {
    fn name(&self) -> &'static str {
        "report"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "scores", accepts: &["scores"], arity: Arity::Many },
            Port { name: "runs", accepts: &["checkpoint", "deltas"], arity: Arity::Any },
        ]
    }
    fn output(&self) -> &'static str {
        "report"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let named = |inputs: &[Input]| -> Vec<(String, Artifact)> {
            inputs.iter().map(|input| (input.name.clone(), input.artifact.clone())).collect()
        };
        let (scores, runs) = (named(context.inputs("scores")), named(context.inputs("runs")));
        let data = context.wait(Data::read(context.spec()?, &scores, &runs))?;
        let report = render(&data, &Beyond::default())?;
        let summary = &report.summary;
        let headline = summary.modes.first().map_or("", |mode| mode.name.as_str());
        // The first mean, or the one set.
        let column = summary.columns.iter().position(|column| column.mean).unwrap_or(0);
        for row in summary.accuracy.iter().filter(|row| row.mode == headline) {
            if let Some(Some(estimate)) = row.values.get(column) {
                context.summarize(&row.model, (estimate.mean * 1e4).round() / 1e4);
            }
        }
        let mut json = serde_json::to_vec_pretty(&report.summary).map_err(Error::defect)?;
        json.push(b'\n');
        context.write_object("report.html", report.html.into_bytes().into())?;
        context.write_object("summary.json", json.into())
    }
}

#[cfg(test)]
mod tests;
