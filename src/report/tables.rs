//! The summary as tables: what the page, Markdown, LaTeX and the terminal share.

use super::compare::Difference;
use super::complement::Complement;
use super::data::Group;
use super::page::whisker;
use super::summary::{Accuracy, Mode, ORACLE, Summary};
use super::table::{Cell, Column, Row, Table, list, percent, points};
use crate::statistics::Estimate;

/// How an accuracy table is to be read.
pub fn accuracy_note(summary: &Summary) -> String {
    let mut note = String::from(
        "Percent of problems solved with the 95% bootstrap interval over problems. A mean weighs \
         each set alike. ▲ and ▼: better and worse than the baseline over the same problems \
         (randomization test, corrected by Holm over the table, p < 0.05).",
    );
    if summary.accuracy.iter().any(|row| row.model == ORACLE) {
        note += " The oracle ensemble counts a problem when any specialist solves it; at a \
                 temperature above 0, with the probability that one of them does when each answers \
                 once.";
    }
    note
}

/// One group of models in one mode.
pub fn accuracy(summary: &Summary, group: &Group, mode: &Mode) -> Table {
    let rows: Vec<&Accuracy> = group
        .models
        .iter()
        .filter_map(|name| {
            summary.accuracy.iter().find(|row| row.model == *name && row.mode == mode.name)
        })
        .collect();
    // The best model of each column stands out; the ensemble is no model.
    let top = |at: usize| {
        let models = rows.iter().filter(|row| row.model != ORACLE);
        models.filter_map(|row| Some(row.values[at]?.mean)).fold(f64::NEG_INFINITY, f64::max)
    };
    // Means have a value only where all of their sets do.
    let known: Vec<usize> = (0..summary.columns.len())
        .filter(|at| rows.iter().any(|row| row.values[*at].is_some()))
        .collect();
    let column = |at: &usize| {
        let super::summary::Column { label, mean, .. } = &summary.columns[*at];
        Column { mean: *mean, ..Column::number(label) }
    };
    let cells = |row: &Accuracy| {
        let cell = |at: &usize| Cell {
            best: row.model != ORACLE && row.values[*at].is_some_and(|v| v.mean >= top(*at)),
            mark: row.marks[*at],
            ..Cell::share(row.values[*at])
        };
        known.iter().map(cell).collect()
    };
    let title = match group.title.is_empty() {
        true => mode.label.clone(),
        false => format!("{}: {}", group.title, mode.label),
    };
    Table {
        title,
        note: accuracy_note(summary),
        columns: [Column::text("model")].into_iter().chain(known.iter().map(column)).collect(),
        rows: rows
            .iter()
            .map(|row| Row { apart: row.model == ORACLE, ..Row::new(&row.model, cells(row)) })
            .collect(),
    }
}

pub fn comparisons(summary: &Summary, mode: &Mode) -> Table {
    let of_mode = || summary.comparisons.iter().filter(|row| row.mode == mode.name);
    let reach = of_mode()
        .flat_map(|row| [row.difference.low.abs(), row.difference.high.abs()])
        .fold(0.01, f64::max);
    let p = |p: f64| if p < 0.001 { "<0.001".to_string() } else { format!("{p:.3}") };
    let row = |row: &Difference| {
        let Estimate { mean, low, high, .. } = row.difference;
        let drawing = whisker(&row.difference, row.better(), reach);
        Row {
            under: format!("on {}", list(&row.sets)),
            ..Row::new(
                format!("{} − {}", row.model, row.against),
                vec![
                    Cell { drawing: Some(drawing), ..Cell::default() },
                    Cell::new(points(mean)),
                    Cell::new(format!("{} to {}", points(low), points(high))),
                    Cell::new(p(row.p)),
                    Cell::new(p(row.p_holm)),
                    Cell { mark: row.better(), ..Cell::new(&row.verdict) },
                ],
            )
        }
    };
    Table {
        title: format!("Paired differences: {}", mode.label),
        note:
            "Paired over the same problems, in percentage points, with the 95% bootstrap interval; \
               p of the randomization test, alone and corrected by Holm among these comparisons. \
               “Better” and “worse” are said below 0.05."
                .into(),
        columns: vec![
            Column::text("comparison"),
            Column::text(""),
            Column::number("points"),
            Column::number("95% interval"),
            Column::number("p"),
            Column::number("Holm"),
            Column::text("verdict"),
        ],
        rows: of_mode().map(row).collect(),
    }
}

/// Those of every mode that has some.
pub fn all_comparisons(summary: &Summary) -> Vec<Table> {
    let tables = summary.modes.iter().map(|mode| comparisons(summary, mode));
    tables.filter(|table| !table.rows.is_empty()).collect()
}

