//! The key-value cache of a batch that is being sampled.

use tch::{Device, Kind, Tensor};

use super::attend::{Attention, Slots, attend, supports};
use super::device::prefer_large_pages;
use super::sampler::SampleRequest;
use super::transformer::{Shape, Transformer, rotary_table};
use crate::{Error, Result};

/// Added to the scores of masked slots. Finite: a padding query sees masked slots only, and with
/// infinity its NaN would spread from there.
const MASKED: f64 = -1e30;

/// Keys and values of R rows: of their prompts and of what follows. Prompts are padded on the left,
/// so that the next token's slot is the same for all rows.
///
/// On the CPU, in an optimized build, [`attend`] reads the cache, and the rows of one prompt share
/// its keys and values. Elsewhere libtorch does, and each row has its own (U = R).
pub(super) struct Cache {
    shape: Shape,
    rows: i64,
    /// Slots of the prompts.
    prompt: i64,
    /// Slots in use after the prompts, and how many there are.
    used: i64,
    capacity: i64,
    layers: Vec<Layer>,
    /// Rotary tables of all positions, (prompt + capacity, 1, D) each.
    rotary: (Tensor, Tensor),
    /// Left padding of each row, (R). None: no row has any.
    padding: Option<Tensor>,
    shared: Option<Shared>,
    /// Without `shared`: 0 or [`MASKED`], (R * KV, 1, prompt). None: no row has padding.
    mask: Option<Tensor>,
}

struct Layer {
    /// Keys and values, (U * KV, prompt, D) each.
    prompt: [Tensor; 2],
    /// Keys and values, (R * KV, capacity, D) each.
    own: [Tensor; 2],
}

/// Which rows share which prompts.
struct Shared {
    /// The prompt of each row.
    owners: Vec<usize>,
    /// First visible slot of each prompt.
    starts: Vec<usize>,
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
        let owners = owner.iter().map(|&owner| owner as usize).collect();
        let owner = Tensor::f_from_slice(&owner)?.f_to_device(device)?; // (R)
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let (unique, length) = (prompts.len() as i64, longest as i64);
        let capacity = more as i64;

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
        let starts = widths.iter().map(|&width| width as usize).collect();
        // Not optimized, the kernel is slower than libtorch.
        let kernel = cfg!(optimized) && device == Device::Cpu && supports(shape.width as usize);
        let widths = Tensor::f_from_slice(&widths)?.f_to_device(device)?; // (U)

