//! The one integration-test binary: a module per subject.
mod audit;
mod cli;
mod completions;
mod layers;
mod program;
mod published;
mod resume;
#[cfg(feature = "torch")]
mod rounds;
mod query;
mod server;
mod store;
mod store_faults;
mod store_s3;
mod toy;
