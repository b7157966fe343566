//! AdamW.

use tch::{Kind, Tensor};

use super::transformer::to_host;
use crate::checkpoint::{Dtype, HostTensor, Weights};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    pub betas: (f64, f64),
    pub eps: f64,
    /// Applied to matrices only, not to norms and biases.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

/// What a checkpoint stores of an optimizer: its moments as `m.<name>` and `v.<name>`, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWState {
    pub moments: Weights,
    pub step: u64,
}

/// AdamW (arXiv 1711.05101) in the form of `torch.optim.AdamW`.
///
/// The parameters and both moments lie in one flat buffer each, the decayed ones first, and the
/// parameters become views into it: a step is a dozen operations, however many parameters there
/// are.
pub struct AdamW {
    settings: AdamWSettings,
    step: u64,
    /// Name, tensor, offset in the flat buffers.
    parameters: Vec<(String, Tensor, i64)>,
    /// How much of the buffers is decayed.
    decayed: i64,
    flat: Tensor,
    m: Tensor,
    v: Tensor,
}

impl AdamW {
    /// Takes over the storage of `parameters` (see [`super::Transformer::parameters`]).
    pub fn new(parameters: Vec<(String, Tensor)>, settings: AdamWSettings) -> Result<Self> {
        let (matrices, vectors): (Vec<_>, Vec<_>) =
            parameters.into_iter().partition(|(_, tensor)| tensor.dim() > 1);
        let decayed = matrices.iter().map(|(_, tensor)| tensor.numel() as i64).sum();
        let mut placed = Vec::with_capacity(matrices.len() + vectors.len());
        let mut offset = 0;
        for (name, tensor) in matrices.into_iter().chain(vectors) {
            let size = tensor.numel() as i64;
            placed.push((name, tensor, offset));
            offset += size;
        }
        let parts = placed
            .iter()
            .map(|(_, tensor, _)| Ok(tensor.f_detach()?.f_reshape(-1)?))
            .collect::<Result<Vec<_>>>()?;
        let flat = Tensor::f_cat(&parts, 0)?;
        for (_, tensor, offset) in &mut placed {
            let view =
                flat.f_narrow(0, *offset, tensor.numel() as i64)?.f_view(&tensor.size()[..])?;
            tensor.f_set_data(&view)?;
        }
        let m = flat.f_zeros_like()?;
        let v = flat.f_zeros_like()?;
        Ok(Self { settings, step: 0, parameters: placed, decayed, flat, m, v })
    }

    /// One update from the accumulated gradients, scaled down so that their norm is at most `clip`
    /// (infinite: never). Gives the norm before. A norm that is not finite changes nothing.
    ///
    /// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p *= 1 - lr * decay;
    /// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    pub fn step(&mut self, lr: f64, clip: f64) -> Result<f64> {
        tch::no_grad(|| {
            let mut gradient = self.gradient()?;
            let norm = gradient.f_norm()?.f_double_value(&[])?;
            if !norm.is_finite() {
                return Ok(norm);
            }
            // As torch.nn.utils.clip_grad_norm_ does.
            let scale = clip / (norm + 1e-6);
            if scale < 1.0 {
                gradient = gradient.f_mul_scalar(scale)?;
            }
            self.step += 1;
            let (b1, b2) = self.settings.betas;
            let steps = self.step.min(i32::MAX as u64) as i32;
            let (c1, c2) = (1.0 - b1.powi(steps), 1.0 - b2.powi(steps));
            if self.settings.weight_decay != 0.0 {
                let keep = 1.0 - lr * self.settings.weight_decay;
                let _ = self.flat.f_narrow(0, 0, self.decayed)?.f_mul_scalar_(keep)?;
            }
            let _ = self.m.f_lerp_(&gradient, 1.0 - b1)?;
            let mut square = gradient.f_square()?;
            let _ = square.f_mul_scalar_(1.0 - b2)?;
            let _ = self.v.f_mul_scalar_(b2)?.f_add_(&square)?;
            let mut divisor = self.v.f_sqrt()?;
            let _ = divisor.f_div_scalar_(c2.sqrt())?.f_add_scalar_(self.settings.eps)?;
            let mut change = self.m.f_div(&divisor)?;
            let _ = change.f_mul_scalar_(-lr / c1)?;
            let _ = self.flat.f_add_(&change)?;
            Ok(norm)
        })
    }

    /// Forgets the accumulated gradients.
    pub fn zero_grad(&mut self) {
        for (_, tensor, _) in &mut self.parameters {
            tensor.zero_grad();
        }
    }

    /// The gradients in the order of the flat buffers. A parameter that took no part has zeros.
    fn gradient(&self) -> Result<Tensor> {
        let parts = self
            .parameters
            .iter()
            .map(|(_, tensor, _)| {
                let gradient = tensor.f_grad()?;
                let gradient = if gradient.defined() { gradient } else { tensor.f_zeros_like()? };
                Ok(gradient.f_reshape(-1)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    pub fn state(&self) -> Result<AdamWState> {
        let mut moments = Weights::new();
        for (prefix, buffer) in [("m", &self.m), ("v", &self.v)] {
            let values = to_host(buffer)?;
            for (name, tensor, offset) in &self.parameters {
                let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
                let start = *offset as usize;
                let values = &values[start..start + tensor.numel()];
                moments.insert(
                    format!("{prefix}.{name}"),
                    HostTensor::from_f32(shape, values, Dtype::F32),
                );
            }
        }
        Ok(AdamWState { moments, step: self.step })
    }

    /// Continues from a stored state of the same parameters.
    pub fn restore(&mut self, state: &AdamWState) -> Result<()> {
        let load = |prefix: &str| -> Result<Tensor> {
            let mut values = Vec::with_capacity(self.flat.numel());
            for (name, tensor, _) in &self.parameters {
                let name = format!("{prefix}.{name}");
                let moment = state.moments.get(&name).ok_or_else(|| {
                    Error::data(format!("optimizer state lacks the tensor `{name}`"))
                })?;
                if moment.len() != tensor.numel() {
                    return Err(Error::data(format!(
                        "optimizer state: tensor `{name}` has {} numbers, the model {}",
                        moment.len(),
                        tensor.numel()
                    )));
                }
                values.extend(moment.to_f32());
            }
            Ok(Tensor::f_from_slice(&values)?.f_to_kind(Kind::Float)?)
        };
        let (m, v) = (load("m")?, load("v")?);
        self.m = m.f_to_device(self.flat.device())?;
        self.v = v.f_to_device(self.flat.device())?;
        self.step = state.step;
        Ok(())
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }
}
