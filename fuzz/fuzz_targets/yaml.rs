//! The YAML of pipelines.
#![no_main]

use triad_fuzz::pipeline::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = parse(text);
});
