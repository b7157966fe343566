//! Training curves as SVG: one figure for each metric, one line for each run.

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

/// A figure for each metric that a run has.
///
/// # Errors
/// `Defect` when drawing fails.
pub fn figures(runs: &[TrainingRun]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (metric, title) in METRICS {
        let lines: Vec<(usize, Vec<(f64, f64)>)> = runs
            .iter()
            .enumerate()
            .map(|(index, run)| {
                let whole = |m: &&Metric| m.level == 0 && m.name == metric && m.value.is_finite();
                let points = run.metrics.iter().filter(whole);
                (index, points.map(|m| (f64::from(m.step), m.value)).collect::<Vec<_>>())
            })
            .filter(|(_, points)| !points.is_empty())
            .collect();
        if !lines.is_empty() {
            figures.push(Figure { title: title.into(), svg: draw(title, &lines, 0)? });
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
    let margin = if high > low { (high - low) * 0.06 } else { low.abs().max(1e-3) * 0.1 };
    (low - margin, high + margin)
}

/// Runs over time: lines by the number of their colour, `fraction` digits on the axis below.
fn draw(title: &str, lines: &[(usize, Vec<(f64, f64)>)], fraction: usize) -> Result<String> {
    chart(title, lines, fraction, false)
}

/// The same for measurements: marks, and no moving average.
pub fn marks(title: &str, lines: &[(usize, Vec<(f64, f64)>)], fraction: usize) -> Result<String> {
    chart(title, lines, fraction, true)
}

fn chart(
    title: &str,
    lines: &[(usize, Vec<(f64, f64)>)],
    fraction: usize,
    marked: bool,
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
            .x_labels(6)
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.fraction$}"))
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()
            .map_err(|e| failed(&e))?;
        for (index, points) in lines {
            let colour = colour(*index);
            if marked {
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
                chart.draw_series(line).map_err(|e| failed(&e))?;
                let marks = points.iter().map(|&point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(marks).map_err(|e| failed(&e))?;
                continue;
            }
            let raw = LineSeries::new(points.iter().copied(), colour.mix(0.22).stroke_width(1));
            chart.draw_series(raw).map_err(|e| failed(&e))?;
            let smooth = LineSeries::new(smooth(points), colour.stroke_width(2));
            chart.draw_series(smooth).map_err(|e| failed(&e))?;
        }
        root.present().map_err(|e| failed(&e))?;
    }
    // The page scales the chart and gives the text its colour and font.
    let svg = svg
        .replace("#010101", "currentColor")
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
        let runs = [TrainingRun { name: "a".into(), metrics, ..TrainingRun::default() }];
        let figures = figures(&runs).unwrap();
        assert_eq!(figures.len(), 1, "no finite value, or one level's: no chart");
        assert_eq!(figures[0].title, "Reward");
        assert!(figures[0].svg.contains("<polyline") && figures[0].svg.contains("currentColor"));
        assert_eq!(super::figures(&runs).unwrap()[0].svg, figures[0].svg);
    }

    #[test]
    fn smoothing_averages_a_window_of_a_tenth() {
        let jagged: Vec<_> = (0..100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smoothed = smooth(&jagged);
        assert!(smoothed.iter().all(|p| (p.1 - 0.5).abs() <= 0.1), "{smoothed:?}");
        assert_eq!(smooth(&jagged[..5]), jagged[..5], "a short run is shown as it is");
    }
}
