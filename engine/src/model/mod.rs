//! The transformer on libtorch: forward and backward, sampling, losses, the optimizer.
//!
//! Everything here is synchronous. Tensors stay on the thread that made them.

mod adamw;
mod adapter;
mod attend;
mod batch;
mod cache;
mod device;
mod draw;
mod gpu;
mod gradients;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod loss;
mod masters;
mod packed;
mod parameters;
mod product;
mod sampler;
#[cfg(test)]
mod tests;
mod threads;
#[cfg(target_arch = "x86_64")]
mod train;
mod transformer;

pub use adamw::{AdamW, AdamWSettings, AdamWState};
pub use batch::{MicroBatch, Sequence, micro_batches};
pub use device::{device, set_threads};
pub use gpu::{Memory, memory, reset_peak};
pub use gradients::Gradients;
pub use sampler::{SampleRequest, Sampled, Sampling, Stop, Stops, check_cache, sample};
pub use transformer::{Precision, Transformer, to_host};
