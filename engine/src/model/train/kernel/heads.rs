//! Where the heads' queries, keys and values lie, and how they are normed and turned.

use std::arch::x86_64::*;
use std::ops::Range;

use super::norm::inverse;
use crate::model::lanes::{LANES, Lanes, load, store, total};
use crate::model::threads::Parts;

/// The heads of a layer. A token's row holds its queries, keys and values: (H + 2 KV) D numbers.
pub struct Heads<'a> {
    /// H
    pub heads: usize,
    /// KV
    pub kv_heads: usize,
    /// D
    pub width: usize,
    /// Rotary tables of all positions, (T, D), the sines' first half negated.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// RMSNorms of a head's query and key, (D) each, before they are turned.
    pub norms: Option<[Vec<f32>; 2]>,
    pub eps: f64,
}

impl Heads<'_> {
    /// The query heads of a key-value head.
    pub fn of_group(&self, group: usize) -> Range<usize> {
        let size = self.heads / self.kv_heads;
        group * size..(group + 1) * size
    }

    /// Turned queries over sqrt(D): (T, D). `qkv` gives a stretch of the rows' numbers.
    #[target_feature(enable = "avx2,fma")]
    pub fn queries<'r, T: Lanes + 'r>(
        &self,
        qkv: impl Fn(Range<usize>) -> &'r [T],
        sequence: &Range<usize>,
        head: usize,
        out: &mut [f32],
    ) {
        let norm = self.norms.as_ref().map(|[queries, _]| &queries[..]);
        self.turn(qkv, sequence, head, norm, self.scale(), out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn keys<'r, T: Lanes + 'r>(
        &self,
        qkv: impl Fn(Range<usize>) -> &'r [T],
        sequence: &Range<usize>,
        group: usize,
        out: &mut [f32],
    ) {
        let norm = self.norms.as_ref().map(|[_, keys]| &keys[..]);
        self.turn(qkv, sequence, self.heads + group, norm, 1.0, out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn values<'r, T: Lanes + 'r>(
        &self,
        qkv: impl Fn(Range<usize>) -> &'r [T],
        sequence: &Range<usize>,
        group: usize,
        out: &mut [f32],
    ) {
        let head = self.heads + self.kv_heads + group;
        for (token, out) in sequence.clone().zip(out.chunks_exact_mut(self.width)) {
            copy(qkv(self.at(token, head)), out);
        }
    }

    /// One head of `rows` (N, H D): (T, D).
    #[target_feature(enable = "avx2,fma")]
    pub fn outputs<T: Lanes>(
        &self,
        rows: &[T],
        sequence: &Range<usize>,
        head: usize,
        out: &mut [f32],
    ) {
        for (token, out) in sequence.clone().zip(out.chunks_exact_mut(self.width)) {
            copy(&rows[(token * self.heads + head) * self.width..][..self.width], out);
        }
    }

    /// Puts the gradient at the queries of a head before they were turned in their place, given that
    /// of the turned ones, (T, D); adds their norm's gradient to `norm`.
    ///
    /// # Safety
    /// The machine has AVX2, and nobody else has this head of this sequence.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn turn_back_queries<T: Lanes>(
        &self,
        qkv: &Parts<T>,
        sequence: &Range<usize>,
        head: usize,
        gradient: &[f32],
        norm: &mut [f32],
    ) {
        let weight = self.norms.as_ref().map(|[queries, _]| &queries[..]);
        // SAFETY: the caller's.
        unsafe { self.turn_back(qkv, sequence, head, weight, self.scale(), gradient, norm) };
    }

    /// The same of keys.
    ///
    /// # Safety
    /// As above.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn turn_back_keys<T: Lanes>(
        &self,
        qkv: &Parts<T>,
        sequence: &Range<usize>,
        group: usize,
        gradient: &[f32],
        norm: &mut [f32],
    ) {
        let weight = self.norms.as_ref().map(|[_, keys]| &keys[..]);
        // SAFETY: the caller's.
        unsafe { self.turn_back(qkv, sequence, self.heads + group, weight, 1.0, gradient, norm) };
    }

    /// # Safety
    /// As above.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn put_values<T: Lanes>(
        &self,
        qkv: &Parts<T>,
        sequence: &Range<usize>,
        group: usize,
        values: &[f32],
    ) {
        let head = self.heads + self.kv_heads + group;
        for (token, values) in sequence.clone().zip(values.chunks_exact(self.width)) {
            // SAFETY: the caller's.
            let place = unsafe { qkv.part(self.at(token, head).start, self.width) };
            for chunk in 0..self.width / LANES {
                store(place, chunk, load(values, chunk));
            }
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn at(&self, token: usize, head: usize) -> Range<usize> {
        let start = (token * (self.heads + 2 * self.kv_heads) + head) * self.width;
        start..start + self.width
    }

    fn angles(&self, position: usize) -> [&[f32]; 2] {
        [self.cos, self.sin].map(|table| &table[position * self.width..][..self.width])
    }

    /// x cos + roll(x) sin, times `scale`, of the normed x.
    #[target_feature(enable = "avx2,fma")]
    fn turn<'r, T: Lanes + 'r>(
        &self,
        qkv: impl Fn(Range<usize>) -> &'r [T],
        sequence: &Range<usize>,
        head: usize,
        norm: Option<&[f32]>,
        scale: f32,
        out: &mut [f32],
    ) {
        let (width, half) = (self.width, self.width / 2);
        let scale = _mm256_set1_ps(scale);
        // Twice the same: what is rolled by half is read from the middle on.
        let mut twice = vec![0f32; 2 * width];
        for (position, out) in out.chunks_exact_mut(width).enumerate() {
            copy(qkv(self.at(sequence.start + position, head)), &mut twice);
            if let Some(weight) = norm {
                let r = _mm256_set1_ps(inverse(&twice[..width], self.eps));
                for chunk in 0..width / LANES {
                    let normed = _mm256_mul_ps(load(&twice, chunk), r);
                    store(&mut twice, chunk, _mm256_mul_ps(normed, load(weight, chunk)));
                }
            }
            twice.copy_within(..width, width);
            let [cos, sin] = self.angles(position);
            for chunk in 0..width / LANES {
                let (x, rolled) = (load(&twice, chunk), load(&twice[half..], chunk));
                let turned = _mm256_mul_ps(x, load(cos, chunk));
                let turned = _mm256_fmadd_ps(rolled, load(sin, chunk), turned);
                store(out, chunk, _mm256_mul_ps(turned, scale));
            }
        }
    }

    /// dx = d cos + roll(d sin); with a norm, then as in [`super::norm`].
    ///
    /// # Safety
    /// The machine has AVX2, and nobody else has this head of this sequence.
    #[allow(clippy::too_many_arguments)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn turn_back<T: Lanes>(
        &self,
        qkv: &Parts<T>,
        sequence: &Range<usize>,
        head: usize,
        norm: Option<&[f32]>,
        scale: f32,
        gradient: &[f32],
        dweight: &mut [f32],
    ) {
        let (width, half) = (self.width, self.width / 2);
        let scale = _mm256_set1_ps(scale);
        let (mut twice, mut x, mut dx) =
            (vec![0f32; 2 * width], vec![0f32; width], vec![0f32; width]);
        for (position, gradient) in gradient.chunks_exact(width).enumerate() {
            let [cos, sin] = self.angles(position);
            for chunk in 0..width / LANES {
                let scaled = _mm256_mul_ps(load(gradient, chunk), scale);
                store(&mut dx, chunk, _mm256_mul_ps(scaled, load(cos, chunk)));
                store(&mut twice, chunk, _mm256_mul_ps(scaled, load(sin, chunk)));
            }
            twice.copy_within(..width, width);
            for chunk in 0..width / LANES {
                let turned = _mm256_add_ps(load(&dx, chunk), load(&twice[half..], chunk));
                store(&mut dx, chunk, turned);
            }
            let place = self.at(sequence.start + position, head);
            // SAFETY: the caller's.
            let place = unsafe { qkv.part(place.start, width) };
            if let Some(weight) = norm {
                copy(place, &mut x);
                let r = inverse(&x, self.eps);
                let mut sum = _mm256_setzero_ps();
                for chunk in 0..width / LANES {
                    let g = _mm256_mul_ps(load(weight, chunk), load(&dx, chunk));
                    sum = _mm256_fmadd_ps(g, load(&x, chunk), sum);
                }
                let along = _mm256_set1_ps(r * r * r * total(sum) / width as f32);
                let r = _mm256_set1_ps(r);
                for chunk in 0..width / LANES {
                    let (x, d) = (load(&x, chunk), load(&dx, chunk));
                    let own = _mm256_fmadd_ps(d, _mm256_mul_ps(x, r), load(dweight, chunk));
                    store(dweight, chunk, own);
                    let g = _mm256_mul_ps(load(weight, chunk), d);
                    let change = _mm256_fmsub_ps(g, r, _mm256_mul_ps(x, along));
                    store(&mut dx, chunk, change);
                }
            }
            for chunk in 0..width / LANES {
                store(place, chunk, load(&dx, chunk));
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn copy<T: Lanes>(from: &[T], to: &mut [f32]) {
    for chunk in 0..from.len() / LANES {
        store(to, chunk, load(from, chunk));
    }
}
