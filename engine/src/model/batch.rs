//! Token sequences as packed batches, and their log-probabilities.

use std::ops::Range;

use tch::{Device, Kind, Tensor, no_grad};

use super::gpu::upload;
use super::gradients::Gradients;
use super::packed::Packed;
#[cfg(target_arch = "x86_64")]
use super::train::{self, Pass};
use super::{Transformer, loss};
use crate::Result;

/// A prompt and the response to learn from.
pub struct Sequence {
    pub prompt: Vec<u32>,
    pub response: Vec<u32>,
}

impl Sequence {
    /// What goes through the model: the last token predicts nothing, so it is not fed.
    fn fed(&self) -> Vec<i64> {
        let tokens = self.prompt.iter().chain(&self.response).map(|&id| i64::from(id));
        tokens.take(self.len()).collect()
    }

    fn len(&self) -> usize {
        (self.prompt.len() + self.response.len()).saturating_sub(1).max(1)
    }
}

/// Some rows of a batch, as tensors. N = response tokens of these rows, row by row.
pub struct MicroBatch {
    /// Which sequences these are, in order, and the lengths of their responses.
    rows: Vec<usize>,
    lengths: Vec<usize>,
    packed: Packed,
    /// (N) rows of the packed tokens whose next token is a response token.
    positions: Tensor,
    /// (N) those next tokens.
    pub targets: Tensor,
}

/// Cuts `rows` of a batch into micro-batches of at most `budget` tokens, or of one sequence that
/// has more. Longest first, so that sequences of the same length are neighbours.
pub fn micro_batches(
    sequences: &[Sequence],
    rows: &[usize],
    budget: usize,
    device: Device,
) -> Result<Vec<MicroBatch>> {
    let mut order = rows.to_vec();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let mut batches = Vec::new();
    let (mut own, mut tokens) = (Vec::new(), 0);
    for row in order {
        let size = sequences[row].len();
        if !own.is_empty() && tokens + size > budget {
            batches.push(MicroBatch::new(sequences, std::mem::take(&mut own), device)?);
            tokens = 0;
        }
        own.push(row);
        tokens += size;
    }
    if !own.is_empty() {
        batches.push(MicroBatch::new(sequences, own, device)?);
    }
    Ok(batches)
}

impl MicroBatch {
    fn new(sequences: &[Sequence], rows: Vec<usize>, device: Device) -> Result<Self> {
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        let mut fed = Vec::with_capacity(rows.len());
        let mut start = 0;
        for &row in &rows {
            let Sequence { prompt, response } = &sequences[row];
            for (i, &target) in response.iter().enumerate() {
                positions.push((start + prompt.len() + i) as i64 - 1);
                targets.push(i64::from(target));
            }
            fed.push(sequences[row].fed());
            start += sequences[row].len();
        }
        let tensor = |values: &[i64]| upload(Tensor::f_from_slice(values)?, device);
        let lengths = rows.iter().map(|&row| sequences[row].response.len()).collect();
        Ok(Self {
            packed: Packed::new(&fed, device)?,
            positions: tensor(&positions)?,
            targets: tensor(&targets)?,
            rows,
            lengths,
        })
    }

