//! The passes of [`Arithmetic`] over one tensor: what stays of each difference, then the sum.

use super::arithmetic::{Arithmetic, Share, scale_each};
use super::lanes::{Block, CHUNK, magnitudes, multiply, narrow, subtract, widen};
use super::mask::{Mask, spread, threshold};
use super::method::Thinning;
use super::plan::Planned;
use super::run::{Running, Sources};
use super::select::{
    Boundary, LOWER, Ranking, Ranks, UPPER, Window, count_equal, count_lower, count_upper,
};
use super::workers::{Piece, Unit, Work};
use crate::{Error, Result};

/// What stays of one difference.
enum Keep {
    All,
    Nothing,
    /// Those between two bounds; how many of each bound's ties lie before each unit.
    Window(Window, Vec<[u64; 2]>),
    /// Those whose bit is set, unit by unit.
    Bits(Vec<Vec<u64>>),
}

/// The sum of magnitudes below which nothing is rescaled.
const LEAST: f64 = 1e-7;

impl Arithmetic {
    /// Whether the rows of a matrix must not be torn: ranks are those within a row.
    pub(super) fn needs_rows(&self) -> bool {
        self.thinning == Thinning::Della && self.is_thinned()
    }
}

/// Puts the base into `work.sum` and a share's difference from it into the vector `to`.
fn load(
    tensor: &Planned,
    blocks: &[Block],
    share: &Share,
    piece: Piece,
    to: usize,
    work: &mut Work,
) {
    let Piece { first, count, .. } = piece;
    let vector = &mut work.vectors[to][..count];
    widen(blocks[share.input].part(first, count), vector);
    subtract(vector, &work.sum[..count]);
    debug_assert!(tensor.base.is_some());
}

fn load_base(tensor: &Planned, blocks: &[Block], piece: Piece, work: &mut Work) {
    let Piece { first, count, .. } = piece;
    work.sum.resize(count.max(work.sum.len()), 0.0);
    if let Some(base) = tensor.base {
        widen(blocks[base].part(first, count), &mut work.sum[..count]);
    }
}

/// Computes a piece in `work.sum` where all of the differences stay.
pub(super) fn merge_unthinned(
    arithmetic: &Arithmetic,
    tensor: &Planned,
    blocks: &[Block],
    piece: Piece,
    work: &mut Work,
) {
    work.vectors(arithmetic.shares.len());
    load_base(tensor, blocks, piece, work);
    for (number, share) in arithmetic.shares.iter().enumerate() {
        load(tensor, blocks, share, piece, number, work);
        multiply(&mut work.vectors[number][..piece.count], share.weight);
    }
    let (vectors, sum) = (&work.vectors[..arithmetic.shares.len()], &mut work.sum);
    arithmetic.merge(&mut sum[..piece.count], vectors, &mut work.arithmetic);
}

/// Merges a tensor of which some differences are thinned out.
pub(super) fn merge(
    running: &Running,
    arithmetic: &Arithmetic,
    sources: Sources,
    units: &[Unit],
) -> Result<()> {
    let tensor = sources.tensor;
    let shares = &arithmetic.shares;
    let keeps = match arithmetic.thinning {
        Thinning::Magnitude | Thinning::Outliers => windows(running, arithmetic, sources, units)?,
        _ => return by_chance(running, arithmetic, sources, units),
    };
    let mut scales = vec![1.0; shares.len()];
    if arithmetic.rescale {
        let sums = running.map(sources, units, |unit, blocks, work| {
            each(tensor, shares, unit, blocks, work, &keeps, None, |_, _| {})
        })?;
        scales = scales_of(&sums, shares.len());
    }
    apply(running, arithmetic, sources, units, &keeps, &scales)
}

/// before / after, of the sums of magnitudes in all units.
fn scales_of(sums: &[Vec<(f64, f64)>], count: usize) -> Vec<f32> {
    let scale = |number: usize| {
        let (before, after) = sums.iter().fold((0.0, 0.0), |(before, after), sums| {
            (before + sums[number].0, after + sums[number].1)
        });
        if before < LEAST || after < LEAST { 1.0 } else { (before / after) as f32 }
    };
    (0..count).map(scale).collect()
}