/// A column for each level of each set.
pub fn levels(summary: &Summary) -> Table {
    let mut columns: Vec<(&str, u32, usize)> = Vec::new();
    for row in &summary.levels {
        for (level, problems, _) in &row.levels {
            if !columns.iter().any(|(set, known, _)| *set == row.set && known == level) {
                columns.push((&row.set, *level, *problems));
            }
        }
    }
    columns.sort_by_key(|(set, level, _)| {
        (summary.sets.iter().position(|known| known == set), *level)
    });
    let cell = |model: &str, set: &str, level: u32| {
        let row = summary.levels.iter().find(|row| row.model == model && row.set == set);
        let found = row.and_then(|row| row.levels.iter().find(|(known, ..)| *known == level));
        Cell::new(found.map_or("–".into(), |(.., share)| percent(*share)))
    };
    let head = |(set, level, problems): &(&str, u32, usize)| {
        Column::number(format!("{set} {level} ({problems})"))
    };
    let row = |model: &str| {
        let cells = columns.iter().map(|(set, level, _)| cell(model, set, *level)).collect();
        Row::new(model, cells)
    };
    Table {
        title: "Accuracy by level".into(),
        note: format!(
            "Percent solved at each level, {}; problems in brackets.",
            summary.modes.first().map_or("", |mode| &mode.label)
        ),
        columns: [Column::text("model")].into_iter().chain(columns.iter().map(head)).collect(),
        rows: summary.models().into_iter().map(row).collect(),
    }
}

pub fn responses(summary: &Summary) -> Option<Table> {
    let first = summary.responses.first()?;
    let mut columns = vec![Column::text("model")];
    columns.extend(first.pass.iter().map(|(k, _)| Column::number(format!("pass@{k}"))));
    columns.extend(first.majority.map(|(k, _)| Column::number(format!("maj@{k}"))));
    columns.extend(["well-formed", "cut off", "tokens"].map(Column::number));
    let row = |row: &super::summary::Responses| {
        let pass = |k: u32| row.pass.iter().find(|(own, _)| *own == k).map(|(_, share)| *share);
        let mut cells: Vec<Cell> = first.pass.iter().map(|(k, _)| Cell::share(pass(*k))).collect();
        if first.majority.is_some() {
            cells.push(Cell::share(row.majority.map(|(_, share)| share)));
        }
        cells.push(Cell::new(percent(row.well_formed)));
        cells.push(Cell::new(row.cut_off.map_or("–".into(), percent)));
        cells.push(Cell::new(format!("{:.1}", row.length)));
        Row::new(&row.model, cells)
    };
    Some(Table {
        title: "Sampled responses".into(),
        note: format!(
            "Over {}: the unbiased estimate of pass@k; maj@k, the score of a majority vote among k \
             answers; the share of well-formed responses and of those that reached the limit of \
             tokens; the mean length.",
            list(&first.sets)
        ),
        columns,
        rows: summary.responses.iter().map(row).collect(),
    })
}

/// How the specialists complement each other on one set.
pub fn complement(complement: &Complement) -> [Table; 2] {
    let Complement { set, mode, specialists, problems, patterns, steps, again } = complement;
    let share = |count: usize| format!("{:.1}", 100.0 * count as f64 / (*problems).max(1) as f64);
    let row = |(pattern, count): &(Vec<bool>, usize)| {
        let mut cells: Vec<Cell> =
            pattern.iter().skip(1).map(|solved| Cell::new(dot(*solved))).collect();
        cells.push(Cell::new(count.to_string()));
        cells.push(Cell::new(share(*count)));
        Row::new(dot(pattern.first().is_some_and(|solved| *solved)), cells)
    };
    let who = Table {
        title: format!("Who solves what: {set}, {mode}"),
        note: format!("{problems} problems by which specialists solve them."),
        columns: specialists
            .iter()
            .map(|name| Column::text(name))
            .chain(["problems", "%"].map(Column::number))
            .collect(),
        rows: patterns.iter().map(row).collect(),
    };
    let mut before = 0.0;
    let mut rows = Vec::new();
    for (at, (model, share)) in steps.iter().enumerate() {
        let (head, gain) = match at {
            0 => (model.clone(), String::new()),
            _ => (format!("with {model}"), points(share - before)),
        };
        rows.push(Row::new(head, vec![Cell::new(percent(*share)), Cell::new(gain)]));
        before = *share;
    }
    if let Some((best, alone)) = steps.first().filter(|(_, alone)| again > alone) {
        let head = format!("{best} alone, {} answers", steps.len());
        let cells = vec![Cell::new(percent(*again)), Cell::new(points(again - alone))];
        rows.push(Row { apart: true, ..Row::new(head, cells) });
    }
    let gain = Table {
        title: format!("The oracle's gain: {set}, {mode}"),
        note: "The best specialist, then whoever adds most to those before. What one specialist \
               gains by answering as often is no complementarity."
            .into(),
        columns: vec![Column::text(""), Column::number("solved, %"), Column::number("gain")],
        rows,
    };
    [who, gain]
}

fn dot(solved: bool) -> &'static str {
    if solved { "●" } else { "○" }
}

/// All of them, in the order of the page.
pub fn all(summary: &Summary) -> Vec<Table> {
    let mut tables = Vec::new();
    for group in &summary.tables {
        tables.extend(summary.modes.iter().map(|mode| accuracy(summary, group, mode)));
    }
    tables.extend(all_comparisons(summary));
    tables.push(levels(summary));
    tables.extend(responses(summary));
    tables.extend(summary.complement.iter().flat_map(complement));
    tables
}
