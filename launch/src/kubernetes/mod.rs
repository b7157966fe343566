//! Kubernetes: a Job for each stage, with an index for each shard.
//!
//! # Layout
//! ```text
//! site       namespace, images, queue: how a cluster runs jobs
//! names      what objects are called and labelled
//! manifest   a stage as a Job, and the Jobs of an order for people who apply them themselves
//! argo       an order as one Argo Workflow
//! refusal    the API's errors as ours
//! pods       why a job waits, why it failed
//! watch      the state of our jobs, kept up to date in the background
//! client     the scheduler
//! ```

mod site;
mod names;
mod manifest;
mod argo;
mod refusal;
mod pods;
mod watch;
mod client;
#[cfg(test)]
mod tests;

pub use argo::workflow;
pub use client::Kubernetes;
pub use manifest::render;
pub use site::{Images, Site, Toleration};
