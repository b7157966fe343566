//! The pipeline as a drawing: stages in layers from left to right, each behind all it is made from.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::course::{Course, Stage, duration, size};

const WIDTH: f64 = 152.0;
const HEIGHT: f64 = 40.0;
const ACROSS: f64 = 40.0;
const DOWN: f64 = 10.0;

/// Where the upper left corner of each stage is.
fn places(course: &Course) -> (Vec<(f64, f64)>, f64, f64) {
    let stages = &course.stages;
    let mut layer = vec![0usize; stages.len()];
    // Inputs may have been begun in any order where artifacts are shared, so repeat until it settles.
    for _ in 0..stages.len() {
        let deepest = |stage: &Stage| stage.from.iter().map(|from| layer[*from] + 1).max();
        let next: Vec<usize> = stages.iter().map(|s| deepest(s).unwrap_or(0)).collect();
        if next == layer {
            break;
        }
        layer = next.into_iter().map(|layer| layer.min(stages.len())).collect();
    }
    let mut layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..stages.len()).for_each(|stage| layers.entry(layer[stage]).or_default().push(stage));
    let rows = layers.values().map(Vec::len).max().unwrap_or(0);
    let mut rank = vec![0.0; stages.len()];
    let spread = |of: &[usize], rank: &mut Vec<f64>| {
        let first = (rows - of.len()) as f64 / 2.0;
        of.iter().enumerate().for_each(|(at, stage)| rank[*stage] = first + at as f64);
    };
    layers.values().for_each(|of| spread(of, &mut rank));
    // A stage goes to the mean height of what it hangs together with: a few sweeps both ways.
    for sweep in 0..8 {
        for of in layers.values_mut() {
            let near = |stage: usize| {
                let into = stages.iter().enumerate().filter(|(_, s)| s.from.contains(&stage));
                let all: Vec<f64> = match sweep % 2 {
                    0 => stages[stage].from.iter().map(|from| rank[*from]).collect(),
                    _ => into.map(|(next, _)| rank[next]).collect(),
                };
                if all.is_empty() {
                    rank[stage]
                } else {
                    all.iter().sum::<f64>() / all.len() as f64
                }
            };
            let heights: BTreeMap<usize, f64> = of.iter().map(|s| (*s, near(*s))).collect();
            of.sort_by(|a, b| heights[a].total_cmp(&heights[b]));
            spread(of, &mut rank);
        }
    }
    let place = |stage: usize| {
        (layer[stage] as f64 * (WIDTH + ACROSS) + 1.0, rank[stage] * (HEIGHT + DOWN) + 1.0)
    };
    let width = layers.len() as f64 * (WIDTH + ACROSS) - ACROSS + 2.0;
    let height = rows as f64 * (HEIGHT + DOWN) - DOWN + 2.0;
    ((0..stages.len()).map(place).collect(), width, height)
}

/// A colour for each kind of work.
fn class(job: &str) -> &'static str {
    match job {
        "sft" | "rl" | "update" => "learns",
        "merge" | "merge-search" | "merge-best" => "merges",
        "evaluate" | "score" | "report" | "deltas" => "measures",
        _ => "gives",
    }
}

fn short(name: &str) -> String {
    const LONGEST: usize = 20;
    match name.chars().count() {
        0..=LONGEST => name.into(),
        _ => name.chars().take(LONGEST - 1).chain(['…']).collect(),
    }
}

/// The drawing, as wide as it needs.
pub fn graph(course: &Course) -> Markup {
    let (places, width, height) = places(course);
    let number = |value: f64| format!("{value:.1}");
    let edge = |from: usize, to: usize| {
        let ((x, y), (u, v)) = (places[from], places[to]);
        let (x, y, v) = (x + WIDTH, y + HEIGHT / 2.0, v + HEIGHT / 2.0);
        let middle = ACROSS * 0.6;
        format!("M{x:.1} {y:.1}C{:.1} {y:.1} {:.1} {v:.1} {u:.1} {v:.1}", x + middle, u - middle)
    };
    html! {
        div.scroll.pad tabindex="0" role="region" aria-label="Pipeline" {
            svg.graph role="img" aria-label="Stages of the pipeline" width=(number(width)) height=(number(height))
                style={ "min-width:" (format!("{:.0}", 0.75 * width)) "px" }
                viewBox={ "0 0 " (number(width)) " " (number(height)) } {
                g.edges {
                    @for (to, stage) in course.stages.iter().enumerate() {
                        @for from in &stage.from { path d=(edge(*from, to)) {} }
                    }
                }
                @for (stage, (x, y)) in course.stages.iter().zip(&places) {
                    g class={ "node " (class(&stage.job)) } {
                        title {
                            (stage.name) ": " (stage.job) ", " (duration(stage.seconds)) ", " (size(stage.bytes))
                            @if course.reused(stage) { ", reused" }
                        }
                        rect.reused[course.reused(stage)] x=(number(*x)) y=(number(*y)) width=(WIDTH) height=(HEIGHT) rx="6" {}
                        text x=(number(x + 10.0)) y=(number(y + 17.0)) { (short(&stage.name)) }
                        text.small x=(number(x + 10.0)) y=(number(y + 32.0)) {
                            (stage.job) " · " (duration(stage.seconds))
                        }
                    }
                }
            }
        }
    }
}
