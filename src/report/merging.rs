//! What a merge search tried, and how specialists differ from their base.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, PreEscaped, html};

use super::curves::{COLOURS, Figure, marks};
use super::data::TrainingRun;
use super::table::percent;
use crate::Result;
use crate::dataset::{Delta, Trial};

/// Candidates that a table shows, best first.
const SHOWN: usize = 12;

/// Both, for the runs that have such rows.
///
/// # Errors
/// `Defect` when drawing fails.
pub fn section(runs: &[TrainingRun]) -> Result<Markup> {
    let mut parts = Vec::new();
    for run in runs {
        if !run.trials.is_empty() {
            parts.push(search(&run.name, &run.trials)?);
        }
        if !run.deltas.is_empty() {
            parts.push(deltas(&run.name, &run.deltas)?);
        }
    }
    Ok(html! { @for part in &parts { (part) } })
}

/// One candidate: its settings and score.
struct Tried<'a> {
    first: &'a Trial,
    sets: BTreeMap<&'a str, f64>,
}

fn tried(trials: &[Trial]) -> Vec<Tried<'_>> {
    let mut all: BTreeMap<u32, Tried> = BTreeMap::new();
    for trial in trials {
        let entry = all.entry(trial.trial);
        let entry = entry.or_insert(Tried { first: trial, sets: BTreeMap::new() });
        entry.sets.insert(&trial.set, trial.accuracy);
    }
    all.into_values().collect()
}

fn number(value: f64) -> String {
    format!("{}", (value * 1e4).round() / 1e4)
}

/// The surface: for two settings as a map, for any as a line of the best score at each value.
fn search(name: &str, trials: &[Trial]) -> Result<Markup> {
    let all = tried(trials);
    let Some(settings) = all.first().map(|tried| &tried.first.settings) else {
        return Ok(html! {});
    };
    let mut figures = Vec::new();
    for (at, setting) in settings.iter().enumerate() {
        let point = |tried: &Tried| (tried.first.setting_values[at], tried.first.score);
        let mut points: Vec<(f64, f64)> = all.iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        points.dedup_by_key(|point| point.0);
        if points.len() > 1 {
            let title = format!("Best score by {setting}");
            let svg = marks(&title, &[(at, points)], 2)?;
            figures.push(Figure { title, svg });
        }
    }
    let mut ranked: Vec<&Tried> = all.iter().collect();
    ranked.sort_by(|a, b| b.first.score.total_cmp(&a.first.score));
    let sets: BTreeSet<&str> = trials.iter().map(|trial| &trial.set[..]).collect();
    Ok(html! {
        h3 { "Merge weights: " (name) }
        p.note {
            (all.len()) " candidates by their mean accuracy over " (sets.len())
            @if sets.len() == 1 { " set. " } @else { " sets. " }
            "The chosen one is bold; of equal ones it is the first."
        }
        @if settings.len() == 2 { (map(settings, &all)) }
        div.figures {
            @for figure in &figures { figure { figcaption { (figure.title) } (PreEscaped(&figure.svg)) } }
        }
        div.scroll {
            table {
                thead { tr {
                    th { "trial" }
                    @for setting in settings { th.n { (setting) } }
                    th.n { "score" }
                    @for set in &sets { th.n { (set) } }
                } }
                tbody {
                    @for tried in ranked.iter().take(SHOWN) {
                        tr {
                            th { (tried.first.trial) }
                            @for value in &tried.first.setting_values { td.n { (number(*value)) } }
                            td.n.best[tried.first.best] { (percent(tried.first.score)) }
                            @for set in &sets {
                                td.n { @if let Some(value) = tried.sets.get(set) { (percent(*value)) } }
                            }
                        }
                    }
                }
            }
        }
    })
}

