//! Training passes: sequences without padding, no logits of a whole batch, and activations computed
//! again instead of kept, where memory asks for it.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::gpu::{self, Sequences};
use super::product::Product;
use super::transformer::{Transformer, causal_attention};
use crate::{Error, Result};

/// Logits that are held at a time: 16 MB in f32, and a few times that with their gradients. More
/// would be memory that the allocator returns and asks for again, page by page.
const LOGITS: usize = if cfg!(test) { 1 << 10 } else { 1 << 22 };

/// Token sequences one after the other: a row for each token, none for padding.
pub struct Packed {
    /// (1, N), i64.
    ids: Tensor,
    /// (N) place of each token in its sequence.
    positions: Tensor,
    /// Neighbours of the same length: how many, and their length. One attention each, except where
    /// one kernel takes all.
    runs: Vec<[i64; 2]>,
    /// Where each sequence begins, and where the last ends: (B + 1) i32.
    starts: Tensor,
    longest: i64,
}

impl Packed {
    /// Sequences of equal length should be neighbours. None may be empty.
    pub fn new(sequences: &[Vec<i64>], device: Device) -> Result<Self> {
        let put = |values: Vec<i64>| gpu::upload(Tensor::f_from_slice(&values)?, device);
        let mut starts = vec![0i32];
        for sequence in sequences {
            starts.push(starts.last().copied().unwrap_or(0) + sequence.len() as i32);
        }
        let starts = gpu::upload(Tensor::f_from_slice(&starts)?, device)?;
        let runs = sequences
            .chunk_by(|a, b| a.len() == b.len())
            .map(|run| [run.len() as i64, run[0].len() as i64])
            .collect();
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0) as i64;
        let positions = sequences.iter().flat_map(|s| 0..s.len() as i64).collect();
        let ids = put(sequences.concat())?.f_unsqueeze(0)?;
        Ok(Self { ids, positions: put(positions)?, runs, starts, longest })
    }

    /// (1, N), i64.
    pub(super) fn ids(&self) -> &Tensor {
        &self.ids
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest(&self) -> i64 {
        self.longest
    }

    /// (N), i64: place of each token in its sequence.
    pub(super) fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// The sequences as ranges of tokens.
    pub(super) fn sequences(&self) -> Vec<Range<usize>> {
        let lengths = self.runs.iter().flat_map(|&[count, length]| (0..count).map(move |_| length));
        let end = |end: &mut usize, length: i64| {
            let start = *end;
            *end += length as usize;
            Some(start..*end)
        };
        lengths.scan(0, end).collect()
    }

    /// Causal attention within each sequence: q (1, N, H, D), k and v (1, N, KV, D) -> (N, H * D).
    pub(super) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        if let [1, _, _, width] = q.size()[..]
            && gpu::has_flash(q.device(), q.f_kind()?, width)
        {
            let all = Sequences { starts: &self.starts, longest: self.longest, used: None };
            let parts = [q.f_squeeze_dim(0)?, k.f_squeeze_dim(0)?, v.f_squeeze_dim(0)?];
            let attended = gpu::flash(parts.each_ref(), &all, &all, true)?; // (N, H, D)
            return Ok(attended.f_flatten(1, 2)?);
        }
        let mut parts = Vec::with_capacity(self.runs.len());
        let sizes: Vec<i64> = self.runs.iter().map(|[count, length]| count * length).collect();
        let split = |x: &Tensor| x.f_split_with_sizes(&sizes[..], 1);
        let all = split(q)?.into_iter().zip(split(k)?).zip(split(v)?).zip(&self.runs);
        for (((q, k), v), &[count, length]) in all {
            let rows = |x: Tensor| -> Result<Tensor> {
                let [heads, width] = [x.size()[2], x.size()[3]];
                Ok(x.f_reshape([count, length, heads, width])?.f_transpose(1, 2)?)
            };
            let attended = causal_attention(&rows(q)?, &rows(k)?, &rows(v)?)?.f_transpose(1, 2)?;
            let width = attended.size()[2] * attended.size()[3];
            parts.push(attended.f_reshape([count * length, width])?);
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// A forward pass that can be followed back.
pub struct Tape<'a> {
    model: &'a Transformer,
    batch: &'a Packed,
    /// Final hidden states, (N, C).
    pub hidden: Tensor,
    /// The input of each block, where activations are computed again; the last is of the norm.
    inputs: Vec<Tensor>,
}

impl Transformer {
    /// Final hidden states of a packed batch. `recompute`: only the blocks' inputs are kept, and
    /// each block is computed a second time on the way back (Chen et al., arXiv 1604.06174).
    pub fn tape<'a>(&'a self, batch: &'a Packed, recompute: bool) -> Result<Tape<'a>> {
        let [cos, sin] = self.rotary_at(batch)?;
        let mut inputs = Vec::new();
        let forward = |inputs: &mut Vec<Tensor>| -> Result<Tensor> {
            let mut x = self.embed(&batch.ids)?;
            for layer in 0..self.blocks.len() {
                if recompute {
                    inputs.push(x.shallow_clone());
                }
                x = self.packed_block(layer, &x, batch, &cos, &sin)?;
            }
            if recompute {
                inputs.push(x.shallow_clone());
            }
            self.finish(&x)
        };
        let hidden = match recompute {
            true => tch::no_grad(|| forward(&mut inputs))?,
            false => forward(&mut inputs)?,
        };
        Ok(Tape { model: self, batch, hidden, inputs })
    }

    /// The rotary tables at each token, (N, 1, D), in the model's kind.
    pub(super) fn rotary_at(&self, batch: &Packed) -> Result<[Tensor; 2]> {
        let [cos, sin] = self.rotary(batch.longest)?;
        let kind = self.embedding.f_kind()?;
        let at = |table: Tensor| -> Result<Tensor> {
            Ok(table.f_index_select(0, &batch.positions)?.f_to_kind(kind)?)
        };
        Ok([at(cos)?, at(sin)?])
    }

    fn packed_block(
        &self,
        layer: usize,
        x: &Tensor,
        batch: &Packed,
        cos: &Tensor,
        sin: &Tensor,
    ) -> Result<Tensor> {
        let sizes = [1, x.size()[0]];
        self.block(layer, x, sizes, [cos, sin], Product::Torch, |q, k, v| batch.attend(q, k, v))
    }

    /// Goes through the head with some rows of `hidden` (N, C) at a time: `loss` gets the numbers of
    /// the rows and their logits (n, V), and gives what is to be summed up, a scalar. Adds the sum's
    /// gradient to the head's, and returns its gradient at `hidden`, (N, C).
    pub fn through_head(
        &self,
        hidden: &Tensor,
        mut loss: impl FnMut(Range<usize>, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let leaf = hidden.f_detach()?.f_set_requires_grad(true)?;
        for rows in self.head_rows(hidden) {
            let part = leaf.f_narrow(0, rows.start as i64, rows.len() as i64)?;
            loss(rows, &self.logits(&part)?)?.f_backward()?;
        }
        let gradient = leaf.f_grad()?;
        Ok(if gradient.defined() { gradient } else { hidden.f_zeros_like()? })
    }

    /// The rows of `hidden` (N, C) in shares whose logits fit into memory.
    pub fn head_rows(&self, hidden: &Tensor) -> Vec<Range<usize>> {
        let rows = hidden.size()[0] as usize;
        let most = if self.device().is_cuda() { 16 * LOGITS } else { LOGITS };
        let share = (most / self.config.vocab_size.max(1)).max(16);
        (0..rows).step_by(share).map(|start| start..(start + share).min(rows)).collect()
    }
}

impl Tape<'_> {
    /// Adds to the parameters' gradients those of a loss whose gradient at `hidden` is `gradient`,
    /// (N, C).
    pub fn backward(self, gradient: &Tensor) -> Result<()> {
        let Self { model, batch, hidden, mut inputs } = self;
        let Some(last) = inputs.pop() else { return pull(&hidden, gradient) };
        drop(hidden);
        let [cos, sin] = model.rotary_at(batch)?;
        // What `output` makes of its input again, this time followed back.
        let back =
            |input: Tensor, gradient: &Tensor, output: &dyn Fn(&Tensor) -> Result<Tensor>| {
                let leaf = input.f_detach()?.f_set_requires_grad(true)?;
                pull(&output(&leaf)?, gradient)?;
                Ok::<_, Error>(leaf.f_grad()?)
            };
        let mut gradient = back(last, gradient, &|x| model.finish(x))?;
        while let Some(input) = inputs.pop() {
            let layer = inputs.len();
            let block = |x: &Tensor| model.packed_block(layer, x, batch, &cos, &sin);
            gradient = back(input, &gradient, &block)?;
        }
        pull(&model.embed(&batch.ids)?, &gradient)
    }
}

/// Follows `output` back with this gradient at it. Nothing is done where nothing before it is learnt,
/// as below the first adapter.
fn pull(output: &Tensor, gradient: &Tensor) -> Result<()> {
    if !output.requires_grad() {
        return Ok(());
    }
    // libtorch's binding starts from a scalar: one whose gradient at `output` is the one wanted.
    Ok(output.f_mul(&gradient.f_detach()?)?.f_sum(Kind::Float)?.f_backward()?)
}
