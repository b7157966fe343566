//! What the jobs that need libtorch do.

mod curriculum;
pub mod draw;
mod drawn;
pub mod evaluate;
mod learner;
mod measure;
mod rate;
pub mod rejected;
mod responses;
pub mod rl;
pub mod rollout;
pub mod sft;
mod specs;
mod state;
pub mod stored;
mod update;
