//! One decoder layer, forward and back.

use std::ops::Range;

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::kernel::attention;
use super::kernel::gate;
use super::kernel::heads::Heads;
use super::kernel::norm;
use super::linear::{Arithmetic, Linear};
use crate::Result;
use crate::model::adapter::Adapter;
use crate::model::gradients::Gradients;
use crate::model::product::{slice, slice_mut};
use crate::model::transformer::{Block, Shape, Transformer, to_host};

/// A layer of a model at work. N tokens of all sequences one after the other; the residual stream
/// is f32, what stands between the products is of the model's kind.
pub struct Layer<'a> {
    block: &'a Block,
    shape: Shape,
    eps: f64,
    arithmetic: Arithmetic,
    /// `model.layers.<layer>`
    name: String,
    heads: Heads<'a>,
    sequences: &'a [Range<usize>],
}

/// What a layer keeps of its forward pass.
pub struct Trace {
    /// Its input, (N, C), f32.
    x: Tensor,
    /// Queries, keys and values before they are normed and turned: (N, (H + 2 KV) D).
    qkv: Tensor,
    /// (N, H D)
    attended: Tensor,
    /// Logarithms of the softmaxes' divisors, (N, H), f32.
    divisors: Tensor,
    /// The residual stream after attention, (N, C), f32.
    middle: Tensor,
    /// (N, 2 I)
    gate_up: Tensor,
}

/// Calls a kernel for the kind of the layer's activations.
macro_rules! of_kind {
    ($kind:expr, $number:ident => $call:expr) => {
        match $kind {
            Kind::Float => {
                type $number = f32;
                $call
            }
            _ => {
                type $number = bf16;
                $call
            }
        }
    };
}

impl<'a> Layer<'a> {
    /// Layer `layer` of `model` over `sequences`, ranges of its tokens; the rotary tables are those
    /// of all positions, (T, 1, D).
    pub fn new(
        model: &'a Transformer,
        layer: usize,
        sequences: &'a [Range<usize>],
        [cos, sin]: [&'a Tensor; 2],
    ) -> Result<Self> {
        let block = &model.blocks[layer];
        let shape = Shape::of(&model.config);
        let norms = match &block.qk_norm {
            Some([queries, keys]) => Some([to_host(queries)?, to_host(keys)?]),
            None => None,
        };
        let heads = Heads {
            heads: shape.heads as usize,
            kv_heads: shape.kv_heads as usize,
            width: shape.width as usize,
            cos: slice(cos)?,
            sin: slice(sin)?,
            norms,
            eps: model.config.rms_norm_eps,
        };
        Ok(Self {
            block,
            shape,
            eps: model.config.rms_norm_eps,
            arithmetic: Arithmetic::of(model.embedding.f_kind()?),
            name: format!("model.layers.{layer}"),
            heads,
            sequences,
        })
    }

    /// x (N, C) -> (N, C), and what [`Layer::backward`] needs.
    pub fn forward(&self, x: Tensor) -> Result<(Tensor, Trace)> {
        let kind = self.arithmetic.kind;
        let tokens = x.size()[0];
        let normed = normed(&x, &self.block.input_norm, self.eps)?;
        let qkv = self.qkv().forward(&normed)?;
        drop(normed);
        let width = self.shape.heads * self.shape.width;
        let mut attended = Tensor::f_empty([tokens, width], (kind, Device::Cpu))?;
        let mut divisors = Tensor::f_empty([tokens, self.shape.heads], (Kind::Float, Device::Cpu))?;
        of_kind!(kind, T => attention::forward::<T>(
            &self.heads,
            self.sequences,
            slice(&qkv)?,
            slice_mut(&mut attended)?,
            slice_mut(&mut divisors)?,
        ));
        let middle = x.f_add(&self.output().forward(&attended)?)?;
        let normed = self::normed(&middle, &self.block.mlp_norm, self.eps)?;
        let gate_up = self.gate_up().forward(&normed)?;
        drop(normed);
        let mut inner = Tensor::f_empty([tokens, self.shape.inner], (kind, Device::Cpu))?;
        let size = self.shape.inner as usize;
        of_kind!(kind, T => gate::forward::<T>(slice(&gate_up)?, size, slice_mut(&mut inner)?));
        let out = middle.f_add(&self.down().forward(&inner)?)?;
        Ok((out, Trace { x, qkv, attended, divisors, middle, gate_up }))
    }

    /// Adds the gradients of what is learnt here, and turns the gradient at the layer's output into
    /// that at its input, (N, C), f32, in place.
    pub fn backward(&self, trace: Trace, dx: &mut Tensor, gradients: &Gradients) -> Result<()> {
        let kind = self.arithmetic.kind;
        let Trace { x, mut qkv, attended, divisors, middle, mut gate_up } = trace;

        let dout = dx.f_to_kind(kind)?;
        let mut inner = self.down().at_input(&dout)?;
        let size = self.shape.inner as usize;
        of_kind!(kind, T => gate::backward::<T>(
            slice_mut(&mut gate_up)?,
            size,
            slice_mut(&mut inner)?,
        ));
        self.down().learn(&inner, &dout, gradients)?;
        drop((inner, dout));
        let mut normed = self.gate_up().at_input(&gate_up)?;
        let weight = ("post_attention_layernorm", &self.block.mlp_norm);
        self.norm_backward(&middle, weight, &mut normed, dx, gradients)?;
        self.gate_up().learn(&normed, &gate_up, gradients)?;
        drop((normed, gate_up, middle));

        let dout = dx.f_to_kind(kind)?;
        let dattended = self.output().at_input(&dout)?;
        self.output().learn(&attended, &dout, gradients)?;
        let mut norms = ["q_norm", "k_norm"]
            .map(|n| gradients.of(&format!("{}.self_attn.{n}.weight", self.name)));
        let norms = match &mut norms {
            [Some(queries), Some(keys)] => Some([slice_mut(queries)?, slice_mut(keys)?]),
            _ => None,
        };
        of_kind!(kind, T => attention::backward::<T>(
            &self.heads,
            self.sequences,
            slice_mut(&mut qkv)?,
            [slice(&attended)?, slice(&dattended)?],
            slice(&divisors)?,
            norms,
        ));
        drop((attended, dattended, dout));
        let mut normed = self.qkv().at_input(&qkv)?;
        let weight = ("input_layernorm", &self.block.input_norm);
        self.norm_backward(&x, weight, &mut normed, dx, gradients)?;
        self.qkv().learn(&normed, &qkv, gradients)
    }

    /// See [`norm::backward`].
    fn norm_backward(
        &self,
        x: &Tensor,
        (name, weight): (&str, &Tensor),
        normed: &mut Tensor,
        dx: &mut Tensor,
        gradients: &Gradients,
    ) -> Result<()> {
        let dweight = gradients.of(&format!("{}.{name}.weight", self.name));
        norm_backward(x, weight, self.eps, normed, dx, dweight)
    }

    fn qkv(&self) -> Linear<'_> {
        let Block { qkv, qkv_bias, adapters, .. } = self.block;
        self.linear("self_attn.qkv_proj", qkv, qkv_bias, adapters.as_ref().map(|a| &a.qkv))
    }

