//! Induction: the missing term of a series made by a hidden cycle of operations.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Puzzle, Verdict};
use crate::entropy::Stream;

/// A series with one term missing, and the hypotheses that may explain it: cycles of 1 to
/// `longest` operations, the shortest that fits is the rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Induction {
    /// `None` stands for the missing term.
    terms: Vec<Option<i64>>,
    longest: usize,
    operations: Operations,
}

/// The operations of the hypothesis class: +1 … +add, -1 … -subtract, *2 … *multiply.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operations {
    add: i64,
    subtract: i64,
    multiply: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Shortest and longest cycle.
    cycle: [usize; 2],
    /// Terms, the missing one included. Each operation is shown at least once.
    terms: [usize; 2],
    start: [i64; 2],
    add: i64,
    subtract: i64,
    multiply: i64,
    /// Terms lie in 0..=limit.
    limit: i64,
    /// Which term is missing: `last` or `any` (never the first).
    missing: Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Missing {
    Last,
    Any,
}

/// Ordered from simple to complex: the order in which a solver tries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Add(i64),
    Subtract(i64),
    Multiply(i64),
}

impl Operation {
    fn apply(self, x: i64) -> i64 {
        match self {
            Self::Add(a) => x + a,
            Self::Subtract(b) => x - b,
            Self::Multiply(c) => x * c,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Add(a) => format!("+{a}"),
            Self::Subtract(b) => format!("-{b}"),
            Self::Multiply(c) => format!("*{c}"),
        }
    }
}

impl Operations {
    fn all(self) -> Vec<Operation> {
        let add = (1..=self.add).map(Operation::Add);
        let subtract = (1..=self.subtract).map(Operation::Subtract);
        let multiply = (2..=self.multiply).map(Operation::Multiply);
        add.chain(subtract).chain(multiply).collect()
    }
}

/// The rules of one cycle length that fit the visible terms.
struct Fit {
    cycle: usize,
    /// Values of the missing term under all of them.
    values: BTreeSet<i64>,
    /// How many there are.
    rules: u128,
    /// The first of them, one operation per place in the cycle.
    first: Vec<Operation>,
}

impl Induction {
    fn hole(&self) -> usize {
        self.terms.iter().position(Option::is_none).unwrap_or(self.terms.len())
    }

    /// The shortest cycle that fits, with all its rules.
    fn fit(&self) -> Option<Fit> {
        (1..=self.longest).find_map(|cycle| self.fit_cycle(cycle))
    }

    fn fit_cycle(&self, cycle: usize) -> Option<Fit> {
        // Operations possible at each place, by the gaps whose two ends are visible.
        let mut places = vec![self.operations.all(); cycle];
        for (gap, pair) in self.terms.windows(2).enumerate() {
            if let [Some(a), Some(b)] = pair {
                places[gap % cycle].retain(|op| op.apply(*a) == *b);
            }
        }
        if places.iter().any(Vec::is_empty) {
            return None;
        }
        let hole = self.hole();
        let before = self.terms.get(hole.checked_sub(1)?).copied().flatten()?;
        let (into, out) = ((hole - 1) % cycle, hole % cycle);
        let after = self.terms.get(hole + 1).copied().flatten();
        let mut values = BTreeSet::new();
        let mut pairs = 0u128;
        let mut first = None;
        for &op in &places[into] {
            let value = op.apply(before);
            let next: Vec<Operation> = match after {
                None => vec![op],
                Some(_) if into == out => vec![op],
                Some(_) => places[out].clone(),
            };
            for out_op in next {
                if after.is_none_or(|after| out_op.apply(value) == after) {
                    values.insert(value);
                    pairs += 1;
                    first.get_or_insert((op, out_op));
                }
            }
        }
        let (into_op, out_op) = first?;
        let fixed = if after.is_some() { [into, out] } else { [into, into] };
        let others = |place: &usize| !fixed.contains(place);
        let rules = (0..cycle)
            .filter(others)
            .map(|place| places[place].len() as u128)
            .product::<u128>()
            .saturating_mul(pairs);
        let mut rule: Vec<Operation> = places.iter().map(|ops| ops[0]).collect();
        rule[into] = into_op;
        if after.is_some() {
            rule[out] = out_op;
        }
        Some(Fit { cycle, values, rules, first: rule })
    }
}

