//! `triad cancel`.

use clap::Args;

use super::Globals;
use super::output::{self, Table};
use super::place::Place;
use super::run::Source;
use crate::Result;
use crate::pipeline::Launch;

#[derive(Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    place: Place,
}

impl Cancel {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let pipeline = self.source.load()?;
        let store = globals.open_store()?;
        self.place.on.check(&store)?;
        let scheduler = self.place.connect().await?;
        let order = Launch::plan(&store, &pipeline, None).await?.order;
        let found = scheduler.find(&order).await?;
        let mut table = Table::new(&["stage", "job", "state"]);
        let mut jobs = Vec::new();
        for (task, job) in order.tasks.iter().zip(found) {
            let Some(job) = job else { continue };
            let row = [task.stage.as_str(), job.name.as_str(), "cancelled"];
            table.push(row.into_iter().map(Into::into).collect());
            jobs.push(job);
        }
        if jobs.is_empty() {
            let (name, on) = (&pipeline.name, self.place.on.name());
            return output::line(format!("Nothing to cancel: no job of `{name}` on {on}"));
        }
        // Those first that wait for others.
        jobs.reverse();
        scheduler.cancel(&jobs).await?;
        table.print(false)
    }
}
