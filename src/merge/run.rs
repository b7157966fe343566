//! The streaming run: file by file, tensor by tensor, in units, with the next tensor's inputs on
//! their way while one is computed.

use std::ops::Range;

use super::lanes::{CHUNK, add_scaled, divide, multiply, narrow, widen};
use super::operation::{Operation, Span};
use super::plan::{Plan, Planned};
use super::thinning;
use super::workers::{Held, Piece, Scratch, Unit, Work, Workers, blocks, check_finite, lock};
use super::{blending, lanes::Block};
use crate::checkpoint::Layout;
use crate::store::PIECE;
use crate::{Error, Result};

/// Where the bytes of a file go. Several threads write at once; each place is written once, and
/// the places of one file in ascending order are begun in that order.
pub trait Output: Sync {
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    /// Nothing more will come: whoever waits for their turn need not.
    fn give_up(&self) {}
}

/// Who looks on: told of the bytes that were written, and can end the merge.
pub trait Watch: Sync {
    fn wrote(&self, bytes: u64) -> Result<()>;
}

/// How much of the machine a merge takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of inputs in memory. A tensor whose inputs take more than half of it is read
    /// anew for every pass.
    pub memory: u64,
    pub threads: usize,
    /// Whether inputs answer slowly, and better to few and large requests.
    pub is_remote: bool,
}

/// Requests at a time to inputs that are remote.
const READERS: usize = 8;

impl Limits {
    /// All cores, unless `threads` says otherwise.
    pub fn new(memory: u64, threads: Option<usize>, is_remote: bool) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory, threads: threads.unwrap_or_else(cores), is_remote }
    }

    /// Whether a tensor's inputs are loaded before it is computed, for all of its passes.
    pub fn holds(&self, tensor: &Planned) -> bool {
        (self.is_remote || tensor.operation.passes() > 1) && tensor.bytes() <= self.memory / 2
    }
}

impl Planned {
    /// Bytes of its inputs as they go into the merge.
    pub fn bytes(&self) -> u64 {
        let size = self.outline.len() as u64;
        self.inputs.iter().map(|input| size * input.dtype().size() as u64).sum()
    }

    /// Numbers of a row, where rows must not be torn.
    pub(super) fn row(&self) -> Option<usize> {
        let shape = &self.outline.shape;
        let rest = || shape.iter().skip(1).product::<usize>().max(1);
        match &self.operation {
            Operation::Blend(blend) if blend.span == Span::Row => shape.last().copied(),
            Operation::Blend(blend) if blend.span == Span::Column => Some(rest()),
            Operation::Arithmetic(arithmetic) if arithmetic.needs_rows() => {
                Some(if shape.len() < 2 { self.outline.len() } else { rest() })
            }
            _ => self.inputs.iter().any(|input| input.rows.is_some()).then(rest),
        }
        .map(|row| row.max(1))
    }
}

/// A merge that runs: what its passes share.
pub(super) struct Running<'a> {
    pub plan: &'a Plan,
    pub workers: Workers,
    limits: Limits,
    layout: &'a Layout,
    output: &'a dyn Output,
    watch: &'a dyn Watch,
}

/// A tensor with what of it is in memory.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub tensor: &'a Planned,
    pub held: Option<&'a Held>,
}

/// Computes the file of `layout` and writes it to `output`.
pub fn run(
    plan: &Plan,
    layout: &Layout,
    limits: Limits,
    output: &dyn Output,
    watch: &dyn Watch,
) -> Result<()> {
    let workers = Workers::new(limits.threads);
    let running = Running { plan, workers, limits, layout, output, watch };
    let result = running.output.write(0, &layout.header).and_then(|()| running.tensors());
    result.inspect_err(|_| output.give_up())
}

/// Tensors that are computed together: several that are gone through once, or one.
struct Group {
    tensors: Range<usize>,
    held: bool,
}

