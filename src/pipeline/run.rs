//! Running a pipeline: independent stages side by side, names set after each commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::task::JoinSet;

use super::{Pipeline, Stage};
use crate::job::engine::ENGINE;
use crate::job::{self, Input, Inputs, Outcome, Progress, ProgressSink, Run, Shard, StopFlag};
use crate::server::Endpoint;
use crate::store::{Artifact, Manifest, Store};
use crate::{Error, Result};

/// Hears of every stage's beginning, progress and end.
pub trait Observer: ProgressSink {
    fn started(&self, stage: &str, job: &str);
    fn ended(&self, stage: &str, ending: &Ending);
}

/// What a run is given besides the pipeline.
#[derive(Clone)]
pub struct RunOptions {
    /// Stages at a time.
    pub workers: usize,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// For stages that a server samples for.
    pub server: Option<Endpoint>,
    /// The last stage wanted.
    pub until: Option<String>,
    pub stop: StopFlag,
    pub observer: Arc<dyn Observer>,
}

/// How one stage ended.
#[derive(Debug)]
pub enum Ending {
    /// Committed before this run.
    Found(Box<Manifest>),
    Committed(Box<Manifest>),
    /// This shard is committed, others are missing.
    ShardCommitted,
    Failed(Error),
    /// Something it is made from failed, or the run was stopped.
    NotStarted,
    /// A scheduler goes on with it.
    Left,
}

/// One wanted stage's end.
#[derive(Debug)]
pub struct StageEnd {
    /// Position in [`Pipeline::stages`].
    pub stage: usize,
    pub ending: Ending,
}

/// Between two looks for an input.
const LOOK: Duration = Duration::from_secs(5);

/// Runs what is not committed. All wanted stages are in the answer, in the file's order, those
/// that failed too; [`worst`] of them decides the exit code. After a failure no further stage
/// starts and the running ones finish.
///
/// # Errors
/// [`Error::Usage`] for an unknown `until`; a store that cannot be read.
pub async fn run(
    store: &Store,
    pipeline: &Pipeline,
    options: &RunOptions,
) -> Result<Vec<StageEnd>> {
    let wanted = pipeline.select(options.until.as_deref())?;
    let endings = committed(store, pipeline, &wanted).await?;
    if endings.iter().zip(&wanted).all(|(ending, &wanted)| ending.is_some() || !wanted) {
        return Ok(ends(endings, &wanted));
    }
    for ((stage, ending), wanted) in pipeline.stages.iter().zip(&endings).zip(&wanted) {
        if *wanted && ending.is_none() {
            needs(stage)?;
        }
    }
    let wanted_ids = pipeline.stages.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
    let hold = store.hold(wanted_ids.map(|(stage, _)| stage.id.clone()).collect()).await?;
    // What was found before it was held may be gone.
    let ended = match committed(store, pipeline, &wanted).await {
        Ok(endings) => run_rest(store, pipeline, options, &wanted, endings).await,
        Err(e) => Err(e),
    };
    hold.release().await;
    ended
}

/// The wanted stages that are committed, all looked up and named side by side.
pub(super) async fn committed(
    store: &Store,
    pipeline: &Pipeline,
    wanted: &[bool],
) -> Result<Vec<Option<Ending>>> {
    try_join_all(pipeline.stages.iter().zip(wanted).map(|(stage, &wanted)| async move {
        if !wanted {
            return Ok(None);
        }
        let (mut found, named) = tokio::try_join!(
            Artifact::open(store, &stage.id),
            store.get_ref(&pipeline.name, &stage.name)
        )?;
        if found.is_some() && named.as_ref() != Some(&stage.id) {
            store.set_ref(&pipeline.name, &stage.name, &stage.id).await?;
            // What was found before it had a name may be gone.
            found = Artifact::open(store, &stage.id).await?;
        }
        Ok(found.map(|artifact| Ending::Found(Box::new(artifact.manifest))))
    }))
    .await
}

/// Gets the engine of a stage that is to run before anything is begun.
fn needs(stage: &Stage) -> Result<()> {
    let computes = stage.job.computes(&stage.params);
    let engine = computes.then(|| ENGINE.get()).transpose();
    engine.map_err(|e| e.at(format!("stage `{}`", stage.name))).map(drop)
}

