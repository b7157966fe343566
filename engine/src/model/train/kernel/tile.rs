//! Small matrix products inside the attention kernel.

use std::arch::x86_64::*;

use crate::model::lanes::{LANES, load, store};

/// A matrix: where its first number stands, and how far apart two rows and two columns are.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub numbers: &'a [f32],
    pub rows: usize,
    pub columns: usize,
}

/// left (M, K) * right (K, L) into `out` (M, L), or added to it. L is a multiple of 8; rows of
/// `right` lie `right_stride` apart, rows of `out` `stride`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub fn multiply<const ADD: bool>(
    left: Left,
    (right, right_stride): (&[f32], usize),
    (out, stride): (&mut [f32], usize),
    [m, k, l]: [usize; 3],
) {
    let mut lane = 0;
    while lane < l {
        let (right, two) = (&right[lane..], l - lane >= 2 * LANES);
        let mut row = 0;
        while row < m {
            let left = Left { numbers: &left.numbers[row * left.rows..], ..left };
            let out = &mut out[row * stride + lane..];
            let rows = (m - row).min(6);
            macro_rules! of {
                ($rows:literal) => {
                    match two {
                        true => tile::<$rows, 2, ADD>(left, right, right_stride, out, stride, k),
                        false => tile::<$rows, 1, ADD>(left, right, right_stride, out, stride, k),
                    }
                };
            }
            match rows {
                1 => of!(1),
                2 => of!(2),
                3 => of!(3),
                4 => of!(4),
                5 => of!(5),
                _ => of!(6),
            }
            row += rows;
        }
        lane += if two { 2 * LANES } else { LANES };
    }
}

/// `M` rows and `V` vectors of columns: their sums stay in registers along all of K.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const M: usize, const V: usize, const ADD: bool>(
    left: Left,
    right: &[f32],
    right_stride: usize,
    out: &mut [f32],
    stride: usize,
    k: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    if k > 0 {
        // The last numbers that are read: the loop below needs no further checks.
        let _ = left.numbers[(M - 1) * left.rows + (k - 1) * left.columns];
        let _ = right[(k - 1) * right_stride + V * LANES - 1];
    }
    for step in 0..k {
        // SAFETY: checked above.
        unsafe {
            let at = right.as_ptr().add(step * right_stride);
            let right: [_; V] = std::array::from_fn(|v| _mm256_loadu_ps(at.add(v * LANES)));
            let at = left.numbers.as_ptr().add(step * left.columns);
            for (m, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_broadcast_ss(&*at.add(m * left.rows));
                for v in 0..V {
                    sums[v] = _mm256_fmadd_ps(left, right[v], sums[v]);
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        let out = &mut out[m * stride..];
        for (v, &sum) in sums.iter().enumerate() {
            let sum = if ADD { _mm256_add_ps(load(out, v), sum) } else { sum };
            store(out, v, sum);
        }
    }
}

/// The first `rows` rows of `from` (rows, K) as columns of `to` (K, 2 * LANES); the other columns
/// become 0. K is a multiple of 8.
#[target_feature(enable = "avx2,fma")]
pub fn transpose(from: &[f32], rows: usize, k: usize, to: &mut [f32]) {
    for side in 0..2 {
        for first in (0..k).step_by(LANES) {
            let lines: [__m256; LANES] = std::array::from_fn(|i| {
                let row = side * LANES + i;
                match row < rows {
                    true => load(&from[row * k + first..], 0),
                    false => _mm256_setzero_ps(),
                }
            });
            for (i, column) in transposed(lines).into_iter().enumerate() {
                store(&mut to[(first + i) * 2 * LANES..], side, column);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn transposed(r: [__m256; LANES]) -> [__m256; LANES] {
    let pair = |i: usize| (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
    let ((a, b), (c, d), (e, f), (g, h)) = (pair(0), pair(2), pair(4), pair(6));
    // Columns 0 to 3 of each half, of the upper and of the lower four rows.
    let four = |low: [__m256; 2], high: [__m256; 2]| {
        [
            _mm256_shuffle_ps::<0x44>(low[0], low[1]),
            _mm256_shuffle_ps::<0xee>(low[0], low[1]),
            _mm256_shuffle_ps::<0x44>(high[0], high[1]),
            _mm256_shuffle_ps::<0xee>(high[0], high[1]),
        ]
    };
    let (top, bottom) = (four([a, c], [b, d]), four([e, g], [f, h]));
    let mut out = [_mm256_setzero_ps(); LANES];
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
        out[i + 4] = _mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lanes::available;

    #[test]
    fn products_and_transposes_are_what_they_say() {
        if !available() {
            return;
        }
        let number = |i: usize| ((i * 37 + 11) % 17) as f32 - 8.0;
        for (m, k, l) in [(1, 1, 8), (6, 5, 16), (13, 24, 24), (5, 3, 40), (16, 8, 16)] {
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..k * (l + 3)).map(number).collect();
            let mut out = vec![1.0; m * (l + 5)];
            // SAFETY: the machine has the features.
            unsafe {
                let left = Left { numbers: &a, rows: k, columns: 1 };
                multiply::<false>(left, (&b, l + 3), (&mut out, l + 5), [m, k, l]);
                let left = Left { numbers: &a, rows: 1, columns: m };
                multiply::<true>(left, (&b, l + 3), (&mut out, l + 5), [m, k, l]);
            }
            for row in 0..m {
                for column in 0..l {
                    let sum = |left: &dyn Fn(usize) -> f32| -> f32 {
                        (0..k).map(|i| left(i) * b[i * (l + 3) + column]).sum()
                    };
                    let expected = sum(&|i| a[row * k + i]) + sum(&|i| a[i * m + row]);
                    assert_eq!(out[row * (l + 5) + column], expected);
                }
            }
        }
        let from: Vec<f32> = (0..11 * 24).map(|i| i as f32).collect();
        let mut to = vec![7.0; 24 * 16];
        // SAFETY: the machine has the features.
        unsafe { transpose(&from, 11, 24, &mut to) };
        for (i, &value) in to.iter().enumerate() {
            let (column, row) = (i / 16, i % 16);
            assert_eq!(value, if row < 11 { from[row * 24 + column] } else { 0.0 });
        }
    }
}
