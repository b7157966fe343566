//! The one integration-test binary: a module per subject.
mod published;
mod query;
mod layers;
mod store;
mod store_faults;
mod store_s3;
mod toy;
