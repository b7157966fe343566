//! `triad plan`.

use clap::Args;
use serde_json::Value;

use super::output::{self, Table};
use super::{Globals, run::Source};
use crate::Result;
use crate::pipeline::{self, State};

#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    source: Source,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let pipeline = self.source.load()?;
        let store = globals.open_store()?;
        let plans = pipeline::plan(&store, &pipeline).await?;
        let mut table = Table::new(&["stage", "job", "state", "id", "why"]);
        let mut missing = 0;
        for plan in &plans {
            let stage = &pipeline.stages[plan.stage];
            let (state, why) = match &plan.state {
                State::Committed(_) => ("committed", Value::Null),
                State::Missing { why, step } => {
                    missing += 1;
                    let step = step.map(|step| format!("continues from step {step}"));
                    let why: Vec<_> = why.iter().cloned().chain(step).collect();
                    let why = if self.json { why.into() } else { why.join("; ").into() };
                    ("would run", why)
                }
            };
            table.push(vec![
                stage.name.clone().into(),
                stage.job.name().into(),
                state.into(),
                stage.id.short().into(),
                why,
            ]);
        }
        table.print(self.json)?;
        if self.json {
            return Ok(());
        }
        output::line(match missing {
            0 => format!("all {} stages are committed", plans.len()),
            _ => format!("{missing} of {} stages would run", plans.len()),
        })
    }
}
