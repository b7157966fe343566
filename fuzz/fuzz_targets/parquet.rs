//! Footers and pages of Parquet files, before a reader trusts them.
#![no_main]

use triad_fuzz::timely;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    timely(bytes.len(), || triad_fuzz::dataset::guard(bytes));
});
