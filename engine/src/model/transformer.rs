//! The decoder of Llama, Qwen2 and Qwen3: pre-norm blocks of grouped-query attention with rotary
//! positions and a gated MLP. What one family has and another lacks is optional here.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::adapter::{Adapters, adapted};
use super::product::Product;
use crate::{Error, Result};
use triad::checkpoint::ModelConfig;

/// What the model computes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Weights and activations in bfloat16; the norms' statistics, the softmax of attention, the
    /// rotary angles and the logits in f32, as transformers does.
    Bf16,
}

impl Precision {
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// One decoder layer. The projections that read the same input are stored as one matrix: one
/// multiplication instead of three (or two), forward and backward.
pub(super) struct Block {
    pub input_norm: Tensor,
    /// Queries, keys, values: ((H + 2 KV) * D, C) and ((H + 2 KV) * D).
    pub qkv: Tensor,
    pub qkv_bias: Option<Tensor>,
    /// Norms of a head's query and key, (D) each.
    pub qk_norm: Option<[Tensor; 2]>,
    /// (C, H * D)
    pub output: Tensor,
    /// (C)
    pub output_bias: Option<Tensor>,
    pub mlp_norm: Tensor,
    /// Gate, then up: (2 * I, C).
    pub gate_up: Tensor,
    /// (2 * I)
    pub gate_up_bias: Option<Tensor>,
    /// (C, I)
    pub down: Tensor,
    /// (C)
    pub down_bias: Option<Tensor>,
    pub adapters: Option<Adapters>,
}

impl Block {
    /// The block with `f` of each tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor> + Copy) -> Result<Self> {
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(f).transpose();
        Ok(Self {
            input_norm: f(&self.input_norm)?,
            qkv: f(&self.qkv)?,
            qkv_bias: some(&self.qkv_bias)?,
            qk_norm: match &self.qk_norm {
                Some([q, k]) => Some([f(q)?, f(k)?]),
                None => None,
            },
            output: f(&self.output)?,
            output_bias: some(&self.output_bias)?,
            mlp_norm: f(&self.mlp_norm)?,
            gate_up: f(&self.gate_up)?,
            gate_up_bias: some(&self.gate_up_bias)?,
            down: f(&self.down)?,
            down_bias: some(&self.down_bias)?,
            adapters: self.adapters.as_ref().map(|adapters| adapters.map(f)).transpose()?,
        })
    }
}

/// A language model on a device.
pub struct Transformer {
    pub config: ModelConfig,
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Tensor,
    /// None: the output head is the embedding.
    pub(super) head: Option<Tensor>,
    /// What [`Transformer::rotary`] has computed.
    pub(super) angles: RefCell<Option<[Tensor; 2]>>,
}

impl Transformer {
    /// Final hidden states of `ids` (B, T), i64, each row padded on the right with any valid id:
    /// causal attention keeps the padding out of the positions before it. -> (B, T, C)
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor> {
        let [cos, sin] = self.rotary(ids.size2()?.1)?; // (T, 1, D)
        let x = self.embed(ids)?;
        self.forward(x, ids.size2()?.into(), [&cos, &sin], Product::Torch, |_, q, k, v| {
            let (q, k, v) = (q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?);
            Ok(causal_attention(&q, &k, &v)?.f_transpose(1, 2)?)
        })
    }

