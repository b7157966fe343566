//! `triad tensorboard`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;

use super::{Globals, name, output};
use crate::dataset::{Metric, Row, decode_parquet};
use crate::id::ArtifactId;
use crate::pipeline::{self, Pipeline, State};
use crate::report::{EventFile, rows, stage_of};
use crate::store::{Artifact, Store};
use crate::{Error, Result, entropy, job};

/// How often `--follow` looks.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Tensorboard {
    /// A pipeline's file or name; with the file, stages that are not finished are read, too
    pipeline: String,
    /// Where the event files go: DIR/STAGE/ID for each stage with metrics, all rounds of one in one
    dir: PathBuf,
    /// Add what running stages commit, every 5 seconds, until the whole pipeline is committed
    #[arg(long)]
    follow: bool,
}

/// A training run's event file, and whether its artifact is committed.
struct Run {
    events: EventFile,
    whole: bool,
}

impl Tensorboard {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let pipeline = name::file(&self.pipeline)
            .map(|file| Pipeline::load(file, &[], job::kinds()))
            .transpose()?;
        if self.follow && pipeline.is_none() {
            return Err(Error::usage(format!(
                "--follow needs the file of pipeline `{}`: its name tells only what is committed",
                self.pipeline
            )));
        }
        let mut runs = BTreeMap::new();
        loop {
            let mut stages = match &pipeline {
                Some(pipeline) => planned(&store, pipeline).await?,
                None => named(&store, &self.pipeline).await?,
            };
            let whole = stages.iter().all(|(.., artifact)| artifact.is_some());
            stages.sort_by(|a, b| (run_of(a), &a.0).cmp(&(run_of(b), &b.0)));
            for stages in stages.chunk_by(|a, b| run_of(a) == run_of(b)) {
                self.write(&store, stages, &mut runs).await?;
            }
            if !self.follow || whole {
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
        let (count, dir) = (runs.len(), self.dir.display());
        output::line(match count {
            0 => format!("no stage of `{}` has metrics yet", self.pipeline),
            _ => format!("runs: {count}; tensorboard --logdir {dir} shows them"),
        })
    }

    /// Writes what a run's stages have beyond what is written of them: the one stage, or those of its
    /// rounds, of which each update holds all metrics so far.
    async fn write(
        &self,
        store: &Store,
        stages: &[Stage],
        runs: &mut BTreeMap<String, Run>,
    ) -> Result<()> {
        let name = run_of(&stages[0]);
        if runs.get(name).is_some_and(|run| run.whole) {
            return Ok(());
        }
        let rows_of = |artifact: &&Artifact| artifact.manifest.rows(Metric::NAME);
        let artifact = stages.iter().filter_map(|stage| stage.2.as_ref()).max_by_key(rows_of);
        // Its own stage stands before those of its rounds.
        let (_, id, own) = &stages[0];
        let metrics: Vec<Metric> = match artifact {
            Some(artifact) => rows(artifact, false).await?,
            None => match store.latest_state(id, job::METRICS).await? {
                Some(bytes) => decode_parquet(bytes).map_err(|e| e.at(format!("`{name}`")))?,
                None => Vec::new(),
            },
        };
        if metrics.is_empty() {
            return Ok(());
        }
        // Metrics carry no time of their own, or a repeated run would differ.
        let seconds = match artifact {
            Some(Artifact { manifest, .. }) => {
                manifest.producer.started.timestamp() as f64 + manifest.producer.seconds
            }
            None => entropy::now().timestamp() as f64,
        };
        let run = match runs.entry(name.to_string()) {
            Entry::Occupied(run) => run.into_mut(),
            Entry::Vacant(place) => {
                let folder = self.dir.join(name).join(id.short());
                let events = EventFile::create(&folder, seconds)?;
                place.insert(Run { events, whole: false })
            }
        };
        run.events.append(&metrics, seconds)?;
        run.whole = own.is_some();
        Ok(())
    }
}

/// The training run that a stage belongs to: `specialist` for `specialist.3.update`.
fn run_of(stage: &Stage) -> &str {
    stage_of(&stage.0)
}

/// A stage, its id, and its artifact once it is committed.
type Stage = (String, ArtifactId, Option<Artifact>);

async fn planned(store: &Store, pipeline: &Pipeline) -> Result<Vec<Stage>> {
    let plans = pipeline::plan(store, pipeline).await?.into_iter();
    let stages = plans.map(|plan| {
        let stage = &pipeline.stages[plan.stage];
        let artifact = match plan.state {
            State::Committed(manifest) => {
                Some(Artifact { store: store.clone(), manifest: *manifest })
            }
            State::Missing { .. } => None,
        };
        (stage.name.clone(), stage.id.clone(), artifact)
    });
    Ok(stages.collect())
}

async fn named(store: &Store, pipeline: &str) -> Result<Vec<Stage>> {
    let names = name::of_pipeline(store, Some(pipeline)).await?;
    try_join_all(names.into_iter().map(|(_, stage, id)| async move {
        let artifact = Artifact::open(store, &id).await?;
        Ok((stage, id, artifact))
    }))
    .await
}
