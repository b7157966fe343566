//! AdamW.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::gpu::{self, Rates};
use super::gradients::{Gradients, flat_zeros};
use super::masters::{Masters, join, split};
use super::product::slice_mut;
use super::transformer::to_host;
use crate::{Error, Result};
use triad::checkpoint::{Dtype, HostTensor, Weights};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    pub betas: (f64, f64),
    pub eps: f64,
    /// Applied to matrices only, not to norms and biases.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

/// What a checkpoint stores of an optimizer, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWState {
    /// The parameters by name, as they are before they are rounded to what the model computes in.
    pub masters: Weights,
    /// Their moments, as `m.<name>` and `v.<name>`.
    pub moments: Weights,
    /// Updates that made these moments.
    pub step: u64,
}

/// AdamW (arXiv 1711.05101) in the form of `torch.optim.AdamW`, on f32 masters of the parameters.
///
/// Masters, both moments and the gradients lie in one flat buffer each, in the order of the
/// parameters, which become views into the masters' (see `Masters`).
pub struct AdamW {
    settings: AdamWSettings,
    step: u64,
    parameters: Vec<Parameter>,
    masters: Masters,
    m: Tensor,
    v: Tensor,
    gradients: Gradients,
}

struct Parameter {
    name: String,
    tensor: Tensor,
    /// In the flat buffers.
    offset: i64,
}

impl Parameter {
    fn size(&self) -> i64 {
        self.tensor.numel() as i64
    }

    /// Matrices are, norms and biases are not.
    fn decayed(&self) -> bool {
        self.tensor.dim() > 1
    }

    fn view(&self, flat: &Tensor) -> Result<Tensor> {
        Ok(flat.f_narrow(0, self.offset, self.size())?.f_view(&self.tensor.size()[..])?)
    }
}

/// What one step multiplies with: m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p *= keep;
/// p -= rate m / (sqrt(v) / root + eps), with g the gradient times `scale`.
#[derive(Clone, Copy)]
struct Step {
    scale: f64,
    b1: f64,
    b2: f64,
    /// 1 - lr * decay
    keep: f64,
    /// lr / (1 - b1^t)
    rate: f64,
    /// sqrt(1 - b2^t)
    root: f64,
    eps: f64,
}

impl AdamW {
    /// Takes over the storage of `parameters` (see [`super::Transformer::trainable`]).
    pub fn new(parameters: Vec<(String, Tensor)>, settings: AdamWSettings) -> Result<Self> {
        let gradients = Gradients::new(&parameters)?;
        let mut placed = Vec::with_capacity(parameters.len());
        let mut offset = 0;
        for (name, tensor) in parameters {
            let parameter = Parameter { name, tensor, offset };
            offset += parameter.size();
            placed.push(parameter);
        }
        let flat = gradients.flat();
        let kind = placed.first().map_or(Kind::Float, |parameter| parameter.tensor.kind());
        let mut masters = Masters::new(offset, kind, flat.device())?;
        let wide = flat.f_zeros_like()?;
        for parameter in &mut placed {
            parameter.view(&wide)?.f_copy_(&parameter.tensor.f_detach()?)?;
        }
        masters.set(&wide)?;
        drop(wide);
        for parameter in &mut placed {
            let view = parameter.view(masters.own())?;
            parameter.tensor.f_set_data(&view)?;
        }
        let zeros = || flat_zeros(offset, Kind::Float, flat.device());
        let (m, v) = (zeros()?, zeros()?);
        Ok(Self { settings, step: 0, parameters: placed, masters, m, v, gradients })
    }

    /// Where the backward passes add up what [`AdamW::step`] takes.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// One update from [`AdamW::gradients`], scaled down so that their norm is at most `clip`
    /// (infinite: never), which become 0. Gives the norm before. Where that is not finite, nothing
    /// is learnt.
    pub fn step(&mut self, lr: f64, clip: f64) -> Result<f64> {
        tch::no_grad(|| {
            let norm = self.norm()?;
            if !norm.is_finite() {
                self.gradients.zero()?;
                return Ok(norm);
            }
            self.step += 1;
            let (b1, b2) = self.settings.betas;
            let steps = self.step.min(i32::MAX as u64) as i32;
            let step = Step {
                // As torch.nn.utils.clip_grad_norm_ does.
                scale: (clip / (norm + 1e-6)).min(1.0),
                b1,
                b2,
                keep: 1.0 - lr * self.settings.weight_decay,
                rate: lr / (1.0 - b1.powi(steps)),
                root: (1.0 - b2.powi(steps)).sqrt(),
                eps: self.settings.eps,
            };
            match self.m.device() {
                Device::Cpu => self.fused(step)?,
                _ => self.on_device(lr, step.scale)?,
            }
            Ok(norm)
        })
    }

