//! Fresh weights.

use super::{Dtype, HostTensor, ModelConfig, Weights};
use crate::Result;
use crate::entropy::Stream;

/// Fresh f32 weights as GPT-2 draws them: normal with the given standard deviation (GPT-2's is
/// 0.02), the two projections back into the residual stream scaled by 1/sqrt(2 * layers), norms 1,
/// biases 0. Each tensor has a stream of its own, so the draws of one do not depend on the others.
pub fn init_weights(config: &ModelConfig, seed: u64, deviation: f64) -> Result<Weights> {
    let residual = deviation / (2.0 * config.num_hidden_layers as f64).sqrt();
    let draw = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let values = if name.ends_with("norm.weight") {
            vec![1.0; count]
        } else if name.ends_with(".bias") {
            vec![0.0; count]
        } else {
            let inward = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
            let deviation = if inward { residual } else { deviation };
            let mut stream = Stream::new(seed, &format!("init/{name}"), 0);
            (0..count).map(|_| (deviation * stream.normal()) as f32).collect()
        };
        (name, HostTensor::from_f32(shape, &values, Dtype::F32))
    };
    Ok(config.tensors().into_iter().map(draw).collect())
}
