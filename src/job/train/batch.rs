//! Token sequences as padded batches, and their log-probabilities.

use tch::{Device, Kind, Tensor};

use crate::model::{Transformer, loss};
use crate::{Error, Result};

/// Padded tokens of one forward and backward pass: bounds its memory.
const MICRO_BATCH_TOKENS: usize = 4096;

/// A prompt and the response to learn from.
pub struct Sequence {
    pub prompt: Vec<u32>,
    pub response: Vec<u32>,
}

impl Sequence {
    fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }
}

/// Some rows of a batch, as tensors. N = response tokens of these rows, row by row.
pub struct MicroBatch {
    /// Which sequences these are, in order.
    pub rows: Vec<usize>,
    /// (B, T) right-padded with 0.
    ids: Tensor,
    /// (N) positions in the flattened (B*T) whose next token is a response token.
    positions: Tensor,
    /// (N) those next tokens.
    pub targets: Tensor,
    /// (N) row of each token, 0..B.
    pub row_of_token: Tensor,
}

/// Cuts `rows` of a batch into micro-batches of similar lengths, longest first.
pub fn micro_batches(sequences: &[Sequence], rows: &[usize], device: Device) -> Vec<MicroBatch> {
    let mut order = rows.to_vec();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let width = sequences[longest].len().max(1);
        let count = (MICRO_BATCH_TOKENS / width).clamp(1, rest.len());
        let (rows, others) = rest.split_at(count);
        batches.push(MicroBatch::new(sequences, rows, width, device));
        rest = others;
    }
    batches
}

impl MicroBatch {
    fn new(sequences: &[Sequence], rows: &[usize], width: usize, device: Device) -> Self {
        // The last token predicts nothing, so it is not fed.
        let width = width.saturating_sub(1).max(1);
        let mut ids = vec![0i64; rows.len() * width];
        let (mut positions, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (b, &row) in rows.iter().enumerate() {
            let Sequence { prompt, response } = &sequences[row];
            let tokens = prompt.iter().chain(response).map(|&id| i64::from(id));
            for (slot, id) in ids[b * width..(b + 1) * width].iter_mut().zip(tokens) {
                *slot = id;
            }
            for (i, &target) in response.iter().enumerate() {
                positions.push((b * width + prompt.len() + i) as i64 - 1);
                targets.push(i64::from(target));
                owners.push(b as i64);
            }
        }
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self {
            rows: rows.to_vec(),
            ids: tensor(&ids).view([rows.len() as i64, width as i64]),
            positions: tensor(&positions),
            targets: tensor(&targets),
            row_of_token: tensor(&owners),
        }
    }

    /// Number of response tokens, N.
    pub fn tokens(&self) -> usize {
        self.targets.size()[0] as usize
    }

    /// Logits of the response tokens: (N, V).
    pub fn logits(&self, model: &Transformer) -> Result<Tensor> {
        let hidden = model.hidden(&self.ids)?; // (B, T, C)
        let width = hidden.size()[2];
        let hidden = hidden
            .f_reshape([-1, width]) // (B*T, C)
            .and_then(|flat| flat.f_index_select(0, &self.positions)) // (N, C)
            .map_err(Error::defect)?;
        model.logits(&hidden)
    }

    /// Log-probabilities of the response tokens at `temperature`: (N).
    pub fn logprobs(&self, model: &Transformer, temperature: f64) -> Result<Tensor> {
        loss::token_logprobs(&self.logits(model)?, &self.targets, temperature)
    }

    /// `values`, one list per sequence of the whole batch, of these tokens: (N) f32.
    pub fn gather(&self, values: &[Vec<f32>]) -> Tensor {
        let own: Vec<f32> = self.rows.iter().flat_map(|&row| values[row].clone()).collect();
        Tensor::from_slice(&own).to_device(self.targets.device())
    }

    /// `values`, one per sequence of the whole batch, spread over these tokens: (N) f32.
    pub fn per_token(&self, values: &[f64]) -> Tensor {
        let own: Vec<f32> = self.rows.iter().map(|&row| values[row] as f32).collect();
        Tensor::from_slice(&own)
            .to_device(self.targets.device())
            .index_select(0, &self.row_of_token)
            .to_kind(Kind::Float)
    }
}
