//! What triad computes with libtorch: the engine of its jobs.
//!
//! ```text
//! error    libtorch's errors among triad's
//! model    transformer, sampler, losses, optimizer
//! train    what the jobs `sft`, `rl`, `draw`, `update`, `rollout` and `evaluate` do
//! engine   what triad asks for
//! ```
mod engine;
mod error;
pub mod model;
mod train;

pub use engine::Torch;
pub use error::{Error, Result};
