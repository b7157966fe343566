//! The result tables for a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::summary::Summary;
use crate::statistics::Estimate;

/// Accuracy and differences as plain text.
pub fn text(summary: &Summary) -> String {
    let mut out = String::new();
    for mode in &summary.modes {
        let mut table = table();
        let mut header = vec!["model".to_string()];
        header.extend(summary.sets.iter().cloned());
        let split = summary.families.len() != summary.sets.len() && summary.families.len() > 1;
        if split {
            header.push("family mean".into());
        }
        if summary.sets.len() > 1 {
            header.push("mean".into());
        }
        let columns = header.len();
        table.set_header(header);
        for row in summary.accuracy.iter().filter(|row| row.mode == mode.name) {
            let mut cells = vec![row.model.clone()];
            cells.extend(row.sets.iter().map(|e| estimate(*e)));
            if split {
                cells.push(estimate(row.families));
            }
            if summary.sets.len() > 1 {
                cells.push(estimate(row.overall));
            }
            table.add_row(cells);
        }
        align(&mut table, 1..columns);
        out += &format!("{}, % with half the 95% interval\n{table}\n\n", mode.label);
    }
    if !summary.comparisons.is_empty() {
        let mut table = table();
        table.set_header(["model", "against", "on", "mode", "points", "95% interval", "verdict"]);
        for row in &summary.comparisons {
            let Estimate { mean, low, high, .. } = row.difference;
            table.add_row([
                row.model.clone(),
                row.against.clone(),
                row.sets.join(", "),
                row.mode.clone(),
                format!("{:+.1}", 100.0 * mean),
                format!("{:+.1} to {:+.1}", 100.0 * low, 100.0 * high),
                row.verdict.clone(),
            ]);
        }
        align(&mut table, 4..6);
        out += &format!("paired differences\n{table}\n");
    }
    out.trim_end().to_string()
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table
}

fn align(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn estimate(value: Option<Estimate>) -> String {
    value.map_or("-".into(), |e| format!("{:.1} ±{:.1}", 100.0 * e.mean, 50.0 * (e.high - e.low)))
}
