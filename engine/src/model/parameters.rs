//! The model's parameters: from a checkpoint's tensors and back into them.

use std::cell::RefCell;

use bytes::Bytes;
use tch::{Device, Kind, Tensor};

use super::transformer::{Block, Precision, Transformer};
use crate::{Error, Result};
use triad::checkpoint::{Dtype, HostTensor, ModelConfig, Weights, check_weights};

impl Transformer {
    /// Puts `weights` on `device` to compute in `precision`, one parameter after the other: host
    /// memory holds no second copy of them. `trainable`: gradients are tracked.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        device: Device,
        precision: Precision,
        trainable: bool,
    ) -> Result<Self> {
        check_weights(config, weights)?;
        Self::assemble(config, |names| {
            let mut parts = Vec::with_capacity(names.len());
            for name in names {
                let tensor = weights
                    .get(name)
                    .ok_or_else(|| Error::data(format!("checkpoint lacks the tensor `{name}`")))?;
                parts.push(from_host(tensor)?.f_to_kind(precision.kind())?);
            }
            let whole = match &parts[..] {
                [one] => one.shallow_clone(),
                several => Tensor::f_cat(several, 0)?,
            };
            Ok(whole.f_to_device(device)?.f_set_requires_grad(trainable)?)
        })
    }

    /// Weights as libtorch draws them on the device itself, to measure the speed of a shape: normal,
    /// 0.02 wide, about 1 in norms and about 0 elsewhere.
    pub fn random(
        config: &ModelConfig,
        device: Device,
        precision: Precision,
        trainable: bool,
    ) -> Result<Self> {
        let all = config.tensors();
        Self::assemble(config, |names| {
            let shapes: Vec<&Vec<usize>> = names.iter().filter_map(|name| all.get(name)).collect();
            let mut shape: Vec<i64> =
                shapes.first().map(|s| s.iter().map(|&n| n as i64).collect()).unwrap_or_default();
            if let Some(rows) = shape.first_mut() {
                *rows = shapes.iter().map(|shape| shape[0] as i64).sum();
            }
            let norm = names.iter().all(|name| name.ends_with("norm.weight"));
            let mut drawn = Tensor::f_empty(shape, (precision.kind(), device))?;
            let _ = drawn.f_normal_(f64::from(u8::from(norm)), 0.02)?;
            Ok(drawn.f_set_requires_grad(trainable)?)
        })
    }

    /// `put` gives the parameter that is made up of the checkpoint's tensors of these names, one
    /// below the other.
    fn assemble(config: &ModelConfig, put: impl Fn(&[String]) -> Result<Tensor>) -> Result<Self> {
        let one = |name: &str| put(&[name.to_string()]);
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let get = |group: &str| put(&members(layer, group));
                let get_if = |there: bool, group| there.then(|| get(group)).transpose();
                Ok(Block {
                    input_norm: get("input_layernorm.weight")?,
                    qkv: get("self_attn.qkv_proj.weight")?,
                    qkv_bias: get_if(config.qkv_bias, "self_attn.qkv_proj.bias")?,
                    qk_norm: match config.qk_norm {
                        true => {
                            let names = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
                            Some([get(names[0])?, get(names[1])?])
                        }
                        false => None,
                    },
                    output: get("self_attn.o_proj.weight")?,
                    output_bias: get_if(config.output_bias, "self_attn.o_proj.bias")?,
                    mlp_norm: get("post_attention_layernorm.weight")?,
                    gate_up: get("mlp.gate_up_proj.weight")?,
                    gate_up_bias: get_if(config.mlp_bias, "mlp.gate_up_proj.bias")?,
                    down: get("mlp.down_proj.weight")?,
                    down_bias: get_if(config.mlp_bias, "mlp.down_proj.bias")?,
                    adapters: None,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config: config.clone(),
            embedding: one("model.embed_tokens.weight")?,
            blocks,
            norm: one("model.norm.weight")?,
            head: if config.tie_word_embeddings { None } else { Some(one("lm_head.weight")?) },
            angles: RefCell::default(),
        })
    }

    /// The model as it is now, in `precision`: training goes on without the copy.
    pub fn copy(&self, precision: Precision) -> Result<Self> {
        let put = |tensor: &Tensor| -> Result<Tensor> {
            Ok(tensor.f_detach()?.f_to_dtype(precision.kind(), false, true)?)
        };
        Ok(Self {
            config: self.config.clone(),
            embedding: put(&self.embedding)?,
            blocks: self.blocks.iter().map(|block| block.map(put)).collect::<Result<_>>()?,
            norm: put(&self.norm)?,
            head: self.head.as_ref().map(put).transpose()?,
            angles: RefCell::default(),
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
            let [q_norm, k_norm] = match &block.qk_norm {
                Some([q, k]) => [Some(q), Some(k)],
                None => [None, None],
            };
            for (name, tensor) in [
                ("input_layernorm.weight", Some(&block.input_norm)),
                ("self_attn.qkv_proj.weight", Some(&block.qkv)),
                ("self_attn.qkv_proj.bias", block.qkv_bias.as_ref()),
                ("self_attn.q_norm.weight", q_norm),
                ("self_attn.k_norm.weight", k_norm),
                ("self_attn.o_proj.weight", Some(&block.output)),
                ("self_attn.o_proj.bias", block.output_bias.as_ref()),
                ("post_attention_layernorm.weight", Some(&block.mlp_norm)),
                ("mlp.gate_up_proj.weight", Some(&block.gate_up)),
                ("mlp.gate_up_proj.bias", block.gate_up_bias.as_ref()),
                ("mlp.down_proj.weight", Some(&block.down)),
                ("mlp.down_proj.bias", block.down_bias.as_ref()),
            ] {
                all.extend(tensor.map(|tensor| (format!("model.layers.{layer}.{name}"), tensor)));
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// The weights under their checkpoint names, as the model computes with them. What was trained is
    /// [`super::AdamW::masters`].
    pub fn weights(&self, dtype: Dtype) -> Result<Weights> {
        self.by_checkpoint_name(self.parameters(), dtype)
    }

    /// Splits tensors shaped like the parameters (the parameters, their gradients) into the
    /// checkpoint's tensors.
    pub fn by_checkpoint_name(
        &self,
        tensors: Vec<(String, Tensor)>,
        dtype: Dtype,
    ) -> Result<Weights> {
        let shapes = self.config.tensors();
        let mut weights = Weights::new();
        for (name, tensor) in tensors {
            let values = to_bytes(&tensor, dtype)?;
            let names = match name.strip_prefix("model.layers.").and_then(|n| n.split_once('.')) {
                Some((layer, group)) => members(layer, group),
                None => vec![name],
            };
            let mut rest = values;
            for name in names {
                let shape = shapes.get(&name).cloned().unwrap_or_default();
                let size = shape.iter().product::<usize>() * dtype.size();
                if size > rest.len() {
                    return Err(Error::defect(format!("tensor `{name}` has the wrong size")));
                }
                weights.insert(name, HostTensor { dtype, shape, bytes: rest.split_to(size) });
            }
        }
        Ok(weights)
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
        "mlp.gate_up_proj.bias" => &["mlp.gate_proj.bias", "mlp.up_proj.bias"],
        other => &[other],
    };
    parts.iter().map(|part| format!("model.layers.{layer}.{part}")).collect()
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

/// A copy on the CPU. The tensor must have as many bytes as its shape asks for (see
/// [`check_weights`]).
fn from_host(tensor: &HostTensor) -> Result<Tensor> {
    let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(&tensor.bytes, &shape, kind_of(tensor.dtype))?)
}

/// The tensor's numbers as `dtype`, in row-major order.
fn to_bytes(tensor: &Tensor, dtype: Dtype) -> Result<Bytes> {
    let tensor = tensor.f_detach()?.f_to_kind(kind_of(dtype))?.f_to_device(Device::Cpu)?;
    let tensor = tensor.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * dtype.size()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes.into())
}
