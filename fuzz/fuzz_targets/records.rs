//! A line of somebody's file, as `triad audit` and the job `import-tasks` read it.
#![no_main]

use serde_json::{Map, Value};
use triad_fuzz::task::{Audit, Record};
use triad_fuzz::{examine, timely};

libfuzzer_sys::fuzz_target!(|line: &str| {
    let Ok(row) = serde_json::from_str::<Map<String, Value>>(line) else { return };
    let Ok(record) = timely(line.len(), || Record::read(&row, "file", 1)) else { return };
    let mut audit = Audit::default();
    audit.add(&record);
    assert_eq!(audit.lines().len(), 1);
    audit.findings();
    audit.is_clean();
    if let Ok(puzzle) = &record.puzzle {
        examine(puzzle);
    }
});
