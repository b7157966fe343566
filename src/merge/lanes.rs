//! The loops over numbers: plain ones, compiled for the vectors that the machine has. All of them
//! give the same bits on every machine.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::checkpoint::Dtype;

/// Numbers that are widened at a time, so that they stay in the core's nearest cache.
pub const CHUNK: usize = 4096;

/// Partial sums of a reduction: one for each lane of the widest vectors, whatever the machine has.
const LANES: usize = 16;

/// Numbers as they are stored.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    pub dtype: Dtype,
    pub bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The `count` numbers from `first` on.
    pub fn part(self, first: usize, count: usize) -> Block<'a> {
        let size = self.dtype.size();
        Block { bytes: &self.bytes[first * size..(first + count) * size], ..self }
    }

    pub fn len(self) -> usize {
        self.bytes.len() / self.dtype.size()
    }
}

/// Compiles a function for AVX-512, AVX2 and anything else, and calls the one that fits.
macro_rules! vectorized {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $visible fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    body($($arg),*)
                }
                let basic = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c");
                if basic && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the machine has the features.
                    return unsafe { avx512($($arg),*) };
                }
                if basic {
                    // SAFETY: the machine has the features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(super) use vectorized;

#[inline(always)]
fn wide(pair: &[u8]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16)
}

/// The upper half of an f32, rounded to the nearest, ties to even; NaN stays NaN.
#[inline(always)]
fn narrow_one(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

vectorized! {
    fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
        for (out, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *out = wide(pair);
        }
    }
}

