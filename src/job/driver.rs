//! The one driver: look for a commit, run the job, commit.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Context, Inputs, Job, Progress, Shard, StopFlag};
use crate::id::ArtifactId;
use crate::store::{Artifact, Attempt, Manifest, Producer, Store};
use crate::{Error, Result, entropy};

/// One job to run: a kind, its resolved parameters and its committed inputs.
pub struct Run {
    pub job: &'static dyn Job,
    pub params: Value,
    pub inputs: Inputs,
    pub shard: Shard,
    pub device: String,
    pub stop: StopFlag,
    pub progress: Progress,
}

/// How a run ended well.
#[derive(Debug)]
pub enum Outcome {
    /// This run committed the artifact.
    Committed(Box<Manifest>),
    /// The artifact was there already.
    Found(Box<Manifest>),
    /// This shard is committed, others are missing.
    ShardCommitted,
}

/// What an artifact's id is the hash of.
pub fn identity(
    job: &dyn Job,
    params: &Value,
    inputs: &BTreeMap<String, BTreeMap<String, ArtifactId>>,
) -> Value {
    json!({"job": job.name(), "version": job.version(), "params": params, "inputs": inputs})
}

/// Runs one job to its commit, on a thread of its own.
pub async fn run(store: &Store, run: Run) -> Result<Outcome> {
    let input_ids = run
        .inputs
        .iter()
        .map(|(port, inputs)| {
            let ids = inputs.iter().map(|i| (i.name.clone(), i.artifact.manifest.id.clone()));
            (port.clone(), ids.collect())
        })
        .collect();
    let identity = identity(run.job, &run.params, &input_ids);
    let kind = run.job.output_for(&run.params);
    let id = ArtifactId::of(&identity);
    if let Some(artifact) = Artifact::open(store, &id).await? {
        return Ok(Outcome::Found(Box::new(artifact.manifest)));
    }
    let started = entropy::now();
    let Run { job, params, inputs, shard, device, stop, progress } = run;
    let mut context = Context {
        id: id.clone(),
        params,
        inputs,
        shard,
        device,
        stop,
        progress,
        summary: BTreeMap::new(),
        timings: BTreeMap::new(),
        datasets: BTreeMap::new(),
        attempt: Attempt::new(store, &id),
        runtime: tokio::runtime::Handle::current(),
    };
    let mut context = tokio::task::spawn_blocking(move || job.run(&mut context).map(|()| context))
        .await
        .map_err(|e| Error::defect(format!("job `{}` died: {e}", job.name())))??;
    if shard != Shard::WHOLE && !context.attempt.commit_shard(shard.index, shard.of).await? {
        return Ok(Outcome::ShardCommitted);
    }
    let seconds = (entropy::now() - started).as_seconds_f64();
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id,
        identity,
        kind: kind.into(),
        datasets: context.datasets,
        objects: Vec::new(),
        summary: context.summary,
        producer: Producer {
            triad: env!("CARGO_PKG_VERSION").into(),
            device: context.device,
            started,
            seconds,
            timings: context.timings,
        },
    };
    Ok(Outcome::Committed(Box::new(context.attempt.commit(manifest).await?)))
}