/// Scores by both settings, the darker the higher.
fn map(settings: &[String], all: &[Tried]) -> Markup {
    let values = |at: usize| {
        let mut values: Vec<f64> = all.iter().map(|tried| tried.first.setting_values[at]).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    };
    let scores = || all.iter().map(|tried| tried.first.score);
    let low = scores().fold(f64::INFINITY, f64::min);
    let high = scores().fold(f64::NEG_INFINITY, f64::max);
    let share = |score: f64| if high > low { 70.0 * (score - low) / (high - low) } else { 0.0 };
    let (down, across) = (values(0), values(1));
    let at = |a: f64, b: f64| {
        all.iter()
            .rev()
            .find(|tried| tried.first.setting_values[..] == [a, b])
            .map(|tried| tried.first)
    };
    html! {
        div.scroll {
            table {
                thead { tr {
                    th { (settings[0]) " ↓  " (settings[1]) " →" }
                    @for b in &across { th.n { (number(*b)) } }
                } }
                tbody {
                    @for a in &down {
                        tr {
                            th { (number(*a)) }
                            @for b in &across {
                                @if let Some(trial) = at(*a, *b) {
                                    td.n.best[trial.best]
                                        style={ "background:color-mix(in srgb," (COLOURS[0]) " "
                                            (format!("{:.0}", share(trial.score))) "%,transparent)" }
                                        { (percent(trial.score)) }
                                } @else { td.n {} }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A pair of models, the rows of its tensors.
type Pairs<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Delta>>;

/// Layer by layer, means over a layer's numbers.
fn by_layer(rows: &[&Delta], of: impl Fn(&Delta) -> f64) -> Vec<(f64, f64)> {
    let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for row in rows {
        let Some(layer) = row.layer else { continue };
        let (sum, numbers) = sums.entry(layer).or_default();
        *sum += of(row) * row.numbers as f64;
        *numbers += row.numbers as f64;
    }
    sums.into_iter().map(|(layer, (sum, numbers))| (f64::from(layer), sum / numbers)).collect()
}

fn deltas(name: &str, rows: &[Delta]) -> Result<Markup> {
    let mut pairs = Pairs::new();
    for row in rows {
        pairs.entry((&row.model, &row.other)).or_default().push(row);
    }
    let mut figures = Vec::new();
    let ratio = |row: &Delta| if row.other_norm > 0.0 { row.norm / row.other_norm } else { 0.0 };
    let shown: [(&str, &dyn Fn(&Delta) -> f64); 3] = [
        ("Cosine between the deltas, by layer", &|row| row.cosine),
        ("Numbers moved in opposite directions, by layer", &|row| row.sign_conflict),
        ("Norm of the first delta over the second's, by layer", &ratio),
    ];
    for (title, of) in shown {
        let lines: Vec<_> =
            pairs.values().enumerate().map(|(at, rows)| (at, by_layer(rows, of))).collect();
        if lines.iter().any(|(_, points)| !points.is_empty()) {
            figures.push(Figure { title: title.into(), svg: marks(title, &lines, 0)? });
        }
    }
    let whole = |rows: &[&Delta], of: &dyn Fn(&Delta) -> f64| {
        let numbers: f64 = rows.iter().map(|row| row.numbers as f64).sum();
        rows.iter().map(|row| of(row) * row.numbers as f64).sum::<f64>() / numbers
    };
    let length = |rows: &[&Delta], of: &dyn Fn(&Delta) -> f64| {
        rows.iter().map(|row| of(row).powi(2)).sum::<f64>().sqrt()
    };
    Ok(html! {
        h3 { "Specialists beside each other: " (name) }
        p.note {
            "A delta is what training changed of the base. Means over the numbers of all tensors; "
            "length is the delta's norm over the base's."
        }
        div.scroll {
            table {
                thead { tr {
                    th { "pair" } th.n { "cosine" } th.n { "opposed" } th.n { "length of the first" }
                    th.n { "of the second" }
                } }
                tbody {
                    @for ((model, other), rows) in &pairs {
                        tr {
                            th { (model) ", " (other) }
                            td.n { (format!("{:.3}", whole(rows, &|row| row.cosine))) }
                            td.n { (percent(whole(rows, &|row| row.sign_conflict))) "%" }
                            td.n { (format!("{:.4}", length(rows, &|r| r.norm) / length(rows, &|r| r.base_norm))) }
                            td.n { (format!("{:.4}", length(rows, &|r| r.other_norm) / length(rows, &|r| r.base_norm))) }
                        }
                    }
                }
            }
        }
        ul.legend {
            @for (at, (model, other)) in pairs.keys().enumerate() {
                li { i style={ "background:" (COLOURS[at % COLOURS.len()]) } {} (model) ", " (other) }
            }
        }
        div.figures {
            @for figure in &figures { figure { figcaption { (figure.title) } (PreEscaped(&figure.svg)) } }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_and_comparisons_are_shown_and_nothing_else() {
        let trial = |trial: u32, a: f64, b: f64, score| Trial {
            trial,
            settings: vec!["a.weight".into(), "b.weight".into()],
            setting_values: vec![a, b],
            set: "val".into(),
            accuracy: score,
            score,
            best: trial == 2,
            ..Trial::default()
        };
        let trials =
            vec![trial(1, -1.0, 0.0, 0.25), trial(2, -1.0, 0.5, 0.75), trial(3, 2.0, 0.0, 0.5)];
        let delta = Delta {
            layer: Some(0),
            numbers: 4,
            model: "x".into(),
            other: "y".into(),
            base_norm: 2.0,
            norm: 1.0,
            other_norm: 0.5,
            cosine: 0.125,
            sign_conflict: 0.375,
            ..Delta::default()
        };
        let run = |name: &str| TrainingRun { name: name.into(), ..TrainingRun::default() };
        assert_eq!(section(&[run("rl")]).unwrap().into_string(), "");
        let runs = [
            TrainingRun { trials, ..run("searched") },
            TrainingRun { deltas: vec![delta], ..run("apart") },
        ];
        let page = section(&runs).unwrap().into_string();
        assert!(page.contains("Merge weights: searched") && page.contains("apart"), "{page}");
        assert!(page.contains("Best score by a.weight"), "{page}");
        // The best of the map and of the table, and no other.
        assert_eq!(page.matches(">75.0</td>").count(), 3, "{page}");
        assert_eq!(page.matches("best").count(), 2, "{page}");
        assert!(
            page.contains("0.125") && page.contains("37.5%") && page.contains("0.5000"),
            "{page}"
        );
    }
}
