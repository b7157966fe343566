//! The gated product of the MLP: silu(gate) * up, with silu(g) = g s(g), s the logistic function.

use std::arch::x86_64::*;

use super::ROWS;
use crate::model::lanes::{LANES, Lanes, exp, load, store};
use crate::model::threads::{Parts, available, share};

/// gate and up (N, 2I) -> `inner` (N, I).
pub fn forward<T: Lanes + Send + Sync>(gate_up: &[T], width: usize, inner: &mut [T]) {
    let out = Parts::new(inner);
    share(gate_up.len().div_ceil(2 * ROWS * width), available(), |task| {
        let end = gate_up.len().min((task + 1) * 2 * ROWS * width);
        let gate_up = &gate_up[task * 2 * ROWS * width..end];
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe {
            let inner = out.part(task * ROWS * width, gate_up.len() / 2);
            for (gate_up, inner) in
                gate_up.chunks_exact(2 * width).zip(inner.chunks_exact_mut(width))
            {
                forward_row(gate_up, inner);
            }
        }
    });
}

/// Puts the gradient at gate and up into their place, and `inner`, computed again, in the place of
/// its gradient.
pub fn backward<T: Lanes + Send + Sync>(gate_up: &mut [T], width: usize, inner: &mut [T]) {
    let size = gate_up.len();
    let (gate_up, inner) = (Parts::new(gate_up), Parts::new(inner));
    share(size.div_ceil(2 * ROWS * width), available(), |task| {
        let first = task * ROWS * width;
        let count = (size / 2 - first).min(ROWS * width);
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe {
            let (gate_up, inner) = (gate_up.part(2 * first, 2 * count), inner.part(first, count));
            for (gate_up, inner) in
                gate_up.chunks_exact_mut(2 * width).zip(inner.chunks_exact_mut(width))
            {
                backward_row(gate_up, inner);
            }
        }
    });
}

/// s(x) = 1 / (1 + e^-x), from e^-|x|.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn logistic(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    let e = exp(_mm256_or_ps(x, _mm256_set1_ps(-0.0)));
    let small = _mm256_div_ps(one, _mm256_add_ps(one, e));
    _mm256_blendv_ps(small, _mm256_mul_ps(e, small), x)
}

#[target_feature(enable = "avx2,fma")]
fn forward_row<T: Lanes>(gate_up: &[T], inner: &mut [T]) {
    let (gate, up) = gate_up.split_at(inner.len());
    for chunk in 0..inner.len() / LANES {
        let g = load(gate, chunk);
        let silu = _mm256_mul_ps(g, logistic(g));
        store(inner, chunk, _mm256_mul_ps(silu, load(up, chunk)));
    }
}

/// du = d g s; dg = d u s (1 + g (1 - s)).
#[target_feature(enable = "avx2,fma")]
fn backward_row<T: Lanes>(gate_up: &mut [T], inner: &mut [T]) {
    let (gate, up) = gate_up.split_at_mut(inner.len());
    let one = _mm256_set1_ps(1.0);
    for chunk in 0..inner.len() / LANES {
        let (g, u, d) = (load(gate, chunk), load(up, chunk), load(inner, chunk));
        let s = logistic(g);
        let silu = _mm256_mul_ps(g, s);
        let slope = _mm256_mul_ps(s, _mm256_fmadd_ps(g, _mm256_sub_ps(one, s), one));
        store(gate, chunk, _mm256_mul_ps(_mm256_mul_ps(d, u), slope));
        store(up, chunk, _mm256_mul_ps(d, silu));
        store(inner, chunk, _mm256_mul_ps(silu, u));
    }
}
