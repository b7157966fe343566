//! What a training run saves so that another process continues it bit for bit.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::model::AdamWState;
use crate::{Error, Result};
use triad::checkpoint::{Weights, decode_safetensors, encode_safetensors};
use triad::dataset::{Metric, decode_parquet, encode_parquet};
use triad::id::ArtifactId;
use triad::job::{Context, METRICS};
use triad::store::Artifact;

/// What is learnt, with its moments, and what a training loop carries besides.
pub struct Saved {
    pub optimizer: AdamWState,
    pub loop_state: LoopState,
}

/// What a training loop carries from step to step besides the optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// The adaptive coefficient of the KL term.
    pub kl_coefficient: f64,
    /// Updates in a row that were rejected.
    pub rejected: usize,
    /// The artifact that replays the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ArtifactId>,
}

#[derive(Serialize, Deserialize)]
struct Progress {
    /// Updates made by the optimizer whose moments are saved.
    updates: u64,
    #[serde(flatten)]
    loop_state: LoopState,
}

/// Beside a committed checkpoint the state lies in this folder.
const FOLDER: &str = "training/";
const MASTERS: &str = "masters.safetensors";
const MOMENTS: &str = "moments.safetensors";
const PROGRESS: &str = "progress.json";

impl Saved {
    fn objects(self) -> Result<Vec<(String, Bytes)>> {
        let Self { optimizer: AdamWState { masters, moments, step }, loop_state } = self;
        let mut progress =
            serde_json::to_vec(&Progress { updates: step, loop_state }).map_err(Error::defect)?;
        progress.push(b'\n');
        let encode = |tensors: Weights| encode_safetensors(&tensors); // one copy at a time
        Ok(vec![
            (MASTERS.into(), encode(masters)?),
            (MOMENTS.into(), encode(moments)?),
            (PROGRESS.into(), progress.into()),
        ])
    }

    fn read(mut object: impl FnMut(&str) -> Result<Bytes>) -> Result<Self> {
        let Progress { updates, loop_state } = serde_json::from_slice(&object(PROGRESS)?)
            .map_err(|e| Error::data(format!("{PROGRESS}: {e}")))?;
        let (masters, moments) = (object(MASTERS)?, object(MOMENTS)?);
        let (masters, moments) = (decode_safetensors(masters)?, decode_safetensors(moments)?);
        Ok(Self { optimizer: AdamWState { masters, moments, step: updates }, loop_state })
    }

    /// Writes the state beside the checkpoint that the job commits.
    pub fn write(self, context: &mut Context) -> Result<()> {
        let mut objects = self.objects()?.into_iter();
        objects.try_for_each(|(name, bytes)| {
            Ok(context.write_object(&format!("{FOLDER}{name}"), bytes)?)
        })
    }

    /// The state beside a committed checkpoint.
    pub fn beside(context: &Context, checkpoint: &Artifact) -> Result<Self> {
        let manifest = &checkpoint.manifest;
        let place = format!("checkpoint {} ({})", manifest.id.short(), manifest.job());
        if manifest.object(&format!("{FOLDER}{PROGRESS}")).is_err() {
            return Err(Error::data(format!(
                "{place}: no optimizer state lies beside it; sft and rl write one with \
                 `optimizer_state: true`"
            )));
        }
        Self::read(|name| Ok(context.wait(checkpoint.read(&format!("{FOLDER}{name}")))?))
            .map_err(|e| e.at(place))
    }

    /// Commits the state after `step` inside a long job.
    pub fn commit(self, context: &mut Context, step: usize, metrics: &[Metric]) -> Result<()> {
        let mut objects = self.objects()?;
        objects.push((METRICS.into(), encode_parquet(metrics)?));
        Ok(context.commit_step(step as u64, objects)?)
    }

    /// The newest state that an earlier attempt committed, its step and the metrics so far.
    pub fn resume(context: &mut Context) -> Result<Option<(usize, Self, Vec<Metric>)>> {
        let Some((step, objects)) = context.resume()? else { return Ok(None) };
        let object = |name: &str| -> Result<Bytes> {
            let found = objects.iter().find(|(path, _)| path == name);
            found
                .map(|(_, bytes)| bytes.clone())
                .ok_or_else(|| Error::data(format!("checkpoint of step {step} has no `{name}`")))
        };
        let saved = Self::read(object).map_err(|e| e.at(format!("checkpoint of step {step}")))?;
        let metrics = decode_parquet(object(METRICS)?)?;
        tracing::info!(stage = context.progress.stage, step, "continuing from a checkpoint");
        Ok(Some((step as usize, saved, metrics)))
    }
}

/// The masters beside a committed checkpoint, or in a rejected update's artifact.
pub fn masters(runtime: &Handle, artifact: &Artifact) -> Result<Weights> {
    Ok(decode_safetensors(runtime.block_on(artifact.read(&format!("{FOLDER}{MASTERS}")))?)?)
}

/// The object that [`masters`] reads.
pub fn masters_object(masters: &Weights) -> Result<(String, Bytes)> {
    Ok((format!("{FOLDER}{MASTERS}"), encode_safetensors(masters)?))
}
