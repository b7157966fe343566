//! The report as one self-contained HTML page. What depends on when and where stages ran is in
//! sections of their own, which the committed page leaves out.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::course::Course;
use super::curves::{COLOURS, Figure, marks};
use super::data::{Data, Source, TrainingRun};
use super::graph::graph;
use super::samples::{self, Chosen};
use super::summary::{ORACLE, Summary};
use super::table::{Table, list};
use super::versus::Versus;
use super::{histogram, merging, tables};
use crate::Result;
use crate::statistics::Estimate;

const STYLE: &str = include_str!("style.css");
/// Characters shown of a prompt or response.
const TEXT: usize = 4_000;

/// What a page has beyond its data.
#[derive(Debug, Default)]
pub struct Beyond {
    pub course: Option<Course>,
    /// A pipeline file that makes the same artifacts, and the commands to run it.
    pub again: Option<Again>,
    pub versus: Option<Versus>,
}

/// How to make a run once more.
#[derive(Debug, Clone)]
pub struct Again {
    pub pipeline: String,
    pub commands: String,
}

/// # Errors
/// `Defect` when drawing a chart fails.
pub fn page(data: &Data, summary: &Summary, beyond: &Beyond) -> Result<String> {
    let title = if summary.title.is_empty() { "Report" } else { &summary.title };
    let sections = [
        ("accuracy", "Accuracy", accuracy(summary)),
        ("versus", "Beside the other run", versus(beyond)?),
        ("differences", "Differences", comparisons(summary)),
        ("levels", "By level", levels(summary)?),
        ("specialists", "Who solves what", complement(summary)),
        ("samples", "Samples", responses(data, summary)?),
        ("training", "Training", training(data, summary, beyond)?),
        ("merging", "Merging", merging::section(&data.runs)?),
        ("responses", "Responses side by side", side_by_side(data, summary)),
        ("pipeline", "Pipeline", pipeline(beyond)),
        ("again", "To make it again", again(data, beyond)),
    ];
    let shown: Vec<_> = sections.into_iter().filter(|(.., body)| !body.0.is_empty()).collect();
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { (title) }
                (lead(summary))
                nav aria-label="Sections" {
                    @for (id, name, _) in &shown { a href={ "#" (id) } { (name) } }
                }
                @for (id, name, body) in &shown {
                    section id=(id) { h2 { (name) } (body) }
                }
                footer { "Made by triad " (env!("CARGO_PKG_VERSION")) "." }
            } }
        }
    }
    .into_string())
}

fn lead(summary: &Summary) -> Markup {
    let problems = |set: &String| {
        let at = summary.columns.iter().position(|column| column.sets[..] == [set.clone()][..]);
        let of = |row: &super::summary::Accuracy| row.values[at?].map(|value| value.n);
        summary.accuracy.iter().find_map(of).unwrap_or(0)
    };
    let sets: Vec<String> =
        summary.sets.iter().map(|set| format!("{set} ({} problems)", problems(set))).collect();
    let models = summary.models().len();
    html! {
        p.lead {
            (models) @if models == 1 { " model on " } @else { " models on " } (list(&sets)) "."
        }
    }
}

fn noted(table: &Table) -> Markup {
    html! { h3 { (table.title) } p.note { (table.note) } (table.html()) }
}

fn accuracy(summary: &Summary) -> Markup {
    html! {
        p.note { (tables::accuracy_note(summary)) }
        @for group in &summary.tables {
            @for mode in &summary.modes {
                @let table = tables::accuracy(summary, group, mode);
                h3 { (table.title) }
                (table.html())
            }
        }
    }
}

fn versus(beyond: &Beyond) -> Result<Markup> {
    let Some(versus) = &beyond.versus else { return Ok(html! {}) };
    let figures = versus.figures()?;
    Ok(html! {
        p.note { (versus.note()) }
        @for table in versus.tables() { (noted(&table)) }
        @if !figures.is_empty() {
            h3 { "Rewards of both runs" }
            (legend([versus.this.as_str(), versus.other.as_str()].into_iter().enumerate()))
            (grid(&figures))
        }
    })
}

fn comparisons(summary: &Summary) -> Markup {
    let tables = tables::all_comparisons(summary);
    html! {
        @for table in tables.iter().take(1) { p.note { (table.note) } }
        @for table in &tables { h3 { (table.title) } (table.html()) }
    }
}