    /// The norm of [`AdamW::gradients`]: on a GPU at once, on the CPU each parameter's first, as
    /// torch.nn.utils.clip_grad_norm_ does.
    pub fn norm(&self) -> Result<f64> {
        let flat = self.gradients.flat();
        if flat.device() != Device::Cpu {
            return Ok(flat.f_norm()?.f_double_value(&[])?);
        }
        let norms = self.parameters.iter().map(|p| Ok(p.view(flat)?.f_norm()?));
        let norms = norms.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?)
    }

    /// By libtorch's fused kernel, over stretches of neighbours that are decayed alike.
    fn on_device(&mut self, lr: f64, scale: f64) -> Result<()> {
        /// Of a stretch: the kernel counts its numbers in 32 bits.
        const MOST: i64 = 1 << 30;
        let decay = self.settings.weight_decay;
        let decayed = |p: &Parameter| decay > 0.0 && p.decayed();
        let masters = self.masters.wide()?;
        for alike in [true, false] {
            let mut stretches = Vec::new();
            for run in self.parameters.chunk_by(|a, b| decayed(a) == decayed(b)) {
                let mut start = run[0].offset;
                let end = start + run.iter().map(Parameter::size).sum::<i64>();
                while start < end && decayed(&run[0]) == alike {
                    let size = MOST.min(end - start);
                    let view = |flat: &Tensor| flat.f_narrow(0, start, size);
                    let gradients = view(self.gradients.flat())?;
                    stretches.push([view(&masters)?, gradients, view(&self.m)?, view(&self.v)?]);
                    start += size;
                }
            }
            let AdamWSettings { betas, eps, .. } = self.settings;
            let rates = Rates { rate: lr, betas, decay: if alike { decay } else { 0.0 }, eps };
            gpu::adamw(&stretches, self.step, 1.0 / scale, rates)?;
        }
        self.masters.round()?;
        self.gradients.zero()
    }

    /// In one pass over memory, which bounds a step, on libtorch's number of threads.
    fn fused(&mut self, step: Step) -> Result<()> {
        const CHUNK: usize = 1 << 16;
        let threads = tch::get_num_threads().max(1) as usize;
        let mut shares: Vec<Vec<Chunk>> = (0..threads).map(|_| Vec::new()).collect();
        let mut p = match &mut self.masters {
            Masters::Same(masters) | Masters::Beside { masters, .. } => {
                Part::Whole(slice_mut(masters)?)
            }
            Masters::Rest { rounded, rest } => Part::Halves(slice_mut(rounded)?, slice_mut(rest)?),
        };
        let (mut m, mut v) = (slice_mut(&mut self.m)?, slice_mut(&mut self.v)?);
        let mut flat = self.gradients.flat().shallow_clone();
        let mut g = slice_mut(&mut flat)?;
        let mut number = 0;
        for parameter in &self.parameters {
            let step = Step { keep: if parameter.decayed() { step.keep } else { 1.0 }, ..step };
            let mut left = parameter.tensor.numel();
            while left > 0 {
                let size = left.min(CHUNK);
                left -= size;
                let [m, v, g] = [&mut m, &mut v, &mut g].map(|rest| first(rest, size));
                shares[number % threads].push(Chunk { step, p: p.first(size), m, v, g });
                number += 1;
            }
        }
        std::thread::scope(|scope| {
            let own = shares.pop();
            for share in shares {
                scope.spawn(|| share.into_iter().for_each(Chunk::update));
            }
            own.into_iter().flatten().for_each(Chunk::update);
        });
        self.masters.round()
    }

    /// The f32 masters by the parameters' names: what a checkpoint holds.
    pub fn masters(&self) -> Result<Vec<(String, Tensor)>> {
        let masters = self.masters.wide()?;
        let master = |p: &Parameter| Ok((p.name.clone(), p.view(&masters)?));
        self.parameters.iter().map(master).collect()
    }

    pub fn state(&self) -> Result<AdamWState> {
        let mut moments = self.stored("m.", &self.m)?;
        moments.extend(self.stored("v.", &self.v)?);
        Ok(AdamWState { masters: self.stored_masters()?, moments, step: self.step })
    }

    /// [`AdamWState::masters`] alone.
    pub fn stored_masters(&self) -> Result<Weights> {
        self.stored("", &self.masters.wide()?)
    }

    /// The parts of a flat buffer, as `<prefix><name>`.
    fn stored(&self, prefix: &str, buffer: &Tensor) -> Result<Weights> {
        let values = to_host(buffer)?;
        let part = |Parameter { name, tensor, offset }: &Parameter| {
            let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
            let start = *offset as usize;
            let values = &values[start..start + tensor.numel()];
            (format!("{prefix}{name}"), HostTensor::from_f32(shape, values, Dtype::F32))
        };
        Ok(self.parameters.iter().map(part).collect())
    }

    /// A flat buffer of what [`AdamW::stored`] gives.
    fn flat(&self, prefix: &str, stored: &Weights) -> Result<Tensor> {
        let mut values = Vec::with_capacity(self.m.numel());
        for Parameter { name, tensor, .. } in &self.parameters {
            let name = format!("{prefix}{name}");
            let part = stored
                .get(&name)
                .ok_or_else(|| Error::data(format!("optimizer state lacks the tensor `{name}`")))?;
            if part.len() != tensor.numel() {
                return Err(Error::data(format!(
                    "optimizer state: tensor `{name}` has {} numbers, the model {}",
                    part.len(),
                    tensor.numel()
                )));
            }
            values.extend(part.to_f32());
        }
        Ok(Tensor::f_from_slice(&values)?)
    }

    /// Continues from a stored state of the same parameters: they, too, become what they were.
    pub fn restore(&mut self, state: &AdamWState) -> Result<()> {
        self.restore_moments(state)?;
        self.restore_masters(&state.masters)
    }

    /// The parameters alone become what they were.
    pub fn restore_masters(&mut self, masters: &Weights) -> Result<()> {
        let masters = self.flat("", masters)?;
        tch::no_grad(|| self.masters.set(&masters))
    }

    /// The parameters stay as they are, their updates continue.
    pub fn restore_moments(&mut self, state: &AdamWState) -> Result<()> {
        let (m, v) = (self.flat("m.", &state.moments)?, self.flat("v.", &state.moments)?);
        self.m.f_copy_(&m)?;
        self.v.f_copy_(&v)?;
        self.step = state.step;
        Ok(())
    }

    /// Starts afresh from the masters as they are: only the moments are forgotten.
    pub fn reset(&mut self) -> Result<()> {
        let _ = self.m.f_zero_()?;
        let _ = self.v.f_zero_()?;
        self.step = 0;
        Ok(())
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }
}

