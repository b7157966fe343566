//! The key-value cache of the rows that are being sampled.

use std::rc::{Rc, Weak};

use tch::{Device, Kind, Tensor};

use super::attend::{Attention, Slots, Stored, attend, supports};
use super::device::prefer_large_pages;
use super::product::{Product, slice, slice_mut};
use super::threads;
use super::transformer::{Shape, Transformer, rotary_table};
use crate::{Error, Result};

/// Added to the scores of masked slots. Finite: a padding query sees masked slots only, and with
/// infinity its NaN would spread from there.
const MASKED: f64 = -1e30;

/// Bound of the memory for the activations of prompts that run through the model together.
const PREFILL_BYTES: usize = 256 << 20;

/// Keys and values of up to S rows, which occupy the slots 0..R without gaps. Nothing is allocated
/// after [`Cache::new`] but the prompts.
///
/// On the CPU, in an optimized build, [`attend`] reads the cache: a prompt is stored once for all
/// rows that share it, and a row holds what follows. Elsewhere libtorch reads it, and a row holds a
/// copy of its prompt, too.
pub(super) struct Cache {
    shape: Shape,
    product: Product,
    size: Size,
    /// Keys and values of each layer, (S, KV, capacity, D) each.
    layers: Vec<[Tensor; 2]>,
    /// Rotary tables of all positions, (positions, 1, D) each.
    rotary: (Tensor, Tensor),
    rows: Vec<Row>,
    prompts: Vec<Weak<Prompt>>,
}

struct Row {
    /// Tokens of its prompt.
    length: usize,
    /// For the kernel.
    prompt: Option<Rc<Prompt>>,
    /// Tokens after the prompt that the cache holds.
    used: usize,
}

/// A prompt that went through the model.
pub(super) struct Prompt {
    length: usize,
    /// Keys and values of each layer, (KV, length, D) each. Without the kernel a row has them, too.
    layers: Vec<[Tensor; 2]>,
    /// Final hidden state of the last token, (1, C).
    pub last: Tensor,
}

/// What a cache will take, known before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Whether our kernel reads it.
    kernel: bool,
    kind: Kind,
    /// Bytes of one token's keys and values.
    token: usize,
    /// Tokens that a row has room for.
    capacity: usize,
    /// S
    pub rows: usize,
    budget: usize,
}

impl Size {
    /// As many rows as fit `budget` bytes, for responses of up to `limit` tokens to prompts of these
    /// lengths, one for each row and longest first; a prompt with `true` shares the one before.
    pub fn new(
        model: &Transformer,
        prompts: &[(usize, bool)],
        limit: usize,
        budget: usize,
    ) -> Result<Self> {
        let Shape { kv_heads, width, .. } = Shape::of(&model.config);
        let kind = model.embedding.kind();
        let kernel = cfg!(optimized)
            && model.device() == Device::Cpu
            && matches!(kind, Kind::Float | Kind::BFloat16)
            && supports(width as usize);
        let longest = prompts.first().map_or(0, |&(length, _)| length);
        let token = 2 * model.blocks.len() * (kv_heads * width) as usize * kind.elt_size_in_bytes();
        let capacity = if kernel { limit } else { longest + limit };
        let mut size = Self { kernel, kind, token, capacity, rows: 0, budget };
        let mut stored = 0;
        for &(length, shares) in prompts {
            stored += if shares { 0 } else { length * token };
            if stored + (size.rows + 1) * capacity * token > budget {
                break;
            }
            size.rows += 1;
        }
        if size.rows == 0 {
            return Err(Error::usage(format!(
                "cache_bytes {budget}: a prompt of {longest} tokens with a response of {limit} \
                 does not fit; the least that would do is {}",
                (longest + capacity) * token
            )));
        }
        Ok(size)
    }

    fn slots(&self) -> usize {
        self.rows * self.capacity * self.token
    }
}

impl Cache {
    /// `positions`: the longest sequence of prompt and response.
    pub fn new(model: &Transformer, size: Size, positions: usize) -> Result<Self> {
        let device = model.device();
        let shape = Shape::of(&model.config);
        let dims = [size.rows as i64, shape.kv_heads, size.capacity as i64, shape.width];
        let empty = || -> Result<Tensor> {
            if !size.kernel {
                // Slots out of sight are multiplied by 0: they must not hold NaN.
                return Ok(Tensor::f_zeros(dims, (size.kind, device))?);
            }
            // The cache is read from end to end for every token: small pages make that a fifth
            // slower.
            let slots = Tensor::f_empty(dims, (size.kind, device))?;
            prefer_large_pages(slots.data_ptr(), slots.numel() * size.kind.elt_size_in_bytes());
            Ok(slots)
        };
        Ok(Self {
            shape,
            product: Product::for_sampling(model),
            size,
            layers: model.blocks.iter().map(|_| Ok([empty()?, empty()?])).collect::<Result<_>>()?,
            rotary: rotary_table(&model.config, positions as i64, device)?,
            rows: Vec::new(),
            prompts: Vec::new(),
        })
    }

