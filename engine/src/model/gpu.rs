//! What libtorch does on a GPU and tch has no binding for (`gpu.cpp`): copies that wait for nothing,
//! attention over sequences of any lengths, an optimizer in few kernels.

use std::ffi::{CStr, c_char, c_int};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result};

#[repr(C)]
struct CEvent {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn triad_gpu_error() -> *const c_char;
    fn triad_gpu_precise() -> bool;
    fn triad_gpu_upload(host: *const C_tensor, device: c_int) -> *mut C_tensor;
    fn triad_gpu_event(device: c_int) -> *mut CEvent;
    fn triad_gpu_wait(event: *const CEvent) -> bool;
    fn triad_gpu_forget(event: *mut CEvent);
    fn triad_gpu_memory(device: c_int, peak: *mut i64, available: *mut i64) -> bool;
    fn triad_gpu_reset_peak(device: c_int) -> bool;
    fn triad_gpu_flash(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        starts_q: *const C_tensor,
        starts_k: *const C_tensor,
        longest_q: i64,
        longest_k: i64,
        causal: bool,
        used: *const C_tensor,
    ) -> *mut C_tensor;
    fn triad_gpu_set_gradient(parameter: *const C_tensor, gradient: *const C_tensor) -> bool;
    fn triad_gpu_adamw(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        m: *const *const C_tensor,
        v: *const *const C_tensor,
        count: c_int,
        step: *const C_tensor,
        divisor: *const C_tensor,
        rate: f64,
        b1: f64,
        b2: f64,
        decay: f64,
        eps: f64,
    ) -> bool;
}

fn check(done: bool) -> Result<()> {
    if done {
        return Ok(());
    }
    // SAFETY: the text lives until this thread's next failure.
    let text = unsafe { CStr::from_ptr(triad_gpu_error()) }.to_string_lossy().into_owned();
    Err(Error::defect(format!("libtorch: {}", text.lines().next().unwrap_or_default())))
}

fn take(tensor: *mut C_tensor) -> Result<Tensor> {
    check(!tensor.is_null())?;
    // SAFETY: a new handle, which nobody else frees.
    Ok(unsafe { Tensor::from_ptr(tensor) })
}

/// Products of f32 in f32, without TF32; sums of bf16 products in f32 to the end.
pub(super) fn be_precise() -> Result<()> {
    // SAFETY: sets flags of libtorch.
    check(unsafe { triad_gpu_precise() })
}

/// `host` on `device`. A GPU copies it from pinned memory when its turn comes; nobody waits.
pub(super) fn upload(host: Tensor, device: Device) -> Result<Tensor> {
    match device {
        // SAFETY: the handle is valid.
        Device::Cuda(index) => take(unsafe { triad_gpu_upload(host.as_ptr(), index as c_int) }),
        _ => Ok(host.f_to_device(device)?),
    }
}

/// A tensor on its way to the host.
pub(super) struct Download {
    host: Tensor,
    /// None: it is there.
    arrived: Option<*mut CEvent>,
}

impl Download {
    /// Starts the copy. On a GPU it comes after what was asked of it before, into pinned memory.
    pub fn start(tensor: &Tensor) -> Result<Self> {
        let Device::Cuda(index) = tensor.device() else {
            return Ok(Self { host: tensor.shallow_clone(), arrived: None });
        };
        let host = tensor.f_internal_to_copy((tensor.f_kind()?, Device::Cpu), true)?;
        // SAFETY: a new event, freed by `drop`.
        let event = unsafe { triad_gpu_event(index as c_int) };
        check(!event.is_null())?;
        Ok(Self { host, arrived: Some(event) })
    }

    /// The tensor, as soon as it has arrived.
    pub fn wait(&self) -> Result<&Tensor> {
        if let Some(event) = self.arrived {
            // SAFETY: the event is there until `drop`.
            check(unsafe { triad_gpu_wait(event) })?;
        }
        Ok(&self.host)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(event) = self.arrived {
            // SAFETY: made by `start`, freed once.
            unsafe { triad_gpu_forget(event) };
        }
    }
}