    /// Which sequences of the batch these are.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Adds to `gradients` those of the sum of what `loss` gives: it gets some of the response
    /// tokens at a time, as a range of 0..N, with their logits (n, V), f32.
    pub fn backward(
        &self,
        policy: &Transformer,
        gradients: &Gradients,
        recompute: bool,
        loss: impl FnMut(Range<usize>, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        #[cfg(target_arch = "x86_64")]
        if train::serves(policy) {
            let pass = Pass::new(policy, &self.packed)?;
            return pass.backward(&self.positions, recompute, gradients, loss);
        }
        self.backward_by_autograd(policy, gradients, recompute, loss)
    }

    /// The same by libtorch.
    fn backward_by_autograd(
        &self,
        policy: &Transformer,
        gradients: &Gradients,
        recompute: bool,
        loss: impl FnMut(Range<usize>, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        gradients.receive()?;
        let tape = policy.tape(&self.packed, recompute)?;
        let mut gradient = tape.hidden.f_detach()?.f_zeros_like()?; // (tokens, C)
        let hidden = tape.hidden.f_detach()?.f_index_select(0, &self.positions)?; // (N, C)
        let _ = gradient.f_index_copy_(0, &self.positions, &policy.through_head(&hidden, loss)?)?;
        tape.backward(&gradient)?;
        gradients.collect()
    }

    /// Log-probabilities of the response tokens at `temperature`: (N), without a gradient.
    pub fn logprobs(&self, model: &Transformer, temperature: f64) -> Result<Tensor> {
        no_grad(|| {
            let hidden = self.hidden(model)?;
            let parts = model
                .head_rows(&hidden)
                .into_iter()
                .map(|rows| {
                    let (start, length) = (rows.start as i64, rows.len() as i64);
                    let logits = model.logits(&hidden.f_narrow(0, start, length)?)?;
                    let targets = self.targets.f_narrow(0, start, length)?;
                    loss::token_logprobs(&logits, &targets, temperature)
                })
                .collect::<Result<Vec<_>>>()?;
            match parts.is_empty() {
                true => Ok(Tensor::f_zeros([0], (Kind::Float, model.device()))?),
                false => Ok(Tensor::f_cat(&parts, 0)?),
            }
        })
    }

    /// Final hidden states whose next token is a response token, (N, C), without a gradient.
    fn hidden(&self, model: &Transformer) -> Result<Tensor> {
        #[cfg(target_arch = "x86_64")]
        if train::serves(model) {
            return Pass::new(model, &self.packed)?.hidden(&self.positions);
        }
        let hidden = model.tape(&self.packed, false)?.hidden;
        Ok(hidden.f_index_select(0, &self.positions)?)
    }

    /// `values`, one list per sequence of the whole batch, of these tokens: (N) f32.
    pub fn gather(&self, values: &[Vec<f32>]) -> Result<Tensor> {
        let own: Vec<f32> = self.rows.iter().flat_map(|&row| &values[row]).copied().collect();
        upload(Tensor::f_from_slice(&own)?, self.targets.device())
    }

    /// Puts (N) numbers of these tokens into `values`, one list per sequence of the whole batch.
    pub fn scatter(&self, tokens: &Tensor, values: &mut [Vec<f32>]) -> Result<()> {
        let numbers: Vec<f32> = Vec::try_from(tokens.f_to_kind(Kind::Float)?)?;
        let mut rest = &numbers[..];
        for (&row, &length) in self.rows.iter().zip(&self.lengths) {
            let (own, after) = rest.split_at(length);
            values[row] = own.to_vec();
            rest = after;
        }
        Ok(())
    }

    /// `values`, one per sequence of the whole batch, spread over these tokens: N.
    pub fn spread<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let own = self.rows.iter().zip(&self.lengths);
        own.flat_map(|(&row, &length)| std::iter::repeat_n(values[row], length)).collect()
    }

    /// The same as a tensor: (N) f32.
    pub fn per_token(&self, values: &[f64]) -> Result<Tensor> {
        let own: Vec<f32> = self.spread(values).into_iter().map(|value| value as f32).collect();
        upload(Tensor::f_from_slice(&own)?, self.targets.device())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Precision;
    use triad::checkpoint::{ModelConfig, decode_safetensors};

    fn model() -> Transformer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/model/qwen2");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let config = ModelConfig::from_json(&read("config.json")).unwrap();
        let weights = decode_safetensors(read("model.safetensors").into()).unwrap();
        Transformer::load(&config, &weights, Device::Cpu, Precision::F32, true).unwrap()
    }

    fn sequences() -> Vec<Sequence> {
        let ids =
            |count: usize, by: usize| (0..count).map(|i| ((i * by + 3) % 48) as u32).collect();
        [(4, 9), (1, 1), (20, 30), (7, 6), (4, 9), (2, 40), (5, 0)]
            .into_iter()
            .enumerate()
            .map(|(i, (p, r))| Sequence { prompt: ids(p, 5 + i), response: ids(r, 7 + i) })
            .collect()
    }

    /// Gradients of a loss in which every token has another weight.
    fn gradients(
        model: &Transformer,
        budget: usize,
        recompute: bool,
        autograd: bool,
    ) -> Vec<(String, Tensor)> {
        let sequences = sequences();
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let weights: Vec<Vec<f32>> = sequences
            .iter()
            .map(|s| (0..s.response.len()).map(|i| 0.1 + (i % 5) as f32).collect())
            .collect();
        let gradients = Gradients::new(&model.parameters()).unwrap();
        for micro in micro_batches(&sequences, &rows, budget, Device::Cpu).unwrap() {
            let weights = micro.gather(&weights).unwrap();
            let loss = |rows: Range<usize>, logits: &Tensor| {
                let cut = |t: &Tensor| t.narrow(0, rows.start as i64, rows.len() as i64);
                let logp = loss::token_logprobs(logits, &cut(&micro.targets), 0.7)?;
                Ok((logp * cut(&weights)).sum(Kind::Float))
            };
            if autograd {
                micro.backward_by_autograd(model, &gradients, recompute, loss).unwrap();
            } else {
                micro.backward(model, &gradients, recompute, loss).unwrap();
            }
        }
        let of = |(name, _): (String, Tensor)| (name.clone(), gradients.of(&name).unwrap());
        model.parameters().into_iter().map(of).collect()
    }

    /// The same, one padded batch, all logits at once.
    fn padded(model: &Transformer) -> Vec<(String, Tensor)> {
        let sequences = sequences();
        let width = sequences.iter().map(Sequence::len).max().unwrap();
        let mut ids = vec![0i64; sequences.len() * width];
        let (mut at, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (b, sequence) in sequences.iter().enumerate() {
            ids[b * width..][..sequence.len()].copy_from_slice(&sequence.fed());
            for (i, &target) in sequence.response.iter().enumerate() {
                at.push((b * width + sequence.prompt.len() + i) as i64 - 1);
                targets.push(i64::from(target));
                weights.push(0.1 + (i % 5) as f32);
            }
        }
        let ids = Tensor::from_slice(&ids).view([sequences.len() as i64, width as i64]);
        let hidden = model.hidden(&ids).unwrap().view([-1, 32]);
        let logits = model.logits(&hidden.index_select(0, &Tensor::from_slice(&at))).unwrap();
        let logp = loss::token_logprobs(&logits, &Tensor::from_slice(&targets), 0.7).unwrap();
        (logp * Tensor::from_slice(&weights)).sum(Kind::Float).backward();
        let of = |(name, mut p): (String, Tensor)| {
            let gradient = p.grad().copy();
            p.zero_grad();
            (name, gradient)
        };
        model.parameters().into_iter().map(of).collect()
    }

    #[test]
    fn micro_batches_do_not_change_the_gradient() {
        let model = model();
        let padded = padded(&model);
        let check = |what: &str, a: &[(String, Tensor)], b: &[(String, Tensor)], most: f64| {
            for ((name, a), (_, b)) in a.iter().zip(b) {
                let far = ((a - b).abs().max() / a.abs().max()).double_value(&[]);
                assert!(far < most, "{name}, {what}: {far}");
            }
        };
        for autograd in [false, true] {
            let whole = gradients(&model, 4096, false, autograd);
            // Sums in another order, each right to f32's rounding.
            check(&format!("padded, {autograd}"), &padded, &whole, 2e-6);
            for (budget, recompute) in [(1, false), (60, false), (60, true), (4096, true)] {
                let cut = gradients(&model, budget, recompute, autograd);
                check(&format!("{budget} {recompute} {autograd}"), &whole, &cut, 1e-6);
            }
        }
    }

    #[test]
    fn log_probabilities_come_back_to_their_sequences() {
        let model = model();
        let sequences = sequences();
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let logprobs = |budget| {
            let mut all = vec![Vec::new(); sequences.len()];
            for micro in micro_batches(&sequences, &rows, budget, Device::Cpu).unwrap() {
                micro.scatter(&micro.logprobs(&model, 0.7).unwrap(), &mut all).unwrap();
            }
            all
        };
        let (alone, together) = (logprobs(1), logprobs(4096));
        for ((a, b), sequence) in alone.iter().zip(&together).zip(&sequences) {
            assert_eq!(a.len(), sequence.response.len());
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
        }
    }
}
