//! The Qwen2 decoder: pre-norm blocks of grouped-query attention with rotary positions and a gated
//! MLP. Computes in f32.

use tch::{Device, Kind, Tensor};

use super::product::Product;
use crate::checkpoint::{Dtype, HostTensor, ModelConfig, Weights, check_weights};
use crate::{Error, Result};

/// One decoder layer. The projections that read the same input are stored as one matrix: one
/// multiplication instead of three (or two), forward and backward.
pub(super) struct Block {
    pub input_norm: Tensor,
    /// Queries, keys, values: ((H + 2 KV) * D, C) and ((H + 2 KV) * D).
    pub qkv: Tensor,
    pub qkv_bias: Tensor,
    /// (C, H * D)
    pub output: Tensor,
    pub mlp_norm: Tensor,
    /// Gate, then up: (2 * I, C).
    pub gate_up: Tensor,
    /// (C, I)
    pub down: Tensor,
}

/// A Qwen2 language model on a device.
pub struct Transformer {
    pub config: ModelConfig,
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Tensor,
    /// None: the output head is the embedding.
    pub(super) head: Option<Tensor>,
}

impl Transformer {
    /// Puts `weights` on `device` as f32. `trainable`: gradients are tracked.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        device: Device,
        trainable: bool,
    ) -> Result<Self> {
        config.validate()?;
        check_weights(config, weights)?;
        let put = |names: &[String]| -> Result<Tensor> {
            let mut parts = Vec::with_capacity(names.len());
            for name in names {
                let tensor = weights
                    .get(name)
                    .ok_or_else(|| Error::data(format!("checkpoint lacks the tensor `{name}`")))?;
                let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
                parts.push(Tensor::f_from_slice(&tensor.to_f32())?.f_reshape(shape)?);
            }
            let whole = match &parts[..] {
                [one] => one.shallow_clone(),
                several => Tensor::f_cat(several, 0)?,
            };
            Ok(whole.f_to_device(device)?.f_set_requires_grad(trainable)?)
        };
        let one = |name: &str| put(&[name.to_string()]);
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let get = |group: &str| put(&members(layer, group));
                Ok(Block {
                    input_norm: get("input_layernorm.weight")?,
                    qkv: get("self_attn.qkv_proj.weight")?,
                    qkv_bias: get("self_attn.qkv_proj.bias")?,
                    output: get("self_attn.o_proj.weight")?,
                    mlp_norm: get("post_attention_layernorm.weight")?,
                    gate_up: get("mlp.gate_up_proj.weight")?,
                    down: get("mlp.down_proj.weight")?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config: config.clone(),
            embedding: one("model.embed_tokens.weight")?,
            blocks,
            norm: one("model.norm.weight")?,
            head: if config.tie_word_embeddings { None } else { Some(one("lm_head.weight")?) },
        })
    }

    /// The parameters by name, sorted. Handles to the model's own tensors: writing into one changes
    /// the model. Names are those of the checkpoint, except the joint `qkv_proj` and
    /// `gate_up_proj`.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![
            ("model.embed_tokens.weight".to_string(), &self.embedding),
            ("model.norm.weight".to_string(), &self.norm),
        ];
        if let Some(head) = &self.head {
            all.push(("lm_head.weight".to_string(), head));
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            for (name, tensor) in [
                ("input_layernorm.weight", &block.input_norm),
                ("self_attn.qkv_proj.weight", &block.qkv),
                ("self_attn.qkv_proj.bias", &block.qkv_bias),
                ("self_attn.o_proj.weight", &block.output),
                ("post_attention_layernorm.weight", &block.mlp_norm),
                ("mlp.gate_up_proj.weight", &block.gate_up),
                ("mlp.down_proj.weight", &block.down),
            ] {
                all.push((format!("model.layers.{layer}.{name}"), tensor));
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// The weights under their checkpoint names.
    pub fn weights(&self, dtype: Dtype) -> Result<Weights> {
        self.by_checkpoint_name(self.parameters(), dtype)
    }

    /// Splits tensors shaped like the parameters (the parameters, their gradients) into the
    /// checkpoint's tensors.
    pub(super) fn by_checkpoint_name(
        &self,
        tensors: Vec<(String, Tensor)>,
        dtype: Dtype,
    ) -> Result<Weights> {
        let shapes = self.config.tensors();
        let mut weights = Weights::new();
        for (name, tensor) in tensors {
            let values = to_host(&tensor)?;
            let names = match name.strip_prefix("model.layers.").and_then(|n| n.split_once('.')) {
                Some((layer, group)) => members(layer, group),
                None => vec![name],
            };
            let mut rest = &values[..];
            for name in names {
                let shape = shapes.get(&name).cloned().unwrap_or_default();
                let count: usize = shape.iter().product();
                let Some((values, after)) = rest.split_at_checked(count) else {
                    return Err(Error::defect(format!("tensor `{name}` has the wrong size")));
                };
                rest = after;
                weights.insert(name, HostTensor::from_f32(shape, values, dtype));
            }
        }
        Ok(weights)
    }

    /// Final hidden states of `ids` (B, T), i64, each row padded on the right with any valid id:
    /// causal attention keeps the padding out of the positions before it. -> (B, T, C)
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor> {
        let (_, length) = ids.size2()?;
        let limit = self.config.max_position_embeddings;
        if length as usize > limit {
            return Err(Error::data(format!(
                "sequence of {length} tokens; the model's max_position_embeddings is {limit}"
            )));
        }
        let (cos, sin) = rotary_table(&self.config, length, ids.device())?; // (T, 1, D)
        self.forward(ids, &cos, &sin, Product::Torch, |_, q, k, v| {
            let (q, k, v) = (q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?);
            Ok(causal_attention(&q, &k, &v)?.f_transpose(1, 2)?)
        })
    }

    /// The decoder over `ids` (B, T). `cos` and `sin` broadcast to (B, T, 1, D); `attend` gets the
    /// layer, its turned queries (B, T, H, D) and keys and its values (B, T, KV, D), and gives
    /// (B, T, H, D). -> (B, T, C)
    pub(super) fn forward(
        &self,
        ids: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        product: Product,
        mut attend: impl FnMut(usize, &Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (batch, length) = ids.size2()?;
        let Shape { heads, kv_heads, width, inner } = Shape::of(&self.config);
        let eps = self.config.rms_norm_eps;
        let hidden = self.config.hidden_size as i64;
        // Tokens lie in rows, (B * T, C), so that each projection is one matrix product, and those
        // back into the residual stream add to it in the same operation.
        let ids = ids.f_reshape(-1)?;
        let mut x = Tensor::f_embedding(&self.embedding, &ids, -1, false, false)?;
        x = x.f_to_kind(Kind::Float)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = rms_norm(&x, &block.input_norm, eps)?;
            let qkv = product.linear(&normed, &block.qkv, Some(&block.qkv_bias))?.f_view([
                batch,
                length,
                heads + 2 * kv_heads,
                width,
            ])?; // (B, T, H + 2 KV, D)
            let [turning, v] = split(&qkv, [heads + kv_heads, kv_heads], 2)?;
            let [q, k] = split(&rotate(&turning, cos, sin)?, [heads, kv_heads], 2)?;
            let attended = attend(layer, &q, &k, &v)?;
            let attended = attended.f_reshape([batch * length, heads * width])?; // (B * T, H * D)
            x = product.add(&x, &attended, &block.output)?;
            let normed = rms_norm(&x, &block.mlp_norm, eps)?;
            let gate_up = product.linear(&normed, &block.gate_up, None)?;
            x = product.add(&x, &gated(&gate_up, inner)?, &block.down)?;
        }
        Ok(rms_norm(&x, &self.norm, eps)?.f_view([batch, length, hidden])?)
    }

    /// Next-token logits of hidden states (..., C) -> (..., V).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        Ok(hidden.f_linear(head, None::<&Tensor>)?)
    }

    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// A copy to sample from, with its weights in bf16.
    pub fn in_bf16(&self) -> Result<Self> {
        let cast = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::BFloat16);
        let blocks = self.blocks.iter().map(|block| {
            Ok(Block {
                input_norm: cast(&block.input_norm)?,
                qkv: cast(&block.qkv)?,
                qkv_bias: cast(&block.qkv_bias)?,
                output: cast(&block.output)?,
                mlp_norm: cast(&block.mlp_norm)?,
                gate_up: cast(&block.gate_up)?,
                down: cast(&block.down)?,
            })
        });
        Ok(Self {
            config: self.config.clone(),
            embedding: cast(&self.embedding)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: cast(&self.norm)?,
            head: self.head.as_ref().map(cast).transpose()?,
        })
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

/// The checkpoint's tensors that make up one parameter of a layer.
fn members(layer: impl std::fmt::Display, group: &str) -> Vec<String> {
    let parts: &[&str] = match group {
        "self_attn.qkv_proj.weight" => {
            &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"]
        }
        "self_attn.qkv_proj.bias" => {
            &["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"]
        }
        "mlp.gate_up_proj.weight" => &["mlp.gate_proj.weight", "mlp.up_proj.weight"],
        other => &[other],
    };
    parts.iter().map(|part| format!("model.layers.{layer}.{part}")).collect()
}

/// The tensor's numbers in row-major order.
pub(super) fn to_host(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let tensor = tensor.f_contiguous()?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.f_square()?.f_mean_dim(-1, true, None)?;
    let scale = mean.f_add_scalar(eps)?.f_rsqrt()?;
    Ok(x.f_mul(&scale)?.f_mul(weight)?)
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

/// Cosines and signed sines of the rotary angles at positions 0..length, each (length, 1, D).
/// The sines' first half is negated: see [`rotate`].
pub(super) fn rotary_table(
    config: &ModelConfig,
    length: i64,
    device: Device,
) -> Result<(Tensor, Tensor)> {
    let width = config.head_dim();
    let half = width / 2;
    // In f32, as transformers does: the rounding of the angles is part of the model.
    let frequencies: Vec<f32> = (0..half)
        .map(|i| 1.0 / (config.rope_theta as f32).powf((2 * i) as f32 / width as f32))
        .collect();
    let mut cos = Vec::with_capacity(length as usize * width);
    let mut sin = Vec::with_capacity(length as usize * width);
    for position in 0..length {
        let angle = |i: usize| position as f32 * frequencies[i % half];
        cos.extend((0..width).map(|i| angle(i).cos()));
        sin.extend((0..width).map(|i| if i < half { -angle(i).sin() } else { angle(i).sin() }));
    }
    let put = |values: &[f32]| -> Result<Tensor> {
        let table = Tensor::f_from_slice(values)?.f_view([length, 1, width as i64])?;
        Ok(table.f_to_device(device)?)
    };
    Ok((put(&cos)?, put(&sin)?))
}

/// Rotary embedding of x (..., D): x * cos + rotate_half(x) * sin, where rotate_half is
/// (-x2, x1) of the halves (x1, x2), here a roll by half the width with the sign in the sines.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = cos.size().last().copied().unwrap_or(0) / 2;
    Ok(x.f_mul(cos)?.f_addcmul(&x.f_roll(half, -1)?, sin)?)
}

/// Causal attention: q (B, H, T, D), k and v (B, KV, T, D) -> (B, H, T, D).
fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, true, None, true)?)
}