/// Goes through a unit's pieces with the thinned and scaled differences in `work.vectors` and the
/// base in `work.sum`. Without scales it gives each share's sums of magnitudes before and after.
#[allow(clippy::too_many_arguments)]
fn each(
    tensor: &Planned,
    shares: &[Share],
    unit: &Unit,
    blocks: &[Block],
    work: &mut Work,
    keeps: &[Keep],
    scales: Option<&[f32]>,
    mut use_piece: impl FnMut(Piece, &mut Work),
) -> Result<Vec<(f64, f64)>> {
    let mut sums = vec![(0.0, 0.0); shares.len()];
    let number = unit.numbers.start / tensor.unit();
    let mut before: Vec<[u64; 2]> = keeps
        .iter()
        .map(|keep| match keep {
            Keep::Window(_, before) => before[number],
            _ => [0; 2],
        })
        .collect();
    work.vectors(shares.len());
    work.space.resize(CHUNK, 0.0);
    for piece in tensor.pieces(unit) {
        load_base(tensor, blocks, piece, work);
        for (at, share) in shares.iter().enumerate() {
            load(tensor, blocks, share, piece, at, work);
            let values = &mut work.vectors[at][..piece.count];
            let factors = &mut work.space[..piece.count];
            let scale = scales.map_or(1.0, |scales| scales[at]);
            match &keeps[at] {
                Keep::All => continue,
                Keep::Nothing => factors.fill(0.0),
                Keep::Window(window, _) => {
                    window.factors(values, &mut before[at], scale, factors);
                }
                Keep::Bits(bits) => spread(&bits[number], piece.first, scale, factors),
            }
            if scales.is_none() {
                let (all, kept) = magnitudes(values, factors);
                sums[at].0 += all;
                sums[at].1 += kept;
            } else {
                scale_each(values, factors);
            }
        }
        use_piece(piece, work);
    }
    Ok(sums)
}

fn apply(
    running: &Running,
    arithmetic: &Arithmetic,
    sources: Sources,
    units: &[Unit],
    keeps: &[Keep],
    scales: &[f32],
) -> Result<()> {
    let shares = &arithmetic.shares;
    running.finish(units, sources.held, |unit, tensor, blocks, work, out| {
        let (dtype, size) = (tensor.outline.dtype, tensor.outline.dtype.size());
        each(tensor, shares, unit, blocks, work, keeps, Some(scales), |piece, work| {
            let Piece { first, count, .. } = piece;
            for (vector, share) in work.vectors.iter_mut().zip(shares) {
                multiply(&mut vector[..count], share.weight);
            }
            let (vectors, sum) = (&work.vectors[..shares.len()], &mut work.sum);
            arithmetic.merge(&mut sum[..count], vectors, &mut work.arithmetic);
            narrow(&sum[..count], dtype, &mut out[first * size..(first + count) * size]);
        })
        .map(drop)
    })
}

