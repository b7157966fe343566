//! A table, and how it reads as HTML, Markdown, LaTeX and on a terminal.

use comfy_table::{CellAlignment, presets};
use maud::{Markup, PreEscaped, html};

use crate::statistics::Estimate;

#[derive(Debug, Clone, Default)]
pub struct Table {
    pub title: String,
    /// What the numbers are.
    pub note: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub head: String,
    /// Numbers stand right.
    pub number: bool,
    pub mean: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Row {
    pub head: String,
    /// A second line, smaller.
    pub under: String,
    pub cells: Vec<Cell>,
    /// Not one of the things compared: the ensemble.
    pub apart: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Cell {
    pub text: String,
    /// Low and high end of its interval, and half of its width.
    pub interval: Option<(String, String, String)>,
    pub mark: Option<bool>,
    pub best: bool,
    /// On the page alone.
    pub drawing: Option<PreEscaped<String>>,
}

pub fn percent(value: f64) -> String {
    format!("{:.1}", 100.0 * value)
}

/// A difference in points, with its sign.
pub fn points(value: f64) -> String {
    format!("{:+.1}", 100.0 * value).replace('-', "−")
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

impl Column {
    pub fn text(head: &str) -> Self {
        Self { head: head.into(), number: false, mean: false }
    }

    pub fn number(head: impl Into<String>) -> Self {
        Self { head: head.into(), number: true, mean: false }
    }
}

impl Row {
    pub fn new(head: impl Into<String>, cells: Vec<Cell>) -> Self {
        Self { head: head.into(), cells, ..Self::default() }
    }
}

impl Cell {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A share in percent with its interval; a dash for none.
    pub fn share(value: Option<Estimate>) -> Self {
        let Some(Estimate { mean, low, high, .. }) = value else { return Self::new("–") };
        let half = format!("{:.1}", 50.0 * (high - low));
        Self { interval: Some((percent(low), percent(high), half)), ..Self::new(percent(mean)) }
    }

    /// Text, half of the interval and mark on one line.
    fn line(&self) -> String {
        let half = self.interval.as_ref().map(|(.., half)| format!(" ±{half}"));
        format!("{}{}{}", self.text, half.unwrap_or_default(), arrow(self.mark))
    }

    fn class(&self) -> &'static str {
        match self.mark {
            Some(true) => "better",
            Some(false) => "worse",
            None => "none",
        }
    }
}

fn arrow(mark: Option<bool>) -> &'static str {
    match mark {
        Some(true) => " ▲",
        Some(false) => " ▼",
        None => "",
    }
}

impl Table {
    pub fn html(&self) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-label=(self.title) { table {
                thead { tr {
                    @for column in &self.columns {
                        th.n[column.number].mean[column.mean] scope="col" { (column.head) }
                    }
                } }
                tbody {
                    @for row in &self.rows {
                        tr.apart[row.apart] {
                            th scope="row" {
                                (row.head) @if !row.under.is_empty() { small { (row.under) } }
                            }
                            @for (cell, column) in row.cells.iter().zip(self.columns.iter().skip(1)) {
                                td.n[column.number].mean[column.mean].best[cell.best] {
                                    @if let Some(drawing) = &cell.drawing { (drawing) }
                                    @match cell.mark {
                                        Some(_) => {
                                            span class=(cell.class()) {
                                                (cell.text)
                                                @if column.number { (arrow(cell.mark)) }
                                            }
                                        }
                                        None => { (cell.text) }
                                    }
                                    @if let Some((low, high, _)) = &cell.interval {
                                        small { (low) "–" (high) }
                                    }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }

    /// As GitHub has it.
    pub fn markdown(&self) -> String {
        let escaped =
            |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.columns.iter().map(|c| escaped(&c.head)).collect());
        let rule = |c: &Column| if c.number { "---:" } else { "---" }.to_string();
        out += &line(self.columns.iter().map(rule).collect());
        for row in &self.rows {
            let head = match row.under.is_empty() {
                true => escaped(&row.head),
                false => escaped(&format!("{} {}", row.head, row.under)),
            };
            let cell = |cell: &Cell| match cell.best {
                true => format!("**{}**", escaped(&cell.line())),
                false => escaped(&cell.line()),
            };
            out += &line([head].into_iter().chain(row.cells.iter().map(cell)).collect());
        }
        out
    }

    /// For a document that loads `booktabs`.
    pub fn latex(&self) -> String {
        let align: String = self.columns.iter().map(|c| if c.number { 'r' } else { 'l' }).collect();
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let mut out = format!(
            "\\begin{{table}}\n\\centering\n\\caption{{{}. {}}}\n\\begin{{tabular}}{{{align}}}\n\\toprule\n",
            tex(&self.title),
            tex(&self.note)
        );
        out += &line(self.columns.iter().map(|c| tex(&c.head)).collect());
        out += "\\midrule\n";
        for row in &self.rows {
            let head = format!("{} {}", row.head, row.under);
            let head = tex(head.trim());
            let cell = |cell: &Cell| {
                let half = cell
                    .interval
                    .as_ref()
                    .map(|(.., half)| format!("{{\\scriptsize$\\pm${half}}}"));
                let mark = match cell.mark.filter(|_| cell.interval.is_some()) {
                    Some(true) => "$^{\\uparrow}$",
                    Some(false) => "$^{\\downarrow}$",
                    None => "",
                };
                let text = match cell.best {
                    true => format!("\\textbf{{{}}}", tex(&cell.text)),
                    false => tex(&cell.text),
                };
                format!("{text}{}{mark}", half.unwrap_or_default())
            };
            out += &line([head].into_iter().chain(row.cells.iter().map(cell)).collect());
        }
        out + "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    }

    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(self.columns.iter().map(|column| &column.head));
        for row in &self.rows {
            let head = format!("{} {}", row.head, row.under).trim().to_string();
            table.add_row([head].into_iter().chain(row.cells.iter().map(Cell::line)));
        }
        for (index, _) in self.columns.iter().enumerate().filter(|(_, column)| column.number) {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{}\n{table}\n", self.title)
    }
}

/// Text for LaTeX.
pub fn tex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '\\' => out += "\\textbackslash{}",
            '<' => out += "$<$",
            '>' => out += "$>$",
            '−' => out += "$-$",
            '–' => out += "--",
            '●' => out += "$\\bullet$",
            '○' => out += "$\\circ$",
            '±' => out += "$\\pm$",
            '“' => out += "``",
            '”' => out += "''",
            '▲' => out += "$^{\\uparrow}$",
            '▼' => out += "$^{\\downarrow}$",
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let value = |mean: f64| Some(Estimate { mean, low: mean - 0.02, high: mean + 0.02, n: 9 });
        let better = Cell { mark: Some(true), best: true, ..Cell::share(value(0.5)) };
        Table {
            title: "100% of a_b".into(),
            note: "x < y".into(),
            columns: vec![Column::text("model"), Column::number("a|b")],
            rows: vec![
                Row::new("one_two", vec![better]),
                Row::new("three", vec![Cell::share(None)]),
            ],
        }
    }

    #[test]
    fn markdown_and_latex_escape_what_they_must() {
        assert_eq!(
            table().markdown(),
            "| model | a\\|b |\n| --- | ---: |\n| one_two | **50.0 ±2.0 ▲** |\n| three | – |\n"
        );
        let latex = table().latex();
        for part in [
            "\\caption{100\\% of a\\_b. x $<$ y}",
            "one\\_two & \\textbf{50.0}{\\scriptsize$\\pm$2.0}$^{\\uparrow}$ \\\\",
            "three & -- \\\\",
            "\\begin{tabular}{lr}",
        ] {
            assert!(latex.contains(part), "{part} in {latex}");
        }
        let opened = latex.matches("\\begin").count();
        assert_eq!(opened, latex.matches("\\end").count());
    }
}