/// The first `size` items of what is left.
fn first<'a, T>(left: &mut &'a mut [T], size: usize) -> &'a mut [T] {
    let (chunk, after) = std::mem::take(left).split_at_mut(size);
    *left = after;
    chunk
}

/// Some of the masters.
enum Part<'a> {
    Whole(&'a mut [f32]),
    Halves(&'a mut [bf16], &'a mut [i16]),
}

impl<'a> Part<'a> {
    fn first(&mut self, size: usize) -> Part<'a> {
        match self {
            Part::Whole(whole) => Part::Whole(first(whole, size)),
            Part::Halves(rounded, rest) => Part::Halves(first(rounded, size), first(rest, size)),
        }
    }
}

/// A part of the flat buffers that one thread updates.
struct Chunk<'a> {
    step: Step,
    p: Part<'a>,
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a mut [f32],
}

impl Chunk<'_> {
    fn update(self) {
        let Self { step, p, m, v, g } = self;
        let [scale, keep, rate, root, eps] =
            [step.scale, step.keep, step.rate, step.root, step.eps].map(|x| x as f32);
        let [fresh, b2, square] = [1.0 - step.b1, step.b2, 1.0 - step.b2].map(|x| x as f32);
        let moved = |p: f32, ((m, v), gradient): ((&mut f32, &mut f32), &mut f32)| -> f32 {
            let g = *gradient * scale;
            *gradient = 0.0;
            *m += fresh * (g - *m);
            *v = b2 * *v + square * (g * g);
            keep * p - rate * (*m / (v.sqrt() / root + eps))
        };
        let others = m.iter_mut().zip(v).zip(g);
        match p {
            Part::Whole(p) => p.iter_mut().zip(others).for_each(|(p, o)| *p = moved(*p, o)),
            Part::Halves(rounded, rest) => {
                for ((rounded, rest), others) in rounded.iter_mut().zip(rest).zip(others) {
                    (*rounded, *rest) = split(moved(join(*rounded, *rest), others));
                }
            }
        }
    }
}
