//! What the fuzz targets share: the parsers without the rest of triad, and what must hold of
//! whatever they read.

#[path = "../../src/entropy.rs"]
pub mod entropy;
#[path = "../../launch/src/error.rs"]
pub mod error;
#[path = "../../src/id.rs"]
pub mod id;
#[path = "../../src/nearest.rs"]
pub mod nearest;
#[path = "../../src/reward.rs"]
pub mod reward;
#[path = "../../src/sandbox/mod.rs"]
pub mod sandbox;
#[path = "../../src/dataset/rows.rs"]
mod rows;
#[path = "../../src/task/mod.rs"]
pub mod task;

/// The row types without their Parquet side, and the guard before it.
#[path = "."]
#[allow(dead_code, unused_imports)]
pub mod dataset {
    #[path = "../../src/dataset/guard.rs"]
    mod guard;

    pub use crate::rows::*;

    /// What stands before the Parquet reader, of a file and of a column chunk that is all of it.
    pub fn guard(bytes: &[u8]) {
        let _ = guard::check_footer(bytes);
        if let Ok(largest) = guard::check_pages(bytes, 0..bytes.len() as u64) {
            assert!((1..=8192).contains(&guard::batch_rows(largest)));
        }
    }
}

/// Weights without the model that they belong to.
#[path = "."]
#[allow(dead_code, unused_imports)]
pub mod checkpoint {
    #[path = "../../src/checkpoint/index.rs"]
    pub mod index;
    #[path = "../../src/checkpoint/tensor.rs"]
    pub mod tensor;
}

/// The YAML of pipelines.
#[path = "."]
#[allow(dead_code, unused_imports)]
pub mod pipeline {
    #[path = "../../src/pipeline/yaml.rs"]
    mod yaml;

    pub fn parse(text: &str) -> Option<serde_json::Value> {
        yaml::Node::parse("file", text).ok().map(|node| node.to_json())
    }
}

/// Records without the store that they lie in.
#[path = "."]
#[allow(dead_code, unused_imports)]
pub mod store {
    #[path = "../../src/store/key.rs"]
    mod key;
    #[path = "../../src/store/manifest.rs"]
    mod manifest;
    #[path = "../../src/store/record.rs"]
    mod record;

    pub use key::Key;
    pub use manifest::{Manifest, Traffic};

    use crate::id::ArtifactId;

    /// The manifest in a record's bytes, with the id that it claims.
    pub fn manifest(bytes: &[u8]) -> Option<Manifest> {
        let json = record::unseal(bytes).ok()?;
        let claimed: Manifest = record::parse(&json).ok()?;
        let id = ArtifactId::of(&claimed.identity);
        let manifest = Manifest::parse(&json, &id).ok()?;
        let sealed = record::seal(&manifest).ok()?;
        let again = record::unseal(&sealed).and_then(|json| Manifest::parse(&json, &id));
        assert_eq!(again.as_ref(), Ok(&manifest));
        Some(manifest)
    }
}

/// The part of triad's own macro that needs no Arrow.
#[macro_export]
macro_rules! dataset {
    ($(#[$meta:meta])* $name:literal v $version:literal struct $row:ident {
        $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $row {
            $($(#[$field_meta])* pub $field: $type),*
        }
    };
}

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use dataset::Task;
use entropy::Stream;
pub use error::{Error, Result};
use reward::{Judge, Rule};
use task::{AnyPuzzle, Certificate, Family, Form, Record, Style};

/// Does what must take no longer than is linear in `length`, bytes of input. The bound is generous,
/// and a busy machine gets three tries.
pub fn timely<T>(length: usize, work: impl Fn() -> T) -> T {
    let limit = Duration::from_millis(50) + Duration::from_micros(length as u64);
    let mut tries = 1;
    loop {
        let start = Instant::now();
        let done = work();
        let time = start.elapsed();
        if time <= limit {
            return done;
        }
        assert!(tries < 3, "{length} bytes took {time:?}");
        tries += 1;
    }
}

/// Reads a text as a puzzle of one family, and examines it.
pub fn read(family: Family, text: &str) {
    if let Ok(puzzle) = timely(text.len(), || AnyPuzzle::from_text(family, text)) {
        examine(&puzzle);
    }
}

/// Calls every method of a puzzle that was read, and checks what they promise of one another.
pub fn examine(puzzle: &AnyPuzzle) {
    let canonical = puzzle.canonical();
    for (name, share) in puzzle.probes().concat() {
        assert!((0.0..=1.0).contains(&share), "{name}: {share}");
    }
    if let Some(other) = puzzle.renamed(&mut Stream::new(1, "renamed", 0)) {
        assert_eq!(other.canonical(), canonical, "renamed");
    }
    let certified = puzzle.certify();
    for style in [Style::Compact, Style::Paper] {
        let trace = puzzle.trace(style);
        // A row keeps the puzzle, certified or not.
        let proof = certified.clone().unwrap_or_else(|fault| Certificate {
            kind: "uncertified",
            size: 0,
            depth: 0,
            nodes: 0,
            proof: fault.detail.into(),
        });
        let row = puzzle.row(1, Form { style, chat: true }, proof).unwrap();
        assert_eq!(AnyPuzzle::of(&row).unwrap().canonical(), canonical, "{}", row.puzzle);
        if certified.is_err() || !Family::ALL.contains(&puzzle.family) {
            continue;
        }
        // The solver's own answer is right, and the paper's text says the same as the puzzle.
        task::certify(&row).unwrap();
        let response = task::response(&trace, &row.answer);
        let judged = Judge::new(&row).unwrap().judge(&response, Rule::Released);
        assert_eq!(judged.reward, 3.0, "{:?} {response}", judged.verdict);
        if style == Style::Paper {
            let prompt: Value = serde_json::from_str(&row.messages).unwrap();
            let json = json!({"prompt": prompt, "answer": row.answer, "ability": row.family});
            let record = Record::read(json.as_object().unwrap(), "", 1).unwrap();
            let again = record.puzzle.unwrap_or_else(|why| panic!("{why}: {}", record.text));
            assert_eq!(again.canonical(), canonical, "{}", record.text);
        }
    }
}

/// A small task or two of each family.
pub fn fixed() -> Vec<Task> {
    let texts = [
        (Family::Deduction, "- (A ⊕ B)\n- (B → C)\n- (¬C ∨ A)\n- (A ∧ ¬B) → ¬C"),
        (Family::Deduction, "- (A ↔ B)\n- (B ↔ C)\n- (A ⊕ C)"),
        (Family::Induction, "['3', '6', '?', '24', '48']"),
        (Family::Induction, "['A', 'C', 'E', 'G', '?']"),
        (
            Family::Abduction,
            "premises: ['(D) => B', '(H AND E) => A', '(B) => C', '(A) => G', '(X) => G', \
             '(G) => X']\nknown_atoms: ['E', 'H']\ngoals: ['C', 'G']",
        ),
        (
            Family::Abduction,
            "premises: ['(A) => G', '(X AND Y) => A', '(X AND Z) => A', '(W AND V) => A', \
             '(X) => B', '(Y) => C', '(B AND C) => BAD']\nknown_atoms: ['P']\n\
             abducibles: ['V', 'W', 'X', 'Y', 'Z']\nconstraints: ['BAD']\ngoals: ['G']",
        ),
        (Family::Arithmetic, "(3 + 4) * 2 - 5 = ?"),
    ];
    texts
        .map(|(family, text)| {
            let puzzle = AnyPuzzle::from_text(family, text).unwrap();
            puzzle.row(1, Form::default(), puzzle.certify().unwrap()).unwrap()
        })
        .into()
}
