//! Pipelines that jobs on other machines read: `pipelines/<digest>.yaml`, named by their own hash.

use super::{Key, Store};
use crate::id::digest;
use crate::{Error, Result};

/// How often one counts as damaged before it is: bytes can change on their way.
const READS: usize = 3;

impl Store {
    /// Keeps a pipeline's text, and gives the digest that names it. Written again when it is there
    /// already: its age counts from the last time that somebody wanted it.
    pub async fn put_pipeline(&self, text: String) -> Result<String> {
        let digest = digest(text.as_bytes());
        self.put(&Key::Pipeline(digest.clone()), text.into()).await?;
        Ok(digest)
    }

    /// The pipeline's text.
    ///
    /// # Errors
    /// `Usage` where there is none, `Data` where it is another than its name says.
    pub async fn get_pipeline(&self, name: &str) -> Result<String> {
        let key = Key::Pipeline(name.into());
        for _ in 0..READS {
            let bytes = self.get(&key).await?.ok_or_else(|| {
                Error::usage(format!(
                    "no {}; `triad run FILE --on …` writes it for the jobs that it submits",
                    self.place(&key)
                ))
            })?;
            if digest(&bytes) == name {
                return String::from_utf8(bytes.into()).map_err(Error::data);
            }
        }
        Err(Error::data(format!(
            "{}: another digest than its name; `triad fsck --repair` takes it away, and `triad run FILE \
             --on …` writes it again",
            self.place(&key)
        )))
    }
}
