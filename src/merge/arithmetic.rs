//! Arithmetic with differences from a base: task arithmetic (arXiv 2212.04089), TIES (2306.01708),
//! DARE (2311.03099), Model Breadcrumbs (2312.06795) and DELLA (2406.11617).
//!
//! base + lambda * sum(weight_i * thinned(x_i - base)), divided by the sum of the weights where
//! `normalize` asks for it. With election only those differences count that have the sign of the
//! weighted sum, and the divisor is the sum of their weights.

use super::lanes::vectorized;
use super::method::Thinning;

#[derive(Debug, Clone)]
pub struct Arithmetic {
    pub thinning: Thinning,
    /// Whether signs are elected.
    pub elects: bool,
    pub normalize: bool,
    /// Whether a thinned difference is scaled to the sum of magnitudes that it had.
    pub rescale: bool,
    pub lambda: f32,
    pub shares: Vec<Share>,
}

/// What one model contributes.
#[derive(Debug, Clone)]
pub struct Share {
    /// Position among the tensor's inputs.
    pub input: usize,
    pub weight: f32,
    /// Share of the numbers that stay.
    pub density: f64,
    /// Share of the largest that go (breadcrumbs).
    pub gamma: f64,
    /// How far magnitude moves the probability to stay (DELLA).
    pub epsilon: f64,
}

impl Share {
    /// Whether its difference is thinned out at all.
    pub fn is_thinned(&self, thinning: Thinning) -> bool {
        thinning != Thinning::None && self.density < 1.0
    }
}

impl Arithmetic {
    /// Whether any model's difference is thinned out.
    pub fn is_thinned(&self) -> bool {
        self.shares.iter().any(|share| share.is_thinned(self.thinning))
    }

    /// How often the inputs are gone through: histogram, its refinement, numbers of ties, norms, sum.
    pub fn passes(&self) -> usize {
        let selects = matches!(self.thinning, Thinning::Magnitude | Thinning::Outliers);
        let rescale = usize::from(self.rescale);
        match self.is_thinned() {
            false => 1,
            true if selects => 4 + rescale,
            true => 2,
        }
    }
}

/// The room that [`Arithmetic::merge`] works in, as many numbers as there are in a chunk each.
#[derive(Default)]
pub struct Space {
    pub sum: Vec<f32>,
    divisor: Vec<f32>,
    mixed: Vec<f32>,
}

vectorized! {
    fn sum_up(sum: &mut [f32], delta: &[f32]) {
        for (sum, delta) in sum.iter_mut().zip(delta) {
            *sum += delta;
        }
    }
}

vectorized! {
    fn agree(sum: &[f32], delta: &[f32], weight: f32, mixed: &mut [f32], divisor: &mut [f32]) {
        let lanes = sum.iter().zip(delta).zip(mixed.iter_mut()).zip(divisor);
        for (((sum, delta), mixed), divisor) in lanes {
            // A tie elects plus; zero has no sign and agrees with none.
            let agrees = if *sum >= 0.0 { *delta > 0.0 } else { *delta < 0.0 };
            *mixed += if agrees { *delta } else { 0.0 };
            *divisor += if agrees { weight } else { 0.0 };
        }
    }
}

vectorized! {
    fn divide_each(mixed: &mut [f32], divisors: &[f32]) {
        for (mixed, divisor) in mixed.iter_mut().zip(divisors) {
            *mixed /= if *divisor == 0.0 { 1.0 } else { *divisor };
        }
    }
}

vectorized! {
    fn finish(base: &mut [f32], mixed: &[f32], divisor: f32, lambda: f32) {
        for (base, mixed) in base.iter_mut().zip(mixed) {
            *base += mixed / divisor * lambda;
        }
    }
}

vectorized! {
    /// values *= factors, number by number.
    pub fn scale_each(values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

impl Arithmetic {
    /// Adds the thinned and weighted differences of all shares to `base`.
    pub fn merge(&self, base: &mut [f32], deltas: &[Vec<f32>], space: &mut Space) {
        let count = base.len();
        let clear = |values: &mut Vec<f32>| {
            values.clear();
            values.resize(count, 0.0);
        };
        clear(&mut space.sum);
        for delta in deltas {
            sum_up(&mut space.sum, &delta[..count]);
        }
        let mut divisor = 1.0;
        let mixed = if self.elects {
            clear(&mut space.mixed);
            clear(&mut space.divisor);
            for (delta, share) in deltas.iter().zip(&self.shares) {
                let (mixed, divisor) = (&mut space.mixed[..], &mut space.divisor[..]);
                agree(&space.sum, &delta[..count], share.weight, mixed, divisor);
            }
            if self.normalize {
                divide_each(&mut space.mixed, &space.divisor);
            }
            &space.mixed
        } else {
            if self.normalize {
                let sum: f32 = self.shares.iter().map(|share| share.weight).sum();
                divisor = if sum.abs() < 1e-8 { 1.0 } else { sum };
            }
            &space.sum
        };
        finish(base, mixed, divisor, self.lambda);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arithmetic(elects: bool, normalize: bool, weights: &[f32]) -> Arithmetic {
        let share = |(input, &weight): (usize, &f32)| Share {
            input,
            weight,
            density: 1.0,
            gamma: 0.0,
            epsilon: 0.0,
        };
        let shares = weights.iter().enumerate().map(share).collect();
        let thinning = Thinning::None;
        Arithmetic { thinning, elects, normalize, rescale: false, lambda: 1.0, shares }
    }

    #[test]
    fn the_majoritys_sign_is_elected() {
        let deltas = [vec![1.0, -1.0, 0.0, 2.0], vec![-3.0, 1.0, 0.0, 4.0]];
        let mut base = vec![10.0; 4];
        arithmetic(true, true, &[1.0, 2.0]).merge(&mut base, &deltas, &mut Space::default());
        assert_eq!(base, [8.5, 10.5, 10.0, 12.0]);
        let mut base = vec![10.0; 4];
        arithmetic(false, true, &[1.0, 3.0]).merge(&mut base, &deltas, &mut Space::default());
        assert_eq!(base, [9.5, 10.0, 10.0, 11.5]);
    }
}
