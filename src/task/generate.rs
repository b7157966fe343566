//! Distinct, certified tasks, drawn on many cores in an order that does not depend on them.

use std::collections::HashSet;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Family, Form, Level, Panel, Probe, Puzzle, Split, any, resolve_parameters};
use crate::dataset::Task;
use crate::entropy::Stream;
use crate::{Error, Result};

/// Draws that a worker makes at a time.
const BLOCK: u64 = 512;
/// Draws without a new task after which a level is given up: its space is nearly used up.
const IDLE: u64 = 100_000;

/// What to generate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub family: Family,
    pub split: Split,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub form: Form,
    pub levels: Vec<Level>,
}

/// A certified task with its canonical hash, and its share in the shortcut panel.
struct Candidate {
    hash: u128,
    task: Task,
    probes: [Vec<Probe>; 2],
}

/// Draws the tasks of `request` on `workers` threads and gives them to `sink` in order of level,
/// some at a time. Distinct means up to renaming and reordering, over all levels. A draw is named
/// by (seed, family and level, number of the draw), so nothing depends on `workers`.
///
/// Memory: a hash of 16 bytes for each task, in a hash set, and what the workers hold.
pub fn generate(
    request: &Request,
    workers: usize,
    sink: &mut dyn FnMut(Vec<Task>) -> Result<()>,
) -> Result<Panel> {
    let mut seen = HashSet::new();
    let mut panel = Panel::default();
    for level in &request.levels {
        for_family!(request.family, fill(request, level, workers, &mut seen, &mut panel, sink))
            .map_err(|e| e.at(format!("level {} of {}", level.level, request.family)))?;
    }
    Ok(panel)
}

fn fill<P: Puzzle>(
    request: &Request,
    level: &Level,
    workers: usize,
    seen: &mut HashSet<u128>,
    panel: &mut Panel,
    sink: &mut dyn FnMut(Vec<Task>) -> Result<()>,
) -> Result<()> {
    let parameters: P::Parameters =
        serde_json::from_value(Value::Object(resolve_parameters::<P>(level)?))
            .map_err(Error::usage)?;
    let workers = workers.max(1);
    let group = level.level.to_string();
    std::thread::scope(|scope| {
        // Worker w draws the blocks w, w + workers, …; a block waits until it is taken.
        let blocks: Vec<mpsc::Receiver<Vec<(u64, Candidate)>>> = (0..workers)
            .map(|worker| {
                let (send, receive) = mpsc::sync_channel(2);
                let parameters = &parameters;
                scope.spawn(move || {
                    let mut block = worker as u64;
                    while send.send(draw::<P>(request, level.level, parameters, block)).is_ok() {
                        block += workers as u64;
                    }
                });
                receive
            })
            .collect();
        let (mut found, mut last) = (0, 0);
        for block in 0.. {
            let candidates = blocks[block % workers]
                .recv()
                .map_err(|_| Error::defect("a generating thread died"))?;
            let mut rows = Vec::new();
            for (number, candidate) in candidates {
                if found < level.count && seen.insert(candidate.hash) {
                    panel.add(&group, &candidate.probes);
                    rows.push(candidate.task);
                    found += 1;
                    last = number;
                }
            }
            sink(rows)?;
            if found == level.count {
                return Ok(());
            }
            if (block as u64 + 1) * BLOCK - last > IDLE {
                return Err(Error::data(format!(
                    "only {found} distinct tasks found in split {}, {} asked for; lower `count` \
                     or widen the parameters",
                    request.split.as_str(),
                    level.count
                )));
            }
        }
        Ok(())
    })
}

/// The certified candidates of one block of draws, with the number of each draw.
fn draw<P: Puzzle>(
    request: &Request,
    level: u32,
    parameters: &P::Parameters,
    block: u64,
) -> Vec<(u64, Candidate)> {
    let stage = format!("{}/{level}", request.family);
    let mut bytes = Vec::new();
    (block * BLOCK..(block + 1) * BLOCK)
        .filter_map(|number| {
            let puzzle = P::draw(parameters, &mut Stream::new(request.seed, &stage, number))?;
            let canonical = any::canonical(&puzzle, &mut bytes);
            if Split::of(&canonical) != request.split {
                return None;
            }
            let hash = u128::from_str_radix(&canonical[..32], 16).ok()?;
            let certificate = puzzle.certify().ok()?;
            let probes = [puzzle.blind(), puzzle.shortcuts()];
            let task =
                any::row(&puzzle, request.family, level, request.form, certificate, canonical)
                    .ok()?;
            Some((number, Candidate { hash, task, probes }))
        })
        .collect()
}
