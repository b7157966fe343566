//! `triad get`.

use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::{Globals, name, output};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Get {
    /// `pipeline/stage`, a stage, or 6 or more digits of an id
    artifact: String,
    /// A new or empty folder
    dir: PathBuf,
}

impl Get {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let artifact = name::find(&store, &self.artifact).await?;
        let dir = &self.dir;
        if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::usage(format!(
                "folder `{}` is not empty; give a new one",
                dir.display()
            )));
        }
        for object in &artifact.manifest.objects {
            let inside =
                Path::new(&object.path).components().all(|c| matches!(c, Component::Normal(_)));
            if !inside {
                return Err(Error::data(format!(
                    "artifact {}: object path `{}` leads out of the folder",
                    artifact.manifest.id.short(),
                    object.path
                )));
            }
            let target = dir.join(&object.path);
            let failed = |e| Error::try_again(format!("{}: {e}", target.display()));
            let bytes = artifact.read(&object.path).await?;
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            std::fs::write(&target, bytes).map_err(failed)?;
        }
        output::line(format!(
            "{}: {} objects, {} bytes, digests checked",
            dir.display(),
            artifact.manifest.objects.len(),
            artifact.manifest.bytes()
        ))
    }
}
