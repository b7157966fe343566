//! The one driver: look for a commit, run the job, commit.

use std::collections::BTreeMap;
use std::mem::take;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Context, Inputs, Job, Progress, Shard, StopFlag};
use crate::id::ArtifactId;
use crate::server::Endpoint;
use crate::store::{Artifact, Attempt, Commit, Manifest, Producer, Store};
use crate::{Error, Result, entropy};

/// One job to run: a kind, its resolved parameters and its committed inputs.
pub struct Run {
    pub job: &'static dyn Job,
    pub params: Value,
    pub inputs: Inputs,
    pub shard: Shard,
    pub device: String,
    /// For stages that a server samples for.
    pub server: Option<Endpoint>,
    pub stop: StopFlag,
    pub progress: Progress,
}

/// How a run ended well.
#[derive(Debug)]
pub enum Outcome {
    /// This run committed the artifact.
    Committed(Box<Manifest>),
    /// The artifact was there already, or another run committed it first.
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
///
/// A shard that is committed already does not run again; it still commits the manifest when all
/// others are there, in case the process that should have done it died.
///
/// # Errors
/// The job's own, the store's, and [`Error::Usage`] for a shard that the job does not have.
pub async fn run(store: &Store, run: Run) -> Result<Outcome> {
    let Shard { index, of } = run.shard;
    if index >= of || (of > 1 && !run.job.shardable()) {
        return Err(Error::usage(format!(
            "shard {index}/{of}: {}",
            if index >= of {
                "the index must be below the count"
            } else {
                "this job has no shards"
            }
        ))
        .at(format!("job `{}`", run.job.name())));
    }
    let identity = run.identity();
    let id = ArtifactId::of(&identity);
    if let Some(artifact) = Artifact::open(store, &id).await? {
        return Ok(Outcome::Found(Box::new(artifact.manifest)));
    }
    make(store, run, identity, Attempt::new).await
}

/// Runs a whole job whose artifact is damaged, and replaces its commit record.
pub async fn run_again(store: &Store, run: Run) -> Result<Manifest> {
    let identity = run.identity();
    match make(store, run, identity, Attempt::again).await? {
        Outcome::Committed(manifest) | Outcome::Found(manifest) => Ok(*manifest),
        Outcome::ShardCommitted => Err(Error::defect("a whole run committed a shard")),
    }
}

impl Run {
    fn identity(&self) -> Value {
        let inputs = self.inputs.iter().map(|(port, inputs)| {
            let ids = inputs.iter().map(|i| (i.name.clone(), i.artifact.manifest.id.clone()));
            (port.clone(), ids.collect())
        });
        identity(self.job, &self.params, &inputs.collect())
    }
}

async fn make(
    store: &Store,
    run: Run,
    identity: Value,
    attempt: impl Fn(&Store, &ArtifactId) -> Attempt,
) -> Result<Outcome> {
    let id = ArtifactId::of(&identity);
    let kind = run.job.output_for(&run.params);
    let Shard { index, of } = run.shard;
    let started = entropy::now();
    let store = &store.metered();
    let Run { job, params, mut inputs, shard, device, server, stop, progress } = run;
    for input in inputs.values_mut().flatten() {
        input.artifact.store = store.clone();
    }
    let mut context = Context {
        id: id.clone(),
        params,
        inputs,
        shard,
        device,
        server,
        stop,
        progress,
        summary: BTreeMap::new(),
        timings: BTreeMap::new(),
        plan: None,
        datasets: BTreeMap::new(),
        attempt: attempt(store, &id),
        runtime: tokio::runtime::Handle::current(),
    };
    let sharded = shard != Shard::WHOLE;
    if !sharded || !context.attempt.has_shard(index, of).await? {
        context = blocking(job, context, |context| job.run(context)).await?;
        if sharded {
            let Context { attempt, datasets, summary, .. } = &mut context;
            attempt.commit_shard(index, of, take(datasets), take(summary)).await?;
        }
    }
    if sharded {
        let Some((datasets, summary)) = context.attempt.shards(of).await? else {
            return Ok(Outcome::ShardCommitted);
        };
        context.datasets = datasets;
        context.summary = summary;
        context = blocking(job, context, |context| job.complete(context)).await?;
    }
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id,
        identity,
        kind: kind.into(),
        datasets: context.datasets,
        objects: Vec::new(),
        summary: context.summary,
        producer: Producer {
            plan: context.plan,
            ..producer(store, &context.device, started, context.timings)
        },
    };
    Ok(match context.attempt.commit(manifest).await? {
        Commit::Ours(manifest) => Outcome::Committed(Box::new(manifest)),
        Commit::Theirs(manifest) => Outcome::Found(Box::new(manifest)),
    })
}

/// The record of what was made on `device` from `started` until now, with the traffic of `store`.
pub fn producer(
    store: &Store,
    device: &str,
    started: DateTime<Utc>,
    timings: BTreeMap<String, f64>,
) -> Producer {
    Producer {
        triad: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("TRIAD_COMMIT").filter(|c| !c.is_empty()).map(Into::into),
        device: device.into(),
        started,
        // A clock that was set back meanwhile makes no negative time.
        seconds: (entropy::now() - started).as_seconds_f64().max(0.0),
        timings,
        plan: None,
        storage: store.traffic(),
    }
}

/// Runs a part of `job` on a thread of its own.
async fn blocking(
    job: &'static dyn Job,
    mut context: Context,
    part: impl FnOnce(&mut Context) -> Result<()> + Send + 'static,
) -> Result<Context> {
    tokio::task::spawn_blocking(move || part(&mut context).map(|()| context))
        .await
        .map_err(|e| Error::defect(format!("job `{}` died: {e}", job.name())))?
}