    /// The decoder over the embeddings x (B * T, C) of tokens (B, T); their type is that of the
    /// residual stream. The angles' cosines and sines broadcast to (B, T, 1, D); `attend` gets the
    /// layer, its turned queries (B, T, H, D) and keys and its values (B, T, KV, D), and gives
    /// (B, T, H, D). -> (B, T, C)
    pub(super) fn forward(
        &self,
        mut x: Tensor,
        [batch, length]: [i64; 2],
        [cos, sin]: [&Tensor; 2],
        product: Product,
        mut attend: impl FnMut(usize, &Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let kind = x.f_kind()?;
        let (cos, sin) = (cos.f_to_kind(kind)?, sin.f_to_kind(kind)?);
        for layer in 0..self.blocks.len() {
            let attend = |q: &Tensor, k: &Tensor, v: &Tensor| attend(layer, q, k, v);
            x = self.block(layer, &x, [batch, length], [&cos, &sin], product, attend)?;
        }
        let hidden = self.config.hidden_size as i64;
        Ok(self.finish(&x)?.f_view([batch, length, hidden])?)
    }

    /// Embeddings of `ids` (any shape of N ids) -> (N, C).
    pub(super) fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.embedding, &ids.f_reshape(-1)?, -1, false, false)?)
    }

    /// The norm before the head.
    pub(super) fn finish(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.norm, self.config.rms_norm_eps)
    }

    /// One decoder layer. Tokens lie in rows, x (B * T, C), so that each projection is one matrix
    /// product, and those back into the residual stream add to it in the same operation. The angles
    /// are of x's type; for the rest see [`Transformer::forward`].
    pub(super) fn block(
        &self,
        layer: usize,
        x: &Tensor,
        [batch, length]: [i64; 2],
        [cos, sin]: [&Tensor; 2],
        product: Product,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let block = &self.blocks[layer];
        let Shape { heads, kv_heads, width, inner } = Shape::of(&self.config);
        let eps = self.config.rms_norm_eps;
        let normed = rms_norm(x, &block.input_norm, eps)?;
        let adapters = block.adapters.as_ref();
        let qkv = product.linear(&normed, &block.qkv, block.qkv_bias.as_ref())?;
        let qkv = adapted(qkv, &normed, adapters.map(|a| &a.qkv))?;
        let qkv = qkv.f_view([batch, length, heads + 2 * kv_heads, width])?; // (B, T, H + 2 KV, D)
        let [turning, v] = split(&qkv, [heads + kv_heads, kv_heads], 2)?;
        let turning = match &block.qk_norm {
            None => turning,
            Some([q_norm, k_norm]) => {
                let (q, k) =
                    (q_norm.f_expand([heads, -1], false)?, k_norm.f_expand([kv_heads, -1], false)?);
                rms_norm(&turning, &Tensor::f_cat(&[q, k], 0)?, eps)? // weight: (H + KV, D)
            }
        };
        let [q, k] = split(&rotate(&turning, cos, sin)?, [heads, kv_heads], 2)?;
        let attended = attend(&q, &k, &v)?.f_reshape([batch * length, heads * width])?;
        let x = product.add(x, &attended, &block.output, block.output_bias.as_ref())?;
        let x = adapted(x, &attended, adapters.map(|a| &a.output))?;
        let normed = rms_norm(&x, &block.mlp_norm, eps)?;
        let gate_up = product.linear(&normed, &block.gate_up, block.gate_up_bias.as_ref())?;
        let gate_up = adapted(gate_up, &normed, adapters.map(|a| &a.gate_up))?;
        let inner = gated(&gate_up, inner)?;
        let x = product.add(&x, &inner, &block.down, block.down_bias.as_ref())?;
        adapted(x, &inner, adapters.map(|a| &a.down))
    }

    /// Cosines and signed sines of the rotary angles at positions 0..length, f32, (length, 1, D)
    /// each. Computed once for as many positions as were ever asked for.
    pub(super) fn rotary(&self, length: i64) -> Result<[Tensor; 2]> {
        let limit = self.config.max_position_embeddings;
        if length as usize > limit {
            return Err(Error::data(format!(
                "sequence of {length} tokens; the model's max_position_embeddings is {limit}"
            )));
        }
        let mut known = self.angles.borrow_mut();
        let tables = match known.take().filter(|[cos, _]| cos.size()[0] >= length) {
            Some(tables) => tables,
            None => {
                let longest = (length as usize).next_power_of_two().min(limit);
                rotary_table(&self.config, longest as i64, self.device())?
            }
        };
        let [cos, sin] = known.insert(tables);
        Ok([cos.f_narrow(0, 0, length)?, sin.f_narrow(0, 0, length)?])
    }

    /// Next-token logits of hidden states (..., C) -> (..., V), f32 in either precision.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        Ok(hidden.f_linear(head, None::<&Tensor>)?.f_to_kind(Kind::Float)?)
    }

    pub fn device(&self) -> Device {
        self.embedding.device()
    }
}

/// Sizes of the config as libtorch wants them.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub heads: i64,
    pub kv_heads: i64,
    /// Width of a head.
    pub width: i64,
    /// Inner width of the MLP.
    pub inner: i64,
}

