//! Sums of products in f32.

use std::arch::x86_64::_mm256_add_ps;

use half::bf16;

use crate::model::lanes::{LANES, load, store};
use crate::model::threads::{Parts, available, share};

/// Numbers of a task.
const SIZE: usize = 1 << 16;

/// Adds `part` to `sum`. libtorch would first widen all of `part`, into memory as large as `sum`.
pub fn add(sum: &mut [f32], part: &[bf16]) {
    let all = Parts::new(sum);
    share(part.len().div_ceil(SIZE), available(), |task| {
        let part = &part[task * SIZE..part.len().min((task + 1) * SIZE)];
        // SAFETY: tasks do not overlap; the machine has the features.
        unsafe { add_some(all.part(task * SIZE, part.len()), part) };
    });
}

#[target_feature(enable = "avx2,fma")]
fn add_some(sum: &mut [f32], part: &[bf16]) {
    let whole = sum.len() / LANES;
    for chunk in 0..whole {
        let total = _mm256_add_ps(load(sum, chunk), load(part, chunk));
        store(sum, chunk, total);
    }
    let rest = whole * LANES;
    for (sum, part) in sum[rest..].iter_mut().zip(&part[rest..]) {
        *sum += part.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_added_once() {
        if !crate::model::lanes::available() {
            return;
        }
        for size in [1, 8, 13, SIZE, 2 * SIZE + 5] {
            let part: Vec<bf16> = (0..size).map(|i| bf16::from_f32((i % 200) as f32)).collect();
            let mut sum: Vec<f32> = (0..size).map(|i| i as f32 * 0.5).collect();
            add(&mut sum, &part);
            let expected = |i: usize| i as f32 * 0.5 + (i % 200) as f32;
            assert!(sum.iter().enumerate().all(|(i, &sum)| sum == expected(i)));
        }
    }
}