    /// How the products of this model are computed.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Bytes of keys and values that it holds.
    pub fn bytes(&self) -> usize {
        let live = self.prompts.iter().filter_map(Weak::upgrade);
        self.size.slots() + live.map(|prompt| prompt.length * self.size.token).sum::<usize>()
    }

    /// The same, counted from the tensors.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        let live: Vec<Rc<Prompt>> = self.prompts.iter().filter_map(Weak::upgrade).collect();
        let prompts = live.iter().flat_map(|prompt| prompt.layers.iter());
        let tensors = self.layers.iter().chain(prompts).flatten();
        tensors.map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum()
    }

    pub fn free_rows(&self) -> usize {
        self.size.rows - self.rows.len()
    }

    /// Whether prompts of so many tokens in all fit the budget beside what is there.
    pub fn fits(&self, tokens: usize) -> bool {
        self.bytes() + tokens * self.size.token <= self.size.budget
    }

    /// Runs `prompts`, longest first, through the model, as many at a time as [`PREFILL_BYTES`] allows.
    pub fn prefill(&mut self, model: &Transformer, prompts: &[&[u32]]) -> Result<Vec<Rc<Prompt>>> {
        // Gate and up, their product and as much again.
        let most = PREFILL_BYTES / (16 * model.config.intermediate_size);
        let mut done = Vec::with_capacity(prompts.len());
        let mut rest = prompts;
        while let Some(first) = rest.first() {
            let count = (most / first.len()).clamp(1, rest.len());
            let (now, later) = rest.split_at(count);
            done.extend(self.run_prompts(model, now)?.into_iter().map(Rc::new));
            rest = later;
        }
        self.prompts.retain(|prompt| prompt.strong_count() > 0);
        self.prompts.extend(done.iter().map(Rc::downgrade));
        Ok(done)
    }

    /// Prompts are padded on the left.
    fn run_prompts(&self, model: &Transformer, prompts: &[&[u32]]) -> Result<Vec<Prompt>> {
        let (device, width) = (model.device(), self.shape.width);
        let attends = if self.size.kernel { Kind::Float } else { self.size.kind };
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let (unique, length) = (prompts.len() as i64, longest as i64);
        let mut ids = Vec::with_capacity(prompts.len() * longest);
        let widths: Vec<i64> = prompts.iter().map(|p| (longest - p.len()) as i64).collect();
        for (prompt, &width) in prompts.iter().zip(&widths) {
            ids.extend(std::iter::repeat_n(0, width as usize));
            ids.extend(prompt.iter().map(|&id| i64::from(id)));
        }
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(device)?.f_view([unique, length])?;
        let (cos, sin, mask) = if widths.iter().any(|&width| width > 0) {
            let widths = Tensor::f_from_slice(&widths)?.f_to_device(device)?; // (U)
            let slots = Tensor::f_arange(length, (Kind::Int64, device))?;
            let positions = slots.f_unsqueeze(0)?.f_sub(&widths.f_unsqueeze(1)?)?; // (U, T)
            let visible = positions.f_ge(0)?.f_view([unique, 1, 1, length])?;
            let causal = slots.f_unsqueeze(1)?.f_ge_tensor(&slots.f_unsqueeze(0)?)?; // (T, T)
            let hidden = visible.f_logical_and(&causal)?.f_logical_not()?; // (U, 1, T, T)
            let mask = hidden.f_to_kind(attends)?.f_mul_scalar(MASKED)?;
            let positions = positions.f_clamp_min(0)?.f_view(-1)?;
            let pick = |table: &Tensor| -> Result<Tensor> {
                let table = table.f_index_select(0, &positions)?;
                Ok(table.f_view([unique, length, 1, width])?)
            };
            (pick(&self.rotary.0)?, pick(&self.rotary.1)?, Some(mask))
        } else {
            let pick = |table: &Tensor| table.f_narrow(0, 0, length);
            (pick(&self.rotary.0)?, pick(&self.rotary.1)?, None)
        };
        let mut layers: Vec<Vec<[Tensor; 2]>> =
            prompts.iter().map(|_| Vec::with_capacity(model.blocks.len())).collect();
        let hidden = model.forward(
            embed(model, &ids)?,
            ids.size2()?.into(),
            [&cos, &sin],
            self.product,
            |_, q, k, v| {
                for (u, layers) in layers.iter_mut().enumerate() {
                    // (U, T, KV, D) -> (KV, P, D)
                    let own = |part: &Tensor| -> Result<Tensor> {
                        let part = part.f_select(0, u as i64)?;
                        let part = part.f_narrow(0, widths[u], length - widths[u])?;
                        let part = part.f_transpose(0, 1)?.f_to_kind(self.size.kind)?;
                        // A copy even where it is contiguous: a view would hold the whole batch.
                        let copy = Tensor::f_empty(part.size(), (self.size.kind, device))?;
                        copy.shallow_clone().f_copy_(&part)?;
                        Ok(copy)
                    };
                    layers.push([own(k)?, own(v)?]);
                }
                // (B, H, T, D). libtorch's fast kernels for a GPU want the type of the weights.
                let [q, k, v] = [q, k, v].map(|part| part.f_transpose(1, 2)?.f_to_kind(attends));
                let (mask, causal) = (mask.as_ref(), mask.is_none());
                let attended = Tensor::f_scaled_dot_product_attention(
                    &q?, &k?, &v?, mask, 0.0, causal, None, true,
                )?;
                Ok(attended.f_to_kind(Kind::Float)?.f_transpose(1, 2)?)
            },
        )?;
        let last = hidden.f_select(1, length - 1)?.f_contiguous()?; // (U, C)
        let prompts = (0..).zip(prompts).zip(layers).map(|((u, prompt), layers)| {
            Ok(Prompt { length: prompt.len(), layers, last: last.f_narrow(0, u, 1)? })
        });
        prompts.collect()
    }

    /// Adds a row after the others.
    pub fn push(&mut self, prompt: &Rc<Prompt>) -> Result<()> {
        if self.free_rows() == 0 {
            return Err(Error::defect(format!("the cache of {} rows is full", self.size.rows)));
        }
        if !self.size.kernel {
            for (slots, stored) in self.layers.iter().zip(&prompt.layers) {
                for (slots, stored) in slots.iter().zip(stored) {
                    let row = slots.f_select(0, self.rows.len() as i64)?; // (KV, capacity, D)
                    row.f_narrow(1, 0, prompt.length as i64)?.f_copy_(stored)?;
                }
            }
        }
        let shared = self.size.kernel.then(|| prompt.clone());
        self.rows.push(Row { length: prompt.length, prompt: shared, used: 0 });
        Ok(())
    }

    /// Takes out row `r`; the last row takes its place.
    pub fn swap_remove(&mut self, r: usize) -> Result<()> {
        let last = self.rows.len() - 1;
        self.rows.swap_remove(r);
        if r == last {
            return Ok(());
        }
        let used = self.held(&self.rows[r]) as i64;
        for slots in self.layers.iter().flatten() {
            let part = |row: usize| slots.f_select(0, row as i64)?.f_narrow(1, 0, used);
            part(r)?.f_copy_(&part(last)?)?;
        }
        Ok(())
    }

    /// Slots in use of a row.
    fn held(&self, row: &Row) -> usize {
        row.used + if self.size.kernel { 0 } else { row.length }
    }

    /// Appends one token to each row, `ids` (R) -> final hidden states (R, C).
    pub fn step(&mut self, model: &Transformer, ids: &[i64]) -> Result<Tensor> {
        let device = model.device();
        let places: Vec<i64> = self.rows.iter().map(|row| self.held(row) as i64).collect();
        let positions: Vec<i64> =
            self.rows.iter().map(|row| (row.length + row.used) as i64).collect();
        let most = places.iter().max().map_or(0, |&place| place + 1);
        if ids.len() != self.rows.len() || most > self.size.capacity as i64 {
            return Err(Error::defect(format!(
                "{} tokens, {} rows, slot {most} of {}",
                ids.len(),
                self.rows.len(),
                self.size.capacity
            )));
        }
        let put = |numbers: &[i64]| Tensor::f_from_slice(numbers)?.f_to_device(device);
        let positions = put(&positions)?;
        // (R, 1, 1, D)
        let pick = |table: &Tensor| table.f_index_select(0, &positions)?.f_unsqueeze(1);
        let (cos, sin) = (pick(&self.rotary.0)?, pick(&self.rotary.1)?);
        let by_libtorch = if self.size.kernel {
            None
        } else {
            let places = put(&places)?;
            let slots = Tensor::f_arange(most, (Kind::Int64, device))?;
            let visible = slots.f_unsqueeze(0)?.f_le_tensor(&places.f_unsqueeze(1)?)?;
            let rows = Tensor::f_arange(ids.len() as i64, (Kind::Int64, device))?;
            Some((rows, places, visible.f_unsqueeze(1)?.f_unsqueeze(1)?)) // (R, 1, 1, most)
        };
        for row in &mut self.rows {
            row.used += 1;
        }
        let (product, Shape { heads, kv_heads, width, .. }) = (self.product, self.shape);
        let (ids, count) = (put(ids)?.f_unsqueeze(1)?, ids.len() as i64);
        let hidden = model.forward(
            embed(model, &ids)?,
            ids.size2()?.into(),
            [&cos, &sin],
            product,
            |layer, q, k, v| {
                // The heads of one key-value head are the queries of one problem: no repeated keys.
                let q = q.f_view([count, kv_heads, heads / kv_heads, width]);
                let (k, v) = (k.f_squeeze_dim(1)?, v.f_squeeze_dim(1)?); // (R, KV, D)
                let attended = match &by_libtorch {
                    None if self.size.kind == Kind::Float => {
                        self.attend::<f32>(layer, &q?, &k, &v)?
                    }
                    None => self.attend::<half::bf16>(layer, &q?, &k, &v)?,
                    Some((rows, places, mask)) => {
                        let at = [Some(rows), None, Some(places)];
                        let [keys, values] = &self.layers[layer];
                        for (slots, new) in [(keys, &k), (values, &v)] {
                            let new = new.f_to_kind(self.size.kind)?;
                            let _ = slots.shallow_clone().f_index_put_(&at, &new, false)?;
                        }
                        let view =
                            |slots: &Tensor| slots.f_narrow(0, 0, count)?.f_narrow(2, 0, most);
                        Tensor::f_scaled_dot_product_attention(
                            &q?.f_to_kind(self.size.kind)?,
                            &view(keys)?,
                            &view(values)?,
                            Some(mask),
                            0.0,
                            false,
                            None,
                            false,
                        )?
                        .f_to_kind(Kind::Float)?
                    }
                }; // (R, KV, H / KV, D)
                Ok(attended.f_reshape([count, 1, heads, width])?)
            },
        )?;
        Ok(hidden.f_squeeze_dim(1)?)
    }

    /// Stores keys and values (R, KV, D) and attends with queries (R, KV, H / KV, D), by [`attend`].
    fn attend<T: Stored>(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        let (kv_heads, width) = (self.shape.kv_heads as usize, self.shape.width as usize);
        let capacity = self.size.capacity;
        for (slots, new) in self.layers[layer].iter_mut().zip([k, v]) {
            let (slots, new) = (slice_mut::<T>(slots)?, new.f_contiguous()?);
            for (n, new) in slice::<f32>(&new)?.chunks_exact(width).enumerate() {
                let place = n * capacity + self.rows[n / kv_heads].used - 1;
                let slot = &mut slots[place * width..][..width];
                slot.iter_mut().zip(new).for_each(|(slot, &value)| *slot = T::round(value));
            }
        }
        let [keys, values] = &self.layers[layer];
        let (keys, values) = (slice::<T>(keys)?, slice::<T>(values)?);
        let stride = kv_heads * capacity * width;
        let own = self.rows.iter().enumerate().map(|(r, row)| Slots {
            keys: &keys[r * stride..][..stride],
            values: &values[r * stride..][..stride],
            capacity,
            used: row.used,
        });
        let prompts = self.rows.iter().map(|row| {
            let prompt =
                row.prompt.as_ref().ok_or_else(|| Error::defect("a row lacks its prompt"))?;
            let [keys, values] = &prompt.layers[layer];
            let (keys, values, length) = (slice(keys)?, slice(values)?, row.length);
            Ok(Slots { keys, values, capacity: length, used: length })
        });
        let q = q.f_mul_scalar(1.0 / (width as f64).sqrt())?.f_contiguous()?;
        let mut out = q.f_empty_like()?;
        let problem = Attention {
            queries: slice(&q)?,
            prompts: prompts.collect::<Result<_>>()?,
            own: own.collect(),
            kv_heads,
            width,
        };
        attend(&problem, slice_mut(&mut out)?, threads::available())?;
        Ok(out)
    }
}

/// Embeddings as the residual stream of sampling has them: f32, whatever the weights are.
fn embed(model: &Transformer, ids: &Tensor) -> Result<Tensor> {
    Ok(model.embed(ids)?.f_to_kind(Kind::Float)?)
}
