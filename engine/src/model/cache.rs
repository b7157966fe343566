//! The key-value cache of the rows that are being sampled.

mod torch;

use std::rc::{Rc, Weak};

use tch::{Device, Kind, Tensor};

use self::torch::TorchSlots;
use super::attend::{Attention, Slots, Stored, attend, supports};
use super::device::prefer_large_pages;
use super::product::{Product, slice, slice_mut};
use super::threads;
use super::transformer::{Shape, Transformer};
use crate::{Error, Result};

/// Added to the scores of masked slots. Finite: a padding query sees masked slots only, and with
/// infinity its NaN would spread from there.
const MASKED: f64 = -1e30;

/// Bound of the memory for the activations of prompts that run through the model together. A GPU
/// gets eight times as much, or it would not be busy.
const PREFILL_BYTES: usize = 256 << 20;

/// Keys and values of up to S rows, which occupy the slots 0..R without gaps. Nothing is allocated
/// after [`Cache::new`] but the prompts.
///
/// On the CPU, in an optimized build, [`attend`] reads the cache: a prompt is stored once for all
/// rows that share it, and a row holds what follows. Elsewhere libtorch reads it ([`TorchSlots`]),
/// and a row holds a copy of its prompt, too.
pub(super) struct Cache {
    shape: Shape,
    product: Product,
    size: Size,
    held: Held,
    /// Rotary tables of all positions, (positions, 1, D) each.
    rotary: [Tensor; 2],
    rows: Vec<Row>,
    prompts: Vec<Weak<Prompt>>,
}

enum Held {
    /// Keys and values of each layer, (S, KV, capacity, D) each.
    Kernel(Vec<[Tensor; 2]>),
    Torch(TorchSlots),
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
    /// Keys and values: for the kernel those of each layer, (KV, length, D) each; else
    /// (L, 2, length, KV, D), which a row has, too.
    stored: Vec<Tensor>,
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
    /// `on_device`: libtorch attends, as on a GPU.
    pub fn new(
        model: &Transformer,
        prompts: &[(usize, bool)],
        limit: usize,
        budget: usize,
        on_device: bool,
    ) -> Result<Self> {
        let Shape { kv_heads, width, .. } = Shape::of(&model.config);
        let kind = model.embedding.kind();
        let kernel = cfg!(optimized)
            && !on_device
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
        let shape = Shape::of(&model.config);
        let mut rotary = model.rotary(positions as i64)?;
        let (held, product) = if size.kernel {
            let dims = [size.rows as i64, shape.kv_heads, size.capacity as i64, shape.width];
            let empty = || -> Result<Tensor> {
                // The cache is read from end to end for every token: small pages make that a fifth
                // slower.
                let slots = Tensor::f_empty(dims, (size.kind, Device::Cpu))?;
                prefer_large_pages(slots.data_ptr(), slots.numel() * size.kind.elt_size_in_bytes());
                Ok(slots)
            };
            let layers = model.blocks.iter().map(|_| Ok([empty()?, empty()?]));
            (Held::Kernel(layers.collect::<Result<_>>()?), Product::for_sampling(model))
        } else {
            for table in &mut rotary {
                *table = table.f_to_kind(size.kind)?;
            }
            let slots = TorchSlots::new(model, size.rows as i64, size.capacity as i64)?;
            (Held::Torch(slots), Product::InPlace)
        };
        Ok(Self { shape, product, size, held, rotary, rows: Vec::new(), prompts: Vec::new() })
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
        let prompts = live.iter().flat_map(|prompt| &prompt.stored);
        let slots: Vec<&Tensor> = match &self.held {
            Held::Kernel(layers) => layers.iter().flatten().collect(),
            Held::Torch(slots) => vec![slots.all()],
        };
        let tensors = slots.into_iter().chain(prompts);
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
        let bytes = if model.device().is_cuda() { 8 * PREFILL_BYTES } else { PREFILL_BYTES };
        // Gate and up, their product and as much again.
        let most = bytes / (16 * model.config.intermediate_size);
        let mut done = Vec::with_capacity(prompts.len());
        let mut rest = prompts;
        while let Some(first) = rest.first() {
            let count = (most / first.len()).clamp(1, rest.len());
            let (now, later) = rest.split_at(count);
            let run = match &self.held {
                Held::Kernel(_) => self.run_prompts(model, now)?,
                Held::Torch(slots) => slots.run_prompts(model, &self.rotary, now)?,
            };
            done.extend(run.into_iter().map(Rc::new));
            rest = later;
        }
        self.prompts.retain(|prompt| prompt.strong_count() > 0);
        self.prompts.extend(done.iter().map(Rc::downgrade));
        Ok(done)
    }

