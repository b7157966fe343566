//! What the jobs that need libtorch do.

mod curriculum;
mod drawn;
pub(super) mod evaluate;
mod measure;
mod rate;
mod responses;
pub(super) mod rl;
pub(super) mod rollout;
pub(super) mod sft;
mod state;
mod update;

use super::prompt;
