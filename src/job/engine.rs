//! What computes with libtorch. This crate links none: a program that does installs its engine, and
//! one that does not says how to get there.

use std::sync::OnceLock;

use tokio::runtime::Handle;

use super::Context;
use crate::checkpoint::Checkpoint;
use crate::store::Artifact;
use crate::{Error, Result};

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

enum Program {
    Has(&'static dyn Engine),
    Lacks(fn() -> Error),
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// The engine for the rest of the process. Only the first call counts.
pub fn install(engine: &'static dyn Engine) {
    let _ = PROGRAM.set(Program::Has(engine));
}

/// What happens instead where one is needed: `elsewhere` goes on in another program, or says why not.
pub fn install_elsewhere(elsewhere: fn() -> Error) {
    let _ = PROGRAM.set(Program::Lacks(elsewhere));
}

/// The engine where this program has one.
pub fn installed() -> Option<&'static dyn Engine> {
    match PROGRAM.get() {
        Some(Program::Has(engine)) => Some(*engine),
        _ => None,
    }
}

/// The engine. To be asked for before anything is begun that another program would begin again.
///
/// # Errors
/// `Usage` where there is none.
pub fn engine() -> Result<&'static dyn Engine> {
    match PROGRAM.get() {
        Some(Program::Has(engine)) => Ok(*engine),
        Some(Program::Lacks(elsewhere)) => Err(elsewhere()),
        None => Err(Error::usage("this program has no libtorch")),
    }
}
