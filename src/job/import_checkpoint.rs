//! `import-checkpoint`: a Hugging Face folder becomes an artifact.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, Job, Port, resolve_as};
use crate::checkpoint::{CARRIED, Checkpoint};
use crate::{Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// The folder, relative to the current directory.
    path: String,
    /// blake3 over the folder's files, so that other weights are another artifact. Computed when
    /// absent; pin it to save hashing a large folder for every plan.
    #[serde(default)]
    digest: Option<String>,
}

pub struct ImportCheckpoint;

impl Job for ImportCheckpoint {
    fn name(&self) -> &'static str {
        "import-checkpoint"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }

    fn resolve(&self, raw: &Value) -> Result<Value> {
        let mut params = resolve_as::<Spec>(raw)?;
        if params["digest"].is_null() {
            let path = params["path"].as_str().unwrap_or_default();
            params["digest"] = folder_digest(Path::new(path))?.into();
        }
        Ok(params)
    }

    fn files(&self, params: &Value) -> Vec<String> {
        params["path"].as_str().map(String::from).into_iter().collect()
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let path = Path::new(&spec.path);
        let found = folder_digest(path)?;
        if spec.digest.as_ref() != Some(&found) {
            return Err(Error::data(format!(
                "checkpoint `{}`: its files have digest {found}, the pipeline asks for {}",
                spec.path,
                spec.digest.unwrap_or_default()
            )));
        }
        let checkpoint = Checkpoint::from_folder(path)?;
        context.write_checkpoint(&checkpoint)
    }
}

/// blake3 over name and content of the folder's safetensors and JSON files and of what else a
/// checkpoint carries, in order of name.
fn folder_digest(folder: &Path) -> Result<String> {
    let fail = |e: std::io::Error| {
        Error::usage(format!(
            "checkpoint `{}`: {e}; `path` is a Hugging Face folder, relative to the current directory",
            folder.display()
        ))
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        let ours = name.ends_with(".safetensors") || name.ends_with(".json");
        if ours || CARRIED.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        let file = std::fs::File::open(folder.join(&name)).map_err(fail)?;
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&file.metadata().map_err(fail)?.len().to_le_bytes());
        hasher.update_reader(file).map_err(fail)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
