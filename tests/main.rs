//! The one integration-test binary: a module per subject.
#[global_allocator]
static ALLOCATOR: hostile::Counting = hostile::Counting;

mod audit;
mod chaos;
mod cli;
mod completions;
mod credentials;
#[cfg(feature = "torch")]
mod gpu_bench;
mod hooked;
mod hostile;
mod layers;
mod merge;
mod program;
mod prompt;
mod published;
mod readers;
mod resume;
#[cfg(feature = "torch")]
mod rounds;
mod query;
#[cfg(feature = "torch")]
mod rl;
mod s3_faults;
mod s3_server;
mod server;
mod store;
mod store_check;
mod store_faults;
mod store_s3;
#[cfg(feature = "torch")]
mod tensorboard;
mod toy;
