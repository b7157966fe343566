//! A row of a benchmark of programs, in both layouts, and a response to it. Nothing is run.
#![no_main]

use serde_json::{Map, Value};
use triad_fuzz::task::AnyPuzzle;
use triad_fuzz::task::code::Row;
use triad_fuzz::{examine, timely};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (line, response) = text.split_once('\n').unwrap_or((text, text));
    let Ok(row) = serde_json::from_str::<Map<String, Value>>(line) else { return };
    for read in [Row::humaneval, Row::livecodebench] {
        let Ok(row) = timely(line.len(), || read(&row)) else { continue };
        let puzzle = AnyPuzzle::from(row.code);
        if let Some(program) = timely(response.len(), || puzzle.find(response)) {
            assert!(response.contains(program) && !program.trim().is_empty());
        }
        examine(&puzzle);
    }
});
