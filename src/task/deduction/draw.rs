//! Drawing puzzles.

use super::formula::{Formula, MAX_VARIABLES, Node, Operator};
use super::narrow::Narrowing;
use super::sat::{Found, Search};
use super::{Deduction, Parameters, Solutions, table};
use crate::entropy::Stream;

/// Attempts at a whole puzzle: parameters that allow none must come to an end.
pub const ATTEMPTS: usize = 480;
/// The same where each attempt takes a solver.
const PLANTED: usize = 4;
/// Tries at one formula, for each variable.
const TRIES: usize = 32;
/// How far below the panel's tolerance of 0.03 a guess from one formula is kept.
pub const MARGIN: f64 = 0.025;

/// Sixteen random bits at a time: a formula takes dozens of small choices.
pub struct Dice<'a> {
    pub stream: &'a mut Stream,
    bits: u64,
    left: u32,
}

/// Appends one of the 5 * n leaves over n variables, and returns its values.
fn leaf(number: usize, columns: &[u64], out: &mut Vec<Node>) -> u64 {
    let negated = number % 5 < 2;
    if negated {
        out.push(Node::Not);
    }
    out.push(Node::Variable((number / 5) as u8));
    columns[number / 5] ^ 0u64.wrapping_sub(u64::from(negated))
}

/// Every formula of one operator, as often as [`Dice::formula`] would draw it, with its values.
pub fn flat(columns: &[u64], mut visit: impl FnMut(&[Node], u64)) {
    let leaves = 5 * columns.len();
    let mut nodes = Vec::new();
    for op in Operator::ALL {
        for (a, b) in (0..leaves).flat_map(|a| (0..leaves).map(move |b| (a, b))) {
            nodes.clear();
            nodes.push(Node::Binary(op));
            let (a, b) = (leaf(a, columns, &mut nodes), leaf(b, columns, &mut nodes));
            visit(&nodes, op.apply(a, b));
        }
    }
}

impl<'a> Dice<'a> {
    fn new(stream: &'a mut Stream) -> Self {
        Self { stream, bits: 0, left: 0 }
    }

    /// Uniform in 0..n but for n / 65,536.
    pub fn below(&mut self, n: usize) -> usize {
        if self.left == 0 {
            self.bits = self.stream.next_u64();
            self.left = 4;
        }
        let word = (self.bits & 0xFFFF) as usize;
        self.bits >>= 16;
        self.left -= 1;
        (word * n) >> 16
    }

    /// Appends a formula, and returns its values where `columns` has those of the variables. The
    /// paper's distribution: inner nodes are 20% negations, else one of the five binary operators;
    /// 40% of the leaves are negated. One operand goes down to `depth`, the other to a random
    /// depth. No negation stands right above a leaf's: `¬(¬A)` is a value told.
    ///
    /// One number decides what belongs together.
    pub fn formula(&mut self, depth: usize, columns: &[u64], out: &mut Vec<Node>) -> u64 {
        if depth == 0 {
            return leaf(self.below(5 * columns.len()), columns, out);
        }
        let op = if depth > 1 { self.below(25) } else { 5 + self.below(20) };
        if op < 5 {
            out.push(Node::Not);
            return !self.formula(depth - 1, columns, out);
        }
        let op = Operator::ALL[(op - 5) / 4];
        out.push(Node::Binary(op));
        let other = if depth > 1 { self.below(2 * depth) } else { 0 };
        let (a, b) = if other % 2 == 0 { (depth - 1, other / 2) } else { (other / 2, depth - 1) };
        let a = self.formula(a, columns, out);
        let b = self.formula(b, columns, out);
        op.apply(a, b)
    }
}

