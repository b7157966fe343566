//! Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): the weights stay as they are, and each
//! matrix of a block learns a product of two thin ones beside it.

use tch::{Kind, Tensor};

use super::transformer::Transformer;
use crate::Result;
use triad::entropy::Stream;

/// What is learnt beside a matrix W (N, K): x W^T + scale (x A^T) B^T.
pub(super) struct Adapter {
    /// A, (r, K)
    pub down: Tensor,
    /// B, (N, r)
    pub up: Tensor,
    pub scale: f64,
}

/// The adapters of a block.
pub(super) struct Adapters {
    pub qkv: Adapter,
    pub output: Adapter,
    pub gate_up: Adapter,
    pub down: Adapter,
}

impl Adapter {
    /// A is drawn uniformly from +-1 / sqrt(K), B is 0: at first nothing changes.
    fn new(weight: &Tensor, rank: usize, scale: f64, seed: u64, name: &str) -> Result<Self> {
        let (rows, columns) = weight.size2()?;
        let mut stream = Stream::new(seed, &format!("lora/{name}"), 0);
        let bound = (columns as f64).sqrt().recip();
        let drawn: Vec<f32> = (0..rank as i64 * columns)
            .map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32)
            .collect();
        let down = Tensor::f_from_slice(&drawn)?.f_view([rank as i64, columns])?;
        let up = Tensor::f_zeros([rows, rank as i64], (Kind::Float, weight.device()))?;
        let place = |tensor: Tensor| -> Result<Tensor> {
            let tensor = tensor.f_to_device(weight.device())?.f_to_kind(weight.f_kind()?)?;
            Ok(tensor.f_set_requires_grad(true)?)
        };
        Ok(Self { down: place(down)?, up: place(up)?, scale })
    }

    /// `out` + scale (x A^T) B^T: (M, N), (M, K) -> (M, N)
    fn add(&self, out: Tensor, x: &Tensor) -> Result<Tensor> {
        let kind = self.down.f_kind()?;
        let thin = x.f_to_kind(kind)?.f_linear(&self.down, None::<&Tensor>)?;
        let change = thin.f_linear(&self.up, None::<&Tensor>)?.f_mul_scalar(self.scale)?;
        Ok(out.f_add(&change.f_to_kind(out.f_kind()?)?)?)
    }

    /// W + scale B A, f32.
    fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let wide = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Float);
        let change = wide(&self.up)?.f_matmul(&wide(&self.down)?)?;
        Ok(wide(weight)?.f_add(&change.f_mul_scalar(self.scale)?)?)
    }
}

/// `out`, what a matrix makes of `x`, with what its adapter adds.
pub(super) fn adapted(out: Tensor, x: &Tensor, adapter: Option<&Adapter>) -> Result<Tensor> {
    match adapter {
        None => Ok(out),
        Some(adapter) => adapter.add(out, x),
    }
}

impl Adapters {
    /// The adapters with `f` of each tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let one = |adapter: &Adapter| -> Result<Adapter> {
            let Adapter { down, up, scale } = adapter;
            Ok(Adapter { down: f(down)?, up: f(up)?, scale: *scale })
        };
        Ok(Self {
            qkv: one(&self.qkv)?,
            output: one(&self.output)?,
            gate_up: one(&self.gate_up)?,
            down: one(&self.down)?,
        })
    }

    fn named(&self) -> [(&'static str, &Adapter); 4] {
        [
            ("self_attn.qkv_proj.weight", &self.qkv),
            ("self_attn.o_proj.weight", &self.output),
            ("mlp.gate_up_proj.weight", &self.gate_up),
            ("mlp.down_proj.weight", &self.down),
        ]
    }
}

