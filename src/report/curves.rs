//! Training curves as SVG: one figure for each metric, one line for each run.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::data::TrainingRun;
use crate::dataset::Metric;
use crate::{Error, Result};

/// Line colours that keep a contrast of 3 to 1 on both the light and the dark page.
pub const COLOURS: [&str; 8] =
    ["#2f7fd6", "#d9622b", "#2a9d6a", "#b554c4", "#b8860b", "#d0417e", "#5c6ee0", "#6f8a2e"];

/// Stands for the page's text colour; replaced in the SVG, which plotters can't write it into.
const INK: RGBColor = RGBColor(1, 1, 1);
const SIZE: (u32, u32) = (520, 260);

/// What is drawn and under which heading, in this order. Others are in the metrics datasets.
const METRICS: [(&str, &str); 6] = [
    ("reward", "Reward"),
    ("accuracy", "Accuracy of samples"),
    ("kl", "KL to the reference (k3)"),
    ("entropy", "Entropy, nats per token"),
    ("length", "Response length, tokens"),
    ("loss", "Loss"),
];

/// One chart.
#[derive(Debug)]
pub struct Figure {
    pub title: String,
    pub svg: String,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// Pale, under its moving average.
    Smoothed,
    /// With a mark at each point.
    Marked,
    Plain,
}

/// A figure for each metric that a run has; runs by the number of their colour. `resumed`: the
/// iterations, by run, that another attempt went on with; they are ringed.
///
/// # Errors
/// `Defect` when drawing fails.
pub fn figures(
    runs: &[(usize, &TrainingRun)],
    resumed: &BTreeMap<&str, &[u32]>,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (metric, title) in METRICS {
        let lines: Vec<(usize, Vec<(f64, f64)>)> = runs
            .iter()
            .map(|(index, run)| {
                let whole = |m: &&Metric| m.level == 0 && m.name == metric && m.value.is_finite();
                let points = run.metrics.iter().filter(whole);
                (*index, points.map(|m| (f64::from(m.step), m.value)).collect::<Vec<_>>())
            })
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let ringed: Vec<(usize, f64)> = runs
            .iter()
            .flat_map(|(index, run)| {
                let steps = resumed.get(&run.name[..]).copied().unwrap_or_default();
                steps.iter().map(|step| (*index, f64::from(*step)))
            })
            .collect();
        if !lines.is_empty() {
            let svg = chart(title, &lines, 0, Line::Smoothed, &ringed)?;
            figures.push(Figure { title: title.into(), svg });
        }
    }
    Ok(figures)
}

/// Moving average over a centred window of about a tenth of the points.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / 20;
    (0..points.len())
        .map(|i| {
            let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
            (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
        })
        .collect()
}

/// The value range of `lines` with a margin.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let margin = match low {
        _ if high > low => (high - low) * 0.06,
        0.0 => 1.0,
        _ => low.abs() * 0.1,
    };
    (low - margin, high + margin)
}

/// Measurements: lines by the number of their colour, `fraction` digits on the axis below.
pub fn marks(title: &str, lines: &[(usize, Vec<(f64, f64)>)], fraction: usize) -> Result<String> {
    chart(title, lines, fraction, Line::Marked, &[])
}

/// The same without marks.
pub fn plain(title: &str, lines: &[(usize, Vec<(f64, f64)>)]) -> Result<String> {
    chart(title, lines, 0, Line::Plain, &[])
}

fn chart(
    title: &str,
    lines: &[(usize, Vec<(f64, f64)>)],
    fraction: usize,
    line: Line,
    ringed: &[(usize, f64)],
) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::defect(format!("chart `{title}`: {e}"));
    let all = || lines.iter().flat_map(|(_, points)| points);
    let steps =
        all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.0), h.max(p.0)));
    let values = range(all().map(|p| p.1));
    let digits = ((2.0 - (values.1 - values.0).log10()).floor().clamp(0.0, 5.0)) as usize;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .margin_right(14)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(
                steps.0..if steps.1 > steps.0 { steps.1 } else { steps.0 + 1.0 },
                values.0..values.1,
            )
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(INK.mix(0.12))
            .light_line_style(INK.mix(0.0))
            .axis_style(INK.mix(0.35))
            .x_labels(if fraction == 0 { ((steps.1 - steps.0) as usize + 1).min(6) } else { 6 })
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.fraction$}"))
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()
            .map_err(|e| failed(&e))?;
        for (index, points) in lines {
            let colour = colour(*index);
            let smoothed = if line == Line::Smoothed { smooth(points) } else { points.clone() };
            if line == Line::Smoothed {
                let raw = LineSeries::new(points.iter().copied(), colour.mix(0.22).stroke_width(1));
                chart.draw_series(raw).map_err(|e| failed(&e))?;
            }
            let drawn = LineSeries::new(smoothed.iter().copied(), colour.stroke_width(2));
            chart.draw_series(drawn).map_err(|e| failed(&e))?;
            let (points, ring) = match line {
                Line::Marked => (smoothed, false),
                _ => {
                    let resumed = |p: &&(f64, f64)| ringed.contains(&(*index, p.0));
                    (smoothed.iter().filter(resumed).copied().collect(), true)
                }
            };
            let marks = points.iter().map(|&point| match ring {
                true => Circle::new(point, 5, colour.stroke_width(2)),
                false => Circle::new(point, 3, colour.filled()),
            });
            chart.draw_series(marks).map_err(|e| failed(&e))?;
        }
        root.present().map_err(|e| failed(&e))?;
    }
    // The page scales the chart and gives the text its colour and font.
    let svg = svg
        .replace("#010101", "currentColor")
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace(&format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1), "<svg role=\"img\"");
    Ok(svg)
}

fn colour(index: usize) -> RGBColor {
    let text = COLOURS[index % COLOURS.len()];
    let part = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_for_each_metric_and_the_same_bytes_each_time() {
        let metric =
            |step: u32, name: &str, value| Metric { step, level: 0, name: name.into(), value };
        let of_level = Metric { level: 1, ..metric(1, "entropy", 1.0) };
        let metrics = (1..40)
            .flat_map(|s| [metric(s, "reward", f64::from(s).sqrt()), metric(s, "kl", f64::NAN)])
            .chain([of_level])
            .collect();
        let run = TrainingRun { name: "a".into(), metrics, ..TrainingRun::default() };
        let runs = [(3, &run)];
        let none = BTreeMap::new();
        let figures = figures(&runs, &none).unwrap();
        assert_eq!(figures.len(), 1, "no finite value, or one level's: no chart");
        assert_eq!(figures[0].title, "Reward");
        assert!(figures[0].svg.contains("<polyline") && figures[0].svg.contains("currentColor"));
        assert!(figures[0].svg.contains(&COLOURS[3].to_uppercase()));
        assert_eq!(super::figures(&runs, &none).unwrap()[0].svg, figures[0].svg);
        let resumed = BTreeMap::from([("a", &[20][..])]);
        let ringed = &super::figures(&runs, &resumed).unwrap()[0].svg;
        assert_eq!(ringed.matches("<circle").count(), 1);
    }

    #[test]
    fn smoothing_averages_a_window_of_a_tenth() {
        let jagged: Vec<_> = (0..100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smoothed = smooth(&jagged);
        assert!(smoothed.iter().all(|p| (p.1 - 0.5).abs() <= 0.1), "{smoothed:?}");
        assert_eq!(smooth(&jagged[..5]), jagged[..5], "a short run is shown as it is");
    }
}
