//! Answers to problems of mathematics, as right ones and as given ones.
#![no_main]

use triad_fuzz::task::math::{Equality, Gold, extract, grade};
use triad_fuzz::timely;

const GOLDS: [&str; 7] = [
    "7",
    "\\frac{1}{2} + \\sqrt{3}",
    "x^2 + 1",
    "\\{1, 2\\}",
    "(0, 1] \\cup \\{2\\}",
    "x > 3",
    "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
];

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(found) = timely(text.len(), || extract(text)) {
        assert!(text.contains(found));
    }
    let own = Gold::new(text);
    for gold in GOLDS {
        timely(text.len(), || grade(gold, text));
        timely(text.len(), || own.grade(gold));
    }
    if !text.trim().is_empty() && own.grade(text) != Equality::Equal {
        // Boxes with nothing in them.
        assert!(text.contains("box"), "{:?}", own.grade(text));
    }
});
