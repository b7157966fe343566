//! Causal attention within each of several packed sequences, from the projections as they lie:
//! queries and keys are normed (where the model does that) and turned on the way in, and their
//! gradients turned back on the way out.
//!
//! Sixteen queries at a time stand in the lanes of two vectors, so that their softmax needs no
//! reduction over lanes; scores of more than those do not exist. Work is one sequence's key-value
//! head with its queries.

use std::arch::x86_64::*;
use std::ops::Range;

use super::heads::Heads;
use super::tile::{Left, multiply, transpose};
use crate::model::lanes::{LANES, Lanes, exp, load, store};
use crate::model::threads::{Parts, available, share};

/// Queries at a time.
const QUERIES: usize = 2 * LANES;

/// Turned queries, keys and values of one head: (T, D) each.
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    /// (D, 16)
    across: Vec<f32>,
    /// (T, 16): scores, then weights.
    weights: Vec<f32>,
    /// (16, D)
    out: Vec<f32>,
}

impl Scratch {
    fn new(length: usize, width: usize) -> Self {
        let zeros = |count: usize| vec![0f32; count];
        Self {
            keys: zeros(length * width),
            values: zeros(length * width),
            queries: zeros(length * width),
            across: zeros(width * QUERIES),
            weights: zeros(length * QUERIES),
            out: zeros(QUERIES * width),
        }
    }
}

/// qkv (N, (H + 2 KV) D) -> `attended` (N, H D), and the logarithm of each softmax's divisor,
/// `divisors` (N, H).
pub fn forward<T: Lanes + Send + Sync>(
    heads: &Heads,
    sequences: &[Range<usize>],
    qkv: &[T],
    attended: &mut [T],
    divisors: &mut [f32],
) {
    let (attended, divisors) = (Parts::new(attended), Parts::new(divisors));
    share(sequences.len() * heads.kv_heads, available(), |task| {
        let (sequence, group) = (&sequences[task / heads.kv_heads], task % heads.kv_heads);
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe { forward_group(heads, sequence, group, qkv, &attended, &divisors) };
    });
}

#[target_feature(enable = "avx2,fma")]
fn forward_group<T: Lanes>(
    heads: &Heads,
    sequence: &Range<usize>,
    group: usize,
    qkv: &[T],
    attended: &Parts<T>,
    divisors: &Parts<f32>,
) {
    let (length, width) = (sequence.len(), heads.width);
    let mut scratch = Scratch::new(length, width);
    let rows = |range: Range<usize>| &qkv[range];
    heads.keys(rows, sequence, group, &mut scratch.keys);
    heads.values(rows, sequence, group, &mut scratch.values);
    for head in heads.of_group(group) {
        heads.queries(rows, sequence, head, &mut scratch.queries);
        for first in (0..length).step_by(QUERIES) {
            let count = QUERIES.min(length - first);
            let seen = first + count;
            let Scratch { keys, values, queries, across, weights, out } = &mut scratch;
            transpose(&queries[first * width..], count, width, across);
            scores(keys, across, weights, first, [seen, width]);
            let logs = softmax(&mut weights[..seen * QUERIES], first);
            let left = Left { numbers: weights, rows: 1, columns: QUERIES };
            multiply::<false>(left, (values, width), (out, width), [count, seen, width]);
            for (i, (out, log)) in out.chunks_exact(width).zip(logs).take(count).enumerate() {
                let token = sequence.start + first + i;
                // SAFETY: this task's head of this token.
                let (place, divisor) = unsafe {
                    (
                        attended.part((token * heads.heads + head) * width, width),
                        divisors.part(token * heads.heads + head, 1),
                    )
                };
                for chunk in 0..width / LANES {
                    store(place, chunk, load(out, chunk));
                }
                divisor.fill(log);
            }
        }
    }
}

