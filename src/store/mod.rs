//! Object storage: where every artifact lives, and the only state triad keeps.

mod artifact;
mod attempt;
mod failure;
mod key;
mod manifest;
mod object;
mod open;
mod refs;

pub use artifact::Artifact;
pub use attempt::{Attempt, Commit, Portion, Resumed, StepRecord};
pub use key::Key;
pub use manifest::{Manifest, ObjectEntry, Producer, SchemaRef};
pub use object::Store;
pub use refs::Ref;