pub(super) fn ends(endings: Vec<Option<Ending>>, wanted: &[bool]) -> Vec<StageEnd> {
    endings
        .into_iter()
        .enumerate()
        .filter(|&(stage, _)| wanted[stage])
        .map(|(stage, ending)| StageEnd { stage, ending: ending.unwrap_or(Ending::NotStarted) })
        .collect()
}

async fn run_rest(
    store: &Store,
    pipeline: &Pipeline,
    options: &RunOptions,
    wanted: &[bool],
    mut endings: Vec<Option<Ending>>,
) -> Result<Vec<StageEnd>> {
    let mut running: JoinSet<(usize, Result<Ending>)> = JoinSet::new();
    // Shards started of each stage.
    let mut started = vec![0; endings.len()];
    let mut failed = false;
    loop {
        while !failed && !options.stop.requested() && running.len() < options.workers.max(1) {
            let ready = (0..endings.len()).find(|&i| {
                wanted[i]
                    && started[i] < pipeline.stages[i].shards
                    && endings[i].is_none()
                    && pipeline.stages[i].upstream().all(|from| manifest(&endings[from]).is_some())
            });
            let Some(i) = ready else { break };
            let stage = &pipeline.stages[i];
            let shard = Shard { index: started[i], of: stage.shards };
            started[i] += 1;
            let run = prepare(store, stage, shard, options, |from| manifest(&endings[from]));
            if shard.index == 0 {
                options.observer.started(&stage.name, stage.job.name());
            }
            let (store, pipeline) = (store.clone(), pipeline.name.clone());
            let name = stage.name.clone();
            running.spawn(async move { (i, finish(&store, &pipeline, &name, run).await) });
        }
        let Some(joined) = running.join_next().await else { break };
        let (i, ended) = joined.map_err(|e| Error::defect(format!("a stage's task died: {e}")))?;
        let name = &pipeline.stages[i].name;
        let ending = ended.unwrap_or_else(|e| Ending::Failed(e.at(format!("stage `{name}`"))));
        failed |= matches!(ending, Ending::Failed(_));
        // The last of a stage's shards commits it, and the first failure is its end.
        if endings[i].is_none() && !matches!(ending, Ending::ShardCommitted) {
            options.observer.ended(name, &ending);
            endings[i] = Some(ending);
        }
    }
    Ok(ends(endings, wanted))
}

/// Returns when all inputs of a stage are committed, the stage itself is, or a stop is requested.
///
/// # Errors
/// [`Error::TryAgain`] after `wait`.
pub async fn await_inputs(
    store: &Store,
    pipeline: &Pipeline,
    position: usize,
    wait: Duration,
    stop: &StopFlag,
) -> Result<()> {
    let stage = &pipeline.stages[position];
    let there = async |at: usize| {
        Ok::<_, Error>(Artifact::open(store, &pipeline.stages[at].id).await?.is_some())
    };
    let missing = async || {
        if there(position).await? {
            return Ok::<_, Error>(None);
        }
        for from in stage.upstream() {
            if !there(from).await? {
                return Ok(Some(from));
            }
        }
        Ok(None)
    };
    let mut left = wait;
    while let Some(from) = missing().await? {
        let name = &pipeline.stages[from].name;
        if stop.requested() || left.is_zero() {
            return Err(Error::try_again(format!(
                "stage `{}`: its input `{name}` is not committed; run the same command again",
                stage.name
            )));
        }
        let pause = left.min(LOOK);
        tracing::info!(stage = stage.name, input = name, "waiting");
        tokio::time::sleep(pause).await;
        left -= pause;
    }
    Ok(())
}

