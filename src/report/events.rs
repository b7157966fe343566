//! TensorBoard event files: TFRecords of Event messages.
//!
//! The only crate for it (tensorboard-rs) is given up and generates code for all of TensorFlow's
//! messages; these are three of them, with five fields.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::dataset::Metric;
use crate::{Error, Result};

/// One run's event file, to which steps are appended.
pub struct EventFile {
    path: PathBuf,
    file: File,
    /// Rows of the run's metrics that it holds.
    rows: usize,
}

impl EventFile {
    /// Begins the event file of `folder` anew.
    ///
    /// # Errors
    /// `TryAgain` names what cannot be written.
    pub fn create(folder: &Path, seconds: f64) -> Result<Self> {
        let path = folder.join("events.out.tfevents.0.triad");
        let failed = |e| Error::try_again(format!("{}: {e}", path.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let mut new = Self { path, file, rows: 0 };
        let mut event = time(seconds);
        bytes(&mut event, 3, b"brain.Event:2"); // file_version
        new.write(&record(&event))?;
        Ok(new)
    }

    /// Appends what `metrics`, all rows of a run so far, has beyond those written before: an event
    /// for each step. A step's number is called `name`, that of one of its levels `name/level-N`.
    pub fn append(&mut self, metrics: &[Metric], seconds: f64) -> Result<()> {
        let mut text = Vec::new();
        let new = metrics.get(self.rows..).unwrap_or_default();
        for of_step in new.chunk_by(|a, b| a.step == b.step) {
            let mut summary = Vec::new();
            for Metric { level, name, value, .. } in of_step {
                let tag = match level {
                    0 => name.clone(),
                    level => format!("{name}/level-{level}"),
                };
                let mut one = Vec::new();
                bytes(&mut one, 1, tag.as_bytes());
                one.push(2 << 3 | 5); // simple_value
                one.extend((*value as f32).to_le_bytes());
                bytes(&mut summary, 1, &one); // value
            }
            let mut event = time(seconds);
            event.push(2 << 3); // step
            varint(&mut event, of_step[0].step.into());
            bytes(&mut event, 5, &summary); // summary
            text.extend(record(&event));
        }
        self.write(&text)?;
        self.rows += new.len();
        Ok(())
    }

    fn write(&mut self, records: &[u8]) -> Result<()> {
        let failed = |e| Error::try_again(format!("{}: {e}", self.path.display()));
        self.file.write_all(records).map_err(failed)
    }
}

/// An event with nothing but its wall time (field 1, a double).
fn time(seconds: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    event
}

/// A field of bytes: text or a message.
fn bytes(message: &mut Vec<u8>, field: u8, content: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, content.len() as u64);
    message.extend(content);
}

/// Seven bits a byte, the lowest first.
fn varint(message: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// A TFRecord: length, its checksum, content, its checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let checksum = |part: &[u8]| crc32c::crc32c(part).rotate_right(15).wrapping_add(0xa282_ead8);
    let mut record = length.to_vec();
    record.extend(checksum(&length).to_le_bytes());
    record.extend(content);
    record.extend(checksum(content).to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_a_curve_of_its_own_and_no_row_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let metric = |step, level| Metric { step, level, name: "reward".into(), value: 0.5 };
        let metrics = [metric(1, 0), metric(1, 2), metric(2, 0), metric(2, 3)];
        let mut file = EventFile::create(dir.path(), 0.0).unwrap();
        for rows in [2, 2, 4, 4] {
            file.append(&metrics[..rows], 0.0).unwrap();
        }
        let written = std::fs::read(&file.path).unwrap();
        let count = |text: &[u8]| written.windows(text.len()).filter(|part| *part == text).count();
        assert_eq!(
            ["reward", "reward/level-2", "reward/level-3"].map(|t| count(t.as_bytes())),
            [4, 1, 1]
        );
    }
}