    /// For the kernel. Prompts are padded on the left.
    fn run_prompts(&self, model: &Transformer, prompts: &[&[u32]]) -> Result<Vec<Prompt>> {
        let (cpu, width) = (Device::Cpu, self.shape.width);
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let (unique, length) = (prompts.len() as i64, longest as i64);
        let mut ids = Vec::with_capacity(prompts.len() * longest);
        let widths: Vec<i64> = prompts.iter().map(|p| (longest - p.len()) as i64).collect();
        for (prompt, &width) in prompts.iter().zip(&widths) {
            ids.extend(std::iter::repeat_n(0, width as usize));
            ids.extend(prompt.iter().map(|&id| i64::from(id)));
        }
        let ids = Tensor::f_from_slice(&ids)?.f_view([unique, length])?;
        let (cos, sin, mask) = if widths.iter().any(|&width| width > 0) {
            let widths = Tensor::f_from_slice(&widths)?; // (U)
            let slots = Tensor::f_arange(length, (Kind::Int64, cpu))?;
            let positions = slots.f_unsqueeze(0)?.f_sub(&widths.f_unsqueeze(1)?)?; // (U, T)
            let visible = positions.f_ge(0)?.f_view([unique, 1, 1, length])?;
            let causal = slots.f_unsqueeze(1)?.f_ge_tensor(&slots.f_unsqueeze(0)?)?; // (T, T)
            let hidden = visible.f_logical_and(&causal)?.f_logical_not()?; // (U, 1, T, T)
            let mask = hidden.f_to_kind(Kind::Float)?.f_mul_scalar(MASKED)?;
            let positions = positions.f_clamp_min(0)?.f_view(-1)?;
            let pick = |table: &Tensor| -> Result<Tensor> {
                let table = table.f_index_select(0, &positions)?;
                Ok(table.f_view([unique, length, 1, width])?)
            };
            (pick(&self.rotary[0])?, pick(&self.rotary[1])?, Some(mask))
        } else {
            let pick = |table: &Tensor| table.f_narrow(0, 0, length);
            (pick(&self.rotary[0])?, pick(&self.rotary[1])?, None)
        };
        let mut stored: Vec<Vec<Tensor>> =
            prompts.iter().map(|_| Vec::with_capacity(2 * model.blocks.len())).collect();
        let hidden = model.forward(
            embed(model, &ids)?,
            ids.size2()?.into(),
            [&cos, &sin],
            self.product,
            |_, q, k, v| {
                for (u, stored) in stored.iter_mut().enumerate() {
                    // (U, T, KV, D) -> (KV, P, D)
                    let own = |part: &Tensor| -> Result<Tensor> {
                        let part = part.f_select(0, u as i64)?;
                        let part = part.f_narrow(0, widths[u], length - widths[u])?;
                        let part = part.f_transpose(0, 1)?.f_to_kind(self.size.kind)?;
                        // A copy even where it is contiguous: a view would hold the whole batch.
                        let copy = Tensor::f_empty(part.size(), (self.size.kind, cpu))?;
                        copy.shallow_clone().f_copy_(&part)?;
                        Ok(copy)
                    };
                    stored.extend([own(k)?, own(v)?]);
                }
                let [q, k, v] = [q, k, v].map(|part| part.f_transpose(1, 2)); // (B, H, T, D)
                let (mask, causal) = (mask.as_ref(), mask.is_none());
                let attended = Tensor::f_scaled_dot_product_attention(
                    &q?, &k?, &v?, mask, 0.0, causal, None, true,
                )?;
                Ok(attended.f_transpose(1, 2)?)
            },
        )?;
        let last = hidden.f_select(1, length - 1)?.f_contiguous()?; // (U, C)
        let prompts = (0..).zip(prompts).zip(stored).map(|((u, prompt), stored)| {
            Ok(Prompt { length: prompt.len(), stored, last: last.f_narrow(0, u, 1)? })
        });
        prompts.collect()
    }

