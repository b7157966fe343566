//! The two passes of [`Blend`]: dot products, then the sum.

use super::blend::{Blend, Gram, pairs};
use super::lanes::{Block, add, add_each, add_scaled, dot, narrow, products, subtract, widen};
use super::operation::Span;
use super::plan::Planned;
use super::run::{Running, Sources};
use super::workers::{Piece, Unit, Work};
use crate::Result;

/// Which inputs are blended, in the curve's order, and what they are relative to.
struct Vectors {
    of: Vec<usize>,
    origin: Option<usize>,
}

impl Vectors {
    fn new(blend: &Blend, tensor: &Planned) -> Self {
        let all = 0..tensor.inputs.len();
        let base = tensor.base;
        match base.filter(|_| blend.is_relative(base)) {
            Some(base) => Self { of: all.filter(|&i| i != base).collect(), origin: Some(base) },
            // The base first, where there is one.
            None => {
                let mut of: Vec<usize> = all.collect();
                of.sort_by_key(|&i| Some(i) != base);
                Self { of, origin: None }
            }
        }
    }

    /// The vectors' numbers in `piece`, in `work.vectors`; the origin's are in `work.sum`.
    fn load(&self, blocks: &[Block], piece: Piece, work: &mut Work) {
        let Piece { first, count, .. } = piece;
        work.vectors(self.of.len());
        work.sum.resize(count.max(work.sum.len()), 0.0);
        if let Some(origin) = self.origin {
            widen(blocks[origin].part(first, count), &mut work.sum[..count]);
        }
        for (&input, vector) in self.of.iter().zip(work.vectors.iter_mut()) {
            widen(blocks[input].part(first, count), &mut vector[..count]);
            if self.origin.is_some() {
                subtract(&mut vector[..count], &work.sum[..count]);
            }
        }
    }
}

pub(super) fn merge(
    running: &Running,
    blend: &Blend,
    sources: Sources,
    units: &[Unit],
) -> Result<()> {
    let tensor = sources.tensor;
    let vectors = Vectors::new(blend, tensor);
    let count = vectors.of.len();
    let width = match blend.span {
        Span::Tensor => 1,
        Span::Row => 0,
        Span::Column => tensor.row().unwrap_or(1),
    };
    let size = pairs(count);
    // Of each unit: for the tensor, for each of its rows, or what it adds to each column.
    let sums = running.map(sources, units, |unit, blocks, work| {
        let mut sums = vec![0f64; width * size];
        let mut row = None;
        for piece in tensor.pieces(unit) {
            vectors.load(blocks, piece, work);
            if blend.span == Span::Row && row != Some(piece.row) {
                row = Some(piece.row);
                sums.resize(sums.len() + size, 0.0);
            }
            let mut pair = 0;
            for i in 0..count {
                for j in i..count {
                    let (a, b) = (&work.vectors[i][..piece.count], &work.vectors[j][..piece.count]);
                    if blend.span == Span::Column {
                        let at = pair * width + piece.column;
                        products(&mut sums[at..at + piece.count], a, b);
                    } else {
                        let at = sums.len() - size + pair;
                        sums[at] += dot(a, b);
                    }
                    pair += 1;
                }
            }
        }
        Ok(sums)
    })?;
    let coefficients = |dots: &[f64]| -> Result<Vec<f32>> {
        let found = blend.coefficients(Gram { count, dots })?;
        Ok(found.into_iter().map(|c| c as f32).collect())
    };
    let total = || {
        let mut all = vec![0f64; width * size];
        for sums in &sums {
            all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
        all
    };
    // (row or 1, vector), or (vector, column)
    let factors: Vec<f32> = match blend.span {
        Span::Tensor => coefficients(&total())?,
        Span::Row => {
            let rows = sums.iter().flat_map(|sums| sums.chunks_exact(size));
            rows.map(coefficients).collect::<Result<Vec<_>>>()?.concat()
        }
        Span::Column => {
            let all = total();
            let mut factors = vec![0.0; count * width];
            for column in 0..width {
                let dots: Vec<f64> = (0..size).map(|pair| all[pair * width + column]).collect();
                for (vector, factor) in coefficients(&dots)?.into_iter().enumerate() {
                    factors[vector * width + column] = factor;
                }
            }
            factors
        }
    };
    running.finish(units, sources.held, |unit, tensor, blocks, work, out| {
        let dtype = tensor.outline.dtype;
        for piece in tensor.pieces(unit) {
            let Piece { row, column, first, count: length } = piece;
            if blend.span == Span::Tensor && vectors.origin.is_none() {
                work.sum.clear();
                work.sum.resize(length, 0.0);
                work.space.resize(length.max(work.space.len()), 0.0);
                for (&input, factor) in vectors.of.iter().zip(&factors) {
                    let (block, space) = (blocks[input].part(first, length), &mut work.space);
                    add_scaled(&mut work.sum, block, *factor, &mut space[..length]);
                }
            } else {
                vectors.load(blocks, piece, work);
                if vectors.origin.is_none() {
                    work.sum[..length].fill(0.0);
                }
                for (number, vector) in work.vectors[..count].iter_mut().enumerate() {
                    let vector = &mut vector[..length];
                    let sum = &mut work.sum[..length];
                    match blend.span {
                        Span::Column => {
                            let at = number * width + column;
                            add_each(sum, vector, &factors[at..at + length]);
                        }
                        span => {
                            let row = if span == Span::Row { row } else { 0 };
                            super::lanes::multiply(vector, factors[row * count + number]);
                            add(sum, vector);
                        }
                    }
                }
            }
            let size = dtype.size();
            narrow(&work.sum[..length], dtype, &mut out[first * size..(first + length) * size]);
        }
        Ok(())
    })
}
