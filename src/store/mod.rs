//! Object storage: where every artifact lives, and the only state triad keeps.

mod artifact;
mod key;
mod manifest;
mod object;
mod refs;

pub use artifact::{Artifact, Attempt, StepRecord};
pub use key::Key;
pub use manifest::{Manifest, ObjectEntry, Producer, SchemaRef};
pub use object::Store;
pub use refs::Ref;
