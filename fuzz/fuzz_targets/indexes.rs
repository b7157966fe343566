//! Indexes of checkpoints in shards: the files that they name lie beside them.
#![no_main]

use std::path::{Component, Path};

use triad_fuzz::checkpoint::index::files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for file in files(bytes).unwrap_or_default() {
        let parts: Vec<_> = Path::new(&file).components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]), "{file:?}");
    }
});
