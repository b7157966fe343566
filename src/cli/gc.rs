//! `triad gc`.

use chrono::TimeDelta;
use clap::Args;
use serde_json::Value;
use triad_launch::duration;

use super::Globals;
use super::output::{self, Table};
use crate::Result;
use crate::store::{Garbage, Reason, collect};

#[derive(Args)]
pub(super) struct Gc {
    /// Delete it; without this nothing is changed
    #[arg(long)]
    apply: bool,
    /// Keep what is younger, such as 30m, 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = time)]
    grace: TimeDelta,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<TimeDelta, String> {
    TimeDelta::from_std(duration(text)?).map_err(|e| e.to_string())
}

impl Gc {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let collected = collect(&store, self.grace, self.apply).await?;
        if self.json {
            return output::json(&collected);
        }
        let garbage = &collected.garbage;
        let mut table = Table::new(&["artifact", "job", "why", "objects", "bytes", "written"]);
        for one in garbage {
            table.push(vec![
                one.artifact.as_ref().map(|id| id.short().to_string()).into(),
                one.job.clone().into(),
                why(one.reason).into(),
                one.objects.into(),
                one.bytes.into(),
                one.modified.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            ]);
        }
        if !garbage.is_empty() {
            table.print(false)?;
        }
        let (objects, bytes) =
            garbage.iter().fold((0, 0), |(n, b), one: &Garbage| (n + one.objects, b + one.bytes));
        for id in &collected.rescued {
            output::line(format!("{id} is needed by a run that began meanwhile: kept"))?;
        }
        let bytes = output::text(&Value::from(bytes));
        output::line(match (objects, self.apply) {
            (0, _) => "Nothing to collect".to_string(),
            (_, true) => format!("{objects} objects deleted, {bytes} bytes"),
            (_, false) => {
                format!("{objects} objects, {bytes} bytes; `triad gc --apply` deletes them")
            }
        })
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Unreachable => "no name, pin or run reaches it",
        Reason::Abandoned => "begun, not committed, left",
        Reason::Leftover => "checkpoints and lost attempts of a committed artifact",
        Reason::DeadRun => "record of a run that died",
        Reason::OldPipeline => "pipelines for jobs submitted two months ago or earlier",
    }
}
