//! What a training run saves so that another process continues it bit for bit.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{decode_safetensors, encode_safetensors};
use crate::dataset::{Metric, decode_parquet, encode_parquet};
use crate::job::{Context, METRICS};
use crate::model::{AdamW, AdamWState};
use crate::{Error, Result};

/// A committed checkpoint inside a run: what is learnt and its moments, metrics so far.
pub struct Saved {
    pub step: usize,
    pub optimizer: AdamWState,
    pub metrics: Vec<Metric>,
    pub loop_state: LoopState,
}

/// What a training loop carries from step to step besides the optimizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// The adaptive coefficient of the KL term.
    pub kl_coefficient: f64,
    /// Updates in a row that were rejected.
    pub rejected: usize,
}

#[derive(Serialize, Deserialize)]
struct Progress {
    /// Updates made by the optimizer whose moments are saved.
    updates: u64,
    #[serde(flatten)]
    loop_state: LoopState,
}

const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";

/// Commits the state after `step`.
pub fn save(
    context: &mut Context,
    step: usize,
    optimizer: &AdamW,
    metrics: &[Metric],
    loop_state: LoopState,
) -> Result<()> {
    let AdamWState { tensors, step: updates } = optimizer.state()?;
    let progress = Progress { updates, loop_state };
    context.commit_step(
        step as u64,
        vec![
            (OPTIMIZER.into(), encode_safetensors(&tensors)?),
            (PROGRESS.into(), serde_json::to_vec(&progress).map_err(Error::defect)?.into()),
            (METRICS.into(), encode_parquet(metrics)?),
        ],
    )
}

/// The end of a run whose updates are rejected again and again.
pub fn diverged(step: usize, rejected: usize, learning_rate: f64) -> Error {
    Error::data(format!(
        "step {step}: {rejected} updates in a row had a loss or gradient that is not finite; lower \
         learning_rate {learning_rate}"
    ))
}

/// The newest committed state, if an earlier attempt left one.
pub fn resume(context: &mut Context) -> Result<Option<Saved>> {
    let Some((step, objects)) = context.resume()? else { return Ok(None) };
    let object = |name: &str| -> Result<Bytes> {
        objects
            .iter()
            .find(|(path, _)| path == name)
            .map(|(_, bytes)| bytes.clone())
            .ok_or_else(|| Error::data(format!("checkpoint of step {step} has no `{name}`")))
    };
    let Progress { updates, loop_state } = serde_json::from_slice(&object(PROGRESS)?)
        .map_err(|e| Error::data(format!("checkpoint of step {step}: {PROGRESS}: {e}")))?;
    tracing::info!(stage = context.progress.stage, step, "continuing from a checkpoint");
    Ok(Some(Saved {
        step: step as usize,
        optimizer: AdamWState { tensors: decode_safetensors(object(OPTIMIZER)?)?, step: updates },
        metrics: decode_parquet(object(METRICS)?)?,
        loop_state,
    }))
}
