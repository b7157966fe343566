//! What commands print on stdout: text, tables, JSON.

use std::io::Write;

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde_json::{Map, Value};

use crate::store::Manifest;
use crate::{Error, Result};

/// Writes to stdout. A reader that has left (`| head`) is no error.
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::try_again(format!("stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes `text` and a line end.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

pub fn json(value: &impl serde::Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value).map_err(Error::defect)?)
}

/// Rows with named columns, printed as aligned text or as JSON objects. Null is an empty cell.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    pub fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            let objects: Vec<Map<String, Value>> = self
                .rows
                .iter()
                .map(|row| {
                    let names = self.columns.iter().map(|column| column.to_string());
                    names.zip(row.iter().cloned()).collect()
                })
                .collect();
            return json(&objects);
        }
        line(self.text())
    }

    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(text));
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.rows.iter().all(|row| !row[i].is_string()) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A value as people read it: four significant digits, no quotes, nothing for null.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let size = number.abs();
            if number == 0.0 || (1e-3..1e15).contains(&size) {
                let digits = (3 - size.max(1e-3).log10().floor() as i64).clamp(0, 6) as usize;
                let text = format!("{number:.digits$}");
                match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                    false => text,
                }
            } else {
                format!("{number:.3e}")
            }
        }
        Value::Object(map) => {
            let parts: Vec<_> =
                map.iter().map(|(key, value)| format!("{key} {}", text(value))).collect();
            format!("({})", parts.join(", "))
        }
        other => other.to_string(),
    }
}

/// An artifact's few summary numbers on one line.
pub fn summary(manifest: &Manifest) -> String {
    const LONGEST: usize = 100;
    let parts: Vec<_> =
        manifest.summary.iter().map(|(name, value)| format!("{name} {}", text(value))).collect();
    let all = parts.join(", ");
    if all.chars().count() <= LONGEST {
        return all;
    }
    all.chars().take(LONGEST).chain(['…']).collect()
}

/// Rows of the dataset named like the artifact's kind, or else of all its datasets.
pub fn rows(manifest: &Manifest) -> Value {
    if manifest.datasets.is_empty() {
        return Value::Null;
    }
    if manifest.datasets.contains_key(&manifest.kind) {
        return manifest.rows(&manifest.kind).into();
    }
    manifest.datasets.keys().map(|name| manifest.rows(name)).sum::<u64>().into()
}

/// Seconds with a digit or two, for tables.
pub fn seconds(manifest: &Manifest) -> Value {
    ((manifest.producer.seconds * 10.0).round() / 10.0).into()
}

/// When it was begun, to the second.
pub fn started(manifest: &Manifest) -> Value {
    manifest.producer.started.format("%Y-%m-%d %H:%M:%S").to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        let cases = [(0.5, "0.5"), (0.123456, "0.1235"), (12345.678, "12346"), (3.0, "3")];
        for (number, expected) in cases {
            assert_eq!(text(&number.into()), expected);
        }
        assert_eq!(text(&1e-5.into()), "1.000e-5");
        assert_eq!(text(&7.into()), "7");
    }

    #[test]
    fn tables_align_numbers_right() {
        let mut table = Table::new(&["stage", "rows"]);
        table.push(vec!["a".into(), 5.into()]);
        table.push(vec!["longer".into(), 1000.into()]);
        table.push(vec!["none".into(), Value::Null]);
        assert_eq!(table.text(), "stage   rows\na          5\nlonger  1000\nnone");
    }
}
