//! Guesses that read the puzzle but do not reason.

use super::formula::{Formula, MAX_VARIABLES, Node, Operator};
use super::{Deduction, Probe, Solved, table};

const ODDS: &str = "odds over the formulas";

/// Guesses that look at the form of the question only.
pub fn blind(puzzle: &Deduction) -> Vec<Probe> {
    let right = |assignment: u64| share(right(puzzle, assignment & puzzle.all()));
    let coin = solutions(puzzle) as f64 / (puzzle.variables as f64).exp2();
    vec![
        ("unsatisfiable", share(puzzle.solved() == Solved::Never)),
        ("all true", right(u64::MAX)),
        ("all false", right(0)),
        ("every other true", right(0x5555_5555_5555_5555)),
        ("a coin for each variable", coin),
    ]
}

/// The number of solutions; beyond truth tables not more than one of them is counted.
fn solutions(puzzle: &Deduction) -> usize {
    match puzzle.solved() {
        Solved::By(_) if !puzzle.solutions.is_one() && puzzle.tabled() => {
            table::solutions(puzzle.variables, &puzzle.formulas, usize::MAX).0
        }
        Solved::By(_) => 1,
        Solved::Never | Solved::Unknown => 0,
    }
}

/// Whether an assignment solves the puzzle.
fn right(puzzle: &Deduction, assignment: u64) -> bool {
    match puzzle.solved() {
        Solved::By(found) if found == assignment => true,
        Solved::By(_) => !puzzle.solutions.is_one() && puzzle.broken(assignment).is_none(),
        Solved::Never | Solved::Unknown => false,
    }
}

fn share(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// The truth tables of formulas, and how many assignments satisfy each.
pub struct Tables<'a> {
    pub variables: usize,
    pub bits: Vec<&'a [u64]>,
    pub counts: Vec<usize>,
}

/// The words of the formulas' truth tables, one formula after the other.
fn evaluated(puzzle: &Deduction) -> Vec<u64> {
    let (variables, words) = (puzzle.variables, table::words(puzzle.variables));
    let mut bits = Vec::with_capacity(words * puzzle.formulas.len());
    for formula in &puzzle.formulas {
        if words == 1 {
            bits.extend(table::truth::<1>(&formula.0, variables, 0));
            continue;
        }
        for first in (0..words).step_by(table::BLOCK) {
            let block = table::truth::<{ table::BLOCK }>(&formula.0, variables, first);
            bits.extend(block.iter().take(words - first));
        }
    }
    bits
}

impl<'a> Tables<'a> {
    fn new(variables: usize, bits: &'a [u64]) -> Self {
        let bits: Vec<&[u64]> = bits.chunks(table::words(variables)).collect();
        let counts = bits.iter().map(|bits| table::ones(bits)).collect();
        Self { variables, bits, counts }
    }

    fn tightest(&self) -> usize {
        (0..self.counts.len()).min_by_key(|&i| self.counts[i]).unwrap_or(0)
    }

    /// The satisfying assignment of a formula with the least or the greatest number.
    fn end(&self, formula: usize, low: bool) -> Option<u64> {
        let mut words = self.bits[formula].iter().enumerate();
        let (word, bits) = if low {
            words.find(|(_, bits)| **bits != 0)?
        } else {
            words.rfind(|(_, bits)| **bits != 0)?
        };
        let bit = if low { bits.trailing_zeros() } else { 63 - bits.leading_zeros() };
        Some(table::assignment(self.variables, 64 * word + bit as usize))
    }

