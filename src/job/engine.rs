//! What computes with libtorch. This crate links none: a program that does installs its engine, and
//! one that does not says how to get there.

use tokio::runtime::Handle;

use super::Context;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::part::Part;
use crate::store::Artifact;

/// The jobs that need libtorch, and what commands ask of a model.
pub trait Engine: Sync {
    fn sft(&self, context: &mut Context) -> Result<()>;
    fn rl(&self, context: &mut Context) -> Result<()>;
    fn draw(&self, context: &mut Context) -> Result<()>;
    fn update(&self, context: &mut Context) -> Result<()>;
    fn rollout(&self, context: &mut Context) -> Result<()>;
    fn evaluate(&self, context: &mut Context) -> Result<()>;
    /// Computes a rejected update again: its loss and gradient norm.
    fn replay(&self, runtime: &Handle, artifact: &Artifact, device: &str) -> Result<(f64, f64)>;
    /// Hands a response to each prompt to `say`.
    fn respond(
        &self,
        checkpoint: &Checkpoint,
        device: &str,
        draws: Draws,
        prompts: &mut dyn Iterator<Item = Result<String>>,
        say: &mut dyn FnMut(String) -> Result<()>,
    ) -> Result<()>;
    /// Whether the machine has a GPU that it can use.
    fn has_gpu(&self) -> bool;
    /// Threads for each running stage. Must precede the first tensor.
    fn set_threads(&self, threads: u16);
}

/// How [`Engine::respond`] draws.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    pub max_new_tokens: usize,
    pub seed: u64,
}

/// The engine of this program.
pub static ENGINE: Part<dyn Engine> = Part::new("this program has no libtorch");
