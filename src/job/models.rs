//! Checkpoints as inputs and outputs of a job.

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Context;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::store::Artifact;

/// Reads a checkpoint artifact.
pub fn read(runtime: &Handle, artifact: &Artifact) -> Result<Checkpoint> {
    Checkpoint::from_objects(|path| file(runtime, artifact, path))
        .map_err(|e| e.at(format!("checkpoint {}", artifact.manifest.id.short())))
}

fn file(runtime: &Handle, artifact: &Artifact, path: &str) -> Result<Option<Bytes>> {
    let listed = artifact.manifest.objects.iter().any(|object| object.path == path);
    if listed { runtime.block_on(artifact.read(path)).map(Some) } else { Ok(None) }
}

impl Context {
    /// Reads a checkpoint artifact.
    pub fn checkpoint(&self, artifact: &Artifact) -> Result<Checkpoint> {
        read(&self.runtime, artifact)
    }

    /// The same without its weights: they are not even read.
    pub fn checkpoint_without_weights(&self, artifact: &Artifact) -> Result<Checkpoint> {
        Checkpoint::without_weights(|path| file(&self.runtime, artifact, path))
            .map_err(|e| e.at(format!("checkpoint {}", artifact.manifest.id.short())))
    }

    /// Writes a checkpoint as the Hugging Face folder that the artifact consists of.
    pub fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.write(|path, bytes| self.write_object(&path, bytes))?;
        let parameters: usize =
            checkpoint.weights.values().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        self.summarize("parameters", parameters as u64);
        Ok(())
    }
}
