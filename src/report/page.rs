//! The report as one self-contained HTML page. No times in it, but for the timings asked for.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::curves::{COLOURS, Figure};
use super::data::{Data, Source};
use super::samples;
use super::summary::{Accuracy, Difference, Mode, ORACLE, Summary};
use super::timing::StageTiming;
use crate::statistics::Estimate;

const STYLE: &str = include_str!("style.css");
/// Characters shown of a prompt or response.
const TEXT: usize = 4_000;

/// The page. `timings` fill a section that the committed page leaves out, since its bytes must
/// not depend on when and where a stage ran.
pub fn page(
    data: &Data,
    summary: &Summary,
    figures: &[Figure],
    merging: &Markup,
    timings: Option<&[StageTiming]>,
) -> String {
    let title = if summary.title.is_empty() { "Report" } else { &summary.title };
    let body = html! {
        h1 { (title) }
        (lead(summary))
        (accuracy(summary))
        (comparisons(summary))
        (levels(summary))
        (responses(summary))
        (curves(data, figures))
        (merging)
        (sample_section(data, summary))
        @if let Some(timings) = timings { (timing_section(timings)) }
        (provenance(data))
        footer { "Made by triad " (env!("CARGO_PKG_VERSION")) "." }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
    .into_string()
}

pub(super) fn percent(value: f64) -> String {
    format!("{:.1}", 100.0 * value)
}

/// A difference in points, with its sign and a real minus.
fn points(value: f64) -> String {
    format!("{:+.1}", 100.0 * value).replace('-', "−")
}

fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

fn problems(summary: &Summary, set: usize) -> Option<usize> {
    summary.accuracy.iter().find_map(|row| row.sets[set].map(|estimate| estimate.n))
}

fn lead(summary: &Summary) -> Markup {
    let models = summary.accuracy.iter().filter(|row| row.model != ORACLE);
    let models = models.map(|row| &row.model).collect::<std::collections::BTreeSet<_>>().len();
    let sets: Vec<String> = (0..summary.sets.len())
        .map(|i| format!("{} ({} problems)", summary.sets[i], problems(summary, i).unwrap_or(0)))
        .collect();
    html! {
        p.lead {
            (models) @if models == 1 { " model on " } @else { " models on " } (list(&sets)) "."
        }
    }
}

fn accuracy(summary: &Summary) -> Markup {
    html! {
        h2 { "Accuracy" }
        p.note {
            "Percent of problems solved, with the 95% bootstrap interval over problems below. "
            "The family mean is over " (list(&summary.families)) "; a mean weighs each set alike."
            @if summary.accuracy.iter().any(|row| row.model == ORACLE) {
                " The oracle ensemble counts a problem when any specialist solves it; at a "
                "temperature above 0, with the probability that one of them does when each answers once."
            }
        }
        @for mode in &summary.modes {
            h3 { (mode.label) }
            (accuracy_table(summary, mode))
        }
    }
}

fn accuracy_table(summary: &Summary, mode: &Mode) -> Markup {
    let rows: Vec<&Accuracy> =
        summary.accuracy.iter().filter(|row| row.mode == mode.name).collect();
    let several = summary.sets.len() > 1;
    let split = summary.families.len() != summary.sets.len() && summary.families.len() > 1;
    // The best model of each column stands out; the ensemble is no model.
    let best = |cell: &dyn Fn(&Accuracy) -> Option<Estimate>| {
        let models = rows.iter().filter(|row| row.model != ORACLE);
        models.filter_map(|row| cell(row).map(|e| e.mean)).fold(f64::NEG_INFINITY, f64::max)
    };
    let cell = |row: &Accuracy, value: Option<Estimate>, top: f64, mean: bool| {
        let bold = row.model != ORACLE && value.is_some_and(|e| e.mean >= top);
        html! {
            td.n.best[bold].mean[mean] {
                @if let Some(e) = value {
                    (percent(e.mean)) small { (percent(e.low)) "–" (percent(e.high)) }
                } @else { "–" }
            }
        }
    };
    html! {
        div.scroll { table {
            thead { tr {
                th { "model" }
                @for set in &summary.sets { th.n { (set) } }
                @if split { th.n.mean { "family mean" } }
                @if several { th.n.mean { "mean" } }
            } }
            tbody {
                @for row in &rows {
                    tr.ensemble[row.model == ORACLE] {
                        th { (row.model) }
                        @for set in 0..summary.sets.len() {
                            (cell(row, row.sets[set], best(&|r| r.sets[set]), false))
                        }
                        @if split { (cell(row, row.families, best(&|r| r.families), true)) }
                        @if several { (cell(row, row.overall, best(&|r| r.overall), true)) }
                    }
                }
            }
        } }
    }
}

fn comparisons(summary: &Summary) -> Markup {
    if summary.comparisons.is_empty() {
        return html! {};
    }
    let reach = summary
        .comparisons
        .iter()
        .flat_map(|c| [c.difference.low.abs(), c.difference.high.abs()])
        .fold(0.01, f64::max);
    html! {
        h2 { "Differences" }
        p.note {
            "Paired over the same problems, in percentage points, with the 95% bootstrap interval. "
            "“Better” and “worse” mean that the interval excludes 0."
        }
        @for mode in &summary.modes {
            h3 { (mode.label) }
            div.scroll { table {
                thead { tr {
                    th { "comparison" } th.n { "points" } th.n { "95% interval" } th { } th { "verdict" }
                } }
                tbody {
                    @for row in summary.comparisons.iter().filter(|c| c.mode == mode.name) {
                        tr {
                            th { (row.model) " − " (row.against) small { "on " (list(&row.sets)) } }
                            td.n { (points(row.difference.mean)) }
                            td.n { (points(row.difference.low)) " to " (points(row.difference.high)) }
                            td { (whisker(row, reach)) }
                            td class=(class(row)) { (row.verdict) }
                        }
                    }
                }
            } }
        }
    }
}

fn class(row: &Difference) -> &'static str {
    match row.difference.sign() {
        Some(true) => "better",
        Some(false) => "worse",
        None => "none",
    }
}