/// The numbers as f32.
pub fn widen(block: Block, out: &mut [f32]) {
    match block.dtype {
        Dtype::Bf16 => widen_bf16(block.bytes, out),
        Dtype::F32 => {
            for (out, four) in out.iter_mut().zip(block.bytes.chunks_exact(4)) {
                *out = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        Dtype::F16 => {
            let mut halves = [f16::ZERO; 64];
            for (out, bytes) in out.chunks_mut(64).zip(block.bytes.chunks(128)) {
                let halves = &mut halves[..out.len()];
                for (half, pair) in halves.iter_mut().zip(bytes.chunks_exact(2)) {
                    *half = f16::from_le_bytes([pair[0], pair[1]]);
                }
                halves.convert_to_f32_slice(out);
            }
        }
    }
}

vectorized! {
    fn narrow_bf16(values: &[f32], out: &mut [u8]) {
        for (value, pair) in values.iter().zip(out.chunks_exact_mut(2)) {
            pair.copy_from_slice(&narrow_one(*value).to_le_bytes());
        }
    }
}

/// Stores f32 numbers as `dtype`, rounded to the nearest, ties to even.
pub fn narrow(values: &[f32], dtype: Dtype, out: &mut [u8]) {
    match dtype {
        Dtype::Bf16 => narrow_bf16(values, out),
        Dtype::F32 => {
            for (value, four) in values.iter().zip(out.chunks_exact_mut(4)) {
                four.copy_from_slice(&value.to_le_bytes());
            }
        }
        Dtype::F16 => {
            let mut halves = [0u16; 64];
            for (values, out) in values.chunks(64).zip(out.chunks_mut(128)) {
                let halves = &mut halves[..values.len()];
                halves.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values);
                for (half, pair) in halves.iter().zip(out.chunks_exact_mut(2)) {
                    pair.copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
}

vectorized! {
    fn largest_u16(bytes: &[u8]) -> u16 {
        let mut most = [0u16; 64];
        let chunks = bytes.chunks_exact(128);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (most, pair) in most.iter_mut().zip(chunk.chunks_exact(2)) {
                *most = (*most).max(u16::from_le_bytes([pair[0], pair[1]]) & 0x7fff);
            }
        }
        for pair in rest.chunks_exact(2) {
            most[0] = most[0].max(u16::from_le_bytes([pair[0], pair[1]]) & 0x7fff);
        }
        most.into_iter().fold(0, u16::max)
    }
}

vectorized! {
    fn largest_u32(bytes: &[u8]) -> u32 {
        let mut most = [0u32; 32];
        let chunks = bytes.chunks_exact(128);
        let rest = chunks.remainder();
        let bits = |four: &[u8]| {
            u32::from_le_bytes([four[0], four[1], four[2], four[3]]) & 0x7fff_ffff
        };
        for chunk in chunks {
            for (most, four) in most.iter_mut().zip(chunk.chunks_exact(4)) {
                *most = (*most).max(bits(four));
            }
        }
        for four in rest.chunks_exact(4) {
            most[0] = most[0].max(bits(four));
        }
        most.into_iter().fold(0, u32::max)
    }
}

/// The position of the first NaN or infinity.
pub fn non_finite(block: Block) -> Option<usize> {
    let finite = match block.dtype {
        Dtype::Bf16 => largest_u16(block.bytes) < bf16::INFINITY.to_bits(),
        Dtype::F16 => largest_u16(block.bytes) < f16::INFINITY.to_bits(),
        Dtype::F32 => largest_u32(block.bytes) < f32::INFINITY.to_bits(),
    };
    if finite {
        return None;
    }
    let mut number = [0.0];
    (0..block.len()).find(|&at| {
        widen(block.part(at, 1), &mut number);
        !number[0].is_finite()
    })
}

vectorized! {
    fn add_bf16(sum: &mut [f32], bytes: &[u8], weight: f32) {
        for (sum, pair) in sum.iter_mut().zip(bytes.chunks_exact(2)) {
            *sum = wide(pair).mul_add(weight, *sum);
        }
    }
}

vectorized! {
    fn add_f32(sum: &mut [f32], values: &[f32], weight: f32) {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum = value.mul_add(weight, *sum);
        }
    }
}

/// sum += weight * block, in one rounding. `space` holds as many numbers.
pub fn add_scaled(sum: &mut [f32], block: Block, weight: f32, space: &mut [f32]) {
    match block.dtype {
        Dtype::Bf16 => add_bf16(sum, block.bytes, weight),
        _ => {
            widen(block, space);
            add_f32(sum, space, weight);
        }
    }
}

vectorized! {
    pub fn divide(values: &mut [f32], divisor: f32) {
        values.iter_mut().for_each(|value| *value /= divisor);
    }
}

vectorized! {
    pub fn multiply(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }
}

vectorized! {
    /// values += factors * others, number by number.
    pub fn add_each(sum: &mut [f32], others: &[f32], factors: &[f32]) {
        for ((sum, other), factor) in sum.iter_mut().zip(others).zip(factors) {
            *sum += other * factor;
        }
    }
}

vectorized! {
    pub fn subtract(values: &mut [f32], others: &[f32]) {
        for (value, other) in values.iter_mut().zip(others) {
            *value -= other;
        }
    }
}

vectorized! {
    pub fn add(values: &mut [f32], others: &[f32]) {
        for (value, other) in values.iter_mut().zip(others) {
            *value += other;
        }
    }
}

vectorized! {
    /// The sum of products in f64, always added in the same order.
    pub fn dot(a: &[f32], b: &[f32]) -> f64 {
        let mut sums = [0f64; LANES];
        let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = left.remainder().iter().zip(right.remainder());
        for (a, b) in left.zip(right) {
            for lane in 0..LANES {
                sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
            }
        }
        for (lane, (a, b)) in rest.enumerate() {
            sums[lane] += f64::from(*a) * f64::from(*b);
        }
        sums.into_iter().sum()
    }
}

vectorized! {
    /// Adds the products to `sums`, number by number.
    pub fn products(sums: &mut [f64], a: &[f32], b: &[f32]) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
}

vectorized! {
    /// The sums of the magnitudes, and of those times `factors`, always added in the same order.
    pub fn magnitudes(values: &[f32], factors: &[f32]) -> (f64, f64) {
        let (mut all, mut kept) = ([0f64; LANES], [0f64; LANES]);
        let (left, right) = (values.chunks_exact(LANES), factors.chunks_exact(LANES));
        let rest = left.remainder().iter().zip(right.remainder());
        for (value, factor) in left.zip(right) {
            for lane in 0..LANES {
                all[lane] += f64::from(value[lane].abs());
                kept[lane] += f64::from((value[lane] * factor[lane]).abs());
            }
        }
        for (lane, (value, factor)) in rest.enumerate() {
            all[lane] += f64::from(value.abs());
            kept[lane] += f64::from((value * factor).abs());
        }
        (all.into_iter().sum(), kept.into_iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_and_rounded_as_half_does() {
        let values: Vec<f32> = (0..300)
            .map(|i| (i as f32 - 150.0) * 1.003_7f32.powi(i))
            .chain([f32::NAN, f32::INFINITY, -0.0, 1e-40, 3.4e38, 65_520.0])
            .collect();
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let mut bytes = vec![0; values.len() * dtype.size()];
            narrow(&values, dtype, &mut bytes);
            let expected = crate::checkpoint::HostTensor::from_f32([values.len()], &values, dtype);
            let mut back = vec![0.0; values.len()];
            widen(Block { dtype, bytes: &bytes }, &mut back);
            for (ours, theirs) in back.iter().zip(expected.to_f32()) {
                assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan());
            }
            let at = non_finite(Block { dtype, bytes: &bytes });
            assert_eq!(at, Some(300), "{dtype:?}");
            assert_eq!(non_finite(Block { dtype, bytes: &bytes[..200 * dtype.size()] }), None);
        }
    }

    #[test]
    fn reductions_do_not_depend_on_the_machines_vectors() {
        let a: Vec<f32> = (0..1003).map(|i| (i as f32).sin()).collect();
        let b: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).cos()).collect();
        let mut sums = [0f64; LANES];
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            sums[i % LANES] += f64::from(*a) * f64::from(*b);
        }
        assert_eq!(dot(&a, &b), sums.into_iter().sum::<f64>());
        let (all, kept) = magnitudes(&a, &vec![0.5; a.len()]);
        assert!((all - 2.0 * kept).abs() < 1e-9 && all > 600.0);
    }
}
