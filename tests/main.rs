//! The one integration-test binary: a module per subject.
mod audit;
mod cli;
mod completions;
mod layers;
mod program;
mod published;
mod resume;
mod query;
#[cfg(feature = "torch")]
mod rl;
mod server;
mod store;
mod store_faults;
mod store_s3;
#[cfg(feature = "torch")]
mod tensorboard;
mod toy;
