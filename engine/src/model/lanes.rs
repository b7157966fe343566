//! Eight f32 lanes of AVX2: what the kernels on the CPU are made of.

use std::arch::x86_64::*;

/// Numbers in a vector.
pub(super) const LANES: usize = 8;

/// Whether the machine has what the kernels need. Not optimized, they are slower than libtorch.
pub(super) fn available() -> bool {
    cfg!(optimized) && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// A number in memory, eight at a time.
pub(super) trait Lanes: Copy {
    /// # Safety
    /// The machine has AVX2, and eight numbers lie at `from`.
    unsafe fn eight(from: *const Self) -> __m256;

    /// # Safety
    /// The machine has AVX2, and there is room for eight numbers at `to`.
    unsafe fn put(to: *mut Self, lanes: __m256);
}

impl Lanes for f32 {
    #[inline(always)]
    unsafe fn eight(from: *const Self) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn put(to: *mut Self, lanes: __m256) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(to, lanes) }
    }
}

impl Lanes for half::bf16 {
    /// The upper half of an f32 each.
    #[inline(always)]
    unsafe fn eight(from: *const Self) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    /// Rounded to the nearest, ties to even; NaN stays NaN.
    #[inline(always)]
    unsafe fn put(to: *mut Self, lanes: __m256) {
        // SAFETY: the caller's.
        unsafe {
            let bits = _mm256_castps_si256(lanes);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_add_epi32(bits, half);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(lanes, lanes));
            let quiet = _mm256_set1_epi32(0x7fc0_0000);
            let rounded = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let (low, high) =
                (_mm256_castsi256_si128(rounded), _mm256_extracti128_si256::<1>(rounded));
            _mm_storeu_si128(to.cast(), _mm_packus_epi32(low, high));
        }
    }
}

/// The vector of numbers `LANES * chunk..`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn load<T: Lanes>(values: &[T], chunk: usize) -> __m256 {
    let lane = &values[chunk * LANES..][..LANES];
    // SAFETY: eight numbers lie there.
    unsafe { T::eight(lane.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn store<T: Lanes>(values: &mut [T], chunk: usize, lane: __m256) {
    let place = &mut values[chunk * LANES..][..LANES];
    // SAFETY: eight numbers lie there.
    unsafe { T::put(place.as_mut_ptr(), lane) }
}

/// The sum of the lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn total(lanes: __m256) -> f32 {
    let mut numbers = [0.0; LANES];
    store(&mut numbers, 0, lanes);
    numbers.into_iter().sum()
}

/// e^x for x <= 0, to about one unit in the last place: the polynomial of Cephes' expf.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exp(x: __m256) -> __m256 {
    // Below, the result would not be a normal number. The order of operands lets NaN pass.
    let x = _mm256_max_ps(_mm256_set1_ps(-87.0), x);
    let scaled = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
    // ln 2 in two parts, the first with few digits.
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693_359_4), x);
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    let y = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0)));
    // 2^n: n + 127 in the exponent's place.
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_mul_ps(y, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_rounding() {
        if !available() {
            return;
        }
        // SAFETY: the machine has the features.
        let ours = |x: f32| -> f32 { unsafe { _mm256_cvtss_f32(exp(_mm256_set1_ps(x))) } };
        for i in 0..8700 {
            let x = -0.01 * i as f32;
            let far = f64::from(ours(x)) / f64::from(x).exp() - 1.0;
            assert!(far.abs() < 2.5e-7, "exp({x}) is off by {far:e}");
        }
        assert!(ours(-1e30) < 1e-37);
        assert!(ours(f32::NAN).is_nan());
    }

    #[test]
    fn bf16_is_rounded_as_it_should_be() {
        if !available() {
            return;
        }
        let numbers = [0.0, -1.5, 1.003_906_3, 1.011_718_8, 3.4e38, f32::INFINITY, f32::NAN, 1e-40];
        let mut ours = [half::bf16::ZERO; LANES];
        // SAFETY: the machine has the features.
        unsafe { store(&mut ours, 0, load(&numbers, 0)) };
        for (ours, number) in ours.into_iter().zip(numbers) {
            let expected = half::bf16::from_f32(number);
            assert!(ours == expected || ours.is_nan() && expected.is_nan(), "{number}: {ours}");
        }
    }
}