/// keys (seen, D) * across (D, 16) -> (seen, 16), with minus infinity where a key comes after the
/// query; the first query is number `first`.
#[target_feature(enable = "avx2,fma")]
fn scores(
    keys: &[f32],
    across: &[f32],
    scores: &mut [f32],
    first: usize,
    [seen, width]: [usize; 2],
) {
    let left = Left { numbers: keys, rows: width, columns: 1 };
    multiply::<false>(left, (across, QUERIES), (scores, QUERIES), [seen, width, QUERIES]);
    for key in first + 1..seen {
        scores[key * QUERIES..][..key - first].fill(f32::NEG_INFINITY);
    }
}

/// Scores (seen, 16) become weights. Gives the logarithm of the divisor of each query.
#[target_feature(enable = "avx2,fma")]
fn softmax(scores: &mut [f32], first: usize) -> [f32; QUERIES] {
    let mut most = [_mm256_set1_ps(f32::NEG_INFINITY); 2];
    for scores in scores.chunks_exact(QUERIES) {
        most = std::array::from_fn(|v| _mm256_max_ps(most[v], load(scores, v)));
    }
    let mut sums = [_mm256_setzero_ps(); 2];
    for scores in scores.chunks_exact_mut(QUERIES) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let weight = exp(_mm256_sub_ps(load(scores, v), most[v]));
            *sum = _mm256_add_ps(*sum, weight);
            store(scores, v, weight);
        }
    }
    hide(scores, first);
    let inverse = sums.map(|sum| _mm256_div_ps(_mm256_set1_ps(1.0), sum));
    for weights in scores.chunks_exact_mut(QUERIES) {
        for (v, &inverse) in inverse.iter().enumerate() {
            store(weights, v, _mm256_mul_ps(load(weights, v), inverse));
        }
    }
    let (mut logs, mut highest) = ([0f32; QUERIES], [0f32; QUERIES]);
    for v in 0..2 {
        store(&mut logs, v, sums[v]);
        store(&mut highest, v, most[v]);
    }
    std::array::from_fn(|i| highest[i] + logs[i].ln())
}

/// [`exp`] leaves a trace of minus infinity.
fn hide(weights: &mut [f32], first: usize) {
    for (key, weights) in weights.chunks_exact_mut(QUERIES).enumerate().skip(first + 1) {
        weights[..key - first].fill(0.0);
    }
}

/// Puts the gradient at queries, keys and values into the place of `qkv`, given what [`forward`]
/// made and the gradient at it. Adds the gradients of the heads' norms to `norms`, (D) each.
pub fn backward<T: Lanes + Send + Sync>(
    heads: &Heads,
    sequences: &[Range<usize>],
    qkv: &mut [T],
    [attended, gradient]: [&[T]; 2],
    divisors: &[f32],
    norms: Option<[&mut [f32]; 2]>,
) {
    let width = heads.width;
    let tasks = sequences.len() * heads.kv_heads;
    // Of queries and keys.
    let mut sums = vec![0f32; tasks * 2 * width];
    let (qkv, each) = (Parts::new(qkv), Parts::new(&mut sums));
    share(tasks, available(), |task| {
        let (sequence, group) = (&sequences[task / heads.kv_heads], task % heads.kv_heads);
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe {
            let norms = each.part(task * 2 * width, 2 * width);
            backward_group(heads, sequence, group, &qkv, [attended, gradient], divisors, norms);
        }
    });
    if let Some([queries, keys]) = norms {
        for sums in sums.chunks_exact(2 * width) {
            let (own_queries, own_keys) = sums.split_at(width);
            queries.iter_mut().zip(own_queries).for_each(|(total, sum)| *total += sum);
            keys.iter_mut().zip(own_keys).for_each(|(total, sum)| *total += sum);
        }
    }
}

