//! What the jobs that need libtorch do.

mod batch;
mod curriculum;
pub(super) mod evaluate;
mod responses;
pub(super) mod rl;
pub(super) mod rollout;
pub(super) mod sft;
mod state;
mod update;

use super::prompt;