/// Runs one stage, or one shard of it, whose inputs are all committed.
///
/// # Errors
/// [`Error::Usage`] when an input is not committed or the job takes no shards.
pub async fn run_stage(
    store: &Store,
    pipeline: &Pipeline,
    position: usize,
    shard: Shard,
    options: &RunOptions,
) -> Result<Ending> {
    let stage = &pipeline.stages[position];
    let place = || format!("stage `{}`", stage.name);
    if shard != Shard::WHOLE && !stage.job.shardable() {
        return Err(Error::usage(format!(
            "{}: job `{}` takes no shards; leave `--shard` out",
            place(),
            stage.job.name()
        )));
    }
    needs(stage)?;
    let used = stage.upstream().chain([position]);
    let hold = store.hold(used.map(|at| pipeline.stages[at].id.clone()).collect()).await?;
    let ending = run_held(store, pipeline, stage, shard, options).await.map_err(|e| e.at(place()));
    hold.release().await;
    let ending = ending?;
    options.observer.ended(&stage.name, &ending);
    Ok(ending)
}

async fn run_held(
    store: &Store,
    pipeline: &Pipeline,
    stage: &Stage,
    shard: Shard,
    options: &RunOptions,
) -> Result<Ending> {
    let mut inputs = BTreeMap::new();
    for from in stage.upstream() {
        let upstream = &pipeline.stages[from];
        let artifact = Artifact::open(store, &upstream.id).await?.ok_or_else(|| {
            Error::usage(format!(
                "its input `{}` ({}) is not committed; run `triad job {} {}` first",
                upstream.name,
                upstream.id.short(),
                pipeline.file,
                upstream.name
            ))
        })?;
        inputs.insert(from, artifact.manifest);
    }
    let run = prepare(store, stage, shard, options, |from| inputs.get(&from));
    options.observer.started(&stage.name, stage.job.name());
    finish(store, &pipeline.name, &stage.name, run).await
}

fn prepare<'a>(
    store: &Store,
    stage: &Stage,
    shard: Shard,
    options: &RunOptions,
    manifest: impl Fn(usize) -> Option<&'a Manifest>,
) -> Run {
    let mut inputs = Inputs::new();
    for (port, named) in &stage.inputs {
        let list = inputs.entry(port.clone()).or_default();
        for (name, &from) in named {
            if let Some(manifest) = manifest(from) {
                let artifact = Artifact { store: store.clone(), manifest: manifest.clone() };
                list.push(Input { name: name.clone(), artifact });
            }
        }
    }
    let sink: Arc<dyn ProgressSink> = options.observer.clone();
    Run {
        job: stage.job,
        params: stage.params.clone(),
        inputs,
        shard,
        device: if stage.resources.gpus == Some(0) { "cpu".into() } else { options.device.clone() },
        server: options.server.clone(),
        stop: options.stop.clone(),
        progress: Progress { stage: stage.name.clone(), sink },
    }
}

async fn finish(store: &Store, pipeline: &str, stage: &str, run: Run) -> Result<Ending> {
    Ok(match job::run(store, run).await? {
        Outcome::Committed(manifest) => {
            store.set_ref(pipeline, stage, &manifest.id).await?;
            Ending::Committed(manifest)
        }
        Outcome::Found(manifest) => {
            store.set_ref(pipeline, stage, &manifest.id).await?;
            Ending::Found(manifest)
        }
        Outcome::ShardCommitted => Ending::ShardCommitted,
    })
}

fn manifest(ending: &Option<Ending>) -> Option<&Manifest> {
    ending.as_ref().and_then(Ending::manifest)
}

impl Ending {
    /// The committed artifact's manifest.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Found(manifest) | Self::Committed(manifest) => Some(manifest),
            _ => None,
        }
    }
}

/// The failure that decides the exit code: a defect before bad data before a wrong request before
/// one that may pass next time, since a retry helps only when it would help every failed stage.
pub fn worst(ends: &[StageEnd]) -> Option<Error> {
    let rank = |error: &Error| match error {
        Error::Defect(_) => 3,
        Error::Data(_) => 2,
        Error::Usage(_) => 1,
        Error::TryAgain(_) => 0,
    };
    let errors = ends.iter().filter_map(|end| match &end.ending {
        Ending::Failed(error) => Some(error),
        _ => None,
    });
    // `rev`: of equal ones the first in the file.
    errors.rev().max_by_key(|error| rank(error)).cloned()
}
