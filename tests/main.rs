//! The one integration-test binary: a module per subject.
mod audit;
mod cli;
mod completions;
mod hooked;
mod layers;
mod program;
mod published;
mod resume;
mod query;
mod s3_faults;
mod s3_server;
mod server;
mod store;
mod store_check;
mod store_faults;
mod store_s3;
mod toy;
