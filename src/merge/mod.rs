//! Merging checkpoints in parameter space. Needs no libtorch.

use crate::checkpoint::{Dtype, HostTensor, Weights};
use crate::{Error, Result};

/// Linear merge, per tensor: sum(w_i * theta_i), divided by sum(w_i) when `normalize` (mergekit's
/// `linear`). Sums are in f64 and rounded once, to `dtype`.
pub fn linear(models: &[(&Weights, f64)], normalize: bool, dtype: Dtype) -> Result<Weights> {
    let Some((first, _)) = models.first() else {
        return Err(Error::usage("a merge needs at least one model"));
    };
    let total: f64 = if normalize { models.iter().map(|(_, w)| w).sum() } else { 1.0 };
    if total == 0.0 || !total.is_finite() {
        return Err(Error::usage(format!("the weights sum to {total}, nothing to divide by")));
    }
    for (weights, _) in models {
        if let Some(name) = weights.keys().find(|name| !first.contains_key(*name)) {
            return Err(Error::data(format!("tensor `{name}` is not in every model")));
        }
    }
    let mut merged = Weights::new();
    for (name, like) in first.iter() {
        let mut sums = vec![0f64; like.shape.iter().product()];
        for (weights, weight) in models {
            let tensor = weights
                .get(name)
                .ok_or_else(|| Error::data(format!("tensor `{name}` is not in every model")))?;
            if tensor.shape != like.shape {
                return Err(Error::data(format!(
                    "tensor `{name}`: shape {:?} in one model, {:?} in another",
                    like.shape, tensor.shape
                )));
            }
            for (sum, x) in sums.iter_mut().zip(tensor.to_f32()) {
                *sum += weight / total * f64::from(x);
            }
        }
        let values: Vec<f32> = sums.into_iter().map(|x| x as f32).collect();
        merged.insert(name.clone(), HostTensor::from_f32(like.shape.clone(), &values, dtype));
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(values: &[f32]) -> Weights {
        let tensor = HostTensor::from_f32(vec![values.len()], values, Dtype::F32);
        Weights::from([("w".to_string(), tensor)])
    }

    #[test]
    fn the_papers_weights_are_normalised() {
        let (d, i, a) = (model(&[1.3, 0.0]), model(&[0.0, 2.6]), model(&[0.0, 0.0]));
        let merged = linear(&[(&d, 1.0), (&i, 0.2), (&a, 0.1)], true, Dtype::F32).unwrap();
        let got = merged["w"].to_f32();
        assert!((got[0] - 1.0).abs() < 1e-6 && (got[1] - 0.4).abs() < 1e-6, "{got:?}");
        let plain = linear(&[(&d, 1.0), (&i, 0.2), (&a, 0.1)], false, Dtype::F32).unwrap();
        assert!((plain["w"].to_f32()[0] - 1.3).abs() < 1e-6);
    }

    #[test]
    fn models_that_do_not_match_are_refused_by_tensor() {
        let error = linear(&[(&model(&[1.0]), 1.0), (&model(&[1.0, 2.0]), 1.0)], true, Dtype::F32);
        assert!(error.unwrap_err().to_string().contains("tensor `w`"));
        let other = Weights::from([("v".to_string(), model(&[1.0])["w"].clone())]);
        assert!(linear(&[(&model(&[1.0]), 1.0), (&other, 1.0)], true, Dtype::F32).is_err());
        assert!(linear(&[(&model(&[1.0]), 0.0)], true, Dtype::F32).is_err());
    }
}