    /// For each variable the odds of its being true, as if the formulas were independent witnesses:
    /// the product over formulas of the odds among the assignments that satisfy the formula.
    fn odds(&self) -> Vec<f64> {
        let odds = |v: usize, i: usize| {
            let pairs = self.bits[i].iter().enumerate();
            let ones: u32 = pairs
                .map(|(word, bits)| (bits & table::column(self.variables, v, word)).count_ones())
                .sum();
            let (ones, all) = (ones as usize, self.counts[i]);
            // A formula without the variable, or with ↔ and ⊕ around it, is no witness.
            if 2 * ones == all { 1.0 } else { (ones as f64 / (all - ones) as f64).clamp(1e-4, 1e4) }
        };
        let all = |v| (0..self.counts.len()).map(|i| odds(v, i)).product();
        (0..self.variables).map(all).collect()
    }

    /// Whether two formulas exclude each other.
    fn contradict(&self) -> bool {
        let n = self.counts.len();
        (0..n).any(|i| (0..i).any(|j| table::disjoint(self.bits[i], self.bits[j])))
    }
}

/// For each variable how much more often it stands plain than negated; and the same where a literal
/// counts by what it does to the formula: the other way round under a negation or before an
/// implication's arrow, not at all under ↔ and ⊕.
fn polarity(formulas: &[&[Node]]) -> [[i32; MAX_VARIABLES]; 2] {
    type Sums = [[i32; MAX_VARIABLES]; 2];
    fn walk(nodes: &mut std::slice::Iter<Node>, plain: i32, signed: i32, sums: &mut Sums) {
        match nodes.next() {
            Some(Node::Variable(v)) => {
                sums[0][usize::from(*v)] += plain;
                sums[1][usize::from(*v)] += signed;
            }
            Some(Node::Not) => {
                let literal = matches!(nodes.as_slice().first(), Some(Node::Variable(_)));
                walk(nodes, if literal { -plain } else { plain }, -signed, sums);
            }
            Some(Node::Binary(op)) => {
                let (a, b) = match op {
                    Operator::And | Operator::Or => (signed, signed),
                    Operator::Implies => (-signed, signed),
                    Operator::Iff | Operator::Xor => (0, 0),
                };
                walk(nodes, plain, a, sums);
                walk(nodes, plain, b, sums);
            }
            None => {}
        }
    }
    let mut sums = [[0; MAX_VARIABLES]; 2];
    for formula in formulas {
        walk(&mut formula.iter(), 1, 1, &mut sums);
    }
    sums
}

/// The values that formulas state outright, through conjunctions only; the others by `rest`.
fn units(formulas: &[&[Node]], rest: u64) -> u64 {
    fn walk(nodes: &mut std::slice::Iter<Node>, need: Option<bool>, values: &mut u64) {
        match nodes.next() {
            Some(Node::Variable(v)) => match need {
                Some(true) => *values |= 1 << v,
                Some(false) => *values &= !(1 << v),
                None => {}
            },
            Some(Node::Not) => walk(nodes, need.map(|need| !need), values),
            Some(Node::Binary(op)) => {
                let (a, b) = match (op, need) {
                    (Operator::And, Some(true)) => (need, need),
                    (Operator::Or, Some(false)) => (need, need),
                    (Operator::Implies, Some(false)) => (Some(true), Some(false)),
                    _ => (None, None),
                };
                walk(nodes, a, values);
                walk(nodes, b, values);
            }
            None => {}
        }
    }
    let mut values = rest;
    for formula in formulas {
        walk(&mut formula.iter(), Some(true), &mut values);
    }
    values
}