impl Running<'_> {
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut joins = false;
        for at in self.layout.tensors.clone() {
            let tensor = &self.plan.tensors[at];
            let held = self.limits.holds(tensor);
            let once = tensor.operation.passes() == 1 && !self.limits.is_remote;
            match groups.last_mut().filter(|_| once && joins) {
                Some(group) => group.tensors.end = at + 1,
                None => groups.push(Group { tensors: at..at + 1, held }),
            }
            joins = once;
        }
        groups
    }

    fn tensors(&self) -> Result<()> {
        let groups = self.groups();
        let arenas = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let load = |group: &Group| {
                let tensor = &self.plan.tensors[group.tensors.start];
                let mut held: Held = lock(&arenas).pop().unwrap_or_default();
                scope.spawn(move || {
                    self.load(tensor, 0..tensor.outline.len(), &mut held).map(|()| held)
                })
            };
            let mut ahead = groups.first().filter(|group| group.held).map(&load);
            for (number, group) in groups.iter().enumerate() {
                let held = match ahead.take() {
                    Some(loading) => Some(loading.join().map_err(|_| died())??),
                    None => None,
                };
                ahead = groups.get(number + 1).filter(|group| group.held).map(&load);
                let first = &self.plan.tensors[group.tensors.start];
                match first.operation.passes() {
                    1 => self.once(group.tensors.clone(), held.as_ref())?,
                    _ => {
                        let sources = Sources { tensor: first, held: held.as_ref() };
                        self.several(group.tensors.start, sources)?;
                    }
                }
                lock(&arenas).extend(held);
            }
            Ok(())
        })
    }

    /// Reads `numbers` of all inputs of `tensor`, in pieces side by side, and checks them.
    fn load(&self, tensor: &Planned, numbers: Range<usize>, held: &mut Held) -> Result<()> {
        held.numbers = numbers.clone();
        held.bytes.resize_with(tensor.inputs.len().max(held.bytes.len()), Vec::new);
        let mut pieces = Vec::new();
        let row = tensor.row().unwrap_or(1);
        for (input, bytes) in tensor.inputs.iter().zip(held.bytes.iter_mut()) {
            let size = input.dtype().size();
            let length = numbers.len() * size;
            if bytes.len() < length {
                bytes.resize(length, 0);
            }
            let step = (PIECE / size / row).max(1) * row;
            let parts = bytes[..length].chunks_mut(step * size).enumerate();
            pieces.extend(parts.map(|(at, part)| (input, numbers.start + at * step, part)));
        }
        let pieces = std::sync::Mutex::new(pieces.into_iter());
        let read = || {
            loop {
                let Some((input, first, part)) = lock(&pieces).next() else { return Ok(()) };
                input.read(part, first)?;
                if !self.plan.recipe.allow_non_finite {
                    check_finite(input, Block { dtype: input.dtype(), bytes: part }, first)?;
                }
            }
        };
        let readers = if self.limits.is_remote { READERS } else { 1 };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..readers).map(|_| scope.spawn(read)).collect();
            let mut result = read();
            for other in others {
                result = result.and(other.join().map_err(|_| died()).and_then(|done| done));
            }
            result
        })
    }

    /// Runs `work` on stretches of units: on all at once, unless remote inputs are too large to be
    /// held and have to be loaded part by part.
    fn stretches(
        &self,
        units: &[Unit],
        held: Option<&Held>,
        mut work: impl FnMut(&[Unit], Option<&Held>) -> Result<()>,
    ) -> Result<()> {
        let Some(first) = units.first() else { return Ok(()) };
        if held.is_some() || !self.limits.is_remote {
            return work(units, held);
        }
        let tensor = &self.plan.tensors[first.tensor];
        let each = (tensor.bytes() / units.len() as u64).max(1);
        let count = (self.limits.memory / 2 / each).max(1) as usize;
        let mut held = Held::default();
        for units in units.chunks(count) {
            let (Some(first), Some(last)) = (units.first(), units.last()) else { continue };
            self.load(tensor, first.numbers.start..last.numbers.end, &mut held)?;
            work(units, Some(&held))?;
        }
        Ok(())
    }

    /// [`Workers::map`] with the numbers of each unit.
    pub fn map<T: Send>(
        &self,
        sources: Sources,
        units: &[Unit],
        work: impl Fn(&Unit, &[Block], &mut Work) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let allow = self.plan.recipe.allow_non_finite;
        let mut all = Vec::with_capacity(units.len());
        self.stretches(units, sources.held, |units, held| {
            let mut found = self.workers.map(
                units,
                || (),
                |unit, scratch| {
                    let (raw, _, room) = scratch.split();
                    work(unit, &blocks(sources.tensor, held, unit, raw, allow)?, room)
                },
            )?;
            all.append(&mut found);
            Ok(())
        })?;
        Ok(all)
    }

    /// [`Self::map`] for the last pass: `work` fills the unit's bytes in the result.
    pub fn finish(
        &self,
        units: &[Unit],
        held: Option<&Held>,
        work: impl Fn(&Unit, &Planned, &[Block], &mut Work, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let allow = self.plan.recipe.allow_non_finite;
        let write = |unit: &Unit, held: Option<&Held>, scratch: &mut Scratch| {
            let tensor = &self.plan.tensors[unit.tensor];
            let size = tensor.outline.dtype.size();
            let (raw, out, room) = scratch.split();
            let blocks = blocks(tensor, held, unit, raw, allow)?;
            let length = unit.numbers.len() * size;
            out.resize(length.max(out.len()), 0);
            work(unit, tensor, &blocks, room, &mut out[..length])?;
            let start = self.layout.offsets[unit.tensor - self.layout.tensors.start];
            self.output.write(start + (unit.numbers.start * size) as u64, &out[..length])?;
            self.watch.wrote(length as u64)
        };
        self.stretches(units, held, |units, held| {
            let each = |unit: &Unit, scratch: &mut Scratch| write(unit, held, scratch);
            self.workers.map(units, || self.output.give_up(), each).map(drop)
        })
    }

    fn once(&self, tensors: Range<usize>, held: Option<&Held>) -> Result<()> {
        let units: Vec<Unit> = tensors.flat_map(|at| self.plan.tensors[at].units(at)).collect();
        self.finish(&units, held, |unit, tensor, blocks, work, out| {
            let dtype = tensor.outline.dtype;
            if let Operation::Pass { scale: None } = tensor.operation
                && blocks[0].dtype == dtype
            {
                out.copy_from_slice(blocks[0].bytes);
                return Ok(());
            }
            for piece in tensor.pieces(unit) {
                let Piece { first, count, .. } = piece;
                match &tensor.operation {
                    Operation::Arithmetic(arithmetic) => {
                        thinning::merge_unthinned(arithmetic, tensor, blocks, piece, work);
                    }
                    Operation::Linear { weights, divisor } => {
                        work.sum.clear();
                        work.sum.resize(count, 0.0);
                        work.space.resize(CHUNK, 0.0);
                        for (block, weight) in blocks.iter().zip(weights) {
                            let block = block.part(first, count);
                            add_scaled(&mut work.sum, block, *weight, &mut work.space[..count]);
                        }
                        if let Some(divisor) = divisor {
                            divide(&mut work.sum, *divisor);
                        }
                    }
                    Operation::Pass { scale } => {
                        work.sum.resize(count, 0.0);
                        widen(blocks[0].part(first, count), &mut work.sum);
                        if let Some(scale) = scale {
                            multiply(&mut work.sum, *scale);
                        }
                    }
                    Operation::Blend(_) => {}
                }
                let size = dtype.size();
                narrow(&work.sum[..count], dtype, &mut out[first * size..(first + count) * size]);
            }
            Ok(())
        })
    }

    fn several(&self, at: usize, sources: Sources) -> Result<()> {
        let units: Vec<Unit> = sources.tensor.units(at).collect();
        let done = match &sources.tensor.operation {
            Operation::Blend(blend) => blending::merge(self, blend, sources, &units),
            Operation::Arithmetic(arithmetic) => thinning::merge(self, arithmetic, sources, &units),
            Operation::Linear { .. } | Operation::Pass { .. } => Ok(()),
        };
        done.map_err(|e| match e {
            Error::Data(why) if !why.contains("tensor `") => {
                Error::data(format!("tensor `{}`: {why}", sources.tensor.outline.name))
            }
            other => other,
        })
    }
}

fn died() -> Error {
    Error::defect("a thread that read tensors died")
}