        let rotary = rotary_table(&model.config, length + capacity, device)?;
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
        // (U, T, KV, D) -> (U * KV, T, D)
        let store = |part: &Tensor| -> Result<Tensor> {
            let part = part.f_transpose(1, 2)?;
            let part = if kernel { part } else { part.f_index_select(0, &owner)? };
            Ok(part.f_contiguous()?.f_view([-1, length, shape.width])?)
        };
        let empty = || empty_slots(rows * shape.kv_heads, capacity, shape.width, device);
        let hidden = model.forward(&ids, &cos, &sin, |_, q, k, v| {
            let prompt = [store(k)?, store(v)?];
            layers.push(Layer { prompt, own: [empty()?, empty()?] });
            let (q, k, v) = (q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?);
            let (mask, causal) = (mask.as_ref(), mask.is_none());
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, causal, None, true)?
                .f_transpose(1, 2)
                .map_err(Error::from)
        })?;
        let last = hidden.f_select(1, length - 1)?.f_index_select(0, &owner)?; // (R, C)

        let padding = if padded { Some(widths.f_index_select(0, &owner)?) } else { None };
        let mask = match &padding {
            Some(widths) if !kernel => {
                let slots = Tensor::f_arange(length, (Kind::Int64, device))?;
                let hidden = slots.f_unsqueeze(0)?.f_lt_tensor(&widths.f_unsqueeze(1)?)?; // (R, P)
                let mask = hidden.f_to_kind(Kind::Float)?.f_mul_scalar(MASKED)?;
                let mask = mask.f_unsqueeze(1)?.f_repeat([1, shape.kv_heads, 1])?;
                Some(mask.f_view([rows * shape.kv_heads, 1, length])?)
            }
            _ => None,
        };
        let shared = if kernel { Some(Shared { owners, starts }) } else { None };
        let cache = Self {
            shape,
            rows,
            prompt: length,
            used: 0,
            capacity,
            layers,
            rotary,
            padding,
            shared,
            mask,
        };
        Ok((cache, last))
    }

    /// Appends one token to each row, `ids` (R) -> final hidden states (R, C).
    pub fn step(&mut self, model: &Transformer, ids: &Tensor) -> Result<Tensor> {
        let Shape { heads, kv_heads, width, .. } = self.shape;
        let (rows, slot, capacity) = (self.rows, self.used, self.capacity);
        if slot >= capacity {
            return Err(Error::defect(format!("the cache of {capacity} slots is full")));
        }
        self.used = slot + 1;
        let position = self.prompt + slot;
        let pick = |table: &Tensor| match &self.padding {
            None => table.f_narrow(0, position, 1),
            // (R, 1, 1, D)
            Some(padding) => {
                table.f_index_select(0, &padding.f_neg()?.f_add_scalar(position)?)?.f_unsqueeze(1)
            }
        };
        let (cos, sin) = (pick(&self.rotary.0)?, pick(&self.rotary.1)?);
        let scale = 1.0 / (width as f64).sqrt();
        let hidden = model.forward(&ids.f_unsqueeze(1)?, &cos, &sin, |layer, q, k, v| {
            let layer = &self.layers[layer];
            for (slots, new) in layer.own.iter().zip([k, v]) {
                let slots = slots.f_view([rows, kv_heads, capacity, width])?;
                slots.f_select(2, slot)?.f_copy_(&new.f_squeeze_dim(1)?)?;
            }
            // The heads of one key-value head are the rows of one small matrix: no repeated keys.
            let q = q.f_mul_scalar(scale)?.f_view([rows * kv_heads, heads / kv_heads, width])?;
            let attended = match &self.shared {
                Some(shared) => self.attend_here(shared, layer, &q)?,
                None => self.attend_by_libtorch(layer, &q)?,
            }; // (R * KV, H / KV, D)
            Ok(attended.f_view([rows, 1, heads, width])?)
        })?;
        Ok(hidden.f_squeeze_dim(1)?)
    }

    /// Attention of `q` (R * KV, H / KV, D), already scaled, by [`attend`].
    fn attend_here(&self, shared: &Shared, layer: &Layer, q: &Tensor) -> Result<Tensor> {
        let mut out = q.f_empty_like()?;
        let problem = Attention {
            queries: floats(q)?,
            prompt: slots(&layer.prompt, self.prompt, self.prompt)?,
            own: slots(&layer.own, self.capacity, self.used)?,
            owners: &shared.owners,
            starts: &shared.starts,
            kv_heads: self.shape.kv_heads as usize,
            width: self.shape.width as usize,
        };
        let threads = tch::get_num_threads().max(1) as usize;
        attend(&problem, floats_mut(&mut out)?, threads)?;
        Ok(out)
    }

    /// The same by libtorch.
    fn attend_by_libtorch(&self, layer: &Layer, q: &Tensor) -> Result<Tensor> {
        let turned = layer.prompt[0].f_transpose(1, 2)?; // (R * KV, D, P)
        let before = match &self.mask {
            None => q.f_bmm(&turned)?,
            Some(mask) => mask.f_baddbmm(q, &turned, 1.0, 1.0)?,
        };
        let [keys, values] = &layer.own;
        let after = q.f_bmm(&keys.f_narrow(1, 0, self.used)?.f_transpose(1, 2)?)?;
        let weights = Tensor::f_cat(&[before, after], -1)?.f_softmax(-1, None)?;
        let before = weights.f_narrow(-1, 0, self.prompt)?.f_bmm(&layer.prompt[1])?;
        let after = weights.f_narrow(-1, self.prompt, self.used)?;
        Ok(before.f_baddbmm(&after, &values.f_narrow(1, 0, self.used)?, 1.0, 1.0)?)
    }

    /// Keeps the rows `live` (R'), in that order.
    pub fn select(&mut self, live: &Tensor) -> Result<()> {
        let Shape { kv_heads, width, .. } = self.shape;
        let (rows, kept) = (self.rows, live.size1()?);
        let pick = |slots: &Tensor, length: i64| -> Result<Tensor> {
            let slots = slots.f_view([rows, kv_heads, -1, width])?.f_narrow(2, 0, length)?;
            Ok(slots.f_index_select(0, live)?.f_view([kept * kv_heads, length, width])?)
        };
        for layer in &mut self.layers {
            for part in &mut layer.own {
                let used = pick(part, self.used)?;
                *part = empty_slots(kept * kv_heads, self.capacity, width, part.device())?;
                part.f_narrow(1, 0, self.used)?.f_copy_(&used)?;
            }
            if self.shared.is_none() {
                for part in &mut layer.prompt {
                    *part = pick(part, self.prompt)?;
                }
            }
        }
        if let Some(shared) = &mut self.shared {
            let live = Vec::<i64>::try_from(live).map_err(Error::from)?;
            shared.owners = live.into_iter().map(|row| shared.owners[row as usize]).collect();
        }
        if let Some(padding) = &mut self.padding {
            *padding = padding.f_index_select(0, live)?;
        }
        if let Some(mask) = &mut self.mask {
            let part = mask.f_view([rows, kv_heads, self.prompt])?.f_index_select(0, live)?;
            *mask = part.f_view([kept * kv_heads, 1, self.prompt])?;
        }
        self.rows = kept;
        Ok(())
    }
}

/// Room for (`count`, `capacity`, `width`) numbers. The CPU's is asked for in large pages: the
/// cache is read from end to end for every token, and small pages make that a fifth slower.
fn empty_slots(count: i64, capacity: i64, width: i64, device: Device) -> Result<Tensor> {
    let slots = Tensor::f_empty([count, capacity, width], (Kind::Float, device))?;
    if device == Device::Cpu {
        prefer_large_pages(slots.data_ptr(), slots.numel() * size_of::<f32>());
    }
    Ok(slots)
}

fn slots([keys, values]: &[Tensor; 2], capacity: i64, used: i64) -> Result<Slots<'_>> {
    let (keys, values) = (floats(keys)?, floats(values)?);
    Ok(Slots { keys, values, capacity: capacity as usize, used: used as usize })
}

/// The numbers of a contiguous f32 tensor on the CPU.
fn floats(tensor: &Tensor) -> Result<&[f32]> {
    check_dense(tensor)?;
    // SAFETY: checked above; the borrow keeps the storage alive.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

fn floats_mut(tensor: &mut Tensor) -> Result<&mut [f32]> {
    check_dense(tensor)?;
    // SAFETY: checked above; callers pass tensors whose storage nobody else holds.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}

fn check_dense(tensor: &Tensor) -> Result<()> {
    let dense = tensor.device() == Device::Cpu
        && tensor.f_kind()? == Kind::Float
        && tensor.is_contiguous()
        && tensor.numel() > 0;
    if dense { Ok(()) } else { Err(Error::defect("the cache is no dense f32 tensor on the CPU")) }
}
