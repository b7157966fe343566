//! The learning rate over a run.

/// A linear warm-up over `warmup` steps to 1, then a cosine down to `last` at `steps`: what the
/// learning rate is multiplied with at `step`, from 0.
pub fn share(step: usize, steps: usize, warmup: usize, last: f64) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls() {
        let shares: Vec<f64> = (0..12).map(|step| share(step, 12, 4, 0.1)).collect();
        assert_eq!(shares[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!(shares[4..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((share(12, 12, 4, 0.1) - 0.1).abs() < 1e-12);
        assert!((0..20).all(|step| share(step, 20, 0, 1.0) == 1.0));
    }
}
