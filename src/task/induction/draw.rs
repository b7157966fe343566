//! Parameters of a level, and series drawn from them.

use serde::{Deserialize, Serialize};

use super::Induction;
use super::rule::{Bounds, Class, Kind, Step};
use super::series::{LARGEST, MOST_TERMS, Series};
use super::shortcuts;
use crate::entropy::Stream;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Kinds of rules to draw from, all as likely. They are the hypothesis class too.
    rules: Vec<Kind>,
    /// Shortest and longest cycle of operations or letter steps, shortest and longest pattern.
    cycle: [usize; 2],
    /// Terms, the missing one included.
    terms: [usize; 2],
    /// First term, and the second of an alternating series or a recurrence.
    start: [i64; 2],
    /// Operations of a cycle: +1 … +add, -1 … -subtract, *2 … *multiply. Letters step as far.
    add: i64,
    subtract: i64,
    multiply: i64,
    /// Largest difference, and constant of a recurrence.
    step: i64,
    /// Largest ratio, and coefficient of a recurrence.
    factor: i64,
    /// Largest degree of a polynomial.
    degree: usize,
    /// Numbers lie in 0..=limit.
    limit: i64,
    /// Which term is missing: `last` or `any`.
    missing: Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Missing {
    Last,
    Any,
}

/// The paper's cycles and operations, with two whole cycles shown: its own 7 to 11 terms leave the
/// missing one open in a third of the puzzles of level 1 and in all of level 5. The hole may stand
/// at any place of the third cycle; at a fixed one, "repeat the first operation" would be right.
pub fn parameters(level: u32) -> Parameters {
    let cycle = 5 + level.clamp(1, 5) as usize;
    Parameters {
        rules: vec![Kind::Cycle],
        cycle: [cycle, cycle],
        terms: [2 * cycle + 2, 3 * cycle + 1],
        start: [1, 5],
        add: 4,
        subtract: 4,
        multiply: 4,
        step: 9,
        factor: 3,
        degree: 3,
        limit: 1_000_000,
        missing: Missing::Last,
    }
}

fn class(parameters: &Parameters) -> Result<Class, String> {
    Class::try_from(Bounds {
        rules: parameters.rules.clone(),
        longest: parameters.cycle[1],
        add: parameters.add,
        subtract: parameters.subtract,
        multiply: parameters.multiply,
        step: parameters.step,
        factor: parameters.factor,
        degree: parameters.degree,
    })
}

pub fn validate(parameters: &Parameters) -> Result<(), String> {
    let Parameters { rules, cycle, terms, start, limit, .. } = parameters;
    class(parameters).map_err(|message| match message.strip_prefix("`longest`") {
        Some(rest) => format!("the longest `cycle`{rest}"),
        None => message,
    })?;
    if cycle[0] == 0 || cycle[0] > cycle[1] {
        return Err(format!("`cycle` is {cycle:?}; it must be [shortest, longest], 1 at least"));
    }
    if terms[0] < 3 || terms[0] > terms[1] || terms[1] > MOST_TERMS {
        return Err(format!(
            "`terms` is {terms:?}; it must be [fewest, most] within 3..={MOST_TERMS}"
        ));
    }
    if !(0..=LARGEST).contains(limit) {
        return Err(format!("`limit` is {limit}; it must lie in 0..={LARGEST}"));
    }
    if start[0] > start[1] || start[0] < 0 || start[1] > *limit {
        return Err(format!(
            "`start` is {start:?}; it must be [least, greatest] within 0..={limit}"
        ));
    }
    let needs = |kind: Kind, name: &str, value: i64, least: i64| {
        if rules.contains(&kind) && value < least {
            return Err(format!(
                "`{name}` is {value}; rules of kind {} need {least}",
                kind.as_str()
            ));
        }
        Ok(())
    };
    let operations = parameters.add + parameters.subtract + parameters.multiply.max(1) - 1;
    needs(Kind::Cycle, "add` with `subtract` and `multiply", operations, 1)?;
    needs(Kind::Letters, "add` with `subtract", parameters.add + parameters.subtract, 1)?;
    needs(Kind::Arithmetic, "step", parameters.step, 1)?;
    needs(Kind::Alternating, "step", parameters.step, 1)?;
    needs(Kind::Polynomial, "step", parameters.step, 1)?;
    needs(Kind::Polynomial, "degree", parameters.degree as i64, 2)?;
    needs(Kind::Geometric, "factor", parameters.factor, 2)?;
    needs(Kind::Alternating, "factor", parameters.factor, 2)?;
    needs(Kind::Recurrence, "factor", parameters.factor, 1)?;
    needs(Kind::Pattern, "cycle", parameters.cycle[1] as i64, 2)
}

