//! Object storage: where every artifact lives, and the only state triad keeps.

mod artifact;
mod attempt;
mod bucket;
mod check;
mod client;
mod collect;
mod credentials;
mod digest;
mod download;
mod failure;
mod files;
mod hold;
mod key;
mod lookup;
mod manifest;
mod object;
mod open;
mod pipeline;
mod record;
mod refs;
mod transfer;

pub use artifact::Artifact;
pub use attempt::{Attempt, Commit, Portion, Resumed, StepRecord};
pub use bucket::Proof;
pub use check::{Check, Finding, Problem, check};
pub use client::Patience;
pub use collect::{Collected, Garbage, Reason, collect};
pub use credentials::amazon;
pub use files::Files;
pub use hold::Hold;
pub use key::Key;
pub use manifest::{Bounds, Manifest, ObjectEntry, Part, Producer, SchemaRef, Traffic};
pub use object::{Listed, Store};
pub use refs::Ref;
pub use transfer::{PIECE, Source};