/// The fewest assignments that one formula alone may leave, and whether this can be had at all.
///
/// Who satisfies the tightest formula only, and knows that a solution exists, is right once in m
/// where it leaves m assignments. That must not beat chance, the better of "unsatisfiable" and a
/// blind assignment, by more than the margin. With k formulas the tightest leaves at most
/// 2^n - (2^n - 1)/k, because together they exclude all but one: on 2 and 3 variables that is too
/// few, whatever is drawn.
fn floor(parameters: &Parameters) -> Option<usize> {
    let satisfiable = 1.0 - parameters.unsatisfiable;
    let all = 1usize << parameters.variables;
    let chance = parameters.unsatisfiable.max(satisfiable / all as f64);
    let fewest = (satisfiable / (chance + MARGIN)).ceil() as usize;
    (fewest <= all - (all - 1).div_ceil(parameters.formulas[1])).then_some(fewest)
}

pub fn source(parameters: &Parameters) -> impl FnMut(&mut Stream) -> Option<Deduction> {
    let [fewest, most] = parameters.formulas;
    let tabled = parameters.variables <= table::MAX_TABLED;
    let floor = if tabled { floor(parameters) } else { None };
    let mut narrowing = floor.map(|floor| Narrowing::new(parameters, floor));
    move |stream| {
        let unsatisfiable = stream.chance(parameters.unsatisfiable);
        let mut dice = Dice::new(stream);
        if let Some(narrowing) = &mut narrowing {
            return narrowing.puzzle(unsatisfiable, &mut dice);
        }
        if tabled {
            return (0..ATTEMPTS).find_map(|_| {
                let count = fewest + dice.below(most - fewest + 1);
                independent(parameters, count, unsatisfiable, &mut dice)
            });
        }
        let count = fewest + dice.below(most - fewest + 1);
        (0..PLANTED).find_map(|_| planted(parameters, count, unsatisfiable, &mut dice))
    }
}

/// Formulas drawn one by one without regard to the others, for puzzles that are too small to be
/// fair.
fn independent(
    parameters: &Parameters,
    count: usize,
    unsatisfiable: bool,
    dice: &mut Dice,
) -> Option<Deduction> {
    let Parameters { variables, depth, solutions, .. } = *parameters;
    let formulas = (0..count)
        .map(|_| {
            let mut nodes = Vec::new();
            dice.formula(depth, &[0; MAX_VARIABLES][..variables], &mut nodes);
            Formula(nodes)
        })
        .collect();
    let puzzle = Deduction::new(variables, formulas, solutions);
    let (found, _) = table::solutions(variables, &puzzle.formulas, 2);
    let wanted = match (unsatisfiable, solutions) {
        (true, _) => found == 0,
        (false, Solutions::One) => found == 1,
        (false, Solutions::Any) => found > 0,
    };
    (wanted && puzzle.named() == puzzle.all()).then_some(puzzle)
}

/// Beyond truth tables: formulas that a hidden assignment satisfies, each drawn so that it excludes
/// the other solution that the solver has found last, until there is none.
fn planted(
    parameters: &Parameters,
    count: usize,
    unsatisfiable: bool,
    dice: &mut Dice,
) -> Option<Deduction> {
    let Parameters { variables, depth, solutions, .. } = *parameters;
    let hidden = dice.stream.next_u64() >> (64 - variables);
    let mut search = Search::new(variables, &[]);
    search.exclude(hidden);
    let mut other = None;
    let mut formulas: Vec<Formula> = Vec::with_capacity(count);
    for i in 0..count {
        let last = i + 1 == count;
        let formula = (0..TRIES * variables).find_map(|_| {
            let mut nodes = Vec::new();
            dice.formula(depth, &[0; MAX_VARIABLES][..variables], &mut nodes);
            let formula = Formula(nodes);
            let keeps = formula.value(hidden) != (last && unsatisfiable);
            let cuts = other.is_none_or(|other| !formula.value(other));
            (keeps && cuts).then_some(formula)
        })?;
        search.require(&formula);
        formulas.push(formula);
        other = match search.next() {
            Found::Model(other) => Some(other),
            Found::Nothing => None,
            Found::GaveUp => return None,
        };
    }
    if other.is_some() && (unsatisfiable || solutions.is_one()) {
        return None;
    }
    dice.stream.shuffle(&mut formulas);
    let puzzle = Deduction::new(variables, formulas, solutions);
    (puzzle.named() == puzzle.all()).then_some(puzzle)
}
