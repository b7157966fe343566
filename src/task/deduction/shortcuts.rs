//! Guesses that read the puzzle but do not reason.

use std::slice::Iter;

use super::formula::{Formula, Node, Operator};
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

/// What one formula tells solvers who do not reason.
pub struct Clue {
    stands: Vec<Stand>,
    /// The variables whose values the formula states outright, through conjunctions only, and the
    /// true ones of them.
    stated: u64,
    values: u64,
    /// Assignments that satisfy it, and of these the one with the least and the greatest number.
    count: usize,
    ends: Option<[u64; 2]>,
}

/// How one variable stands in a formula.
#[derive(Clone, Copy, Default)]
struct Stand {
    /// How much more often plain than negated.
    plain: i32,
    /// The same where a literal counts by what it does to the formula: the other way round under a
    /// negation or before an implication's arrow, not at all under ↔ and ⊕.
    signed: i32,
    /// The odds of its being true among the assignments that satisfy the formula.
    odds: f64,
}

impl Clue {
    /// `table` is the formula's truth table; empty beyond truth tables.
    pub fn new(variables: usize, nodes: &[Node], table: &[u64]) -> Self {
        let mut clue = Self {
            stands: vec![Stand::default(); variables],
            stated: 0,
            values: 0,
            count: table::ones(table),
            ends: ends(variables, table),
        };
        clue.walk(&mut nodes.iter(), [1, 1], Some(true));
        for (v, stand) in clue.stands.iter_mut().enumerate() {
            let column = |word| table::column(variables, v, word);
            let ones =
                table.iter().enumerate().map(|(word, bits)| (bits & column(word)).count_ones());
            let (ones, all) = (ones.sum::<u32>() as usize, clue.count);
            // A formula without the variable, or with ↔ and ⊕ around it, is no witness.
            let witness = 2 * ones != all;
            let odds = || (ones as f64 / (all - ones) as f64).clamp(1e-4, 1e4);
            stand.odds = if witness { odds() } else { 1.0 };
        }
        clue
    }

    /// `signs`: what a literal here counts, plain and signed; `need`: the value that this part must
    /// have, if the parts around it say so.
    fn walk(&mut self, nodes: &mut Iter<Node>, [plain, signed]: [i32; 2], need: Option<bool>) {
        match nodes.next() {
            Some(Node::Variable(v)) => {
                let stand = &mut self.stands[usize::from(*v)];
                stand.plain += plain;
                stand.signed += signed;
                if let Some(need) = need {
                    self.stated |= 1 << v;
                    self.values = self.values & !(1 << v) | u64::from(need) << v;
                }
            }
            Some(Node::Not) => {
                let literal = matches!(nodes.as_slice().first(), Some(Node::Variable(_)));
                let plain = if literal { -plain } else { plain };
                self.walk(nodes, [plain, -signed], need.map(|need| !need));
            }
            Some(Node::Binary(op)) => {
                let (a, b) = match op {
                    Operator::And | Operator::Or => (signed, signed),
                    Operator::Implies => (-signed, signed),
                    Operator::Iff | Operator::Xor => (0, 0),
                };
                let (x, y) = match (op, need) {
                    (Operator::And, Some(true)) | (Operator::Or, Some(false)) => (need, need),
                    (Operator::Implies, Some(false)) => (Some(true), Some(false)),
                    _ => (None, None),
                };
                self.walk(nodes, [plain, a], x);
                self.walk(nodes, [plain, b], y);
            }
            None => {}
        }
    }
}

/// The assignments with the least and the greatest number in a truth table.
fn ends(variables: usize, table: &[u64]) -> Option<[u64; 2]> {
    let low = table.iter().position(|bits| *bits != 0)?;
    let high = table.iter().rposition(|bits| *bits != 0)?;
    let low = 64 * low + table[low].trailing_zeros() as usize;
    let high = 64 * high + 63 - table[high].leading_zeros() as usize;
    Some([low, high].map(|number| table::assignment(variables, number)))
}

