//! `evaluate` by a server.

use std::time::Instant;

use super::Served;
use super::flow;
use crate::job::Context;
use crate::job::evaluate::{Scores, Sets, Spec};
use crate::{Error, Result};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let server = spec.server.as_ref().ok_or_else(|| Error::defect("no server"))?;
    let served = Served::new(context, server, spec.seed, spec.max_new_tokens, &spec.stop)?;
    let sets = Sets::read(context, &spec)?;
    let blocks = sets.blocks(&spec, context.shard);
    let total =
        blocks.iter().filter(|block| block.last).map(|block| block.tasks.len()).sum::<usize>();
    let asked: Vec<flow::Block> = blocks
        .iter()
        .map(|block| flow::Block {
            tasks: &block.tasks,
            samples: block.mode.samples,
            cuts: block.mode.cuts,
        })
        .collect();
    let mut scores = Scores::new(context, &spec);
    let clock = Instant::now();
    let mut done = 0;
    served.sample(context, &asked, |context, at, rows| {
        let block = &blocks[at];
        scores.add(context, block, rows)?;
        if block.last {
            done += block.tasks.len();
            context.progress.update("tasks", done as u64, total as u64, block.set);
        }
        Ok(())
    })?;
    served.finish(context, scores.tokens(), clock.elapsed().as_secs_f64());
    Ok(())
}
