//! Stages of a pipeline as jobs of a scheduler that is there already. triad has none of its own.
//!
//! # Layout
//! A module imports only from modules above its own line.
//! ```text
//! error  duration  order   all of triad's errors, by exit code; stages as a scheduler gets them
//! scheduler  secret        what every scheduler does; variables that others must not read
//! slurm  kubernetes  batch
//! drive             submit what is missing, watch it, end as it ends
//! site              the file that says how a place runs jobs
//! ```

pub mod batch;
pub mod drive;
mod duration;
mod error;
pub mod kubernetes;
pub mod order;
pub mod scheduler;
mod secret;
pub mod site;
pub mod slurm;

pub use duration::duration;
pub use error::{Error, Result};
