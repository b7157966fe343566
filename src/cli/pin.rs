//! `triad pin`.

use clap::Args;

use super::output::{self, Table};
use super::{Globals, name};
use crate::Result;
use crate::store::Artifact;

#[derive(Args)]
pub(super) struct Pin {
    /// `pipeline/stage`, a stage, or 6 or more digits of an id; none lists what is pinned
    artifacts: Vec<String>,
    /// Unpin them
    #[arg(long, requires = "artifacts")]
    remove: bool,
    /// Print the list as JSON
    #[arg(long, conflicts_with = "artifacts")]
    json: bool,
}

impl Pin {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        for name in &self.artifacts {
            let id = store.lookup(name).await?;
            let what = if self.remove {
                if store.unpin(&id).await? { "unpinned" } else { "was not pinned" }
            } else {
                store.find(id.as_str()).await?;
                store.pin(&id).await?;
                "pinned, with all that it was made from"
            };
            output::line(format!("{id} {what}"))?;
        }
        if !self.artifacts.is_empty() {
            return Ok(());
        }
        let names = name::all(&store).await?;
        let mut table = Table::new(&["id", "job", "names"]);
        for id in store.pins().await? {
            let artifact = Artifact::open(&store, &id).await?;
            table.push(vec![
                id.as_str().into(),
                artifact.map(|artifact| artifact.manifest.job().to_string()).into(),
                names.get(&id).map(|names| names.join(" ")).into(),
            ]);
        }
        table.print(self.json)
    }
}
