//! The key-value cache of a batch that is being sampled.

use tch::{Kind, Tensor};

use super::sampler::SampleRequest;
use super::transformer::{Shape, Transformer, rotary_table};
use crate::{Error, Result};

/// Added to the scores of masked slots. Finite: a padding query sees masked slots only, and with
/// infinity its NaN would spread from there.
const MASKED: f64 = -1e30;

/// Keys and values of R rows. Prompts are padded on the left, so that all rows end at the same
/// slot and the next token's slot is the same for all.
pub(super) struct Cache {
    shape: Shape,
    rows: i64,
    /// Slots in use.
    length: i64,
    capacity: i64,
    /// Per layer: keys and values, (R * KV, capacity, D) each.
    layers: Vec<(Tensor, Tensor)>,
    /// Rotary tables of all positions, (capacity, 1, D) each.
    rotary: (Tensor, Tensor),
    padding: Option<Padding>,
}

/// Present if the prompts' lengths differ.
struct Padding {
    /// Left padding of each row, (R).
    widths: Tensor,
    /// 0 or [`MASKED`], (R * KV, 1, capacity).
    mask: Tensor,
}

impl Cache {
    /// Runs the prompts through the model and leaves room for `more` tokens. Gives the final hidden
    /// state of each prompt's last token, (R, C).
    pub fn prefill(
        model: &Transformer,
        requests: &[SampleRequest],
        more: usize,
    ) -> Result<(Self, Tensor)> {
        let device = model.device();
        let shape = Shape::of(&model.config);
        let mut prompts: Vec<&[u32]> = Vec::new();
        let mut owner = Vec::with_capacity(requests.len());
        for request in requests {
            if prompts.last() != Some(&request.prompt.as_slice()) {
                prompts.push(&request.prompt);
            }
            owner.push(prompts.len() as i64 - 1);
        }
        let owner = Tensor::f_from_slice(&owner)?.f_to_device(device)?; // (R)
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let (unique, length) = (prompts.len() as i64, longest as i64);
        let capacity = length + more as i64;

        let mut ids = Vec::with_capacity(prompts.len() * longest);
        let mut widths = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            let width = longest - prompt.len();
            widths.push(width as i64);
            ids.extend(std::iter::repeat_n(0, width));
            ids.extend(prompt.iter().map(|&id| i64::from(id)));
        }
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(device)?.f_view([unique, length])?;
        let padded = widths.iter().any(|&width| width > 0);
        let widths = Tensor::f_from_slice(&widths)?.f_to_device(device)?; // (U)

        let rotary = rotary_table(&model.config, capacity, device)?;
        let (cos, sin, mask) = if padded {
            let slots = Tensor::f_arange(length, (Kind::Int64, device))?;
            let positions = slots.f_unsqueeze(0)?.f_sub(&widths.f_unsqueeze(1)?)?; // (U, T)
            let visible = positions.f_ge(0)?.f_view([unique, 1, 1, length])?;
            let causal = slots.f_unsqueeze(1)?.f_ge_tensor(&slots.f_unsqueeze(0)?)?; // (T, T)
            let hidden = visible.f_logical_and(&causal)?.f_logical_not()?; // (U, 1, T, T)
            let mask = hidden.f_to_kind(Kind::Float)?.f_mul_scalar(MASKED)?;
            let positions = positions.f_clamp_min(0)?.f_view(-1)?;
            let pick = |table: &Tensor| -> Result<Tensor> {
                let table = table.f_index_select(0, &positions)?;
                Ok(table.f_view([unique, length, 1, shape.width])?)
            };
            (pick(&rotary.0)?, pick(&rotary.1)?, Some(mask))
        } else {
            (rotary.0.f_narrow(0, 0, length)?, rotary.1.f_narrow(0, 0, length)?, None)
        };

