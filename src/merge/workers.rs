//! Work shared by threads: tensors in units of fixed size, so that neither the number of threads nor
//! the memory changes a result.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arithmetic::Space;
use super::lanes::{Block, CHUNK, non_finite};
use super::plan::{Input, Planned};
use crate::{Error, Result};

/// Numbers of a unit, if a row has no more.
const UNIT: usize = 1 << 16;

/// A part of a tensor: numbers that lie one behind the other.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Position of the tensor in the plan.
    pub tensor: usize,
    pub numbers: Range<usize>,
}

/// A stretch of a unit that is widened at a time: of one row, where rows count.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub row: usize,
    pub column: usize,
    /// Position within the unit.
    pub first: usize,
    pub count: usize,
}

impl Planned {
    /// Numbers of the units that it is cut into.
    pub fn unit(&self) -> usize {
        match self.row() {
            Some(row) => UNIT.div_euclid(row).max(1) * row,
            None => UNIT,
        }
    }

    /// Bytes that a thread works in, about.
    pub fn work(&self) -> u64 {
        let inputs = self.inputs.len();
        let unit = self.unit().min(self.outline.len());
        let raw: usize = self.inputs.iter().map(|input| unit * input.dtype().size()).sum();
        let counts = if self.operation.passes() > 2 { inputs << 18 } else { 0 };
        let vectors = (inputs + 5) * CHUNK * 4;
        (raw + unit * self.outline.dtype.size() + vectors + counts) as u64
    }

    /// The tensor's units.
    pub fn units(&self, tensor: usize) -> impl Iterator<Item = Unit> {
        let (size, unit) = (self.outline.len(), self.unit());
        let starts = (0..size).step_by(unit);
        starts.map(move |first| Unit { tensor, numbers: first..size.min(first + unit) })
    }

    /// The unit's pieces.
    pub fn pieces(&self, unit: &Unit) -> impl Iterator<Item = Piece> {
        let numbers = unit.numbers.clone();
        let row = self.row().unwrap_or(self.outline.len()).max(1);
        let mut at = numbers.start;
        std::iter::from_fn(move || {
            let column = at % row;
            let count = CHUNK.min(numbers.end - at).min(row - column);
            let piece = Piece { row: at / row, column, first: at - numbers.start, count };
            at += count;
            (count > 0).then_some(piece)
        })
    }
}

/// What a thread works in. Kept from unit to unit.
#[derive(Default)]
pub struct Scratch {
    raw: Vec<Vec<u8>>,
    pub out: Vec<u8>,
    pub work: Work,
}

#[derive(Default)]
pub struct Work {
    pub sum: Vec<f32>,
    pub space: Vec<f32>,
    pub vectors: Vec<Vec<f32>>,
    pub arithmetic: Space,
    pub counts: Vec<Vec<u32>>,
}

impl Work {
    /// `count` vectors of a chunk.
    pub fn vectors(&mut self, count: usize) {
        self.vectors.resize_with(count.max(self.vectors.len()), || vec![0.0; CHUNK]);
    }
}

/// A stretch of a tensor's inputs in memory.
#[derive(Default)]
pub struct Held {
    /// The numbers that are there.
    pub numbers: Range<usize>,
    /// Of each input, in buffers that may be longer.
    pub bytes: Vec<Vec<u8>>,
}

/// Fails where an input holds NaN or an infinity.
pub fn check_finite(input: &Input, block: Block, first: usize) -> Result<()> {
    let Some(at) = non_finite(block) else { return Ok(()) };
    let mut place = Vec::new();
    let mut rest = first + at;
    for length in input.shape().iter().rev() {
        place.insert(0, rest % length.max(&1));
        rest /= length.max(&1);
    }
    Err(Error::data(format!(
        "model `{}`: tensor `{}` holds NaN or an infinity at {place:?}; `allow_non_finite: true` \
         merges it all the same",
        input.model, input.name
    )))
}

/// The numbers of `unit` in each input: those in memory, or read now.
pub fn blocks<'s>(
    tensor: &Planned,
    held: Option<&'s Held>,
    unit: &Unit,
    raw: &'s mut Vec<Vec<u8>>,
    allow_non_finite: bool,
) -> Result<Vec<Block<'s>>> {
    let (first, count) = (unit.numbers.start, unit.numbers.len());
    if let Some(held) = held {
        let whole = held.bytes.iter().zip(&tensor.inputs);
        let whole = whole.map(|(bytes, input)| Block { dtype: input.dtype(), bytes });
        return Ok(whole.map(|block| block.part(first - held.numbers.start, count)).collect());
    }
    raw.resize_with(tensor.inputs.len().max(raw.len()), Vec::new);
    for (input, raw) in tensor.inputs.iter().zip(raw.iter_mut()) {
        let size = count * input.dtype().size();
        if raw.len() < size {
            raw.resize(size, 0);
        }
        input.read(&mut raw[..size], first)?;
    }
    let blocks = tensor.inputs.iter().zip(raw.iter()).map(|(input, raw)| {
        let dtype = input.dtype();
        Block { dtype, bytes: &raw[..count * dtype.size()] }
    });
    let blocks: Vec<Block> = blocks.collect();
    if !allow_non_finite {
        for (input, block) in tensor.inputs.iter().zip(&blocks) {
            check_finite(input, *block, first)?;
        }
    }
    Ok(blocks)
}

/// A panic in another thread spoils nothing here.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads and their rooms to work in.
pub struct Workers {
    threads: usize,
    rooms: Mutex<Vec<Scratch>>,
}

impl Workers {
    pub fn new(threads: usize) -> Self {
        Self { threads, rooms: Mutex::default() }
    }

    /// Runs `work` on every unit, the first ones first, and gives the results in the units' order.
    /// `failed` is called at the first error, after which no unit is begun.
    pub fn map<T: Send>(
        &self,
        units: &[Unit],
        failed: impl Fn() + Sync,
        work: impl Fn(&Unit, &mut Scratch) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let done: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::with_capacity(units.len()));
        let run = || {
            let mut room = lock(&self.rooms).pop().unwrap_or_default();
            let mut found = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(unit) = units.get(number) else { break };
                let result = work(unit, &mut room);
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    failed();
                }
                found.push((number, result));
            }
            lock(&done).append(&mut found);
            lock(&self.rooms).push(room);
        };
        let threads = self.threads.min(units.len());
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Takes the sums of what all threads have counted since the last time.
    pub fn take_counts(&self) -> Vec<Vec<u64>> {
        let mut sums: Vec<Vec<u64>> = Vec::new();
        for room in lock(&self.rooms).iter_mut() {
            let counts = std::mem::take(&mut room.work.counts);
            sums.resize_with(sums.len().max(counts.len()), Vec::new);
            for (sums, counts) in sums.iter_mut().zip(counts) {
                sums.resize(sums.len().max(counts.len()), 0);
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += u64::from(count);
                }
            }
        }
        sums
    }
}

impl Scratch {
    /// The parts, apart from each other.
    pub fn split(&mut self) -> (&mut Vec<Vec<u8>>, &mut Vec<u8>, &mut Work) {
        (&mut self.raw, &mut self.out, &mut self.work)
    }
}
