#![no_main]

use triad_fuzz::{read, task::Family};

libfuzzer_sys::fuzz_target!(|text: &str| read(Family::Deduction, text));
