//! The kernel for x86 with AVX2 and FMA.

use std::arch::x86_64::*;

use super::{Attention, Slots};
use crate::model::lanes::{LANES, Lanes, exp, load, store};

/// Solves the problems from number `first` on, as many as `out` holds at `size` = G * D each.
///
/// # Safety
/// The machine has AVX2 and FMA. (That the sizes agree is checked by every access.)
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn attend_from<T: Lanes>(
    problem: &Attention<T>,
    first: usize,
    size: usize,
    out: &mut [f32],
) {
    match problem.width / LANES {
        1 => attend_width::<1, T>(problem, first, size, out),
        2 => attend_width::<2, T>(problem, first, size, out),
        3 => attend_width::<3, T>(problem, first, size, out),
        4 => attend_width::<4, T>(problem, first, size, out),
        6 => attend_width::<6, T>(problem, first, size, out),
        8 => attend_width::<8, T>(problem, first, size, out),
        10 => attend_width::<10, T>(problem, first, size, out),
        12 => attend_width::<12, T>(problem, first, size, out),
        _ => attend_width::<16, T>(problem, first, size, out),
    }
}

/// `CHUNKS` times [`LANES`] numbers make up the width of a head.
#[target_feature(enable = "avx2,fma")]
fn attend_width<const CHUNKS: usize, T: Lanes>(
    problem: &Attention<T>,
    first: usize,
    size: usize,
    out: &mut [f32],
) {
    let Attention { queries, prompts, own, kv_heads, width } = problem;
    let (kv_heads, width) = (*kv_heads, *width);
    // The two stretches of a problem.
    let stretches = |n: usize| [prompts[n / kv_heads], own[n / kv_heads]];
    let start = |slots: &Slots<T>, n: usize| (n % kv_heads) * slots.capacity * width;
    let mut scores: Vec<f32> = Vec::new();
    let count = out.len() / size;
    for (n, out) in (first..).zip(out.chunks_exact_mut(size)) {
        let slots = stretches(n);
        let counts = slots.map(|slots| slots.used);
        let part = |i: usize| {
            let first = start(&slots[i], n);
            first..first + counts[i] * width
        };
        let keys = [&slots[0].keys[part(0)], &slots[1].keys[part(1)]];
        let values = [&slots[0].values[part(0)], &slots[1].values[part(1)]];
        let queries = &queries[n * size..(n + 1) * size];
        // Room for whole blocks of slots of either stretch.
        let gap = counts[0].next_multiple_of(LANES);
        let end = gap + counts[1].next_multiple_of(LANES);
        scores.resize(size / width * end, 0.0);

        // The next problem's slots are asked for meanwhile.
        let next = if n + 1 < first + count { n + 1 } else { n };
        for (i, next_slots) in stretches(next).into_iter().enumerate() {
            let (keys, count, place) = (keys[i], counts[i], [0, gap][i]);
            let ahead = start(&next_slots, next);
            for block in (0..count).step_by(LANES) {
                prefetch(next_slots.keys, ahead + block * width, LANES * width);
                prefetch(next_slots.values, ahead + block * width, LANES * width);
                for (query, scores) in queries.chunks_exact(width).zip(scores.chunks_exact_mut(end))
                {
                    let products = dots::<CHUNKS, T>(query, keys, block, count);
                    store(&mut scores[place + block..], 0, products);
                }
            }
        }
        for (out, scores) in out.chunks_exact_mut(width).zip(scores.chunks_exact_mut(end)) {
            exponentials(scores);
            scores[counts[0]..gap].fill(0.0);
            scores[gap + counts[1]..end].fill(0.0);
            let weights = [&scores[..counts[0]], &scores[gap..gap + counts[1]]];
            weighted_sum::<CHUNKS, T>(values, weights, 1.0 / sum(scores), out);
        }
    }
}

/// Products of `query` with the eight keys from slot `first` on (past the last: again the last).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dots<const CHUNKS: usize, T: Lanes>(
    query: &[f32],
    keys: &[T],
    first: usize,
    count: usize,
) -> __m256 {
    let width = CHUNKS * LANES;
    let mut sums = [_mm256_setzero_ps(); LANES];
    for (i, sum) in sums.iter_mut().enumerate() {
        let slot = (first + i).min(count - 1);
        let key = &keys[slot * width..(slot + 1) * width];
        for chunk in 0..CHUNKS {
            *sum = _mm256_fmadd_ps(load(query, chunk), load(key, chunk), *sum);
        }
    }
    // Eight sums of eight lanes each -> one vector of eight totals.
    let a = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    let b = _mm256_hadd_ps(_mm256_hadd_ps(sums[4], sums[5]), _mm256_hadd_ps(sums[6], sums[7]));
    _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
}

/// `scale` * sum over t of `weights`[t] * `values`[t], over both stretches.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weighted_sum<const CHUNKS: usize, T: Lanes>(
    values: [&[T]; 2],
    weights: [&[f32]; 2],
    scale: f32,
    out: &mut [f32],
) {
    let mut sums = [_mm256_setzero_ps(); CHUNKS];
    for (values, weights) in values.into_iter().zip(weights) {
        for (value, &weight) in values.chunks_exact(CHUNKS * LANES).zip(weights) {
            let weight = _mm256_set1_ps(weight);
            for (chunk, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(load(value, chunk), weight, *sum);
            }
        }
    }
    let scale = _mm256_set1_ps(scale);
    for (chunk, sum) in sums.into_iter().enumerate() {
        store(out, chunk, _mm256_mul_ps(sum, scale));
    }
}

/// Replaces scores by exp(score - highest).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exponentials(scores: &mut [f32]) {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
    for chunk in 0..scores.len() / LANES {
        most = _mm256_max_ps(most, load(scores, chunk));
    }
    store(&mut highest, 0, most);
    let highest = _mm256_set1_ps(highest.into_iter().fold(f32::NEG_INFINITY, f32::max));
    for chunk in 0..scores.len() / LANES {
        store(scores, chunk, exp(_mm256_sub_ps(load(scores, chunk), highest)));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum(values: &[f32]) -> f32 {
    let mut sum = _mm256_setzero_ps();
    for chunk in 0..values.len() / LANES {
        sum = _mm256_add_ps(sum, load(values, chunk));
    }
    let mut lanes = [0.0; LANES];
    store(&mut lanes, 0, sum);
    lanes.into_iter().sum()
}

/// Asks for `count` numbers from `start` on, as far as there are so many. The cache as a whole is
/// larger than the machine's; one problem's part of it is too short for the machine to foresee.
#[inline]
fn prefetch<T>(values: &[T], start: usize, count: usize) {
    // Numbers in a line of the machine's cache.
    let line = 64 / size_of::<T>();
    for at in (start..(start + count).min(values.len())).step_by(line) {
        // SAFETY: a hint; the address lies in the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().add(at).cast()) };
    }
}