/// With P the weights, O what they gave and dO its gradient: dV = P^T dO; dS = P (dO V^T - D), where
/// D is the product of dO and O, summed over the head; dQ = dS K; dK = dS^T Q (arXiv 2205.14135).
#[target_feature(enable = "avx2,fma")]
fn backward_group<T: Lanes>(
    heads: &Heads,
    sequence: &Range<usize>,
    group: usize,
    qkv: &Parts<T>,
    [attended, gradient]: [&[T]; 2],
    divisors: &[f32],
    norms: &mut [f32],
) {
    let (length, width) = (sequence.len(), heads.width);
    let mut scratch = Scratch::new(length, width);
    let zeros = |count: usize| vec![0f32; count];
    let [mut dkeys, mut dvalues] = [zeros(length * width), zeros(length * width)];
    let [mut dout, mut dqueries] = [zeros(length * width), zeros(length * width)];
    let (mut dacross, mut dscores) = (zeros(width * QUERIES), zeros(length * QUERIES));
    // SAFETY: this task's columns, which it writes later.
    let rows = |range: Range<usize>| -> &[T] { unsafe { qkv.part(range.start, range.len()) } };
    heads.keys(rows, sequence, group, &mut scratch.keys);
    heads.values(rows, sequence, group, &mut scratch.values);
    let (query_norm, key_norm) = norms.split_at_mut(width);
    for head in heads.of_group(group) {
        heads.queries(rows, sequence, head, &mut scratch.queries);
        heads.outputs(gradient, sequence, head, &mut dout);
        for first in (0..length).step_by(QUERIES) {
            let count = QUERIES.min(length - first);
            let seen = first + count;
            let Scratch { keys, values, queries, across, weights, .. } = &mut scratch;
            let (own_queries, own_dout) = (&queries[first * width..], &dout[first * width..]);
            transpose(own_queries, count, width, across);
            scores(keys, across, weights, first, [seen, width]);
            transpose(own_dout, count, width, &mut dacross);
            let left = Left { numbers: values, rows: width, columns: 1 };
            let sizes = [seen, width, QUERIES];
            multiply::<false>(left, (&dacross, QUERIES), (&mut dscores, QUERIES), sizes);

            let (mut logs, mut along) = ([0f32; QUERIES], [0f32; QUERIES]);
            for i in 0..count {
                let at = (sequence.start + first + i) * heads.heads + head;
                logs[i] = divisors[at];
                let out = &attended[at * width..][..width];
                along[i] = product(&own_dout[i * width..][..width], out);
            }
            let weights = &mut weights[..seen * QUERIES];
            let dscores = &mut dscores[..seen * QUERIES];
            for (weights, dscores) in
                weights.chunks_exact_mut(QUERIES).zip(dscores.chunks_exact_mut(QUERIES))
            {
                for v in 0..2 {
                    let weight = exp(_mm256_sub_ps(load(weights, v), load(&logs, v)));
                    let change = _mm256_sub_ps(load(dscores, v), load(&along, v));
                    store(weights, v, weight);
                    store(dscores, v, _mm256_mul_ps(weight, change));
                }
            }
            hide(weights, first);
            hide(dscores, first);
            // Of queries past the last there are none in `own_dout` and `own_queries`.
            let left = |numbers| Left { numbers, rows: QUERIES, columns: 1 };
            let sizes = [seen, count, width];
            multiply::<true>(left(weights), (own_dout, width), (&mut dvalues, width), sizes);
            multiply::<true>(left(dscores), (own_queries, width), (&mut dkeys, width), sizes);
            let left = Left { numbers: dscores, rows: 1, columns: QUERIES };
            let out = &mut dqueries[first * width..];
            multiply::<false>(left, (keys, width), (out, width), [count, seen, width]);
        }
        // SAFETY: this task's columns.
        unsafe { heads.turn_back_queries(qkv, sequence, head, &dqueries, query_norm) };
    }
    // SAFETY: this task's columns.
    unsafe {
        heads.turn_back_keys(qkv, sequence, group, &dkeys, key_norm);
        heads.put_values(qkv, sequence, group, &dvalues);
    }
}

#[target_feature(enable = "avx2,fma")]
fn product<T: Lanes>(a: &[f32], b: &[T]) -> f32 {
    let mut sum = _mm256_setzero_ps();
    for chunk in 0..a.len() / LANES {
        sum = _mm256_fmadd_ps(load(a, chunk), load(b, chunk), sum);
    }
    crate::model::lanes::total(sum)
}