/// The interval on an axis from -`reach` to `reach`.
pub fn whisker(difference: &Estimate, better: Option<bool>, reach: f64) -> PreEscaped<String> {
    let x = |value: f64| format!("{:.1}", 85.0 + 80.0 * value / reach);
    let class = match better {
        Some(true) => "better",
        Some(false) => "worse",
        None => "none",
    };
    let Estimate { mean, low, high, .. } = *difference;
    html! {
        svg class={ "whisker " (class) } viewBox="0 0 170 18" aria-hidden="true" {
            line class="zero" x1="85" x2="85" y1="1" y2="17" {}
            line x1=(x(low)) x2=(x(high)) y1="9" y2="9" stroke="currentColor" stroke-width="2" {}
            circle cx=(x(mean)) cy="9" r="4" fill="currentColor" {}
        }
    }
}

/// Models by the number of their colour.
fn legend<'a>(names: impl Iterator<Item = (usize, &'a str)>) -> Markup {
    html! {
        ul.legend {
            @for (at, name) in names {
                li { i style={ "background:" (COLOURS[at % COLOURS.len()]) } {} (name) }
            }
        }
    }
}

fn grid(figures: &[Figure]) -> Markup {
    html! {
        div.figures {
            @for figure in figures {
                figure { figcaption { (figure.title) } (PreEscaped(&figure.svg)) }
            }
        }
    }
}

fn levels(summary: &Summary) -> Result<Markup> {
    let table = tables::levels(summary);
    let models = summary.models();
    let mut figures = Vec::new();
    for set in &summary.sets {
        let line = |(at, model): (usize, &&str)| {
            let row = summary.levels.iter().find(|row| row.set == *set && row.model == **model)?;
            let point = |(level, _, share): &(u32, usize, f64)| (f64::from(*level), 100.0 * share);
            Some((at, row.levels.iter().map(point).collect::<Vec<_>>()))
        };
        let lines: Vec<_> = models.iter().enumerate().filter_map(line).collect();
        if lines.iter().any(|(_, points)| points.len() > 1) {
            let title = format!("{set}: % solved by level");
            figures.push(Figure { svg: marks(&title, &lines, 0)?, title });
        }
    }
    Ok(html! {
        p.note { (table.note) }
        (table.html())
        @if !figures.is_empty() {
            (legend(models.iter().copied().enumerate()))
            (grid(&figures))
        }
    })
}

fn complement(summary: &Summary) -> Markup {
    let Some(first) = summary.complement.first() else { return html! {} };
    let [_, gain] = tables::complement(first);
    html! {
        p.note {
            "Problems by which of the specialists solve them (●), and what the " (ORACLE)
            " gains with each. " (gain.note)
            @if first.mode != "greedy" {
                " At a temperature above 0 a problem counts as solved when at least half of the "
                "answers are right."
            }
        }
        div.pairs {
            @for complement in &summary.complement {
                @for table in tables::complement(complement) {
                    div { h3 { (table.title) } (table.html()) }
                }
            }
        }
    }
}

fn responses(data: &Data, summary: &Summary) -> Result<Markup> {
    let table = tables::responses(summary);
    let figures = histogram::lengths(data, summary)?;
    if table.is_none() && figures.is_empty() {
        return Ok(html! {});
    }
    Ok(html! {
        @if let Some(table) = &table { p.note { (table.note) } (table.html()) }
        @if !figures.is_empty() {
            h3 { "Lengths" }
            p.note { "Of the responses that evaluations kept, sampled ones where a set was sampled." }
            (legend(summary.models().into_iter().enumerate()))
            (grid(&figures))
        }
    })
}

/// Runs by the number of their colour, which is that of the model that they make.
fn coloured<'a>(runs: &'a [TrainingRun], models: &[&str]) -> Vec<(usize, &'a TrainingRun)> {
    let mut others = models.len()..;
    let colour = |run: &TrainingRun| models.iter().position(|model| *model == run.name);
    let numbered = runs.iter().map(|run| (colour(run).or_else(|| others.next()), run));
    let mut runs: Vec<_> =
        numbered.map(|(colour, run)| (colour.unwrap_or_default(), run)).collect();
    runs.sort_by_key(|(colour, _)| *colour);
    runs
}