impl Transformer {
    /// Freezes the parameters and puts an adapter of this rank beside each matrix of each block;
    /// what it adds is multiplied with `alpha` / `rank`.
    pub fn adapt(&mut self, rank: usize, alpha: f64, seed: u64) -> Result<()> {
        for (_, parameter) in self.parameters() {
            let _ = parameter.f_set_requires_grad(false)?;
        }
        let scale = alpha / rank as f64;
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let new = |weight: &Tensor, name: &str| {
                Adapter::new(weight, rank, scale, seed, &format!("{layer}/{name}"))
            };
            block.adapters = Some(Adapters {
                qkv: new(&block.qkv, "qkv")?,
                output: new(&block.output, "output")?,
                gate_up: new(&block.gate_up, "gate_up")?,
                down: new(&block.down, "down")?,
            });
        }
        Ok(())
    }

    /// What is learnt, by name, sorted: the adapters where there are some, else all parameters.
    /// Handles to the model's own tensors.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            for (name, adapter) in block.adapters.iter().flat_map(Adapters::named) {
                for (part, tensor) in [("lora_a", &adapter.down), ("lora_b", &adapter.up)] {
                    all.push((
                        format!("model.layers.{layer}.{name}.{part}"),
                        tensor.shallow_clone(),
                    ));
                }
            }
        }
        if all.is_empty() {
            return self.parameters();
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The parameters with `learnt`, what an optimizer has of [`Transformer::trainable`], put in:
    /// in place of them, or as adapters merged into the matrices beside which they stand. f32 where
    /// it is learnt.
    pub fn merged(&self, learnt: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>> {
        if self.blocks.iter().all(|block| block.adapters.is_none()) {
            return Ok(learnt);
        }
        tch::no_grad(|| {
            let mut all = self.parameters();
            for (layer, block) in self.blocks.iter().enumerate() {
                for (name, adapter) in block.adapters.iter().flat_map(Adapters::named) {
                    let name = format!("model.layers.{layer}.{name}");
                    let part = |part: &str| -> Result<Tensor> {
                        let found = learnt.iter().find(|(own, _)| *own == format!("{name}.{part}"));
                        found.map(|(_, tensor)| tensor.shallow_clone()).ok_or_else(|| {
                            crate::Error::defect(format!(
                                "no `{name}.{part}` among what was learnt"
                            ))
                        })
                    };
                    let learnt = Adapter {
                        down: part("lora_a")?,
                        up: part("lora_b")?,
                        scale: adapter.scale,
                    };
                    if let Some((_, weight)) = all.iter_mut().find(|(own, _)| *own == name) {
                        *weight = learnt.merged(weight)?;
                    }
                }
            }
            Ok(all)
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::tests::reference_model;
    use crate::model::{AdamW, AdamWSettings, Precision, Sequence, loss, micro_batches};
    use triad::checkpoint::Dtype;

    /// One step of AdamW on a loss over two sequences.
    fn step(model: &Transformer, optimizer: &mut AdamW) {
        let ids = |n: usize, by: usize| (0..n).map(|i| ((i * by + 3) % 48) as u32).collect();
        let sequences =
            [(3, 9), (5, 14)].map(|(p, r)| Sequence { prompt: ids(p, 5), response: ids(r, 7) });
        for micro in micro_batches(&sequences, &[0, 1], 4096, Device::Cpu).unwrap() {
            let nll = |rows: std::ops::Range<usize>, logits: &Tensor| {
                let targets = micro.targets.narrow(0, rows.start as i64, rows.len() as i64);
                Ok(loss::token_logprobs(logits, &targets, 1.0)?.neg().sum(Kind::Float))
            };
            micro.backward(model, optimizer.gradients(), true, nll).unwrap();
        }
        optimizer.step(0.01, 1.0).unwrap();
    }

    fn hidden(model: &Transformer) -> Tensor {
        let ids = Tensor::from_slice(&[5i64, 9, 2, 31, 7]).unsqueeze(0);
        tch::no_grad(|| model.hidden(&ids).unwrap())
    }

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        ((a - b).abs().max() / b.abs().max()).double_value(&[])
    }

    #[test]
    fn adapters_learn_alone_and_merge_into_the_weights() {
        let mut model = reference_model();
        let (before, weights) = (hidden(&model), model.weights(Dtype::F32).unwrap());
        model.adapt(4, 8.0, 1).unwrap();
        assert_eq!(model.trainable().len(), 2 * 4 * 2);
        assert_eq!(hidden(&model), before);
        let mut optimizer = AdamW::new(model.trainable(), AdamWSettings::default()).unwrap();
        for _ in 0..3 {
            step(&model, &mut optimizer);
        }
        assert_eq!(model.weights(Dtype::F32).unwrap(), weights);
        assert!(far(&hidden(&model), &before) > 0.01);
        let copy = model.copy(Precision::F32).unwrap();
        let seen = hidden(&model);
        assert_eq!(hidden(&copy), seen);
        step(&model, &mut optimizer);
        assert!(hidden(&copy) == seen && hidden(&model) != seen);
        let merged = model.merged(optimizer.masters().unwrap()).unwrap();
        let merged = model.by_checkpoint_name(merged, Dtype::F32).unwrap();
        let plain =
            Transformer::load(&model.config, &merged, Device::Cpu, Precision::F32, false).unwrap();
        assert!(far(&hidden(&plain), &hidden(&model)) < 1e-5);
        // Where nothing is adapted, what is learnt are the parameters.
        let names =
            |all: Vec<(String, Tensor)>| all.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(plain.trainable()), names(plain.parameters()));
    }

    #[test]
    fn training_continues_bit_for_bit_in_every_form() {
        let weights = reference_model().weights(Dtype::F32).unwrap();
        let config = reference_model().config;
        for (precision, lora) in [
            (Precision::F32, false),
            (Precision::F32, true),
            (Precision::Bf16, false),
            (Precision::Bf16, true),
        ] {
            let new = || {
                let mut model =
                    Transformer::load(&config, &weights, Device::Cpu, precision, true).unwrap();
                if lora {
                    model.adapt(4, 8.0, 1).unwrap();
                }
                let optimizer = AdamW::new(model.trainable(), AdamWSettings::default()).unwrap();
                (model, optimizer)
            };
            let (model, mut optimizer) = new();
            for _ in 0..2 {
                step(&model, &mut optimizer);
            }
            let saved = optimizer.state().unwrap();
            step(&model, &mut optimizer);
            let (again, mut restored) = new();
            restored.restore(&saved).unwrap();
            step(&again, &mut restored);
            assert_eq!(
                optimizer.state().unwrap(),
                restored.state().unwrap(),
                "{precision:?} {lora}"
            );
            assert_eq!(hidden(&model), hidden(&again), "{precision:?} {lora}");
        }
    }
}
