//! Many requests in flight, rows in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::Served;
use crate::dataset::{Rollout, Task};
use crate::entropy::Stream;
use crate::job::Context;
use crate::job::cuts::Cuts;
use crate::server::Request;
use crate::{Error, Result};

/// Blocks that may be under way beside the first unfinished one: while its last responses are
/// drawn, the server works on the next. Their rows wait in memory.
const AHEAD: usize = 4;
/// How often a running stage looks whether it should stop.
const LOOK: Duration = Duration::from_millis(200);

/// `samples` responses to each task. Tasks come with their item number, which names their
/// randomness.
pub(super) struct Block<'a> {
    pub tasks: &'a [(u64, &'a Task)],
    pub samples: u32,
    pub cuts: Cuts,
}

/// A block's rows, as far as they came: task by task, sample by sample.
struct Rows {
    rows: Vec<Option<Rollout>>,
    missing: usize,
    retokenized: u64,
}

impl Rows {
    fn new(missing: usize) -> Self {
        Self { rows: vec![None; missing], missing, retokenized: 0 }
    }

    /// All of them; what they lack goes into the summary.
    fn finish(self, context: &mut Context) -> Vec<Rollout> {
        let rows: Vec<Rollout> = self.rows.into_iter().flatten().collect();
        let bare = rows.iter().filter(|row| row.logprobs.is_empty() && !row.tokens.is_empty());
        let bare = bare.count() as u64;
        for (name, count) in [("retokenized", self.retokenized), ("without logprobs", bare)] {
            let before = context.summary.get(name).and_then(Value::as_u64).unwrap_or(0);
            context.summarize(name, before + count);
        }
        rows
    }
}

impl Served {
    /// Asks for all responses of `blocks` and gives each block's rows to `done`, in order. An error
    /// or a request to stop ends the requests in flight.
    ///
    /// Each response is a request of its own with a seed named by (seed, item, sample): neither
    /// shards nor retries change what is asked.
    pub fn sample(
        &self,
        context: &mut Context,
        blocks: &[Block],
        mut done: impl FnMut(&mut Context, usize, Vec<Rollout>) -> Result<()>,
    ) -> Result<()> {
        let form = self.client.asking().prompt;
        let size = |block: &Block| block.tasks.len() * block.samples as usize;
        let mut asks = blocks
            .iter()
            .enumerate()
            .flat_map(|(b, block)| (0..size(block)).map(move |place| (b, place)))
            .peekable();
        let mut waiting: VecDeque<Rows> = VecDeque::new();
        let mut first = 0; // the block whose rows are at the front of `waiting`
        let mut running = JoinSet::new(); // dropped, it ends what runs in it
        let mut prompt: Option<(Request, Stream)> = None;
        loop {
            loop {
                while waiting.len() <= AHEAD
                    && let Some(next) = blocks.get(first + waiting.len())
                {
                    waiting.push_back(Rows::new(size(next)));
                }
                let Some(rows) = waiting.pop_front_if(|rows| rows.missing == 0) else { break };
                let rows = rows.finish(context);
                done(context, first, rows)?;
                first += 1;
            }
            while running.len() < self.concurrency
                && let Some((b, place)) = asks.next_if(|(b, _)| *b < first + waiting.len())
            {
                let block = &blocks[b];
                let (item, task) = block.tasks[place / block.samples as usize];
                if place % block.samples as usize == 0 {
                    let request = self.reader.request(task, form)?;
                    prompt = Some((request, Stream::new(self.seed, "server", item)));
                }
                let Some((request, stream)) = &mut prompt else { continue };
                let Cuts { temperature, top_k, top_p, min_p } = block.cuts;
                let seed = (stream.next_u64() >> 33) as u32;
                let request = Request { temperature, top_k, top_p, min_p, seed, ..request.clone() };
                let client = Arc::clone(&self.client);
                let ask = async move { (b, place, client.complete(&request).await, request) };
                running.spawn_on(ask, &context.runtime);
            }
            if first == blocks.len() {
                return Ok(());
            }
            let next =
                context.wait(async { tokio::time::timeout(LOOK, running.join_next()).await });
            context.check_stop()?;
            let Ok(Some(joined)) = next else { continue };
            let (b, place, completion, request) =
                joined.map_err(|e| Error::defect(format!("a request died: {e}")))?;
            let block = &blocks[b];
            let (_, task) = block.tasks[place / block.samples as usize];
            let sample = (place % block.samples as usize) as u32;
            let answer = self.reader.read(task, sample, &request, form, completion?)?;
            if let Some(rows) = waiting.get_mut(b - first) {
                rows.retokenized += u64::from(answer.retokenized);
                rows.rows[place] = Some(answer.row);
                rows.missing -= 1;
            }
        }
    }
}
