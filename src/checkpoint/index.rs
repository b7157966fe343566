//! The index of a checkpoint in shards.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{Error, Result};

#[derive(Deserialize)]
struct Index {
    /// File names by tensor.
    weight_map: BTreeMap<String, String>,
}

/// The files that an index names, each of which must lie beside it.
pub fn files(index: &[u8]) -> Result<BTreeSet<String>> {
    let Index { weight_map } = serde_json::from_slice(index).map_err(Error::data)?;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    match files.iter().find(|file| !is_plain(file)) {
        Some(file) => Err(Error::data(format!("`{file}` is no name of a file beside it"))),
        None => Ok(files),
    }
}

/// Whether `name` leads nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', ':'])
}
