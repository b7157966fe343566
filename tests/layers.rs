//! The layers that the crate's documentation promises.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of each layer, lowest first, as the `Layout` section of `lib.rs` lists them.
fn layers(lib: &str) -> Vec<Vec<&str>> {
    let modules: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let layout = lib.split_once("# Layout").unwrap().1.split("```").nth(1).unwrap();
    let layers: Vec<Vec<_>> = layout
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .map(|line| line.split_whitespace().take_while(|word| modules.contains(word)).collect())
        .filter(|layer: &Vec<_>| !layer.is_empty())
        .collect();
    for module in modules {
        let listed = layers.iter().flatten().any(|m| *m == module);
        assert!(listed, "`{module}` is missing from the Layout section of src/lib.rs");
    }
    layers
}

#[test]
fn no_module_imports_from_a_higher_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(root.join("lib.rs")).unwrap();
    let layers = layers(&lib);
    let layer = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut upward = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = layer(module) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        for (i, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for path in line.split("crate::").skip(1) {
                let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                if name.and_then(layer).is_some_and(|other| other > own) {
                    upward.push(format!("src/{}:{}: {}", inside.display(), i + 1, line.trim()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "imports from a higher layer:\n{}", upward.join("\n"));
}