/// The bounds of what stays, by counting.
fn windows(
    running: &Running,
    arithmetic: &Arithmetic,
    sources: Sources,
    units: &[Unit],
) -> Result<Vec<Keep>> {
    let tensor = sources.tensor;
    let size = tensor.outline.len();
    let ranks: Vec<Option<Ranks>> = arithmetic
        .shares
        .iter()
        .map(|share| {
            share.is_thinned(arithmetic.thinning).then(|| match arithmetic.thinning {
                Thinning::Magnitude => Ranks::magnitude(size, share.density),
                _ => Ranks::outliers(size, share.density, share.gamma),
            })
        })
        .collect();
    // Share and rank of each boundary that is looked for.
    let wanted: Vec<(usize, u64)> = ranks
        .iter()
        .enumerate()
        .flat_map(|(share, ranks)| {
            let ranks = ranks.as_ref().map(|ranks| ranks.boundaries(size)).unwrap_or_default();
            ranks.into_iter().map(move |rank| (share, rank))
        })
        .collect();
    let count =
        |buckets: usize, tables: usize, add: &(dyn Fn(usize, &[f32], &mut [Vec<u32>]) + Sync)| {
            running.map(sources, units, |unit, blocks, work| {
                work.counts.resize_with(tables, || vec![0; buckets]);
                work.vectors(1);
                for piece in tensor.pieces(unit) {
                    load_base(tensor, blocks, piece, work);
                    for (number, share) in arithmetic.shares.iter().enumerate() {
                        load(tensor, blocks, share, piece, 0, work);
                        add(number, &work.vectors[0][..piece.count], &mut work.counts);
                    }
                }
                Ok(())
            })?;
            let mut counts = running.workers.take_counts();
            counts.resize_with(tables, || vec![0; buckets]);
            Ok::<_, Error>(counts)
        };
    let shares = arithmetic.shares.len();
    let counts = count(UPPER, shares, &|share, values, counts| {
        if ranks[share].is_some() {
            count_upper(values, &mut counts[share]);
        }
    })?;
    let found: Vec<Boundary> =
        wanted.iter().map(|&(share, rank)| Boundary::upper(&counts[share], rank)).collect();
    let counts = count(LOWER, wanted.len(), &|share, values, counts| {
        for ((of, _), (boundary, counts)) in wanted.iter().zip(found.iter().zip(counts)) {
            if *of == share {
                count_lower(values, boundary.bits, counts);
            }
        }
    })?;
    let found: Vec<(usize, Boundary)> = wanted
        .iter()
        .zip(found)
        .zip(&counts)
        .map(|((&(share, rank), boundary), counts)| (share, boundary.lower(counts, rank)))
        .collect();
    let windows: Vec<Option<Window>> = ranks
        .iter()
        .enumerate()
        .map(|(share, ranks)| {
            let of: Vec<_> =
                found.iter().filter(|(of, _)| *of == share).map(|(_, found)| *found).collect();
            Window::new(ranks.as_ref()?, size, &of)
        })
        .collect();
    // Ties of each unit, by share and bound.
    let ties = running.map(sources, units, |unit, blocks, work| {
        let mut ties = vec![[0u64; 2]; shares];
        work.vectors(1);
        for piece in tensor.pieces(unit) {
            load_base(tensor, blocks, piece, work);
            for (number, share) in arithmetic.shares.iter().enumerate() {
                let Some(window) = &windows[number] else { continue };
                load(tensor, blocks, share, piece, 0, work);
                let values = &work.vectors[0][..piece.count];
                for (ties, bits) in ties[number].iter_mut().zip(window.tied()) {
                    *ties += count_equal(values, bits);
                }
            }
        }
        Ok(ties)
    })?;
    let keep = |(share, window): (usize, Option<Window>)| match (window, &ranks[share]) {
        (_, None) => Keep::All,
        (None, _) => Keep::Nothing,
        (Some(window), _) => {
            let mut so_far = [0; 2];
            let before = ties.iter().map(|ties| {
                let before = so_far;
                so_far.iter_mut().zip(ties[share]).for_each(|(sum, ties)| *sum += ties);
                before
            });
            let before = before.collect();
            Keep::Window(window, before)
        }
    };
    Ok(windows.into_iter().enumerate().map(keep).collect())
}

