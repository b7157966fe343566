//! Kernels on the CPU: what stands between the matrix products of a training pass, each in one pass
//! over memory, forward and backward. x86 with AVX2 and FMA; whoever calls them has asked
//! [`crate::model::lanes::available`].

pub mod attention;
pub mod gate;
pub mod heads;
pub mod norm;
pub mod sum;
mod tile;

/// Rows of a task. Sums over rows are added up task by task, so no result depends on the threads.
const ROWS: usize = 64;
