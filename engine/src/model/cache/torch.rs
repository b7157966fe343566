//! The cache where libtorch attends: on a GPU, on processors without AVX2 and in unoptimized builds.

use tch::{Kind, Tensor};

use super::Prompt;
use crate::Result;
use crate::model::gpu::{self, Sequences};
use crate::model::packed::Packed;
use crate::model::product::Product;
use crate::model::transformer::{Shape, Transformer};

/// Slots for S rows of up to `capacity` tokens, prompts included, in the model's type.
pub struct TorchSlots {
    shape: Shape,
    capacity: i64,
    /// (L, 2, S, capacity, KV, D)
    all: Tensor,
    /// Keys and values of each layer: views of (S * capacity, KV, D).
    layers: Vec<[Tensor; 2]>,
    /// Where the one query of each row begins, and where each row's slots do, (S + 1) i32. None:
    /// attention is by masks.
    starts: Option<[Tensor; 2]>,
}

impl TorchSlots {
    pub fn new(model: &Transformer, rows: i64, capacity: i64) -> Result<Self> {
        let (device, kind) = (model.device(), model.embedding.f_kind()?);
        let shape = Shape::of(&model.config);
        let Shape { kv_heads, width, .. } = shape;
        let dims = [model.blocks.len() as i64, 2, rows, capacity, kv_heads, width];
        // Slots out of sight are multiplied by 0: they must not hold NaN.
        let all = Tensor::f_zeros(dims, (kind, device))?;
        let part = |layer: i64, half: i64| {
            let part = all.f_select(0, layer)?.f_select(0, half)?;
            part.f_view([rows * capacity, kv_heads, width])
        };
        let layers = (0..dims[0]).map(|layer| Ok([part(layer, 0)?, part(layer, 1)?]));
        let layers = layers.collect::<Result<_>>()?;
        let starts = match gpu::has_flash(device, kind, width) {
            true => {
                let numbers = Tensor::f_arange(rows + 1, (Kind::Int, device))?;
                let slots = numbers.f_mul_scalar(capacity)?;
                Some([numbers, slots])
            }
            false => None,
        };
        Ok(Self { shape, capacity, all, layers, starts })
    }

    #[cfg(test)]
    pub fn all(&self) -> &Tensor {
        &self.all
    }

    /// Runs prompts through the model, one after the other without padding.
    pub fn run_prompts(
        &self,
        model: &Transformer,
        rotary: &[Tensor; 2],
        prompts: &[&[u32]],
    ) -> Result<Vec<Prompt>> {
        let fed: Vec<Vec<i64>> =
            prompts.iter().map(|prompt| prompt.iter().map(|&id| i64::from(id)).collect()).collect();
        let batch = Packed::new(&fed, model.device())?;
        let ends: Vec<i64> = batch.sequences().iter().map(|own| own.end as i64 - 1).collect();
        let ends = gpu::upload(Tensor::f_from_slice(&ends)?, model.device())?;
        let tokens = batch.positions().size1()?;
        let Shape { kv_heads, width, .. } = self.shape;
        let dims = [self.layers.len() as i64, 2, tokens, kv_heads, width];
        let stored = Tensor::f_empty(dims, (self.all.f_kind()?, model.device()))?;
        let pick = |table: &Tensor| table.f_index_select(0, batch.positions()); // (N, 1, D)
        let hidden = model.forward(
            model.embed(batch.ids())?,
            [1, tokens],
            [&pick(&rotary[0])?, &pick(&rotary[1])?],
            Product::InPlace,
            |layer, q, k, v| {
                let own = stored.f_select(0, layer as i64)?; // (2, N, KV, D)
                own.f_select(0, 0)?.f_copy_(&k.f_squeeze_dim(0)?)?;
                own.f_select(0, 1)?.f_copy_(&v.f_squeeze_dim(0)?)?;
                batch.attend(q, k, v)
            },
        )?;
        let last = hidden.f_squeeze_dim(0)?.f_index_select(0, &ends)?; // (U, C)
        let prompts = (0..).zip(batch.sequences()).map(|(u, own)| {
            let part = stored.f_narrow(2, own.start as i64, own.len() as i64)?;
            Ok(Prompt {
                length: own.len(),
                stored: vec![part.f_contiguous()?],
                last: last.f_narrow(0, u, 1)?,
            })
        });
        prompts.collect()
    }