/// DARE and DELLA: a first pass draws what stays and takes the sums of magnitudes.
fn by_chance(
    running: &Running,
    arithmetic: &Arithmetic,
    sources: Sources,
    units: &[Unit],
) -> Result<()> {
    let tensor = sources.tensor;
    let shares = &arithmetic.shares;
    let is_drawn = |share: &Share| share.is_thinned(arithmetic.thinning) && share.density > 0.0;
    let drawn = running.map(sources, units, |unit, blocks, work| {
        let mut bits = vec![Vec::new(); shares.len()];
        let mut sums = vec![(0.0, 0.0); shares.len()];
        for (at, share) in shares.iter().enumerate() {
            if is_drawn(share) {
                let mut draw = Draw::new(running, arithmetic, tensor, unit, at);
                sums[at] = draw.unit(blocks, work);
                bits[at] = draw.bits;
            }
        }
        Ok((bits, sums))
    })?;
    let (mut bits, sums): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
    let scales = match arithmetic.rescale {
        true => scales_of(&sums, shares.len()),
        false => vec![1.0; shares.len()],
    };
    let keeps: Vec<Keep> = shares
        .iter()
        .enumerate()
        .map(|(at, share)| match share.is_thinned(arithmetic.thinning) {
            false => Keep::All,
            true if !is_drawn(share) => Keep::Nothing,
            true => Keep::Bits(bits.iter_mut().map(|bits| std::mem::take(&mut bits[at])).collect()),
        })
        .collect();
    apply(running, arithmetic, sources, units, &keeps, &scales)
}

/// What chance leaves of one difference in one unit.
struct Draw<'a> {
    thinning: Thinning,
    tensor: &'a Planned,
    unit: &'a Unit,
    share: &'a Share,
    mask: Mask,
    bits: Vec<u64>,
}

impl<'a> Draw<'a> {
    fn new(
        running: &Running,
        arithmetic: &'a Arithmetic,
        tensor: &'a Planned,
        unit: &'a Unit,
        share: usize,
    ) -> Self {
        let share = &arithmetic.shares[share];
        let input = &tensor.inputs[share.input];
        let mask = Mask::new(running.plan.recipe.seed, input.number, &tensor.outline.name);
        let bits = vec![0; unit.numbers.len().div_ceil(64)];
        Self { thinning: arithmetic.thinning, tensor, unit, share, mask, bits }
    }

    /// Draws all of the unit and gives its sums of magnitudes, before and after.
    fn unit(&mut self, blocks: &[Block], work: &mut Work) -> (f64, f64) {
        match self.thinning {
            Thinning::Della => self.rows(blocks, work),
            _ => {
                let limit = threshold(self.share.density);
                self.mask.bits(self.unit.numbers.start, limit, &mut self.bits);
            }
        }
        let (mut before, mut after) = (0.0, 0.0);
        work.vectors(1);
        work.space.resize(CHUNK, 0.0);
        for piece in self.tensor.pieces(self.unit) {
            load_base(self.tensor, blocks, piece, work);
            load(self.tensor, blocks, self.share, piece, 0, work);
            let factors = &mut work.space[..piece.count];
            spread(&self.bits, piece.first, 1.0, factors);
            let (all, kept) = magnitudes(&work.vectors[0][..piece.count], factors);
            before += all;
            after += kept;
        }
        (before, after)
    }

    /// DELLA: the probability to stay grows with the rank of a number's magnitude within its row.
    fn rows(&mut self, blocks: &[Block], work: &mut Work) {
        let length = self.tensor.row().unwrap_or(self.unit.numbers.len());
        let (density, epsilon) = (self.share.density, self.share.epsilon);
        let most = (length - 1).max(1) as f64;
        let chance = |rank: usize| density - epsilon + 2.0 * epsilon * rank as f64 / most;
        let limits: Vec<u64> = (0..length).map(|rank| threshold(chance(rank))).collect();
        let mut row: Vec<f32> = Vec::with_capacity(length);
        let mut draws = vec![0; length];
        let mut ranking = Ranking::default();
        work.vectors(1);
        for piece in self.tensor.pieces(self.unit) {
            load_base(self.tensor, blocks, piece, work);
            load(self.tensor, blocks, self.share, piece, 0, work);
            row.extend(&work.vectors[0][..piece.count]);
            if row.len() < length {
                continue;
            }
            let first = piece.first + piece.count - length;
            self.mask.draw(self.unit.numbers.start + first, &mut draws);
            for (limit, number) in limits.iter().zip(ranking.order(&row)) {
                let at = first + number;
                self.bits[at / 64] |= u64::from(draws[number] < *limit) << (at % 64);
            }
            row.clear();
        }
    }
}
