//! A merge into a local folder: file by file, each under its name only when it is whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use super::plan::Plan;
use super::run::{Limits, Output, Watch, run};
use crate::checkpoint::{Layout, index_json, layouts};
use crate::{Error, Result};

/// Says which merge the finished files in a folder are of; gone when all is there.
const UNFINISHED: &str = ".triad-merge";

/// A file whose places are written by several threads, in any order.
struct Writer {
    file: File,
    name: String,
}

impl Output for Writer {
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|e| Error::try_again(format!("{}: {e}", self.name)))
    }
}

impl Plan {
    /// What a folder must be of for its files to be kept: the recipe and the inputs' headers.
    fn mark(&self) -> Result<String> {
        let models = self.models.iter().map(|(name, model)| {
            let tensors = model.tensors.iter().map(|(name, tensor)| {
                json!([name, tensor.dtype, tensor.shape, tensor.offset, tensor.file.stamp()])
            });
            json!([name, tensors.collect::<Vec<_>>()])
        });
        let what = json!([self.recipe, models.collect::<Vec<_>>(), env!("CARGO_PKG_VERSION")]);
        let text = serde_json::to_vec(&what).map_err(Error::defect)?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }

    /// Merges into `folder`, in files of `limit` bytes of weights. Whole files that an interrupted run
    /// of the same merge left there stay.
    ///
    /// # Errors
    /// [`Error::Usage`] for a folder with anything else in it.
    pub fn write_to_folder(
        &self,
        folder: &Path,
        limits: Limits,
        limit: u64,
        watch: &dyn Watch,
    ) -> Result<()> {
        let failed = |e: std::io::Error| Error::try_again(format!("{}: {e}", folder.display()));
        let mark = folder.join(UNFINISHED);
        let ours = format!("{} {limit}", self.mark()?);
        let continued = std::fs::read_to_string(&mark).is_ok_and(|text| text == ours);
        let full = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if full && !continued {
            return Err(Error::usage(format!(
                "folder `{}` is not empty; give a new one",
                folder.display()
            )));
        }
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(&mark, &ours).map_err(failed)?;
        let outlines = self.outlines();
        let layouts = layouts(&outlines, limit)?;
        for layout in &layouts {
            let target = folder.join(&layout.file);
            if continued && is_whole(&target, layout) {
                tracing::info!("{} is there already", layout.file);
                let bytes = layout.size - layout.header.len() as u64;
                watch.wrote(bytes)?;
                continue;
            }
            let part = target.with_added_extension("part");
            let file = File::create(&part).map_err(failed)?;
            file.set_len(layout.size).map_err(failed)?;
            let writer = Writer { file, name: part.display().to_string() };
            run(self, layout, limits, &writer, watch)?;
            std::fs::rename(&part, &target).map_err(failed)?;
        }
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
        if layouts.len() > 1 {
            let (name, bytes) = index_json(&outlines, &layouts)?;
            put(&name, &bytes).map_err(failed)?;
        }
        for (name, bytes) in &self.files {
            put(name, bytes).map_err(failed)?;
        }
        std::fs::remove_file(&mark).map_err(failed)
    }
}

/// Whether a file is there with the header and the size that it should have. It has its name only
/// since it was whole.
fn is_whole(path: &Path, layout: &Layout) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut header = vec![0; layout.header.len()];
    file.metadata().is_ok_and(|meta| meta.len() == layout.size)
        && file.read_exact_at(&mut header, 0).is_ok()
        && header == layout.header
}
