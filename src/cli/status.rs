//! `triad status`.

use std::path::Path;

use clap::Args;
use futures::future::try_join_all;
use serde_json::Value;

use super::Globals;
use super::output::{self, Table};
use crate::pipeline::{self, Pipeline, State, hint};
use crate::store::{Artifact, Manifest, Store};
use crate::{Error, Result, job};

#[derive(Args)]
pub(super) struct Status {
    /// A pipeline's file or name; without it every named artifact is shown
    pipeline: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const COLUMNS: &[&str] =
    &["pipeline", "stage", "state", "id", "rows", "seconds", "device", "started", "summary"];

impl Status {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let file = self.pipeline.as_deref().filter(|name| {
            name.ends_with(".yaml") || name.ends_with(".yml") || Path::new(name).is_file()
        });
        let table = match file {
            Some(file) => of_file(&store, Path::new(file)).await?,
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
    let names = store.names().await?;
    if let Some(wanted) = pipeline.filter(|wanted| names.iter().all(|(name, _)| name != wanted)) {
        let mut known: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
        known.dedup();
        return Err(Error::usage(format!(
            "no run of a pipeline `{wanted}`{}",
            hint(wanted, known)
        )));
    }
    let wanted = names.iter().filter(|(name, _)| pipeline.is_none_or(|pipeline| pipeline == name));
    let mut found = try_join_all(wanted.map(|(pipeline, stage)| async move {
        let Some(id) = store.get_ref(pipeline, stage).await? else { return Ok(None) };
        let artifact = Artifact::open(store, &id).await?;
        Ok::<_, Error>(Some((pipeline, stage, id, artifact.map(|artifact| artifact.manifest))))
    }))
    .await?;
    found.sort_by_key(|entry| {
        entry.as_ref().map(|(pipeline, _, _, manifest)| {
            (*pipeline, manifest.as_ref().map(|manifest| manifest.producer.started))
        })
    });
    let mut table = Table::new(COLUMNS);
    for (pipeline, stage, id, manifest) in found.iter().flatten() {
        let state = if manifest.is_some() { "committed" } else { "gone" };
        push(&mut table, pipeline, stage, state, id.short(), manifest.as_ref());
    }
    Ok(table)
}