/// A series whose simplest explanation is of the kind that was drawn, and for a cycle no shorter
/// than asked for, with one answer. Of those that a shortcut solves one in 32 is kept: with all of
/// them shortcuts would beat chance, with none their answers would never be right, and parameters
/// with few series could not give them all.
pub fn draw(parameters: &Parameters, stream: &mut Stream) -> Option<Induction> {
    let kind = *stream.choose(&parameters.rules);
    let [fewest, most] = parameters.terms.map(|count| count as i64);
    let count = stream.between(fewest, most) as usize;
    let terms = if kind.of_letters() {
        letters(kind, parameters, count, stream)
    } else {
        numbers(kind, parameters, count, stream)?
    };
    let hole = match parameters.missing {
        Missing::Last => count - 1,
        Missing::Any => stream.below(count),
    };
    let series = Series::hide(terms, hole, kind.of_letters())?;
    let puzzle = Induction::new(series, class(parameters).ok()?);
    let solution = puzzle.solution()?;
    let periodic = matches!(kind, Kind::Cycle | Kind::Letters | Kind::Pattern);
    let simpler = solution.kind != kind || periodic && solution.complexity < parameters.cycle[0];
    if simpler || solution.values.len() != 1 {
        return None;
    }
    (!shortcuts::solved(&puzzle) || stream.below(32) == 0).then_some(puzzle)
}

fn numbers(
    kind: Kind,
    parameters: &Parameters,
    count: usize,
    stream: &mut Stream,
) -> Option<Vec<i64>> {
    let Parameters { start, cycle, step, factor, .. } = *parameters;
    let allowed = 0..=parameters.limit;
    let mut terms = Vec::with_capacity(count);
    terms.push(stream.between(start[0], start[1]));
    let mut follow = |next: &mut dyn FnMut(&[i64]) -> i64| {
        while terms.len() < count {
            let term = next(&terms);
            if !allowed.contains(&term) {
                return None;
            }
            terms.push(term);
        }
        Some(())
    };
    match kind {
        Kind::Cycle => {
            // All operations are as likely, so that none is a better guess than another.
            let length = stream.between(cycle[0] as i64, cycle[1] as i64) as usize;
            let mut steps = [Step::Sum(0); 32];
            for place in &mut steps[..length] {
                *place = operation(parameters, stream);
            }
            follow(&mut |past| steps[(past.len() - 1) % length].apply(past[past.len() - 1]))?;
        }
        Kind::Arithmetic | Kind::Geometric => {
            let step = if kind == Kind::Arithmetic {
                Step::Sum(nonzero(step, stream))
            } else {
                Step::Product(stream.between(2, factor))
            };
            follow(&mut |past| step.apply(past[past.len() - 1]))?;
        }
        Kind::Polynomial => {
            let degree = stream.between(2, parameters.degree as i64) as usize;
            let mut row = [0; 3];
            for difference in &mut row[..degree] {
                *difference = nonzero(step, stream);
            }
            follow(&mut |past| {
                let next = past[past.len() - 1] + row[0];
                (1..degree).for_each(|at| row[at - 1] += row[at]);
                next
            })?;
        }
        Kind::Alternating => {
            let second = stream.between(start[0], start[1]);
            let pair = [0, 1].map(|_| match stream.below(3) {
                0 => Step::Product(stream.between(2, factor)),
                _ => Step::Sum(nonzero(step, stream)),
            });
            follow(&mut |past| match past.len() {
                1 => second,
                at => pair[at % 2].apply(past[at - 2]),
            })?;
        }
        _ => {
            let second = stream.between(start[0], start[1]);
            let order = 1 + stream.below(2);
            let [a, b] = [nonzero(factor, stream), nonzero(factor, stream)];
            let c = stream.between(-step, step);
            follow(&mut |past| match past.len() {
                1 if order == 2 => second,
                at if order == 2 => a * past[at - 1] + b * past[at - 2] + c,
                at => a * past[at - 1] + c,
            })?;
        }
    }
    Some(terms)
}

fn letters(kind: Kind, parameters: &Parameters, count: usize, stream: &mut Stream) -> Vec<i64> {
    let [shortest, longest] = parameters.cycle.map(|length| length as i64);
    if kind == Kind::Pattern {
        let period = stream.between(shortest.max(2), longest) as usize;
        let pattern: Vec<i64> = (0..period).map(|_| stream.between(0, 25)).collect();
        return (0..count).map(|at| pattern[at % period]).collect();
    }
    let (up, down) = (parameters.add.min(12), parameters.subtract.min(12));
    let steps: Vec<i64> = (0..stream.between(shortest, longest))
        .map(|_| match stream.between(1 - down, up) {
            step @ 1.. => step,
            step => step - 1,
        })
        .collect();
    let mut letter = stream.between(0, 25);
    (0..count)
        .map(|at| {
            let here = letter;
            letter = (letter + steps[at % steps.len()]).rem_euclid(26);
            here
        })
        .collect()
}

fn operation(parameters: &Parameters, stream: &mut Stream) -> Step {
    let Parameters { add, subtract, multiply, .. } = *parameters;
    match stream.between(1, add + subtract + multiply.max(1) - 1) {
        place if place <= add => Step::Sum(place),
        place if place <= add + subtract => Step::Sum(add - place),
        place => Step::Product(place - add - subtract + 1),
    }
}

/// In -most..=most, but not 0.
fn nonzero(most: i64, stream: &mut Stream) -> i64 {
    match stream.between(1 - most, most) {
        value @ 1.. => value,
        value => value - 1,
    }
}