/// A GPU's memory, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// What tensors took at most since [`reset_peak`].
    pub peak: usize,
    /// What they could still take.
    pub available: usize,
}

/// None: `device` is no GPU.
pub fn memory(device: Device) -> Result<Option<Memory>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let (mut peak, mut available) = (0, 0);
    // SAFETY: writes two numbers.
    check(unsafe { triad_gpu_memory(index as c_int, &mut peak, &mut available) })?;
    Ok(Some(Memory { peak: peak.max(0) as usize, available: available.max(0) as usize }))
}

/// Begins to measure a GPU's peak anew.
pub fn reset_peak(device: Device) -> Result<()> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: sets counters of libtorch.
    check(unsafe { triad_gpu_reset_peak(index as c_int) })
}

/// Whether [`flash`] attends to heads of this width.
pub(super) fn has_flash(device: Device, kind: Kind, width: i64) -> bool {
    device.is_cuda() && kind == Kind::BFloat16 && width % 8 == 0 && width <= 256
}

/// Sequences that lie one after the other, for [`flash`].
pub(super) struct Sequences<'a> {
    /// Where each begins, and where the last ends: (B + 1) i32.
    pub starts: &'a Tensor,
    pub longest: i64,
    /// Tokens in use of each, (B) i32; none: all up to the next.
    pub used: Option<&'a Tensor>,
}

/// Attention of each sequence of queries to the keys and values of the same number: q (Nq, H, D), k
/// and v (Nk, KV, D) -> (Nq, H, D), with gradients (unless `keys.used` is given).
pub(super) fn flash(
    [q, k, v]: [&Tensor; 3],
    queries: &Sequences,
    keys: &Sequences,
    causal: bool,
) -> Result<Tensor> {
    let used = keys.used.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: all handles are valid; libtorch checks shapes, types and devices.
    take(unsafe {
        triad_gpu_flash(
            q.as_ptr(),
            k.as_ptr(),
            v.as_ptr(),
            queries.starts.as_ptr(),
            keys.starts.as_ptr(),
            queries.longest,
            keys.longest,
            causal,
            used,
        )
    })
}

/// Lets autograd add up the gradient of `parameter` in `gradient`, shaped like it.
pub(super) fn set_gradient(parameter: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: both handles are valid; libtorch checks that the two fit.
    check(unsafe { triad_gpu_set_gradient(parameter.as_ptr(), gradient.as_ptr()) })
}

/// What [`adamw`] multiplies with.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    pub rate: f64,
    pub betas: (f64, f64),
    pub decay: f64,
    pub eps: f64,
}

/// One update in place of parameters, each `[parameter, gradient, m, v]`, all f32, on a GPU or the
/// CPU. `step` counts the updates, this one included; `divisor` divides the gradients.
pub(super) fn adamw(
    parameters: &[[Tensor; 4]],
    step: u64,
    divisor: f64,
    rates: Rates,
) -> Result<()> {
    let Some([first, ..]) = parameters.first() else { return Ok(()) };
    let number = |value: f64| Tensor::f_full([], value, (Kind::Float, first.device()));
    let (step, divisor) = (number(step as f64)?, number(divisor)?);
    let column = |i: usize| -> Vec<*const C_tensor> {
        parameters.iter().map(|tensors| tensors[i].as_ptr()).collect()
    };
    let [p, g, m, v] = [0, 1, 2, 3].map(column);
    // SAFETY: each column has a valid handle for each parameter.
    check(unsafe {
        triad_gpu_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            parameters.len() as c_int,
            step.as_ptr(),
            divisor.as_ptr(),
            rates.rate,
            rates.betas.0,
            rates.betas.1,
            rates.decay,
            rates.eps,
        )
    })
}
