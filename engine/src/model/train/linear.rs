//! Products with a weight matrix and its adapter, and their gradients.

use tch::{Device, Kind, Tensor};

use super::kernel;
use crate::Result;
use crate::model::adapter::Adapter;
use crate::model::gradients::Gradients;
use crate::model::product::{multiplies_bf16, slice, slice_mut};

/// What matrix products are computed in.
#[derive(Clone, Copy)]
pub struct Arithmetic {
    /// Of weights and activations.
    pub kind: Kind,
    /// bf16 operands are widened: the machine multiplies f32 only.
    widen: bool,
}

impl Arithmetic {
    pub fn of(kind: Kind) -> Self {
        Self { kind, widen: kind != Kind::Float && !multiplies_bf16() }
    }

    fn operand(self, tensor: &Tensor) -> Result<Tensor> {
        Ok(if self.widen { tensor.f_to_kind(Kind::Float)? } else { tensor.shallow_clone() })
    }

    /// a (M, K) * b (K, N) -> (M, N), in the operands' kind.
    pub fn product(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok(self.operand(a)?.f_matmul(&self.operand(b)?)?.f_to_kind(self.kind)?)
    }

    /// hidden (N, C) * head^T (V, C) -> (N, V), f32.
    pub fn logits(self, hidden: &Tensor, head: &Tensor) -> Result<Tensor> {
        let logits = self.operand(hidden)?.f_linear(&self.operand(head)?, None::<&Tensor>)?;
        Ok(logits.f_to_kind(Kind::Float)?)
    }

    /// Adds a^T (M, N) * b (N, K) to `sum` (M, K), f32.
    pub fn add(self, sum: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        self.add_by(&mut None, sum, a, b)
    }

    /// The same with a place for the product, which is kept for the next of this shape.
    pub fn add_by(
        self,
        place: &mut Option<Tensor>,
        sum: &Tensor,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<()> {
        let (a, b) = (self.operand(a)?.f_transpose(0, 1)?, self.operand(b)?);
        let mut sum = sum.shallow_clone();
        let kind = a.f_kind()?;
        if kind == Kind::Float {
            let _ = sum.f_addmm_(&a, &b)?;
            return Ok(());
        }
        let product = match place.take() {
            Some(product) => product,
            None => Tensor::f_empty(sum.size(), (kind, Device::Cpu))?,
        };
        let _ = a.f_mm_out(&product, &b)?;
        kernel::sum::add(slice_mut(&mut sum)?, slice(&product)?);
        *place = Some(product);
        Ok(())
    }
}

/// A layer's matrix W (M, K) with what stands beside it.
pub struct Linear<'a> {
    pub arithmetic: Arithmetic,
    /// As its gradient is called, without `.weight`.
    pub name: String,
    pub weight: &'a Tensor,
    /// (M)
    pub bias: Option<&'a Tensor>,
    pub adapter: Option<&'a Adapter>,
}

impl Linear<'_> {
    /// x (N, K) -> (N, M)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let arithmetic = self.arithmetic;
        let mut out = match self.bias {
            None => arithmetic.product(x, &self.weight.f_transpose(0, 1)?)?,
            Some(bias) => {
                let operand = |tensor: &Tensor| arithmetic.operand(tensor);
                let out = operand(x)?.f_linear(&operand(self.weight)?, Some(&operand(bias)?))?;
                out.f_to_kind(arithmetic.kind)?
            }
        };
        if let Some(adapter) = self.adapter {
            let thin = arithmetic.product(x, &adapter.down.f_transpose(0, 1)?)?;
            let change = arithmetic.product(&thin, &adapter.up.f_transpose(0, 1)?)?;
            let _ = out.f_add_(&change.f_mul_scalar(adapter.scale)?)?;
        }
        Ok(out)
    }

    /// The gradient at x, given that at what [`Linear::forward`] made of it: (N, M) -> (N, K).
    pub fn at_input(&self, gradient: &Tensor) -> Result<Tensor> {
        let mut out = self.arithmetic.product(gradient, self.weight)?;
        if let Some(adapter) = self.adapter {
            let thin = self.arithmetic.product(gradient, &adapter.up)?;
            let change = self.arithmetic.product(&thin, &adapter.down)?;
            let _ = out.f_add_(&change.f_mul_scalar(adapter.scale)?)?;
        }
        Ok(out)
    }

    /// Adds the gradients of what is learnt.
    pub fn learn(&self, x: &Tensor, gradient: &Tensor, gradients: &Gradients) -> Result<()> {
        let arithmetic = self.arithmetic;
        if let Some(sum) = gradients.of(&format!("{}.weight", self.name)) {
            arithmetic.add(&sum, gradient, x)?;
        }
        if let Some(mut sum) = gradients.of(&format!("{}.bias", self.name)) {
            let _ = sum.f_add_(&gradient.f_sum_dim_intlist(0, false, Kind::Float)?)?;
        }
        let Some(adapter) = self.adapter else { return Ok(()) };
        let scaled = gradient.f_mul_scalar(adapter.scale)?;
        if let Some(sum) = gradients.of(&format!("{}.weight.lora_b", self.name)) {
            let thin = arithmetic.product(x, &adapter.down.f_transpose(0, 1)?)?;
            arithmetic.add(&sum, &scaled, &thin)?;
        }
        if let Some(sum) = gradients.of(&format!("{}.weight.lora_a", self.name)) {
            let thin = arithmetic.product(&scaled, &adapter.up)?;
            arithmetic.add(&sum, &thin, x)?;
        }
        Ok(())
    }
}
