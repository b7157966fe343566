//! Training passes on the CPU without libtorch's autograd: each layer's gradient is written out, so
//! that only what it needs is kept, gradients are added where they belong, and what stands between
//! two matrix products is one pass over memory. Other devices and shapes: [`super::packed`].

mod block;
mod kernel;
mod linear;

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::gradients::Gradients;
use super::lanes::{LANES, available};
use super::packed::Packed;
use super::transformer::{Shape, Transformer};
use crate::Result;
use block::{Layer, Trace, norm_backward, normed};
use linear::Arithmetic;

/// Whether [`Pass`] computes this model.
pub fn serves(model: &Transformer) -> bool {
    let Shape { width, inner, .. } = Shape::of(&model.config);
    let hidden = model.config.hidden_size as i64;
    available()
        && model.device() == Device::Cpu
        && matches!(model.embedding.kind(), Kind::Float | Kind::BFloat16)
        && [width, inner, hidden].iter().all(|size| size % LANES as i64 == 0)
}

/// A model and the sequences that go through it.
pub struct Pass<'a> {
    model: &'a Transformer,
    batch: &'a Packed,
    sequences: Vec<Range<usize>>,
    /// Rotary tables, (T, 1, D) each.
    cos: Tensor,
    sin: Tensor,
}

/// What a layer leaves for the way back.
enum Kept {
    Trace(Trace),
    /// Its input: the rest is computed again.
    Input(Tensor),
}

impl<'a> Pass<'a> {
    pub fn new(model: &'a Transformer, batch: &'a Packed) -> Result<Self> {
        let [cos, sin] = model.rotary(batch.longest())?;
        Ok(Self { model, batch, sequences: batch.sequences(), cos, sin })
    }

    fn layer(&self, layer: usize) -> Result<Layer<'_>> {
        Layer::new(self.model, layer, &self.sequences, [&self.cos, &self.sin])
    }

    /// The residual stream after the last layer, (N, C), f32. `keep` gets each layer's trace.
    fn forward(&self, mut keep: impl FnMut(Trace)) -> Result<Tensor> {
        let mut x = self.model.embed(self.batch.ids())?.f_to_kind(Kind::Float)?;
        for layer in 0..self.model.blocks.len() {
            let trace;
            (x, trace) = self.layer(layer)?.forward(x)?;
            keep(trace);
        }
        Ok(x)
    }

    /// Final hidden states at `positions` (n), rows of the packed batch: (n, C).
    pub fn hidden(&self, positions: &Tensor) -> Result<Tensor> {
        let x = tch::no_grad(|| self.forward(drop))?.f_index_select(0, positions)?;
        self.finish(&x)
    }

    /// The norm before the head, (n, C).
    fn finish(&self, x: &Tensor) -> Result<Tensor> {
        if x.numel() == 0 {
            return Ok(x.f_to_kind(self.model.embedding.f_kind()?)?);
        }
        normed(x, &self.model.norm, self.model.config.rms_norm_eps)
    }

    /// Adds the gradients of the sum of what `loss` gives for the tokens at `positions` (n): it gets
    /// some of them at a time, as a range of 0..n, with their logits (n, V), f32.
    pub fn backward(
        &self,
        positions: &Tensor,
        recompute: bool,
        gradients: &Gradients,
        loss: impl FnMut(Range<usize>, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        if positions.numel() == 0 {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(self.model.blocks.len());
        let keep = |trace: Trace| {
            kept.push(if recompute { Kept::Input(trace.into_input()) } else { Kept::Trace(trace) })
        };
        let last = tch::no_grad(|| self.forward(keep))?;
        let x = last.f_index_select(0, positions)?;
        let mut hidden = self.finish(&x)?;
        let gradient = self.through_head(&hidden, gradients, loss)?;
        tch::no_grad(|| {
            let mut dx = x.f_zeros_like()?;
            hidden.f_copy_(&gradient)?;
            let dweight = gradients.of("model.norm.weight");
            let eps = self.model.config.rms_norm_eps;
            norm_backward(&x, &self.model.norm, eps, &mut hidden, &mut dx, dweight)?;
            let mut all = last.f_zeros_like()?;
            let _ = all.f_index_copy_(0, positions, &dx)?;
            drop((last, x, hidden, dx));
            while let Some(kept_of_layer) = kept.pop() {
                let layer = self.layer(kept.len())?;
                let trace = match kept_of_layer {
                    Kept::Trace(trace) => trace,
                    Kept::Input(x) => layer.forward(x)?.1,
                };
                layer.backward(trace, &mut all, gradients)?;
            }
            if let Some(mut sum) = gradients.of("model.embed_tokens.weight") {
                let _ = sum.f_index_add_(0, &self.batch.ids().f_view(-1)?, &all)?;
            }
            Ok(())
        })
    }

    /// Adds the head's gradient; gives that at `hidden` (n, C).
    fn through_head(
        &self,
        hidden: &Tensor,
        gradients: &Gradients,
        mut loss: impl FnMut(Range<usize>, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let model = self.model;
        let arithmetic = Arithmetic::of(hidden.f_kind()?);
        let (head, name) = match &model.head {
            Some(head) => (head, "lm_head.weight"),
            None => (&model.embedding, "model.embed_tokens.weight"),
        };
        let sum = gradients.of(name);
        let out = hidden.f_zeros_like()?;
        let mut place = None;
        for rows in model.head_rows(hidden) {
            let (start, length) = (rows.start as i64, rows.len() as i64);
            let part = hidden.f_narrow(0, start, length)?;
            let logits = tch::no_grad(|| arithmetic.logits(&part, head))?;
            let logits = logits.f_set_requires_grad(true)?;
            loss(rows, &logits)?.f_backward()?;
            let gradient = logits.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            tch::no_grad(|| -> Result<()> {
                let gradient = gradient.f_to_kind(arithmetic.kind)?;
                let at_part = arithmetic.product(&gradient, head)?;
                out.f_narrow(0, start, length)?.f_copy_(&at_part)?;
                match &sum {
                    Some(sum) => arithmetic.add_by(&mut place, sum, &gradient, &part),
                    None => Ok(()),
                }
            })?;
        }
        Ok(out)
    }
}
