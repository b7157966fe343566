//! Updates that were not made: committed as artifacts of their own, and computed again from there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;

use super::learner::Setup;
use super::update::{Loss, Targets};
use super::{sft, state};
use crate::model::{self, AdamW, Gradients, MicroBatch};
use crate::{Error, Result};
use triad::checkpoint::Weights;
use triad::dataset::{Rejected, Row, decode_parquet, encode_parquet};
use triad::id::ArtifactId;
use triad::job::context::part_path;
use triad::job::{Context, driver, models};
use triad::store::{Artifact, Attempt, Manifest, SchemaRef};
use triad::{entropy, job};

/// An update that is not made because its loss or gradient is not finite.
pub struct Rejection {
    /// Number of the update among those of its step, from 0.
    pub update: usize,
    /// The micro-batch whose loss is not finite, or all of the update where only the gradient's norm
    /// is not.
    pub rows: Vec<Rejected>,
    /// Of these rows alone, at the weights as they are.
    pub loss: f64,
    pub norm: f64,
}

/// The parameters of the training that rejected it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Training {
    Sft(job::sft::Spec),
    Rl(Box<job::rl::Spec>),
}

/// The parameters in a rejected update's identity.
#[derive(Serialize, Deserialize)]
struct Params {
    /// Artifact id of the run.
    run: ArtifactId,
    step: usize,
    update: usize,
    kl_coefficient: f64,
    training: Training,
}

impl Rejection {
    /// Commits the rows as an artifact, with the weights at which to compute them again: `masters`,
    /// over those of `base`.
    pub fn commit(
        self,
        context: &Context,
        step: usize,
        training: Training,
        kl_coefficient: f64,
        base: &Artifact,
        masters: &Weights,
    ) -> Result<ArtifactId> {
        let Self { update, rows, loss, norm } = self;
        let params = Params { run: context.id.clone(), step, update, kl_coefficient, training };
        let identity = json!({
            "job": Rejected::NAME,
            "version": 1,
            "params": serde_json::to_value(params).map_err(Error::defect)?,
            "inputs": {"base": {"base": base.manifest.id}},
        });
        let id = ArtifactId::of(&identity);
        let schema = SchemaRef { schema: Rejected::NAME.into(), version: Rejected::VERSION };
        // JSON has no number for these.
        let numbers = [("loss", loss), ("norm", norm)];
        let manifest = Manifest {
            format: Manifest::FORMAT,
            id: id.clone(),
            identity,
            kind: Rejected::NAME.into(),
            datasets: BTreeMap::from([(Rejected::NAME.into(), schema)]),
            objects: Vec::new(),
            summary: numbers
                .map(|(name, number)| (name.into(), format!("{number:?}").into()))
                .into(),
            producer: driver::producer(
                &base.store,
                &context.device,
                entropy::now(),
                BTreeMap::new(),
            ),
        };
        let (path, masters) = state::masters_object(masters)?;
        let count = Some(rows.len() as u64);
        let rows = encode_parquet(&rows)?;
        context.wait(async {
            let mut attempt = Attempt::new(&base.store, &id);
            attempt.write(&part_path::<Rejected>(0), rows, count).await?;
            attempt.write(&path, masters, None).await?;
            attempt.commit(manifest).await
        })?;
        Ok(id)
    }
}

/// Loss and gradient norm of some micro-batches alone. `pass` adds up the gradient of one and gives
/// its loss.
pub fn measure(
    optimizer: &AdamW,
    batches: Vec<MicroBatch>,
    mut pass: impl FnMut(&MicroBatch, &Gradients) -> Result<f64>,
) -> Result<(f64, f64)> {
    optimizer.gradients().zero()?;
    let mut loss = 0.0;
    for micro in &batches {
        loss += pass(micro, optimizer.gradients())?;
    }
    let norm = optimizer.norm()?;
    optimizer.gradients().zero()?;
    Ok((loss, norm))
}

/// Computes a rejected update again: its loss and gradient norm.
pub fn replay(runtime: &Handle, artifact: &Artifact, device: &str) -> Result<(f64, f64)> {
    let identity = &artifact.manifest.identity;
    let params: Params = serde_json::from_value(identity["params"].clone()).map_err(Error::data)?;
    let base = &identity["inputs"]["base"]["base"];
    let base: ArtifactId = serde_json::from_value(base.clone()).map_err(Error::data)?;
    let base = runtime.block_on(Artifact::open(&artifact.store, &base))?.ok_or_else(|| {
        Error::data(format!("checkpoint {}, which it began with, is gone", base.short()))
    })?;
    let setup = match &params.training {
        Training::Sft(spec) => Setup::from(spec),
        Training::Rl(spec) => Setup::from(&**spec),
    };
    let checkpoint = models::read(runtime, &base)?;
    let device = model::device(device)?;
    let policy = setup.policy(&checkpoint.config, &checkpoint.weights, device)?;
    let mut optimizer = setup.optimizer(&policy)?;
    optimizer.restore_masters(&state::masters(runtime, artifact)?)?;
    let mut rows: Vec<Rejected> = Vec::new();
    for object in artifact.manifest.parts(Rejected::NAME) {
        rows.extend(decode_parquet::<Rejected>(runtime.block_on(artifact.read(&object.path))?)?);
    }
    let targets = Targets::from_rows(rows);
    let all: Vec<usize> = (0..targets.sequences.len()).collect();
    let (policy, kl_coefficient) = (&policy, params.kl_coefficient);
    match &params.training {
        Training::Sft(spec) => {
            sft::Loss { spec, policy, device }.measure(&optimizer, &targets, &all)
        }
        Training::Rl(spec) => {
            Loss { spec, kl_coefficient, policy, device }.measure(&optimizer, &targets, &all)
        }
    }
}
