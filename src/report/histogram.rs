//! How long responses are, and which rewards they got.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};

use super::curves::{COLOURS, Figure, plain};
use super::data::{Data, TrainingRun};
use super::summary::Summary;
use crate::Result;

const BINS: usize = 24;
/// More distinct rewards than that are put into as many bins.
const BARS: usize = 12;

/// Lengths of kept responses: a figure for each set, a line for each model.
///
/// # Errors
/// `Defect` when drawing fails.
pub fn lengths(data: &Data, summary: &Summary) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for set in &summary.sets {
        let of = |name: &str| {
            let model = data.models.iter().find(|model| model.name == name)?;
            model.lengths.get(set).filter(|lengths| !lengths.is_empty())
        };
        let models = summary.models();
        let longest = models.iter().filter_map(|name| of(name)).flatten().map(|(l, _)| *l).max();
        let Some(longest) = longest.filter(|longest| *longest > 0) else { continue };
        let width = f64::from(longest + 1) / BINS as f64;
        let line = |(at, name): (usize, &&str)| {
            let lengths = of(name)?;
            let mut counts = [0usize; BINS];
            for (length, _) in lengths {
                counts[((f64::from(*length) / width) as usize).min(BINS - 1)] += 1;
            }
            let share = |(bin, count): (usize, usize)| {
                ((bin as f64 + 0.5) * width, 100.0 * count as f64 / lengths.len() as f64)
            };
            Some((at, counts.into_iter().enumerate().map(share).collect::<Vec<_>>()))
        };
        let lines: Vec<_> = models.iter().enumerate().filter_map(line).collect();
        let title = format!("{set}: % of responses by tokens");
        figures.push(Figure { svg: plain(&title, &lines)?, title });
    }
    Ok(figures)
}

/// Rewards in a run's first and last iterations.
pub fn rewards(runs: &[(usize, &TrainingRun)]) -> Markup {
    let shown: Vec<_> = runs.iter().filter(|(_, run)| !run.rewards[0].is_empty()).collect();
    if shown.is_empty() {
        return html! {};
    }
    html! {
        h3 { "Rewards" }
        p.note {
            "Share of responses by reward, in the first iterations (pale) and in the last (solid): a "
            "tenth of the run at each end, 8 iterations at most."
        }
        div.figures {
            @for (at, run) in shown {
                figure { figcaption { (run.name) } (bars(run, COLOURS[at % COLOURS.len()])) }
            }
        }
    }
}

/// Shares by value, or by bin where there are many values: (label, first, last).
fn shares(run: &TrainingRun) -> Vec<(String, f64, f64)> {
    let all = || run.rewards.iter().flatten();
    let low = all().copied().fold(f32::INFINITY, f32::min);
    let high = all().copied().fold(f32::NEG_INFINITY, f32::max);
    let thousandth = |value: f32| (1000.0 * value).round() as i64;
    let mut distinct: Vec<i64> = all().map(|value| thousandth(*value)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let width = (high - low) / BARS as f32;
    let bin = |value: f32| match distinct.len() {
        0..=BARS => thousandth(value),
        _ => {
            thousandth(low + width * (((value - low) / width).floor().min(BARS as f32 - 1.0) + 0.5))
        }
    };
    let mut counts: BTreeMap<i64, [usize; 2]> = BTreeMap::new();
    for (end, values) in run.rewards.iter().enumerate() {
        values.iter().for_each(|value| counts.entry(bin(*value)).or_default()[end] += 1);
    }
    let share = |count: usize, end: usize| count as f64 / run.rewards[end].len().max(1) as f64;
    counts
        .into_iter()
        .map(|(value, [first, last])| {
            let label = format!("{}", (value as f64 / 100.0).round() / 10.0);
            (label.replace('-', "−"), share(first, 0), share(last, 1))
        })
        .collect()
}

fn bars(run: &TrainingRun, colour: &str) -> Markup {
    const HEIGHT: f64 = 120.0;
    let shares = shares(run);
    let slot = 520.0 / shares.len().max(1) as f64;
    let width = (slot * 0.36).min(46.0);
    let top = shares.iter().flat_map(|(_, a, b)| [*a, *b]).fold(0.01, f64::max);
    let bar = |x: f64, share: f64, opacity: &str| {
        let height = HEIGHT * share / top;
        PreEscaped(format!(
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\" opacity=\"{opacity}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\" font-size=\"12\">{:.0}%</text>",
            20.0 + HEIGHT - height,
            x + width / 2.0,
            14.0 + HEIGHT - height,
            100.0 * share
        ))
    };
    html! {
        svg role="img" viewBox="0 0 520 164" {
            @for (at, (label, first, last)) in shares.iter().enumerate() {
                @let middle = slot * (at as f64 + 0.5);
                (bar(middle - width - 1.0, *first, "0.35"))
                (bar(middle + 1.0, *last, "1"))
                text x=(format!("{middle:.1}")) y="158" text-anchor="middle" font-size="14" { (label) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_counted_by_value_or_by_bin() {
        let run = |first: Vec<f32>, last: Vec<f32>| TrainingRun {
            rewards: [first, last],
            ..TrainingRun::default()
        };
        let few = shares(&run(vec![-3.0, -3.0, 3.0, -0.5], vec![3.0, 3.0]));
        assert_eq!(
            few,
            [("−3".into(), 0.5, 0.0), ("−0.5".into(), 0.25, 0.0), ("3".into(), 0.25, 1.0)]
        );
        let many = shares(&run((0..100).map(|i| i as f32 / 7.0).collect(), vec![0.0]));
        assert_eq!(many.len(), BARS);
        assert!((many.iter().map(|(_, first, _)| first).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
