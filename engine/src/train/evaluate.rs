//! Greedy and sampled accuracy on task sets.

use std::time::Instant;

use super::responses::Sampler;
use crate::Result;
use crate::model::{self, Sampling, Transformer};
use triad::checkpoint::Checkpoint;
use triad::job::Context;
use triad::job::evaluate::{Mode, Scores, Sets, Spec};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let artifact = context.input("checkpoint")?;
    let policy = artifact.manifest.id.to_string();
    let checkpoint = context.checkpoint(artifact)?;
    let stops = checkpoint.stop_ids()?;
    let Checkpoint { config, tokenizer, weights, .. } = checkpoint;
    let device = model::device(&context.device)?;
    let model = Transformer::load(&config, &weights, device, spec.precision.into(), false)?;
    drop(weights); // the model holds its own copy
    let sets = Sets::read(context, &spec)?;
    let blocks = sets.blocks(&spec, context.shard);
    let mut scores = Scores::new(context, &spec);
    let sampler = |mode: &Mode| Sampler {
        model: &model,
        tokenizer: &tokenizer,
        stops: &stops,
        stop: &spec.stop,
        sampling: Sampling {
            max_new_tokens: spec.max_new_tokens,
            seed: spec.seed,
            cache_bytes: spec.cache_bytes,
            ..mode.cuts.into()
        },
        samples: mode.samples,
        policy: &policy,
        step: 0,
    };
    if let Some(block) = blocks.first() {
        sampler(&block.mode).check_cache(sets.tasks())?;
    }
    let clock = Instant::now();
    let mut done = 0;
    let total =
        blocks.iter().filter(|block| block.last).map(|block| block.tasks.len()).sum::<usize>();
    for block in &blocks {
        context.check_stop()?;
        let rows = sampler(&block.mode).rollouts(&block.tasks)?;
        scores.add(context, block, rows)?;
        if block.last {
            done += block.tasks.len();
            context.progress.update("tasks", done as u64, total as u64, block.set);
        }
    }
    let rate = scores.tokens() as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("sample_tokens_per_second".into(), rate);
    Ok(())
}
