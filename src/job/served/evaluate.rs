//! `evaluate` by a server.

use std::time::Instant;

use super::Served;
use super::flow::Block;
use crate::dataset::Task;
use crate::job::Context;
use crate::job::evaluate::{Mode, Scores, Spec};
use crate::{Error, Result};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let server = spec.server.as_ref().ok_or_else(|| Error::defect("no server"))?;
    let served = Served::new(context, server, spec.seed, spec.max_new_tokens, &spec.stop)?;
    let mut scores = Scores::new(served.reader.policy.clone(), spec.keep);
    let sets: Vec<(String, Vec<Task>)> = context
        .inputs("tasks")
        .iter()
        .map(|input| Ok((input.name.clone(), context.read(&input.artifact)?)))
        .collect::<Result<_>>()?;
    let total: usize = sets.iter().map(|(_, tasks)| tasks.len()).sum();
    let clock = Instant::now();
    let mut done = 0;
    for (part, (set, tasks)) in sets.iter().enumerate() {
        let items: Vec<(u64, &Task)> = (0..).zip(tasks).collect();
        let modes = spec.modes();
        let asked: Vec<(&Mode, Block)> = items
            .chunks(spec.block)
            .flat_map(|tasks| {
                modes.iter().map(move |mode| {
                    (mode, Block { tasks, samples: mode.samples, cuts: mode.cuts })
                })
            })
            .collect();
        let (modes, blocks): (Vec<&Mode>, Vec<Block>) = asked.into_iter().unzip();
        served.sample(context, &blocks, |context, block, rows| {
            let tasks = blocks[block].tasks;
            scores.add(set, modes[block], tasks, &rows)?;
            if modes.get(block + 1).is_none_or(|mode| mode.name == modes[0].name) {
                done += tasks.len();
                context.progress.update("tasks", done as u64, total as u64, set);
            }
            Ok(())
        })?;
        scores.finish_set(context, part, set)?;
    }
    let tokens = scores.finish(context)?;
    served.finish(context, tokens, clock.elapsed().as_secs_f64());
    Ok(())
}
