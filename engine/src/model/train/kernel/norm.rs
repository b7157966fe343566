//! RMSNorm: y = w * x * r with r = 1 / sqrt(mean(x^2) + eps), over rows of C numbers.

use std::arch::x86_64::*;

use super::ROWS;
use crate::model::lanes::{LANES, Lanes, load, store, total};
use crate::model::threads::{Parts, available, share};

/// x (N, C) -> `y` (N, C).
pub fn forward<T: Lanes + Send + Sync>(x: &[f32], weight: &[T], eps: f64, y: &mut [T]) {
    let width = weight.len();
    let y = Parts::new(y);
    share(x.len().div_ceil(ROWS * width), available(), |task| {
        let x = part(x, task, width);
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe {
            let y = y.part(task * ROWS * width, x.len());
            forward_rows(x, weight, eps, y);
        }
    });
}

/// Adds the gradient at x to `dx`, and that of the weights to `dweight` (C), if it is wanted.
/// Computes y again, into `y`, which holds its gradient `dy` before.
pub fn backward<T: Lanes + Send + Sync>(
    x: &[f32],
    weight: &[T],
    eps: f64,
    y: &mut [T],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let width = weight.len();
    let tasks = x.len().div_ceil(ROWS * width);
    let mut sums = vec![0f32; tasks * width];
    let (y, dx, each) = (Parts::new(y), Parts::new(dx), Parts::new(&mut sums));
    share(tasks, available(), |task| {
        let x = part(x, task, width);
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe {
            let (y, dx) =
                (y.part(task * ROWS * width, x.len()), dx.part(task * ROWS * width, x.len()));
            backward_rows(x, weight, eps, y, dx, each.part(task * width, width));
        }
    });
    if let Some(dweight) = dweight {
        for sums in sums.chunks_exact(width) {
            dweight.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
    }
}

fn part(x: &[f32], task: usize, width: usize) -> &[f32] {
    &x[task * ROWS * width..x.len().min((task + 1) * ROWS * width)]
}

/// r of one row.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn inverse(x: &[f32], eps: f64) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 2];
    for chunk in 0..x.len() / LANES {
        let x = load(x, chunk);
        sums[chunk % 2] = _mm256_fmadd_ps(x, x, sums[chunk % 2]);
    }
    let mean = total(_mm256_add_ps(sums[0], sums[1])) / x.len() as f32;
    1.0 / (mean + eps as f32).sqrt()
}

#[target_feature(enable = "avx2,fma")]
fn forward_rows<T: Lanes>(x: &[f32], weight: &[T], eps: f64, y: &mut [T]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let r = _mm256_set1_ps(inverse(x, eps));
        for chunk in 0..width / LANES {
            let normed = _mm256_mul_ps(load(x, chunk), r);
            store(y, chunk, _mm256_mul_ps(normed, load(weight, chunk)));
        }
    }
}

/// With g = w * dy: dx = r g - x r^3 mean(g x); dw = sum over rows of dy x r.
#[target_feature(enable = "avx2,fma")]
fn backward_rows<T: Lanes>(
    x: &[f32],
    weight: &[T],
    eps: f64,
    y: &mut [T],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(dx.chunks_exact_mut(width));
    for ((x, y), dx) in rows {
        let r = inverse(x, eps);
        let mut sums = [_mm256_setzero_ps(); 2];
        for chunk in 0..width / LANES {
            let g = _mm256_mul_ps(load(weight, chunk), load(y, chunk));
            sums[chunk % 2] = _mm256_fmadd_ps(g, load(x, chunk), sums[chunk % 2]);
        }
        let mean = total(_mm256_add_ps(sums[0], sums[1])) / width as f32;
        let along = _mm256_set1_ps(r * r * r * mean);
        let r = _mm256_set1_ps(r);
        for chunk in 0..width / LANES {
            let (x, w, dy) = (load(x, chunk), load(weight, chunk), load(y, chunk));
            let normed = _mm256_mul_ps(x, r);
            let change = _mm256_fmsub_ps(_mm256_mul_ps(w, dy), r, _mm256_mul_ps(x, along));
            store(dx, chunk, _mm256_add_ps(load(dx, chunk), change));
            store(dweight, chunk, _mm256_fmadd_ps(dy, normed, load(dweight, chunk)));
            store(y, chunk, _mm256_mul_ps(normed, w));
        }
    }
}