    /// Puts a prompt into the slots of `row`.
    pub fn begin(&self, row: i64, prompt: &Prompt) -> Result<()> {
        let slots = self.all.f_select(2, row)?.f_narrow(2, 0, prompt.length as i64)?;
        for stored in &prompt.stored {
            slots.shallow_clone().f_copy_(stored)?;
        }
        Ok(())
    }

    /// Copies the first `used` slots of row `from` to those of row `to`.
    pub fn copy(&self, from: i64, to: i64, used: i64) -> Result<()> {
        let part = |row: i64| self.all.f_select(2, row)?.f_narrow(2, 0, used);
        Ok(part(to)?.f_copy_(&part(from)?)?)
    }

    /// Appends a token to each of the first R rows, `ids` (R) at `positions` (R) -> final hidden
    /// states (R, C).
    pub fn step(
        &self,
        model: &Transformer,
        rotary: &[Tensor; 2],
        ids: &Tensor,
        positions: &[i64],
    ) -> Result<Tensor> {
        let (count, capacity) = (positions.len() as i64, self.capacity);
        let Shape { heads, kv_heads, width, .. } = self.shape;
        let used = positions.iter().max().map_or(0, |&position| position + 1);
        let slots = (0..).zip(positions).map(|(row, position)| row * capacity + position);
        let numbers: Vec<i64> = positions.iter().copied().chain(slots).collect();
        let numbers = gpu::upload(Tensor::f_from_slice(&numbers)?, model.device())?;
        let numbers = numbers.f_view([2, count])?;
        let (positions, slots) = (numbers.f_select(0, 0)?, numbers.f_select(0, 1)?);
        // (R, 1, 1, D)
        let pick = |table: &Tensor| table.f_index_select(0, &positions)?.f_unsqueeze(1);
        let seen = match self.starts {
            Some(_) => positions.f_add_scalar(1)?.f_to_kind(Kind::Int)?, // lengths (R)
            None => {
                let places = Tensor::f_arange(used, (Kind::Int64, model.device()))?;
                let visible = places.f_unsqueeze(0)?.f_le_tensor(&positions.f_unsqueeze(1)?)?;
                visible.f_unsqueeze(1)?.f_unsqueeze(1)? // (R, 1, 1, used)
            }
        };
        let attend = |layer: usize, q: &Tensor, k: &Tensor, v: &Tensor| {
            let [keys, values] = &self.layers[layer];
            for (slot, new) in [(keys, k), (values, v)] {
                let _ = slot.shallow_clone().f_index_copy_(0, &slots, &new.f_squeeze_dim(1)?)?;
            }
            if let Some([queries, rows]) = &self.starts {
                let (queries, rows) =
                    (queries.f_narrow(0, 0, count + 1)?, rows.f_narrow(0, 0, count + 1)?);
                let queries = Sequences { starts: &queries, longest: 1, used: None };
                let rows = Sequences { starts: &rows, longest: used, used: Some(&seen) };
                let q = q.f_squeeze_dim(1)?; // (R, H, D)
                return gpu::flash([&q, keys, values], &queries, &rows, false);
            }
            // The heads of one key-value head are queries that see the same keys.
            let q = q.f_reshape([count, kv_heads, heads / kv_heads, width])?;
            let view = |slots: &Tensor| {
                let rows = slots.f_view([-1, capacity, kv_heads, width])?.f_narrow(0, 0, count)?;
                rows.f_narrow(1, 0, used)?.f_transpose(1, 2) // (R, KV, used, D)
            };
            let (keys, values, mask) = (view(keys)?, view(values)?, Some(&seen));
            Ok(Tensor::f_scaled_dot_product_attention(
                &q, &keys, &values, mask, 0.0, false, None, false,
            )?) // (R, KV, H / KV, D)
        };
        let x = model.embed(ids)?;
        let angles = [&pick(&rotary[0])?, &pick(&rotary[1])?];
        let hidden = model.forward(x, [count, 1], angles, Product::InPlace, attend)?;
        Ok(hidden.f_squeeze_dim(1)?)
    }
}
