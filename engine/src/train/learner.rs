//! A model in training: policy, optimizer and the state of the loop around them.

use tch::Device;

use super::rejected::{Rejection, Training};
use super::state::{LoopState, Saved};
use crate::model::{self, AdamW, AdamWSettings, Transformer};
use crate::{Error, Result};
use triad::checkpoint::{Checkpoint, Dtype, ModelConfig, Weights};
use triad::dataset::Metric;
use triad::id::ArtifactId;
use triad::job::Context;
use triad::job::rl::{Lora, Precision};
use triad::store::Artifact;

/// What the parameters of `sft` and `rl` say of a model in training.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub precision: Precision,
    pub lora: Option<Lora>,
    pub weight_decay: f64,
    pub learning_rate: f64,
    pub max_rejected: usize,
}

pub struct Learner {
    setup: Setup,
    /// The checkpoint that it began with: adapters leave its weights as they are.
    base: Artifact,
    pub policy: Transformer,
    pub optimizer: AdamW,
    pub state: LoopState,
    pub metrics: Vec<Metric>,
    pub device: Device,
}

/// A policy to train with `weights`, fresh adapters beside them if it is to have some.
pub fn policy_of(
    config: &ModelConfig,
    weights: &Weights,
    device: Device,
    precision: Precision,
    lora: Option<&Lora>,
    seed: u64,
) -> Result<Transformer> {
    let mut policy = Transformer::load(config, weights, device, precision.into(), true)?;
    if let Some(Lora { rank, alpha }) = lora {
        policy.adapt(*rank, alpha.unwrap_or(2.0 * *rank as f64), seed)?;
    }
    Ok(policy)
}

impl Setup {
    /// See [`policy_of`].
    pub fn policy(
        &self,
        config: &ModelConfig,
        weights: &Weights,
        device: Device,
    ) -> Result<Transformer> {
        policy_of(config, weights, device, self.precision, self.lora.as_ref(), self.seed)
    }

    pub fn optimizer(&self, policy: &Transformer) -> Result<AdamW> {
        let settings = AdamWSettings { weight_decay: self.weight_decay, ..Default::default() };
        AdamW::new(policy.trainable(), settings)
    }
}

impl Learner {
    /// A learner at `weights`, of which the model holds its own copy: those of `base`.
    pub fn new(
        context: &Context,
        setup: Setup,
        config: &ModelConfig,
        weights: &Weights,
        base: &Artifact,
    ) -> Result<Self> {
        let device = model::device(&context.device)?;
        let policy = setup.policy(config, weights, device)?;
        Ok(Self {
            optimizer: setup.optimizer(&policy)?,
            setup,
            base: base.clone(),
            policy,
            state: LoopState::default(),
            metrics: Vec::new(),
            device,
        })
    }

    /// Takes over the moments that lie beside a checkpoint: the weights stay as they are.
    pub fn continue_optimizer(&mut self, context: &Context, checkpoint: &Artifact) -> Result<()> {
        self.optimizer.restore_moments(&Saved::beside(context, checkpoint)?.optimizer)
    }

    /// Continues from what another learner has saved.
    pub fn restore(&mut self, saved: Saved) -> Result<()> {
        self.optimizer.restore(&saved.optimizer)?;
        self.state = saved.loop_state;
        Ok(())
    }

    /// Continues from the newest state that an earlier attempt committed: the step after which that
    /// was, 0 without one.
    ///
    /// # Errors
    /// That of [`Learner::check`] where the earlier attempt ended with it.
    pub fn resume(&mut self, context: &mut Context) -> Result<usize> {
        let Some((step, saved, metrics)) = Saved::resume(context)? else { return Ok(0) };
        self.restore(saved)?;
        self.metrics = metrics;
        self.check(step)?;
        Ok(step)
    }

    fn saved(&self) -> Result<Saved> {
        Ok(Saved { optimizer: self.optimizer.state()?, loop_state: self.state.clone() })
    }

    /// Commits the state after `step` inside the job.
    pub fn save(&self, context: &mut Context, step: usize) -> Result<()> {
        self.saved()?.commit(context, step, &self.metrics)
    }

    /// An update was made: those rejected before it are forgotten.
    pub fn accept(&mut self) {
        self.state = LoopState { rejected: 0, replay: None, ..self.state };
    }

    /// An update of `step` was not made: what it would have learnt from becomes an artifact, with the
    /// weights at which to compute it again. `training` says how.
    pub fn reject(
        &mut self,
        context: &Context,
        step: usize,
        training: Training,
        rejection: Rejection,
    ) -> Result<()> {
        let (loss, norm) = (rejection.loss, rejection.norm);
        let masters = self.optimizer.stored_masters()?;
        let kl_coefficient = self.state.kl_coefficient;
        let id = rejection.commit(context, step, training, kl_coefficient, &self.base, &masters)?;
        tracing::warn!(
            stage = context.progress.stage,
            step,
            loss,
            norm,
            "a loss or gradient is not finite: the update is rejected; `triad job --replay {}` \
             computes it again",
            id.short()
        );
        self.state.rejected += 1;
        self.state.replay = Some(id);
        Ok(())
    }

    /// An error after too many updates in a row that were rejected; `step` is the last.
    pub fn check(&self, step: usize) -> Result<()> {
        let LoopState { rejected, replay, .. } = &self.state;
        if *rejected <= self.setup.max_rejected {
            return Ok(());
        }
        let replay = replay.as_ref().map_or("?", ArtifactId::short);
        Err(Error::data(format!(
            "step {step}: {rejected} updates in a row had a loss or gradient that is not finite; \
             look at the last with `triad job --replay {replay}`, or lower learning_rate {:?}",
            self.setup.learning_rate
        )))
    }

    /// Writes what the job commits: `checkpoint`'s files with the weights learnt, the metrics, and
    /// the optimizer's state if it is wanted.
    pub fn commit(
        &self,
        context: &mut Context,
        checkpoint: Checkpoint,
        dtype: Dtype,
        optimizer_state: bool,
    ) -> Result<()> {
        context.write(0, &self.metrics)?;
        let learnt = self.policy.merged(self.optimizer.masters()?)?;
        let weights = self.policy.by_checkpoint_name(learnt, dtype)?;
        context.write_checkpoint(&Checkpoint { weights, ..checkpoint })?;
        if optimizer_state {
            self.saved()?.write(context)?;
        }
        Ok(())
    }

    /// Notes one of a step's numbers.
    pub fn note(&mut self, step: usize, level: u32, name: impl Into<String>, value: f64) {
        self.metrics.push(Metric { step: step as u32, level, name: name.into(), value });
    }

    /// The newest value of a metric of whole steps.
    pub fn last(&self, name: &str) -> Option<f64> {
        let mut whole = self.metrics.iter().rev().filter(|metric| metric.level == 0);
        whole.find(|metric| metric.name == name).map(|metric| metric.value)
    }
}
