//! The kernels for x86 with AVX-512.
//!
//! Few rows: dot products along K, each weight read once for all rows. From [`PACKED`] rows on: the
//! activations are packed so that a vector holds one number (f32) or two neighbours (bf16) of 16
//! rows, and each weight is broadcast to them; a tile of sums stays in registers along all of K.

use std::arch::x86_64::*;

use super::Problem;
use crate::model::threads::{Parts, share};

/// f32 lanes of a vector.
const LANES: usize = 16;
/// From so many rows on, the activations are packed.
const PACKED: usize = 12;
/// Vectors of packed rows in a tile, and columns.
const VECTORS: usize = 4;
const TILE: usize = 6;
/// Columns of a task, so that its weights stay in the core's cache: a multiple of 6 and 8.
const BLOCK: usize = 48;

/// The same kernel for two types of numbers. `step`: numbers in a vector. `fma`: sum + a * b in
/// f32, lane by lane (of pairs, with bf16). `pair`: how many numbers of K share a lane.
macro_rules! kernel {
    ($name:ident, $number:ty, $features:literal, $pair:literal, $load:expr, $fma:expr, $broadcast:expr, $round:expr) => {
        pub(super) mod $name {
            use super::*;

            const STEP: usize = LANES * $pair;

            /// x * weight^T + addend -> `out`, (M, N). K is a multiple of 32; the caller has checked
            /// that the machine has the features and that the sizes agree.
            pub fn solve(problem: &Problem, weight: &[$number], out: &mut [f32], threads: usize) {
                let Problem { x, rows, inner, columns, .. } = *problem;
                debug_assert!(weight.len() == columns * inner && inner.is_multiple_of(STEP));
                let blocks = columns.div_ceil(BLOCK);
                let out = Parts::new(out);
                if rows < PACKED {
                    let x: Vec<$number> = x.iter().map(|&value| $round(value)).collect();
                    share(blocks, threads, |block| {
                        let first = block * BLOCK;
                        let last = (first + BLOCK).min(columns);
                        // SAFETY: the features are there; blocks do not overlap.
                        unsafe { dots(problem, &x, weight, first, last, &out) }
                    });
                    return;
                }
                // (M / 64, K / pair, 4 * 16, pair)
                let packed_rows = rows.next_multiple_of(LANES);
                let mut packed = vec![<$number>::default(); packed_rows * inner];
                let groups = packed_rows.div_ceil(VECTORS * LANES);
                let whole = Parts::new(&mut packed);
                share(groups, threads, |group| {
                    let first = group * VECTORS * LANES;
                    let width = (packed_rows - first).min(VECTORS * LANES);
                    // SAFETY: groups do not overlap.
                    let part = unsafe { whole.part(first * inner, width * inner) };
                    let present = (rows - first).min(width);
                    for (row, numbers) in
                        x[first * inner..(first + present) * inner].chunks_exact(inner).enumerate()
                    {
                        let places = part[row * $pair..].chunks_mut(width * $pair);
                        for (place, numbers) in places.zip(numbers.chunks_exact($pair)) {
                            for (place, &number) in place.iter_mut().zip(numbers) {
                                *place = $round(number);
                            }
                        }
                    }
                });
                share(groups * blocks, threads, |task| {
                    // Tasks in order go through all rows with one block of weights.
                    let (group, block) = (task % groups, task / groups);
                    let start = group * VECTORS * LANES;
                    let width = (packed_rows - start).min(VECTORS * LANES);
                    let x = &packed[start * inner..][..width * inner];
                    let last = ((block + 1) * BLOCK).min(columns);
                    for first in (block * BLOCK..last).step_by(TILE) {
                        // SAFETY: the features are there; tiles do not overlap.
                        unsafe {
                            match width / LANES {
                                1 => tile::<1>(problem, x, weight, [start, first], &out),
                                2 => tile::<2>(problem, x, weight, [start, first], &out),
                                3 => tile::<3>(problem, x, weight, [start, first], &out),
                                _ => tile::<4>(problem, x, weight, [start, first], &out),
                            }
                        }
                    }
                });
            }

            /// Columns `first` to `last` of all rows, by dot products.
            #[target_feature(enable = $features)]
            unsafe fn dots(
                problem: &Problem,
                x: &[$number],
                weight: &[$number],
                first: usize,
                last: usize,
                out: &Parts<f32>,
            ) {
                let mut row = 0;
                while row < problem.rows {
                    // SAFETY: rows and columns are in bounds.
                    unsafe {
                        match problem.rows - row {
                            1 => few::<1, 8>(problem, x, weight, row, [first, last], out),
                            2 => few::<2, 8>(problem, x, weight, row, [first, last], out),
                            3 => few::<3, 4>(problem, x, weight, row, [first, last], out),
                            _ => few::<4, 4>(problem, x, weight, row, [first, last], out),
                        }
                    }
                    row += 4.min(problem.rows - row);
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn few<const M: usize, const N: usize>(
                problem: &Problem,
                x: &[$number],
                weight: &[$number],
                row: usize,
                [first, last]: [usize; 2],
                out: &Parts<f32>,
            ) {
                let inner = problem.inner;
                for column in (first..last).step_by(N) {
                    let mut sums = [[_mm512_setzero_ps(); N]; M];
                    // Past the last column: again the last.
                    let start = |i: usize| (column + i).min(last - 1) * inner;
                    for k in (0..inner).step_by(STEP) {
                        // SAFETY: `solve` has checked the sizes; a prefetch is a hint.
                        unsafe {
                            let left: [_; M] = std::array::from_fn(|m| {
                                $load(x.as_ptr().add((row + m) * inner + k))
                            });
                            for i in 0..N {
                                let at = weight.as_ptr().add(start(i) + k);
                                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(N * inner).cast());
                                let right = $load(at);
                                for m in 0..M {
                                    sums[m][i] = $fma(sums[m][i], left[m], right);
                                }
                            }
                        }
                    }
                    let count = N.min(last - column);
                    for (m, sums) in sums.iter().enumerate() {
                        // SAFETY: this thread's columns of this row.
                        let place =
                            unsafe { out.part((row + m) * problem.columns + column, count) };
                        for (i, (place, sum)) in place.iter_mut().zip(sums).enumerate() {
                            *place =
                                _mm512_reduce_add_ps(*sum) + problem.addend(row + m, column + i);
                        }
                    }
                }
            }

            /// The columns from `first` on of up to 64 packed rows.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn tile<const V: usize>(
                problem: &Problem,
                x: &[$number],
                weight: &[$number],
                [row, first]: [usize; 2],
                out: &Parts<f32>,
            ) {
                let Problem { rows, inner, columns, .. } = *problem;
                let count = TILE.min(columns - first);
                let start: [usize; TILE] =
                    std::array::from_fn(|i| (first + i).min(columns - 1) * inner);
                let mut sums = [[_mm512_setzero_ps(); V]; TILE];
                for k in (0..inner).step_by($pair) {
                    // SAFETY: `solve` has checked the sizes.
                    unsafe {
                        let right: [_; V] = std::array::from_fn(|v| {
                            $load(x.as_ptr().add(k * V * LANES + v * STEP))
                        });
                        for i in 0..TILE {
                            let left = $broadcast(weight.as_ptr().add(start[i] + k));
                            for v in 0..V {
                                sums[i][v] = $fma(sums[i][v], left, right[v]);
                            }
                        }
                    }
                }
                let mut columns_of = [[0f32; LANES]; TILE];
                for v in 0..V {
                    for (place, sums) in columns_of.iter_mut().zip(&sums) {
                        // SAFETY: 16 numbers.
                        unsafe { _mm512_storeu_ps(place.as_mut_ptr(), sums[v]) };
                    }
                    let top = row + v * LANES;
                    for m in 0..LANES.min(rows.saturating_sub(top)) {
                        // SAFETY: no other task has this row and column.
                        let place = unsafe { out.part((top + m) * columns + first, count) };
                        for (i, (place, sums)) in place.iter_mut().zip(&columns_of).enumerate() {
                            *place = sums[m] + problem.addend(top + m, first + i);
                        }
                    }
                }
            }
        }
    };
}

impl Problem<'_> {
    #[inline(always)]
    fn addend(&self, row: usize, column: usize) -> f32 {
        match self.addend.len() {
            0 => 0.0,
            n if n == self.columns => self.addend[column],
            _ => self.addend[row * self.columns + column],
        }
    }
}

kernel!(
    single,
    f32,
    "avx512f",
    1,
    |at: *const f32| _mm512_loadu_ps(at),
    |sum, a, b| _mm512_fmadd_ps(a, b, sum),
    |at: *const f32| _mm512_set1_ps(*at),
    |value: f32| value
);

kernel!(
    half,
    ::half::bf16,
    "avx512f,avx512bf16",
    2,
    |at: *const ::half::bf16| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
        at.cast()
    )),
    |sum, a, b| _mm512_dpbf16_ps(sum, a, b),
    |at: *const ::half::bf16| std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(
        at.cast::<i32>().read_unaligned()
    )),
    ::half::bf16::from_f32
);
