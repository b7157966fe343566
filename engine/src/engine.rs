//! libtorch as [`triad`]'s engine.

use tokio::runtime::Handle;
use triad::Result;
use triad::checkpoint::Checkpoint;
use triad::job::Context;
use triad::job::engine::{Draws, Engine};
use triad::store::Artifact;

use crate::model::{self, Precision, SampleRequest, Sampling, Stops, Transformer};
use crate::train;

pub struct Torch;

impl Engine for Torch {
    fn sft(&self, context: &mut Context) -> Result<()> {
        Ok(train::sft::run(context)?)
    }

    fn rl(&self, context: &mut Context) -> Result<()> {
        Ok(train::rl::run(context)?)
    }

    fn draw(&self, context: &mut Context) -> Result<()> {
        Ok(train::draw::run(context)?)
    }

    fn update(&self, context: &mut Context) -> Result<()> {
        Ok(train::stored::run(context)?)
    }

    fn rollout(&self, context: &mut Context) -> Result<()> {
        Ok(train::rollout::run(context)?)
    }

    fn evaluate(&self, context: &mut Context) -> Result<()> {
        Ok(train::evaluate::run(context)?)
    }

    fn replay(&self, runtime: &Handle, artifact: &Artifact, device: &str) -> Result<(f64, f64)> {
        Ok(train::rejected::replay(runtime, artifact, device)?)
    }

    fn respond(
        &self,
        checkpoint: &Checkpoint,
        device: &str,
        draws: Draws,
        prompts: &mut dyn Iterator<Item = Result<String>>,
        say: &mut dyn FnMut(String) -> Result<()>,
    ) -> Result<()> {
        let device = model::device(device)?;
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        let model = Transformer::load(config, weights, device, Precision::F32, false)?;
        let Draws { temperature, max_new_tokens, seed } = draws;
        let sampling = Sampling { temperature, max_new_tokens, seed, ..Sampling::default() };
        let stops = checkpoint.stop_ids()?;
        for prompt in prompts {
            let prompt = tokenizer.encode_prompt(&prompt?)?;
            let request = SampleRequest { prompt, item: 0, sample: 0 };
            for one in model::sample(&model, &Stops::at(&stops), &[request], &sampling)? {
                say(tokenizer.decode(&one.tokens)?)?;
                tracing::debug!(tokens = one.tokens.len(), stop = ?one.stop, "sampled");
            }
        }
        Ok(())
    }

    fn has_gpu(&self) -> bool {
        model::device("cuda").is_ok()
    }

    fn set_threads(&self, threads: u16) {
        model::set_threads(threads.into());
    }
}
