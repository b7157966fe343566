//! `triad status`.

use std::path::Path;

use clap::Args;
use futures::future::try_join_all;
use serde_json::Value;

use super::output::{self, Table};
use super::watch::watch;
use super::{Globals, name};
use crate::pipeline::{self, Pipeline, State};
use crate::store::{Artifact, Manifest, Store};
use crate::{Error, Result, job};

#[derive(Args)]
pub(super) struct Status {
    /// A pipeline's file or name; without it every named artifact is shown
    pipeline: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show how the run goes on until all is committed: shards, rates, time left, last rewards
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

const COLUMNS: &[&str] =
    &["pipeline", "stage", "state", "id", "rows", "seconds", "device", "started", "summary"];

impl Status {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        if self.watch {
            let file = self.pipeline.as_deref().and_then(name::file).ok_or_else(|| {
                Error::usage(
                    "--watch needs the pipeline's file: its name tells only what is committed",
                )
            })?;
            return watch(&store, &Pipeline::load(file, &[], job::kinds())?).await;
        }
        let table = match self.pipeline.as_deref().and_then(name::file) {
            Some(file) => of_file(&store, file).await?,
            None => of_names(&store, self.pipeline.as_deref()).await?,
        };
        table.print(self.json)
    }
}

fn push(
    table: &mut Table,
    pipeline: &str,
    stage: &str,
    state: &str,
    id: &str,
    made: Option<&Manifest>,
) {
    let mut row: Vec<Value> = vec![pipeline.into(), stage.into(), state.into(), id.into()];
    match made {
        Some(manifest) => row.extend([
            output::rows(manifest),
            output::seconds(manifest),
            manifest.producer.device.clone().into(),
            output::started(manifest),
            output::summary(manifest).into(),
        ]),
        None => row.extend([const { Value::Null }; 5]),
    }
    table.push(row);
}

/// The stages of a pipeline file, in its order.
async fn of_file(store: &Store, file: &Path) -> Result<Table> {
    let pipeline = Pipeline::load(file, &[], job::kinds())?;
    let mut table = Table::new(COLUMNS);
    for plan in pipeline::plan(store, &pipeline).await? {
        let stage = &pipeline.stages[plan.stage];
        let (state, manifest) = match &plan.state {
            State::Committed(manifest) => ("committed".to_string(), Some(&**manifest)),
            State::Missing { step: Some(step), .. } => (format!("at step {step}"), None),
            State::Missing { .. } => ("missing".to_string(), None),
        };
        push(&mut table, &pipeline.name, &stage.name, &state, stage.id.short(), manifest);
    }
    Ok(table)
}

/// Everything with a name, in the order in which it was made.
async fn of_names(store: &Store, pipeline: Option<&str>) -> Result<Table> {
    let names = name::of_pipeline(store, pipeline).await?;
    let mut found = try_join_all(names.into_iter().map(|(pipeline, stage, id)| async move {
        let artifact = Artifact::open(store, &id).await?;
        Ok::<_, Error>((pipeline, stage, id, artifact.map(|artifact| artifact.manifest)))
    }))
    .await?;
    found.sort_by(|a, b| {
        let key = |(pipeline, _, _, manifest): &(String, _, _, Option<Manifest>)| {
            (pipeline.clone(), manifest.as_ref().map(|manifest| manifest.producer.started))
        };
        key(a).cmp(&key(b))
    });
    let mut table = Table::new(COLUMNS);
    for (pipeline, stage, id, manifest) in &found {
        let state = if manifest.is_some() { "committed" } else { "gone" };
        push(&mut table, pipeline, stage, state, id.short(), manifest.as_ref());
    }
    Ok(table)
}