    fn output(&self) -> Linear<'_> {
        let Block { output, output_bias, adapters, .. } = self.block;
        self.linear("self_attn.o_proj", output, output_bias, adapters.as_ref().map(|a| &a.output))
    }

    fn gate_up(&self) -> Linear<'_> {
        let Block { gate_up, gate_up_bias, adapters, .. } = self.block;
        self.linear(
            "mlp.gate_up_proj",
            gate_up,
            gate_up_bias,
            adapters.as_ref().map(|a| &a.gate_up),
        )
    }

    fn down(&self) -> Linear<'_> {
        let Block { down, down_bias, adapters, .. } = self.block;
        self.linear("mlp.down_proj", down, down_bias, adapters.as_ref().map(|a| &a.down))
    }

    fn linear<'b>(
        &self,
        name: &str,
        weight: &'b Tensor,
        bias: &'b Option<Tensor>,
        adapter: Option<&'b Adapter>,
    ) -> Linear<'b> {
        let name = format!("{}.{name}", self.name);
        Linear { arithmetic: self.arithmetic, name, weight, bias: bias.as_ref(), adapter }
    }
}

impl Trace {
    /// The layer's input.
    pub fn into_input(self) -> Tensor {
        self.x
    }
}

/// RMSNorm of x (N, C), f32 -> (N, C) in the weight's kind.
pub fn normed(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mut out = Tensor::f_empty(x.size(), (weight.f_kind()?, Device::Cpu))?;
    of_kind!(weight.f_kind()?, T => {
        norm::forward::<T>(slice(x)?, slice(weight)?, eps, slice_mut(&mut out)?);
    });
    Ok(out)
}

/// See [`norm::backward`]: `y` holds the gradient at the norm's output and then that output, `dx`
/// is added to.
pub fn norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    y: &mut Tensor,
    dx: &mut Tensor,
    mut dweight: Option<Tensor>,
) -> Result<()> {
    let dweight = dweight.as_mut().map(slice_mut).transpose()?;
    of_kind!(weight.f_kind()?, T => {
        let weight = slice::<T>(weight)?;
        norm::backward::<T>(slice(x)?, weight, eps, slice_mut(y)?, slice_mut(dx)?, dweight);
    });
    Ok(())
}
