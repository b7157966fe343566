//! `rollout` by a server.

use std::time::Instant;

use super::Served;
use super::flow::Block;
use crate::dataset::Task;
use crate::job::Context;
use crate::job::rollout::Spec;
use crate::{Error, Result};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let server = spec.server.as_ref().ok_or_else(|| Error::defect("no server"))?;
    let mut served = Served::new(context, server, spec.seed, spec.max_new_tokens)?;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let items: Vec<(u64, &Task)> = (0..).zip(&tasks).collect();
    let (parts, blocks): (Vec<usize>, Vec<Block>) = items
        .chunks(spec.block)
        .enumerate()
        .filter(|(part, _)| context.shard.owns(*part))
        .map(|(part, tasks)| {
            let Spec { samples, temperature, top_p, .. } = spec;
            (part, Block { tasks, samples, temperature, top_p })
        })
        .unzip();
    let clock = Instant::now();
    let mut tokens = 0;
    served.sample(context, &blocks, |context, block, rows| {
        tokens += rows.iter().map(|row| row.tokens.len()).sum::<usize>();
        context.write(parts[block], &rows)?;
        let done = blocks[block].tasks.last().map_or(0, |(item, _)| item + 1);
        context.progress.update("tasks", done, tasks.len() as u64, "");
        Ok(())
    })?;
    served.finish(context, tokens, clock.elapsed().as_secs_f64());
    Ok(())
}