/// The interval on an axis from -`reach` to `reach`.
fn whisker(row: &Difference, reach: f64) -> Markup {
    let x = |value: f64| format!("{:.1}", 85.0 + 80.0 * value / reach);
    let Estimate { mean, low, high, .. } = row.difference;
    html! {
        svg class={ "whisker " (class(row)) } viewBox="0 0 170 18" aria-hidden="true" {
            line class="zero" x1="85" x2="85" y1="1" y2="17" {}
            line x1=(x(low)) x2=(x(high)) y1="9" y2="9" stroke="currentColor" stroke-width="2" {}
            circle cx=(x(mean)) cy="9" r="4" fill="currentColor" {}
        }
    }
}

fn levels(summary: &Summary) -> Markup {
    let mode = summary.modes.iter().find(|m| m.name == "sampled").or(summary.modes.first());
    html! {
        @if let Some(mode) = mode {
            h2 { "By level" }
            p.note { "Percent solved at each difficulty level, " (mode.label) "." }
            div.scroll { table {
                @let columns: Vec<(&String, &Vec<(u32, usize, f64)>)> = summary
                    .sets
                    .iter()
                    .filter_map(|set| Some((set, &summary.levels.iter().find(|l| l.set == *set)?.levels)))
                    .collect();
                thead {
                    tr {
                        th rowspan="2" { "model" }
                        @for (set, levels) in &columns { th.group colspan=(levels.len()) { (set) } }
                    }
                    tr {
                        @for (_, levels) in &columns {
                            @for (level, n, _) in *levels { th.n title={ (n) " problems" } { (level) } }
                        }
                    }
                }
                tbody {
                    @for model in models(summary) {
                        tr {
                            th { (model) }
                            @for (set, levels) in &columns {
                                @let own = summary.levels.iter().find(|l| l.set == **set && l.model == *model);
                                @for (level, ..) in *levels {
                                    @let found = own.and_then(|l| l.levels.iter().find(|(x, ..)| x == level));
                                    td.n { @if let Some((.., share)) = found { (percent(*share)) } @else { "–" } }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// The models in the table's order.
fn models(summary: &Summary) -> Vec<&String> {
    let mut models: Vec<&String> = Vec::new();
    for row in &summary.accuracy {
        if row.model != ORACLE && !models.contains(&&row.model) {
            models.push(&row.model);
        }
    }
    models
}

fn responses(summary: &Summary) -> Markup {
    let Some(first) = summary.responses.first() else { return html! {} };
    html! {
        h2 { "Samples" }
        p.note {
            "Over " (list(&summary.families)) ": the unbiased estimate of pass@k, the share of "
            "well-formed responses and their mean length in tokens."
        }
        div.scroll { table {
            thead { tr {
                th { "model" }
                @for (k, _) in &first.pass { th.n { "pass@" (k) } }
                th.n { "well-formed" } th.n { "tokens" }
            } }
            tbody {
                @for row in &summary.responses {
                    tr {
                        th { (row.model) }
                        @for (k, _) in &first.pass {
                            @let own = row.pass.iter().find(|(own, _)| own == k);
                            td.n { @if let Some((_, share)) = own { (percent(*share)) } @else { "–" } }
                        }
                        td.n { (percent(row.well_formed)) }
                        td.n { (format!("{:.1}", row.length)) }
                    }
                }
            }
        } }
    }
}

fn curves(data: &Data, figures: &[Figure]) -> Markup {
    if figures.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Training" }
        p.note { "By optimizer step or RL iteration; bold is a moving average over a tenth of the run." }
        ul.legend {
            @for (index, run) in data.runs.iter().enumerate() {
                @if !run.metrics.is_empty() {
                    li { i style={ "background:" (COLOURS[index % COLOURS.len()]) } {} (run.name) }
                }
            }
        }
        div.figures {
            @for figure in figures {
                figure { figcaption { (figure.title) } (PreEscaped(&figure.svg)) }
            }
        }
    }
}

fn sample_section(data: &Data, summary: &Summary) -> Markup {
    let chosen: Vec<_> = models(summary)
        .into_iter()
        .filter_map(|name| data.models.iter().find(|model| model.name == *name))
        .map(|model| (model, samples::choose(model, data.spec.samples)))
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    if chosen.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Sample responses" }
        p.note {
            "The first right and the first wrong ones of each family in the order of tasks: chosen "
            "by rule, not by eye."
        }
        @for (model, samples) in &chosen {
            details {
                summary { (model.name) span { (samples.len()) " responses" } }
                div {
                    @for sample in samples {
                        div.sample {
                            p {
                                b { (sample.rollout.family) } " level " (sample.rollout.level) ", "
                                @if sample.verdict.correct { span.better { "right" } }
                                @else { span.worse { (sample.verdict.verdict) } }
                                @if !sample.verdict.extracted.is_empty() {
                                    ": " code { (clip(&sample.verdict.extracted)) }
                                }
                            }
                            pre { (clip(&sample.rollout.prompt)) }
                            pre { (clip(&sample.rollout.response)) }
                        }
                    }
                }
            }
        }
    }
}

fn clip(text: &str) -> String {
    if text.chars().count() <= TEXT {
        return text.to_string();
    }
    let kept: String = text.chars().take(TEXT).collect();
    format!("{kept}\n… {} more characters", text.chars().count() - TEXT)
}

fn timing_section(timings: &[StageTiming]) -> Markup {
    let total: f64 = timings.iter().map(|t| t.seconds).sum();
    let rate = |timing: &StageTiming, name: &str| {
        timing.rates.get(name).map_or("–".into(), |rate| format!("{rate:.0}"))
    };
    html! {
        h2 { "Timings" }
        p.note { "As measured when each stage ran; " (super::timing::duration(total)) " of work in all." }
        div.scroll { table {
            thead { tr {
                th { "stage" } th { "job" } th { "device" } th.n { "time" }
                th.n { "sampled tokens/s" } th.n { "trained tokens/s" }
            } }
            tbody {
                @for timing in timings {
                    tr {
                        th { (timing.stage) } td { (timing.job) } td { (timing.device) }
                        td.n { (super::timing::duration(timing.seconds)) }
                        td.n { (rate(timing, "sample_tokens_per_second")) }
                        td.n { (rate(timing, "train_tokens_per_second")) }
                    }
                }
            }
        } }
    }
}

fn provenance(data: &Data) -> Markup {
    if data.sources.is_empty() {
        return html! {};
    }
    let json = |source: &Source| {
        serde_json::to_string_pretty(&source.manifest.identity).unwrap_or_default()
    };
    html! {
        h2 { "Provenance" }
        p.note { "What each number was made from: the artifact's id is the hash of what is shown." }
        @for source in &data.sources {
            details {
                summary {
                    (source.name) span { (source.port) ", " (source.manifest.job()) " " code { (source.manifest.id.short()) } }
                }
                div { pre { (json(source)) } }
            }
        }
    }
}
