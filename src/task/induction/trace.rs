//! A solver's reasoning: differences, rule, missing term. At most one entry for each gap.

use super::rule::{Linear, Rule, Step};
use super::series::Series;
use super::solve::Solution;

/// The operation of each gap, then the step to the missing term, or from it where it is the first.
pub fn compact(series: &Series, solution: &Solution) -> String {
    let Some(&value) = solution.values.first() else { return String::new() };
    let filled = series.filled(value);
    let gaps = 0..series.len() - 1;
    match &solution.rule {
        Rule::Cycle(steps) => {
            let shown: String = gaps.map(|gap| steps[gap % steps.len()].to_string()).collect();
            format!("{shown}:{}", into_hole(series, value, |gap| steps[gap % steps.len()]))
        }
        Rule::Letters(steps) => {
            let shown: String = gaps.map(|gap| format!("{:+}", steps[gap % steps.len()])).collect();
            format!(
                "{shown}:{}",
                into_hole(series, value, |gap| Step::Sum(steps[gap % steps.len()]))
            )
        }
        Rule::Pattern(period) => {
            let shown: String = (0..*period).map(|at| letter(series, value, *period, at)).collect();
            format!("{shown}:{}={}", series.hole() % period + 1, series.show(value))
        }
        Rule::Alternating(pair) => {
            let steps: String = (0..series.len() - 2).map(|at| pair[at % 2].to_string()).collect();
            format!("{steps}:{}", across_hole(series, value, pair[series.hole() % 2]))
        }
        Rule::Polynomial(linear) => {
            let mut rows = String::new();
            let mut row = filled;
            for _ in &linear.coefficients {
                row = differences(&row);
                rows.extend(row.iter().map(|d| format!("{d:+}")));
                rows.push(':');
            }
            let gap = |gap: usize| {
                let all = series.filled(value);
                Step::Sum(all[gap + 1].saturating_sub(all[gap]))
            };
            rows + &into_hole(series, value, gap)
        }
        Rule::Recurrence(linear) => format!("{linear}:{}", window(series, value, linear)),
    }
}

/// The same in words: the differences of neighbours, the rule, the missing term.
pub fn words(series: &Series, solution: &Solution) -> String {
    let Some(&value) = solution.values.first() else { return String::new() };
    let answer = series.show(value);
    let seen = match &solution.rule {
        Rule::Pattern(_) => String::new(),
        _ => format!("The differences between neighbours are {}. ", visible_differences(series)),
    };
    let rule = match &solution.rule {
        Rule::Cycle(steps) => {
            let list = list(steps.iter().map(|step| say(*step)));
            let work = into_hole(series, value, |gap| steps[gap % steps.len()]);
            match steps.len() {
                1 => format!("Each one follows from one rule: {list}. So {work}."),
                k => format!(
                    "Cycles of fewer than {k} operations do not fit. These {k} in turn do: {list}. \
                     So {work}."
                ),
            }
        }
        Rule::Letters(steps) => {
            let list = list(steps.iter().map(|step| format!("{step:+}")));
            let work = into_hole(series, value, |gap| Step::Sum(steps[gap % steps.len()]));
            format!("In the alphabet, with A after Z, they repeat: {list}. So {work}.")
        }
        Rule::Pattern(period) => {
            let pattern = list((0..*period).map(|at| letter(series, value, *period, at)));
            format!(
                "The series repeats {period} letters: {pattern}. The question mark stands at \
                 place {} of them, which is {answer}.",
                series.hole() % period + 1
            )
        }
        Rule::Alternating(pair) => {
            let [odd, even] = pair.map(say);
            format!(
                "No single rule fits them, so look at every second term. Terms 1, 3, 5 and so on: \
                 {odd} each time. Terms 2, 4, 6 and so on: {even} each time. So {}.",
                across_hole(series, value, pair[series.hole() % 2])
            )
        }
        Rule::Polynomial(linear) => {
            let degree = linear.coefficients.len();
            let first = differences(&series.filled(value));
            let gap = |gap: usize| Step::Sum(first[gap]);
            format!(
                "They are not constant, but their differences of order {degree} are, each {}. \
                 With this the differences of neighbours are {}. So {}.",
                linear.constant,
                list(first.iter().map(|d| format!("{d:+}"))),
                into_hole(series, value, gap)
            )
        }
        Rule::Recurrence(linear) => format!(
            "Each term follows from those before it: {linear}, where x is the last term{}. So {}.",
            if linear.coefficients.len() > 1 { " and y the one before x" } else { "" },
            window(series, value, linear)
        ),
    };
    format!("{seen}{rule} The missing term is {answer}.")
}

/// `9*2=18`, or backwards from the second term: `18/2=9`.
fn into_hole(series: &Series, value: i64, gap: impl Fn(usize) -> Step) -> String {
    let hole = series.hole();
    match hole.checked_sub(1) {
        Some(before) => step(series, series.terms()[before], gap(before), value),
        None => back(series, series.terms()[1], gap(0), value),
    }
}

/// The same from or to the term two places off.
fn across_hole(series: &Series, value: i64, rule: Step) -> String {
    let hole = series.hole();
    match hole.checked_sub(2) {
        Some(before) => step(series, series.terms()[before], rule, value),
        None => back(series, series.get(hole + 2).unwrap_or_default(), rule, value),
    }
}

fn step(series: &Series, from: i64, step: Step, to: i64) -> String {
    format!("{}{step}={}", series.show(from), series.show(to))
}

fn back(series: &Series, from: i64, step: Step, to: i64) -> String {
    let undone = match step {
        Step::Sum(d) => format!("{:+}", -d),
        Step::Product(r) => format!("/{r}"),
    };
    format!("{}{undone}={}", series.show(from), series.show(to))
}

/// The recurrence with its terms put in, `2*5+3-1=12`; the first that holds the missing term.
fn window(series: &Series, value: i64, linear: &Linear) -> String {
    let terms = series.filled(value);
    let order = linear.coefficients.len();
    let at = series.hole().max(order).min(terms.len() - 1);
    let mut text = String::new();
    for (coefficient, term) in linear.coefficients.iter().zip(terms[..at].iter().rev()) {
        if *coefficient != 0 {
            let plus = if text.is_empty() { "" } else { "+" };
            text += &format!("{plus}{coefficient}*{term}");
        }
    }
    if linear.constant != 0 {
        text += &format!("{:+}", linear.constant);
    }
    format!("{text}={}", terms[at])
}

fn letter(series: &Series, value: i64, period: usize, at: usize) -> String {
    let place = (at..series.len()).step_by(period).find_map(|at| series.get(at));
    series.show(place.unwrap_or(value)).to_string()
}

fn differences(terms: &[i64]) -> Vec<i64> {
    terms.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}

/// Of visible neighbours, `?` for the others. Letters step at most 13 places either way.
fn visible_differences(series: &Series) -> String {
    list((1..series.len()).map(|at| match (series.get(at - 1), series.get(at)) {
        (Some(a), Some(b)) if series.letters() => format!("{:+}", (b - a + 12).rem_euclid(26) - 12),
        (Some(a), Some(b)) => format!("{:+}", b - a),
        _ => "?".into(),
    }))
}

fn say(step: Step) -> String {
    match step {
        Step::Sum(d) if d < 0 => format!("subtract {}", d.unsigned_abs()),
        Step::Sum(d) => format!("add {d}"),
        Step::Product(r) => format!("multiply by {r}"),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