type Guess = (&'static str, u64);

fn tightest(clues: &[&Clue]) -> usize {
    (0..clues.len()).min_by_key(|&i| clues[i].count).unwrap_or(0)
}

/// The assignments that solvers propose who count literals.
fn guesses(variables: usize, clues: &[&Clue]) -> ([Guess; 5], [Option<Guess>; 4]) {
    let [mut plain, mut plain_even, mut signed, mut signed_even, mut likely] = [0u64; 5];
    let (mut unsure, mut least) = (0, f64::INFINITY);
    for v in 0..variables {
        // The odds multiply as if the formulas were independent witnesses.
        let mut all = Stand { plain: 0, signed: 0, odds: 1.0 };
        for Stand { plain, signed, odds } in clues.iter().map(|clue| clue.stands[v]) {
            all.plain += plain;
            all.signed += signed;
            all.odds *= odds;
        }
        plain |= u64::from(all.plain > 0) << v;
        plain_even |= u64::from(all.plain >= 0) << v;
        signed |= u64::from(all.signed > 0) << v;
        signed_even |= u64::from(all.signed >= 0) << v;
        likely |= u64::from(all.odds > 1.0) << v;
        let sure = all.odds.max(all.odds.recip());
        if sure < least {
            (unsure, least) = (v, sure);
        }
    }
    let state = |values: u64, clue: &&Clue| values & !clue.stated | clue.values;
    let counted = [
        ("literal majority", plain),
        ("literal majority, else true", plain_even),
        ("signed literal majority", signed),
        ("signed literal majority, else true", signed_even),
        ("stated values, else literal majority", clues.iter().fold(signed_even, state)),
    ];
    let ends = clues.get(tightest(clues)).and_then(|clue| clue.ends);
    let tabled = [
        ends.map(|[low, _]| ("tightest formula, low", low)),
        ends.map(|[_, high]| ("tightest formula, high", high)),
        Some((ODDS, likely)),
        Some(("odds, the least sure turned", likely ^ 1 << unsure)),
    ];
    (counted, tabled)
}

/// Whether some cheap guess is among the `solutions`, a truth table, of several formulas.
pub fn lucky(variables: usize, clues: &[&Clue], solutions: &[u64]) -> bool {
    let right = |(_, guess): Guess| {
        let number = table::assignment(variables, guess as usize) as usize;
        solutions[number / 64] >> (number % 64) & 1 == 1
    };
    let (counted, tabled) = guesses(variables, clues);
    counted.into_iter().chain(tabled.into_iter().flatten()).any(right)
}

/// Whether a random assignment that satisfies the tightest formula, one of `tightest`, is no better
/// than chance plus a margin. For one solution the floor of each formula sees to that.
pub fn fair(
    variables: usize,
    tightest: usize,
    solutions: usize,
    unsatisfiable: f64,
    margin: f64,
) -> bool {
    let (count, satisfiable) = (solutions as f64, 1.0 - unsatisfiable);
    let chance = unsatisfiable.max(satisfiable * count / (variables as f64).exp2());
    satisfiable * count / tightest as f64 <= chance + margin
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

/// Whether two formulas exclude each other.
fn contradict(tables: &[&[u64]]) -> bool {
    (0..tables.len()).any(|i| (0..i).any(|j| table::disjoint(tables[i], tables[j])))
}

pub fn all(puzzle: &Deduction) -> Vec<Probe> {
    let Deduction { variables, ref formulas, .. } = *puzzle;
    // To satisfy the only formula is all there is to do.
    let tabled = puzzle.tabled() && formulas.len() > 1;
    let bits = if tabled { evaluated(puzzle) } else { Vec::new() };
    let mut tables: Vec<&[u64]> = bits.chunks(table::words(variables)).collect();
    tables.resize(formulas.len(), &[]);
    let new = |(formula, table): (&Formula, &&[u64])| Clue::new(variables, &formula.0, table);
    let clues: Vec<Clue> = formulas.iter().zip(&tables).map(new).collect();
    let clues: Vec<&Clue> = clues.iter().collect();

    let (counted, guessed) = guesses(variables, &clues);
    let right = |(name, guess): Guess| (name, share(right(puzzle, guess)));
    let mut probes: Vec<Probe> = counted.into_iter().map(right).collect();
    if !tabled {
        return probes;
    }
    probes.extend(guessed.into_iter().flatten().map(right));
    let never = puzzle.solved() == Solved::Never;
    let solutions = solutions(puzzle);
    // How often a random assignment that satisfies one formula satisfies all.
    let alone = |i: usize| solutions as f64 / clues[i].count.max(1) as f64;
    let tightest = alone(tightest(&clues));
    let odds = probes.iter().find(|(name, _)| *name == ODDS).map_or(0.0, |(_, odds)| *odds);
    let assignments = (variables as f64).exp2();
    let narrow = |left: f64, clue: &&Clue| left * clue.count as f64 / assignments;
    let expected = clues.iter().fold(assignments, narrow);
    let claim = |claimed: bool, other: f64| if claimed { share(never) } else { other };
    let literals: usize = formulas.iter().map(Formula::literals).sum();
    probes.extend([
        ("tightest formula", tightest),
        ("first formula", alone(0)),
        ("last formula", alone(clues.len() - 1)),
        ("unsatisfiable if half a solution is expected", claim(expected < 0.5, tightest)),
        ("unsatisfiable if two formulas clash", claim(contradict(&tables), odds)),
        ("unsatisfiable if long", claim(literals > 3 * variables, tightest)),
    ]);
    probes
}
