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

/// Tasks that are drawn together. Each lot numbers its draws from a place of its own, so that lots
/// can be drawn on different machines; only what an earlier lot holds must be looked for anew.
pub const LOT: usize = 1 << 16;

impl Request {
    pub fn tasks(&self) -> usize {
        self.levels.iter().map(|level| level.count).sum()
    }

    pub fn lots(&self) -> usize {
        self.tasks().div_ceil(LOT)
    }
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
    let (mut seen, mut panel) = (HashSet::new(), Panel::default());
    for lot in 0..request.lots() {
        panel.merge(generate_lot(request, lot, workers, &mut seen, sink)?);
    }
    Ok(panel)
}

/// The same for one lot, [`LOT`] of the tasks. `seen` has the canonical hashes of tasks that it must
/// not hold, and then its own, too.
pub fn generate_lot(
    request: &Request,
    lot: usize,
    workers: usize,
    seen: &mut HashSet<u128>,
    sink: &mut dyn FnMut(Vec<Task>) -> Result<()>,
) -> Result<Panel> {
    let mut panel = Panel::default();
    let (mut start, end) = (lot * LOT, (lot + 1) * LOT);
    let mut before = 0;
    for level in &request.levels {
        let after = before + level.count;
        if start < after.min(end) {
            let (earlier, count) = (start - before, after.min(end) - start);
            let share = Share { request, level, lot, earlier, count, workers };
            start = after;
            for_family!(request.family, fill(&share, seen, &mut panel, sink))
                .map_err(|e| e.at(format!("level {} of {}", level.level, request.family)))?;
        }
        before = after;
    }
    Ok(panel)
}

/// What a lot holds of one level.
struct Share<'a> {
    request: &'a Request,
    level: &'a Level,
    lot: usize,
    /// Tasks of the level in earlier lots, and in this one.
    earlier: usize,
    count: usize,
    workers: usize,
}

fn fill<P: Puzzle>(
    share: &Share,
    seen: &mut HashSet<u128>,
    panel: &mut Panel,
    sink: &mut dyn FnMut(Vec<Task>) -> Result<()>,
) -> Result<()> {
    let Share { request, level, earlier, count, workers, .. } = *share;
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
                    let mut drawer = Drawer::new(share, P::source(parameters));
                    let mut block = worker as u64;
                    while send.send(drawer.draw(block)).is_ok() {
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
                if found < count && seen.insert(candidate.hash) {
                    panel.add(&group, &candidate.probes);
                    rows.push(candidate.task);
                    found += 1;
                    last = number;
                }
            }
            sink(rows)?;
            if found == count {
                return Ok(());
            }
            if (block as u64 + 1) * BLOCK - last > IDLE {
                return Err(Error::data(format!(
                    "only {} distinct tasks found in split {}, {} asked for; lower `count` or widen \
                     the parameters",
                    earlier + found,
                    request.split.as_str(),
                    level.count
                )));
            }
        }
        Ok(())
    })
}

/// Slots of a worker's memory for what it has found: duplicates are mostly of common puzzles.
const RECENT: usize = 1 << 14;

/// What one worker draws with.
struct Drawer<'a, S> {
    request: &'a Request,
    level: u32,
    stage: String,
    /// The lot's first draw.
    first: u64,
    source: S,
    /// Canonical hashes of candidates of this worker, each in the slot of its last bits. One that is
    /// found again is not worth proving.
    recent: Vec<u128>,
    /// Room to work in.
    bytes: Vec<u8>,
}

impl<'a, P: Puzzle, S: FnMut(&mut Stream) -> Option<P>> Drawer<'a, S> {
    fn new(share: &Share<'a>, source: S) -> Self {
        let Share { request, level: &Level { level, .. }, lot, .. } = *share;
        let stage = format!("{}/{level}", request.family);
        let (first, recent) = ((lot as u64) << 40, vec![0; RECENT]);
        Self { request, level, stage, first, source, recent, bytes: Vec::new() }
    }

    /// The certified candidates of one block of draws, with the number of each draw.
    fn draw(&mut self, block: u64) -> Vec<(u64, Candidate)> {
        let mut found = Vec::with_capacity(BLOCK as usize);
        let numbers = block * BLOCK..(block + 1) * BLOCK;
        found.extend(numbers.filter_map(|number| Some((number, self.candidate(number)?))));
        found
    }

    fn candidate(&mut self, number: u64) -> Option<Candidate> {
        let Request { family, split, seed, form, .. } = *self.request;
        let puzzle = (self.source)(&mut Stream::new(seed, &self.stage, self.first + number))?;
        let canonical = any::canonical(&puzzle, &mut self.bytes);
        if Split::of(&canonical) != split {
            return None;
        }
        let hash = u128::from_str_radix(&canonical[..32], 16).ok()?;
        let slot = hash as usize % RECENT;
        if self.recent[slot] == hash {
            return None;
        }
        let certificate = puzzle.certify().ok()?;
        let probes = [puzzle.blind(), puzzle.shortcuts()];
        let task = any::row(&puzzle, family, self.level, form, certificate, canonical).ok()?;
        self.recent[slot] = hash;
        Some(Candidate { hash, task, probes })
    }
}