impl Shape {
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            heads: config.num_attention_heads as i64,
            kv_heads: config.num_key_value_heads as i64,
            width: config.head_dim() as i64,
            inner: config.intermediate_size as i64,
        }
    }
}

/// The tensor's numbers in row-major order.
pub fn to_host(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let tensor = tensor.f_contiguous()?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension; all but the last product in f32, and on
/// a GPU that, too.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if x.device().is_cuda() {
        // One kernel, for one weight of all rows.
        let (shape, own) = ([*x.size().last().unwrap_or(&1)], weight.dim() == 1);
        let normed = x.f_internal_fused_rms_norm(shape, own.then_some(weight), eps)?.0;
        return Ok(if own { normed } else { normed.f_mul(weight)? });
    }
    let wide = x.f_to_kind(Kind::Float)?;
    let mean = wide.f_square()?.f_mean_dim(-1, true, None)?;
    let scale = mean.f_add_scalar(eps)?.f_rsqrt()?;
    Ok(wide.f_mul(&scale)?.f_to_kind(x.f_kind()?)?.f_mul(weight)?)
}

/// Two parts of a dimension. Split, not narrowed: the gradients of the parts are then joined by one
/// copy instead of added up in zeros.
fn split(tensor: &Tensor, sizes: [i64; 2], dim: i64) -> Result<[Tensor; 2]> {
    let parts = tensor.f_split_with_sizes(sizes, dim)?;
    parts.try_into().map_err(|_| Error::defect("split into other than two parts"))
}

/// silu(gate) * up of (..., 2I) -> (..., I)
pub(super) fn gated(gate_up: &Tensor, inner: i64) -> Result<Tensor> {
    let [gate, up] = split(gate_up, [inner, inner], -1)?;
    Ok(gate.f_silu()?.f_mul(&up)?)
}

/// What [`Transformer::rotary`] gives. The sines' first half is negated: see [`rotate`].
fn rotary_table(config: &ModelConfig, length: i64, device: Device) -> Result<[Tensor; 2]> {
    let width = config.head_dim();
    // In f32, as transformers does: the rounding of the angles is part of the model.
    let frequencies = config.rope.frequencies(width);
    let amplitude = config.rope.amplitude();
    let mut cos: Vec<f32> = Vec::with_capacity(length as usize * width);
    let mut sin: Vec<f32> = Vec::with_capacity(length as usize * width);
    for position in 0..length {
        let start = cos.len();
        let angles = frequencies.iter().map(|frequency| position as f32 * frequency);
        cos.extend(angles.clone().map(|angle| angle.cos() * amplitude));
        cos.extend_from_within(start..);
        sin.extend(angles.map(|angle| -angle.sin() * amplitude));
        sin.extend_from_within(start..);
        sin[start + width / 2..].iter_mut().for_each(|sine| *sine = -*sine);
    }
    let put = |values: &[f32]| -> Result<Tensor> {
        let table = Tensor::f_from_slice(values)?.f_view([length, 1, width as i64])?;
        Ok(table.f_to_device(device)?)
    };
    Ok([put(&cos)?, put(&sin)?])
}

/// Rotary embedding of x (..., D): x * cos + rotate_half(x) * sin, where rotate_half is
/// (-x2, x1) of the halves (x1, x2), here a roll by half the width with the sign in the sines.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = cos.size().last().copied().unwrap_or(0) / 2;
    Ok(x.f_mul(cos)?.f_addcmul(&x.f_roll(half, -1)?, sin)?)
}

/// Causal attention: q (B, H, T, D), k and v (B, KV, T, D) -> (B, H, T, D).
pub(super) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (heads, kv_heads) = (q.size()[1], k.size()[1]);
    if q.device().is_cuda() && heads != kv_heads {
        // Of libtorch's kernels for a GPU, those that take f32 take no groups of heads.
        let repeat = |x: &Tensor| -> Result<Tensor> {
            let expanded = [-1, -1, heads / kv_heads, -1, -1];
            Ok(x.f_unsqueeze(2)?.f_expand(expanded, false)?.f_flatten(1, 2)?)
        };
        return causal_attention(q, &repeat(k)?, &repeat(v)?);
    }
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, true, None, true)?)
}