type Guess = (&'static str, u64);

/// The assignments that solvers propose who count literals.
fn counted(variables: usize, formulas: &[&[Node]]) -> [Guess; 5] {
    let majority = |sums: &[i32; MAX_VARIABLES], even: u64| {
        (0..variables).fold(0, |set, v| match sums[v] {
            0 => set | even & 1 << v,
            sum => set | u64::from(sum > 0) << v,
        })
    };
    let [literals, signed] = &polarity(formulas);
    [
        ("literal majority", majority(literals, 0)),
        ("literal majority, else true", majority(literals, u64::MAX)),
        ("signed literal majority", majority(signed, 0)),
        ("signed literal majority, else true", majority(signed, u64::MAX)),
        ("stated values, else literal majority", units(formulas, majority(signed, u64::MAX))),
    ]
}

/// The assignments that solvers propose who look at each formula's truth table.
fn tabled(tables: &Tables) -> impl Iterator<Item = Guess> {
    let tightest = tables.tightest();
    let ends = [("tightest formula, low", true), ("tightest formula, high", false)];
    let odds = tables.odds();
    let likely = (0..).zip(&odds).fold(0, |set, (v, odds)| set | u64::from(*odds > 1.0) << v);
    let sure = |v: &usize| odds[*v].max(odds[*v].recip());
    let unsure = (0..odds.len()).min_by(|a, b| sure(a).total_cmp(&sure(b)));
    let turned = likely ^ unsure.map_or(0, |v| 1 << v);
    ends.into_iter()
        .filter_map(move |(name, low)| Some((name, tables.end(tightest, low)?)))
        .chain([(ODDS, likely), ("odds, the least sure turned", turned)])
}

/// Whether some cheap guess is among the `solutions`, a truth table, of several formulas.
pub fn lucky(formulas: &[&[Node]], tables: &Tables, solutions: &[u64]) -> bool {
    let right = |(_, guess): Guess| {
        let number = table::assignment(tables.variables, guess as usize) as usize;
        solutions[number / 64] >> (number % 64) & 1 == 1
    };
    counted(tables.variables, formulas).into_iter().any(right) || tabled(tables).any(right)
}

/// Whether a random assignment that satisfies the tightest formula is no better than chance plus a
/// margin. For one solution the floor of each formula sees to that.
pub fn fair(tables: &Tables, solutions: usize, unsatisfiable: f64, margin: f64) -> bool {
    let (count, satisfiable) = (solutions as f64, 1.0 - unsatisfiable);
    let chance = unsatisfiable.max(satisfiable * count / (tables.variables as f64).exp2());
    satisfiable * count / tables.counts[tables.tightest()] as f64 <= chance + margin
}

pub fn all(puzzle: &Deduction) -> Vec<Probe> {
    let formulas: Vec<&[Node]> = puzzle.formulas.iter().map(|formula| &formula.0[..]).collect();
    let right = |(name, guess): Guess| (name, share(right(puzzle, guess)));
    let mut probes: Vec<Probe> =
        counted(puzzle.variables, &formulas).into_iter().map(right).collect();
    // To satisfy the only formula is all there is to do.
    if !puzzle.tabled() || formulas.len() == 1 {
        return probes;
    }
    let words = evaluated(puzzle);
    let tables = Tables::new(puzzle.variables, &words);
    probes.extend(tabled(&tables).map(right));
    let never = puzzle.solved() == Solved::Never;
    let solutions = solutions(puzzle);
    // How often a random assignment that satisfies one formula satisfies all.
    let alone = |i: usize| solutions as f64 / tables.counts[i].max(1) as f64;
    let tightest = tables.tightest();
    let odds = probes.iter().find(|(name, _)| *name == ODDS).map_or(0.0, |(_, odds)| *odds);
    let expected: f64 =
        tables.counts.iter().fold((puzzle.variables as f64).exp2(), |left, count| {
            left * *count as f64 / (puzzle.variables as f64).exp2()
        });
    let claim = |claimed: bool, other: f64| if claimed { share(never) } else { other };
    let literals: usize = puzzle.formulas.iter().map(Formula::literals).sum();
    probes.extend([
        ("tightest formula", alone(tightest)),
        ("first formula", alone(0)),
        ("last formula", alone(tables.counts.len() - 1)),
        ("unsatisfiable if half a solution is expected", claim(expected < 0.5, alone(tightest))),
        ("unsatisfiable if two formulas clash", claim(tables.contradict(), odds)),
        ("unsatisfiable if long", claim(literals > 3 * puzzle.variables, alone(tightest))),
    ]);
    probes
}
