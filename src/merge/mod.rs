//! Merging checkpoints in parameter space. Needs no libtorch.
//!
//! ```text
//! Recipe (mergekit's YAML) + headers of the models -> Plan: each tensor's inputs and operation
//!   -> run: file by file, in units, by all cores -> Output: a folder, a store
//! ```
//! Methods are pure functions on f32 numbers; [`Plan`] knows everything but the numbers; the run
//! moves bytes.

mod arithmetic;
mod blend;
mod blending;
mod files;
mod flow;
mod folder;
mod lanes;
mod mask;
mod method;
mod operation;
mod plan;
mod preflight;
mod recipe;
mod run;
mod select;
mod setting;
#[cfg(test)]
mod tests;
mod thinning;
mod vocabulary;
mod workers;

pub use flow::upload;
pub use method::Method;
pub use plan::{Models, Plan};
pub use preflight::{ModelFacts, Preflight};
pub use recipe::Recipe;
pub use run::{Limits, Output, Watch, run};

/// Bytes of inputs that a merge keeps in memory unless told otherwise.
pub const MEMORY: u64 = 192 << 20;