fn training(data: &Data, summary: &Summary, beyond: &Beyond) -> Result<Markup> {
    let resumed = beyond.course.as_ref().map(Course::resumed).unwrap_or_default();
    let runs = coloured(&data.runs, &summary.models());
    let figures = super::curves::figures(&runs, &resumed)?;
    if figures.is_empty() {
        return Ok(html! {});
    }
    let lines = runs.iter().filter(|(_, run)| !run.metrics.is_empty());
    Ok(html! {
        p.note {
            "By optimizer step or RL iteration; bold is a moving average over a tenth of the run."
            @if resumed.values().any(|steps| !steps.is_empty()) {
                " A ring: here another attempt went on from a checkpoint."
            }
        }
        (legend(lines.map(|(at, run)| (*at, &run.name[..]))))
        (grid(&figures))
        (histogram::rewards(&runs))
    })
}

fn side_by_side(data: &Data, summary: &Summary) -> Markup {
    let models: Vec<_> = summary
        .models()
        .into_iter()
        .filter_map(|name| data.models.iter().find(|model| model.name == name))
        .filter(|model| !model.responses.is_empty())
        .collect();
    if models.is_empty() {
        return html! {};
    }
    let answered =
        |chosen: &&Chosen| models.iter().any(|model| samples::shown(model, chosen).is_some());
    html! {
        p.note {
            "Of each set the tasks on which the models are most divided, and tasks that none "
            "solves, chosen by rule, not by eye; the greedy responses where there are such. Only "
            "tasks whose responses were kept."
        }
        @for chosen in data.chosen.iter().filter(answered) {
            @let prompt = models.iter().find_map(|m| samples::shown(m, chosen)).map(|r| &r.rollout);
            details {
                summary {
                    (chosen.set) @if let Some(prompt) = prompt { " level " (prompt.level) }
                    span {
                        @if chosen.disputed { "some solve it" } @else { "none solves it" }
                        " " code { (chosen.task_id) }
                    }
                }
                div {
                    @if let Some(prompt) = prompt { pre { (clip(&prompt.prompt)) } }
                    div.beside {
                        @for model in &models {
                            @if let Some(response) = samples::shown(model, chosen) {
                                @let verdict = &response.verdict;
                                div.sample {
                                    p {
                                        b { (model.name) } ": "
                                        @if verdict.correct { span.better { "right" } }
                                        @else { span.worse { (verdict.verdict) } }
                                        @if !verdict.extracted.is_empty() {
                                            " " code { (clip(&verdict.extracted)) }
                                        }
                                        @if let Some(why) = failing(response) { small { (why) } }
                                    }
                                    pre { (clip(&response.rollout.response)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The first check that a response fails.
fn failing(response: &samples::Response) -> Option<String> {
    let verdict = &response.verdict;
    let mut checks = Vec::new();
    if !verdict.format_ok {
        checks.push(format!("format: {}", verdict.format));
    }
    if !verdict.correct && !verdict.place.is_empty() {
        checks.push(format!("first wrong at {}", verdict.place));
    }
    if response.rollout.stop == "length" {
        checks.push("cut off at the limit of tokens".into());
    }
    (!checks.is_empty()).then(|| checks.join("; "))
}

fn clip(text: &str) -> String {
    if text.chars().count() <= TEXT {
        return text.to_string();
    }
    let kept: String = text.chars().take(TEXT).collect();
    format!("{kept}\n… {} more characters", text.chars().count() - TEXT)
}

fn pipeline(beyond: &Beyond) -> Markup {
    let Some(course) = &beyond.course else { return html! {} };
    let table = course.table();
    html! {
        p.note { (table.note) " A dashed border: found made." }
        (graph(course))
        (table.html())
    }
}

fn again(data: &Data, beyond: &Beyond) -> Markup {
    let json = |source: &Source| {
        serde_json::to_string_pretty(&source.manifest.identity).unwrap_or_default()
    };
    let text = html! {
        @if let Some(Again { pipeline, commands }) = &beyond.again {
            p.note {
                "Save the pipeline file and run the commands: stages that are committed are found by "
                "their ids, others are made."
            }
            pre { (commands) }
            details {
                summary { "pipeline file" }
                div { pre { (pipeline) } }
            }
        }
        @if let Some(course) = &beyond.course {
            details {
                summary { "artifact ids" }
                div { pre {
                    @for stage in &course.stages {
                        (stage.id) "  " (stage.name) "  (triad " (stage.made_by) ")\n"
                    }
                } }
            }
        }
        @for source in &data.sources {
            details {
                summary {
                    (source.name)
                    span { (source.port) ", " (source.manifest.job()) " " code { (source.manifest.id.short()) } }
                }
                div { pre { (json(source)) } }
            }
        }
    };
    text
}
