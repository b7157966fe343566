//! Manifests: whatever they say of their objects, the keys stay inside the artifact.
#![no_main]

use triad_fuzz::store::{Key, manifest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(manifest) = manifest(bytes) else { return };
    for object in &manifest.objects {
        let key = object.key(&manifest.id);
        let text = key.to_string();
        assert!(text.starts_with(&format!("artifacts/{}/data/", manifest.id)));
        assert!(text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        assert_eq!(Key::parse(&text), Some(key));
    }
    let _ = (manifest.inputs().count(), manifest.rows("tasks"));
});
