//! The kernels for x86, with AVX-512 or AVX2.
//!
//! Few rows: dot products along K, each weight read once for all rows. From [`PACKED`] rows on: the
//! activations are packed so that a vector holds one number (f32) or two neighbours (bf16) of
//! several rows, and each weight is broadcast to them; a tile of sums stays in registers along all
//! of K. AVX2 has no products of bf16: there weights are widened, once for all rows, and
//! activations stay f32.

use std::arch::x86_64::*;

use ::half::bf16;

use super::Problem;
use crate::model::lanes::{Lanes, total};
use crate::model::threads::{Parts, share};

/// From so many rows on, the activations are packed.
const PACKED: usize = 12;
/// Columns of a tile.
const TILE: usize = 6;
/// Columns of a task, so that its weights stay in the core's cache: a multiple of 6 and 8.
const BLOCK: usize = 48;
/// Packed rows of a group.
const GROUP: usize = 64;

/// The same kernel for several vectors and types of numbers. `lanes`: f32 sums in a vector; `pair`:
/// how many numbers of K share a lane; `vectors`: of a tile's rows. Of activations and weights:
/// their type in memory, how a vector of them is loaded (`pair` times `lanes` of them) and how one
/// lane's are broadcast; `wide` is the weights' type in a tile. `fma`: sum + a * b, lane by lane.
macro_rules! kernel {
    ($name:ident, $features:literal, lanes: $lanes:literal, pair: $pair:literal,
     vectors: $vectors:literal, few: [$one:literal, $three:literal],
     activation: $x:ty, $round:expr, $load:expr, weight: $w:ty, $load_weight:expr,
     wide: $wide:ty, $widen:expr, $broadcast:expr,
     zero: $zero:expr, fma: $fma:expr, total: $total:expr, store: $store:expr) => {
        pub(super) mod $name {
            use super::*;

            const LANES: usize = $lanes;
            const STEP: usize = LANES * $pair;
            const VECTORS: usize = $vectors;

            /// x * weight^T + addend -> `out`, (M, N). K is a multiple of 32; the caller has checked
            /// that the machine has the features and that the sizes agree.
            pub fn solve(problem: &Problem, weight: &[$w], out: &mut [f32], threads: usize) {
                let Problem { x, rows, inner, columns, .. } = *problem;
                debug_assert!(weight.len() == columns * inner && inner.is_multiple_of(STEP));
                let blocks = columns.div_ceil(BLOCK);
                let out = Parts::new(out);
                if rows < PACKED {
                    let x: Vec<$x> = x.iter().map(|&value| $round(value)).collect();
                    share(blocks, threads, |block| {
                        let first = block * BLOCK;
                        let last = (first + BLOCK).min(columns);
                        // SAFETY: the features are there; blocks do not overlap.
                        unsafe { dots(problem, &x, weight, first, last, &out) }
                    });
                    return;
                }
                // (M / rows of a tile, K / pair, rows of a tile, pair)
                const HIGH: usize = VECTORS * LANES;
                let packed_rows = rows.next_multiple_of(LANES);
                let mut packed = vec![<$x>::default(); packed_rows * inner];
                let whole = Parts::new(&mut packed);
                share(packed_rows.div_ceil(HIGH), threads, |tile| {
                    let first = tile * HIGH;
                    let width = (packed_rows - first).min(HIGH);
                    // SAFETY: tiles do not overlap.
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
                let groups = packed_rows.div_ceil(GROUP);
                share(groups * blocks, threads, |task| {
                    // Tasks in order go through all rows with one block of weights.
                    let (group, block) = (task % groups, task / groups);
                    let end = packed_rows.min((group + 1) * GROUP);
                    let last = ((block + 1) * BLOCK).min(columns);
                    let mut wide = Vec::new();
                    for first in (block * BLOCK..last).step_by(TILE) {
                        let own = &weight[first * inner..(first + TILE).min(columns) * inner];
                        // SAFETY: the features are there.
                        let own: &[$wide] = unsafe { $widen(own, &mut wide) };
                        for start in (group * GROUP..end).step_by(HIGH) {
                            let width = (end - start).min(HIGH);
                            let x = &packed[start * inner..][..width * inner];
                            // SAFETY: the features are there; tiles do not overlap.
                            unsafe {
                                match width / LANES {
                                    1 => tile::<1>(problem, x, own, [start, first], &out),
                                    2 => tile::<2>(problem, x, own, [start, first], &out),
                                    3 => tile::<3>(problem, x, own, [start, first], &out),
                                    _ => tile::<4>(problem, x, own, [start, first], &out),
                                }
                            }
                        }
                    }
                });
            }

            /// Columns `first` to `last` of all rows, by dot products.
            #[target_feature(enable = $features)]
            unsafe fn dots(
                problem: &Problem,
                x: &[$x],
                weight: &[$w],
                first: usize,
                last: usize,
                out: &Parts<f32>,
            ) {
                let mut row = 0;
                while row < problem.rows {
                    // SAFETY: rows and columns are in bounds.
                    unsafe {
                        match problem.rows - row {
                            1 => few::<1, $one>(problem, x, weight, row, [first, last], out),
                            2 => few::<2, $one>(problem, x, weight, row, [first, last], out),
                            3 => few::<3, $three>(problem, x, weight, row, [first, last], out),
                            _ => few::<4, $three>(problem, x, weight, row, [first, last], out),
                        }
                    }
                    row += 4.min(problem.rows - row);
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn few<const M: usize, const N: usize>(
                problem: &Problem,
                x: &[$x],
                weight: &[$w],
                row: usize,
                [first, last]: [usize; 2],
                out: &Parts<f32>,
            ) {
                let inner = problem.inner;
                for column in (first..last).step_by(N) {
                    let mut sums = [[$zero; N]; M];
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
                                let right = $load_weight(at);
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
                            *place = $total(*sum) + problem.addend(row + m, column + i);
                        }
                    }
                }
            }

            /// The columns from `first` on of up to 64 packed rows.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn tile<const V: usize>(
                problem: &Problem,
                x: &[$x],
                weight: &[$wide],
                [row, first]: [usize; 2],
                out: &Parts<f32>,
            ) {
                let Problem { rows, inner, columns, .. } = *problem;
                let count = TILE.min(columns - first);
                // Past the last column: again the last.
                let start: [usize; TILE] = std::array::from_fn(|i| i.min(count - 1) * inner);
                let mut sums = [[$zero; V]; TILE];
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
                        // SAFETY: a vector's numbers.
                        unsafe { $store(place.as_mut_ptr(), sums[v]) };
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

/// Weights that are multiplied as they lie.
///
/// # Safety
/// There is nothing to answer for.
unsafe fn as_they_lie<'a, T>(weight: &'a [T], _: &'a mut Vec<T>) -> &'a [T] {
    weight
}

/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2,fma")]
unsafe fn widened<'a>(weight: &[bf16], wide: &'a mut Vec<f32>) -> &'a [f32] {
    wide.resize(weight.len(), 0.0);
    for (wide, weight) in wide.chunks_exact_mut(8).zip(weight.chunks_exact(8)) {
        // SAFETY: eight numbers each; K is a multiple of 32.
        unsafe { f32::put(wide.as_mut_ptr(), bf16::eight(weight.as_ptr())) };
    }
    wide
}

kernel!(
    single512, "avx512f", lanes: 16, pair: 1, vectors: 4, few: [8, 4],
    activation: f32, |value: f32| value, |at: *const f32| _mm512_loadu_ps(at),
    weight: f32, |at: *const f32| _mm512_loadu_ps(at),
    wide: f32, as_they_lie, |at: *const f32| _mm512_set1_ps(*at),
    zero: _mm512_setzero_ps(), fma: |sum, a, b| _mm512_fmadd_ps(a, b, sum),
    total: |sum| _mm512_reduce_add_ps(sum), store: |to, sum| _mm512_storeu_ps(to, sum)
);

kernel!(
    half512, "avx512f,avx512bf16", lanes: 16, pair: 2, vectors: 4, few: [8, 4],
    activation: bf16, bf16::from_f32, |at: *const bf16| {
        std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast()))
    },
    weight: bf16, |at: *const bf16| {
        std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast()))
    },
    wide: bf16, as_they_lie, |at: *const bf16| {
        std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(at.cast::<i32>().read_unaligned()))
    },
    zero: _mm512_setzero_ps(), fma: |sum, a, b| _mm512_dpbf16_ps(sum, a, b),
    total: |sum| _mm512_reduce_add_ps(sum), store: |to, sum| _mm512_storeu_ps(to, sum)
);

kernel!(
    single256, "avx2,fma", lanes: 8, pair: 1, vectors: 2, few: [6, 2],
    activation: f32, |value: f32| value, |at: *const f32| _mm256_loadu_ps(at),
    weight: f32, |at: *const f32| _mm256_loadu_ps(at),
    wide: f32, as_they_lie, |at: *const f32| _mm256_broadcast_ss(&*at),
    zero: _mm256_setzero_ps(), fma: |sum, a, b| _mm256_fmadd_ps(a, b, sum),
    total: |sum| total(sum), store: |to, sum| _mm256_storeu_ps(to, sum)
);

kernel!(
    half256, "avx2,fma", lanes: 8, pair: 1, vectors: 2, few: [6, 2],
    activation: f32, |value: f32| value, |at: *const f32| _mm256_loadu_ps(at),
    weight: bf16, |at: *const bf16| bf16::eight(at),
    wide: f32, widened, |at: *const f32| _mm256_broadcast_ss(&*at),
    zero: _mm256_setzero_ps(), fma: |sum, a, b| _mm256_fmadd_ps(a, b, sum),
    total: |sum| total(sum), store: |to, sum| _mm256_storeu_ps(to, sum)
);
