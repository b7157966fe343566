//! `triad ls`.

use clap::Args;
use futures::{StreamExt, TryStreamExt};

use super::output::{self, Table};
use super::{Globals, name};
use crate::store::Artifact;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Manifests read at a time.
const AT_ONCE: usize = 32;

impl Ls {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let names = name::all(&store).await?;
        let ids = store.artifacts().await?;
        let mut manifests: Vec<_> = futures::stream::iter(ids.iter().map(|id| {
            let store = &store;
            async move {
                let artifact = Artifact::open(store, id).await?;
                Ok::<_, Error>(artifact.map(|artifact| artifact.manifest))
            }
        }))
        .buffered(AT_ONCE)
        .try_filter_map(async |manifest| Ok(manifest))
        .try_collect()
        .await?;
        manifests.sort_by_key(|manifest| manifest.producer.started);
        let mut table = Table::new(&["id", "kind", "job", "rows", "bytes", "started", "names"]);
        for manifest in &manifests {
            let id = if self.json { manifest.id.as_str() } else { manifest.id.short() };
            table.push(vec![
                id.into(),
                manifest.kind.clone().into(),
                manifest.job().into(),
                output::rows(manifest),
                manifest.bytes().into(),
                output::started(manifest),
                names.get(&manifest.id).map(|names| names.join(" ")).into(),
            ]);
        }
        table.print(self.json)
    }
}
