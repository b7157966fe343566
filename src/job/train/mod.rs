//! What the jobs that need libtorch do.

mod curriculum;
pub(super) mod draw;
mod drawn;
pub(super) mod evaluate;
mod learner;
mod measure;
mod rate;
pub(super) mod rejected;
mod responses;
pub(super) mod rl;
pub(super) mod rollout;
pub(super) mod sft;
mod state;
pub(super) mod stored;
mod update;

use super::prompt;