impl Puzzle for Induction {
    type Parameters = Parameters;

    /// The paper's cycles and operations, with two whole cycles shown: its own 7 to 11 terms leave
    /// the missing one open in a third of the puzzles of level 1 and in all of level 5.
    fn parameters(level: u32) -> Parameters {
        let cycle = 5 + level.clamp(1, 5) as usize;
        Parameters {
            cycle: [cycle, cycle],
            terms: [2 * cycle + 2, 2 * cycle + 3],
            start: [1, 5],
            add: 4,
            subtract: 4,
            multiply: 4,
            limit: 1_000_000,
            missing: Missing::Last,
        }
    }

    fn draw(parameters: &Parameters, stream: &mut Stream) -> Option<Self> {
        let Parameters { cycle, terms, start, .. } = parameters;
        if cycle[0] == 0 || cycle[0] > cycle[1] || terms[0] < 3 || terms[0] > terms[1] {
            return None;
        }
        let operations = Operations {
            add: parameters.add,
            subtract: parameters.subtract,
            multiply: parameters.multiply,
        };
        let length = stream.between(cycle[0] as i64, cycle[1] as i64) as usize;
        let count = stream.between(terms[0] as i64, terms[1] as i64) as usize;
        let rule: Vec<Operation> = (0..length)
            .map(|_| match stream.below(3) {
                0 => Operation::Add(stream.between(1, operations.add.max(1))),
                1 => Operation::Subtract(stream.between(1, operations.subtract.max(1))),
                _ => Operation::Multiply(stream.between(2, operations.multiply.max(2))),
            })
            .collect();
        let mut series = vec![stream.between(start[0], start[1])];
        for gap in 0..count - 1 {
            let next = rule[gap % length].apply(series[gap]);
            if !(0..=parameters.limit).contains(&next) {
                return None;
            }
            series.push(next);
        }
        let hole = match parameters.missing {
            Missing::Last => count - 1,
            Missing::Any => 1 + stream.below(count - 1),
        };
        let mut terms: Vec<Option<i64>> = series.into_iter().map(Some).collect();
        terms[hole] = None;
        let puzzle = Self { terms, longest: cycle[1], operations };
        // A shorter cycle that explains the terms would make it an easier level's puzzle.
        let fit = puzzle.fit()?;
        (fit.cycle >= cycle[0] && fit.values.len() == 1).then_some(puzzle)
    }

    fn certify(&self) -> Result<Value, String> {
        if self.terms.iter().filter(|term| term.is_none()).count() != 1 {
            return Err("not exactly one term is missing".into());
        }
        let fit = self.fit().ok_or("no rule of the hypothesis class fits the visible terms")?;
        if fit.values.len() != 1 {
            return Err(format!("the missing term can be any of {:?}", fit.values));
        }
        Ok(json!({
            "method": "all rules of the shortest fitting cycle",
            "cycle": fit.cycle,
            "rules": fit.rules.to_string(),
        }))
    }

    fn text(&self) -> String {
        let terms: Vec<_> = self
            .terms
            .iter()
            .map(|term| term.map_or_else(|| "?".into(), |x| x.to_string()))
            .collect();
        format!("I:{}", terms.join(","))
    }

    fn answer(&self) -> String {
        let value = self.fit().and_then(|fit| fit.values.first().copied());
        value.map_or_else(String::new, |x| x.to_string())
    }

    /// The operation of each gap, then the step to the missing term.
    fn trace(&self) -> String {
        let Some(fit) = self.fit() else { return String::new() };
        let hole = self.hole();
        let gaps: String =
            (0..self.terms.len() - 1).map(|gap| fit.first[gap % fit.cycle].text()).collect();
        let op = fit.first[(hole - 1) % fit.cycle];
        let before = self.terms[hole - 1].unwrap_or_default();
        format!("{gaps}:{before}{}={}", op.text(), op.apply(before))
    }

    fn check(&self, answer: &str) -> Verdict {
        let Ok(value) = answer.parse::<i64>() else { return Verdict::Unparsed };
        let right = self.fit().is_some_and(|fit| fit.values.iter().eq([&value]));
        if right { Verdict::Correct } else { Verdict::Wrong }
    }

    fn canonical(&self) -> String {
        self.text()
    }
}