        let rows = requests.len() as i64;
        let mut layers = Vec::with_capacity(model.blocks.len());
        // (U, T, KV, D) -> (R * KV, capacity, D)
        let store = |part: &Tensor| -> Result<Tensor> {
            let dims = [rows, shape.kv_heads, capacity, shape.width];
            let slots = Tensor::f_empty(dims, (Kind::Float, device))?;
            slots
                .f_narrow(2, 0, length)?
                .f_copy_(&part.f_transpose(1, 2)?.f_index_select(0, &owner)?)?;
            Ok(slots.f_view([rows * shape.kv_heads, capacity, shape.width])?)
        };
        let hidden = model.forward(&ids, &cos, &sin, |_, q, k, v| {
            layers.push((store(k)?, store(v)?));
            let (q, k, v) = (q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?);
            let (mask, causal) = (mask.as_ref(), mask.is_none());
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, causal, None, true)?
                .f_transpose(1, 2)
                .map_err(Error::from)
        })?;
        let last = hidden.f_select(1, length - 1)?.f_index_select(0, &owner)?; // (R, C)

        let padding = if padded {
            let widths = widths.f_index_select(0, &owner)?;
            let slots = Tensor::f_arange(capacity, (Kind::Int64, device))?;
            let hidden = slots.f_unsqueeze(0)?.f_lt_tensor(&widths.f_unsqueeze(1)?)?; // (R, S)
            let mask = hidden
                .f_to_kind(Kind::Float)?
                .f_mul_scalar(MASKED)?
                .f_unsqueeze(1)?
                .f_repeat([1, shape.kv_heads, 1])?
                .f_view([rows * shape.kv_heads, 1, capacity])?;
            Some(Padding { widths, mask })
        } else {
            None
        };
        let cache = Self { shape, rows, length, capacity, layers, rotary, padding };
        Ok((cache, last))
    }

    /// Appends one token to each row, `ids` (R) -> final hidden states (R, C).
    pub fn step(&mut self, model: &Transformer, ids: &Tensor) -> Result<Tensor> {
        let Shape { heads, kv_heads, width, .. } = self.shape;
        let (rows, slot) = (self.rows, self.length);
        if slot >= self.capacity {
            return Err(Error::defect(format!("the cache of {slot} slots is full")));
        }
        let used = slot + 1;
        let (cos, sin) = match &self.padding {
            None => (self.rotary.0.f_narrow(0, slot, 1)?, self.rotary.1.f_narrow(0, slot, 1)?),
            Some(padding) => {
                let positions = padding.widths.f_neg()?.f_add_scalar(slot)?; // (R)
                let pick = |table: &Tensor| table.f_index_select(0, &positions)?.f_unsqueeze(1);
                (pick(&self.rotary.0)?, pick(&self.rotary.1)?) // (R, 1, 1, D)
            }
        };
        let mask = match &self.padding {
            None => None,
            Some(padding) => Some(padding.mask.f_narrow(2, 0, used)?),
        };
        let scale = 1.0 / (width as f64).sqrt();
        let layers = &self.layers;
        let hidden = model.forward(&ids.f_unsqueeze(1)?, &cos, &sin, |layer, q, k, v| {
            let (keys, values) = &layers[layer];
            let put = |slots: &Tensor, new: &Tensor| -> Result<()> {
                let dims = [rows, kv_heads, self.capacity, width];
                slots.f_view(dims)?.f_select(2, slot)?.f_copy_(&new.f_squeeze_dim(1)?)?;
                Ok(())
            };
            put(keys, k)?;
            put(values, v)?;
            // The heads of one key-value head are the rows of one small matrix: no repeated keys.
            let q = q.f_mul_scalar(scale)?.f_view([rows * kv_heads, heads / kv_heads, width])?;
            let keys = keys.f_narrow(1, 0, used)?.f_transpose(1, 2)?; // (R * KV, D, T)
            let scores = match &mask {
                None => q.f_bmm(&keys)?,
                Some(mask) => mask.f_baddbmm(&q, &keys, 1.0, 1.0)?,
            }; // (R * KV, H / KV, T)
            let weights = scores.f_softmax(-1, None)?;
            let attended = weights.f_bmm(&values.f_narrow(1, 0, used)?)?; // (R * KV, H / KV, D)
            attended.f_view([rows, 1, heads, width]).map_err(Error::from)
        })?;
        self.length = used;
        Ok(hidden.f_squeeze_dim(1)?)
    }

    /// Keeps the rows `live` (R'), in that order.
    pub fn select(&mut self, live: &Tensor) -> Result<()> {
        let Shape { kv_heads, width, .. } = self.shape;
        let (rows, kept) = (self.rows, live.size1()?);
        for (keys, values) in &mut self.layers {
            for part in [keys, values] {
                let used = part
                    .f_view([rows, kv_heads, self.capacity, width])?
                    .f_narrow(2, 0, self.length)?
                    .f_index_select(0, live)?;
                let dims = [kept, kv_heads, self.capacity, width];
                let slots = Tensor::f_empty(dims, (Kind::Float, part.device()))?;
                slots.f_narrow(2, 0, self.length)?.f_copy_(&used)?;
                *part = slots.f_view([kept * kv_heads, self.capacity, width])?;
            }
        }
        if let Some(padding) = &mut self.padding {
            padding.widths = padding.widths.f_index_select(0, live)?;
            padding.mask = padding
                .mask
                .f_view([rows, kv_heads, self.capacity])?
                .f_index_select(0, live)?
                .f_view([kept * kv_heads, 1, self.capacity])?;
        }
        self.rows = kept;
        Ok(())
    }
}