    /// Adds a row after the others.
    pub fn push(&mut self, prompt: &Rc<Prompt>) -> Result<()> {
        if self.free_rows() == 0 {
            return Err(Error::defect(format!("the cache of {} rows is full", self.size.rows)));
        }
        let shared = match &self.held {
            Held::Kernel(_) => Some(prompt.clone()),
            Held::Torch(slots) => {
                slots.begin(self.rows.len() as i64, prompt)?;
                None
            }
        };
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
        let row = &self.rows[r];
        match &self.held {
            Held::Kernel(layers) => {
                for slots in layers.iter().flatten() {
                    let part =
                        |at: usize| slots.f_select(0, at as i64)?.f_narrow(1, 0, row.used as i64);
                    part(r)?.f_copy_(&part(last)?)?;
                }
                Ok(())
            }
            Held::Torch(slots) => slots.copy(last as i64, r as i64, (row.length + row.used) as i64),
        }
    }

    /// Appends one token to each row, `ids` (R), i64, on the model's device -> final hidden states
    /// (R, C).
    pub fn step(&mut self, model: &Transformer, ids: &Tensor) -> Result<Tensor> {
        let count = ids.size1()?;
        let filled = |row: &Row| row.used + if self.size.kernel { 0 } else { row.length };
        let most = self.rows.iter().map(filled).max().unwrap_or(0);
        if count != self.rows.len() as i64 || most >= self.size.capacity {
            return Err(Error::defect(format!(
                "{count} tokens, {} rows, slot {most} of {}",
                self.rows.len(),
                self.size.capacity
            )));
        }
        let positions: Vec<i64> =
            self.rows.iter().map(|row| (row.length + row.used) as i64).collect();
        for row in &mut self.rows {
            row.used += 1;
        }
        if let Held::Torch(slots) = &self.held {
            return slots.step(model, &self.rotary, ids, &positions);
        }
        let positions = Tensor::f_from_slice(&positions)?;
        // (R, 1, 1, D)
        let pick = |table: &Tensor| table.f_index_select(0, &positions)?.f_unsqueeze(1);
        let (cos, sin) = (pick(&self.rotary[0])?, pick(&self.rotary[1])?);
        let (product, Shape { heads, kv_heads, width, .. }) = (self.product, self.shape);
        let hidden = model.forward(
            embed(model, ids)?,
            [count, 1],
            [&cos, &sin],
            product,
            |layer, q, k, v| {
                // The heads of one key-value head are the queries of one problem: no repeated keys.
                let q = q.f_view([count, kv_heads, heads / kv_heads, width])?;
                let (k, v) = (k.f_squeeze_dim(1)?, v.f_squeeze_dim(1)?); // (R, KV, D)
                let attended = match self.size.kind {
                    Kind::Float => self.attend::<f32>(layer, &q, &k, &v)?,
                    _ => self.attend::<half::bf16>(layer, &q, &k, &v)?,
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
        let Held::Kernel(layers) = &mut self.held else {
            return Err(Error::defect("the kernel does not read this cache"));
        };
        for (slots, new) in layers[layer].iter_mut().zip([k, v]) {
            let (slots, new) = (slice_mut::<T>(slots)?, new.f_contiguous()?);
            for (n, new) in slice::<f32>(&new)?.chunks_exact(width).enumerate() {
                let place = n * capacity + self.rows[n / kv_heads].used - 1;
                let slot = &mut slots[place * width..][..width];
                slot.iter_mut().zip(new).for_each(|(slot, &value)| *slot = T::round(value));
            }
        }
        let [keys, values] = &layers[layer];
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
            let [keys, values] = [0, 1].map(|half| slice(&prompt.stored[2 * layer + half]));
            let (keys, values, length) = (keys?, values?, row.length);
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
