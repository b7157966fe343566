//! The column `puzzle` of a task, in whatever family reads it.
#![no_main]

use triad_fuzz::task::{AnyPuzzle, Family};
use triad_fuzz::{examine, timely};

libfuzzer_sys::fuzz_target!(|json: &str| {
    for family in Family::ALL {
        if let Ok(puzzle) = timely(json.len(), || AnyPuzzle::from_json(family, json)) {
            examine(&puzzle);
        }
    }
});
