//! The reference solver, a search that assumes, propagates, contradicts and revises (Davis, Logemann
//! and Loveland, 1962, on formulas instead of clauses), and the reasoning it writes.

use std::fmt::Write;

use super::formula::{Name, Node, Notation, Operator};
use super::{Deduction, Solved, table};

/// Assumptions after which the solver stops.
const PATIENCE: u64 = 10_000;
/// Sentences about assumptions that fail. With those about the way to the solution, at most five
/// for each variable, this bounds the length of a demonstration.
const SENTENCES: usize = 60;
/// Nodes of formulas times assignments that an enumeration may take: 50 MB of text.
const VALUED: usize = 1 << 24;
/// Sets of truth values: bit 0 for false, bit 1 for true.
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const EITHER: u8 = 3;

/// The values that `op` can take on operands that can take `a` and `b`.
const fn possible(op: Operator, a: u8, b: u8) -> u8 {
    let mut out = 0;
    let mut pair = 0;
    while pair < 4 {
        let (x, y) = (pair & 1, pair >> 1);
        if a >> x & 1 == 1 && b >> y & 1 == 1 {
            let value = match op {
                Operator::And => x & y,
                Operator::Or => x | y,
                Operator::Implies => (1 - x) | y,
                Operator::Iff => 1 - (x ^ y),
                Operator::Xor => x ^ y,
            };
            out |= 1 << value;
        }
        pair += 1;
    }
    out
}

/// `possible` as a table.
const POSSIBLE: [[[u8; 4]; 4]; 5] = {
    let mut table = [[[0; 4]; 4]; 5];
    let mut i = 0;
    while i < 80 {
        let op = Operator::ALL[i / 16];
        table[i / 16][i / 4 % 4][i % 4] = possible(op, (i / 4 % 4) as u8, (i % 4) as u8);
        i += 1;
    }
    table
};

/// One value that a formula forces, or the formula's failing.
#[derive(Clone, Copy)]
struct Forced {
    formula: usize,
    variable: usize,
    value: bool,
}

/// What follows from one assumption.
struct Branch {
    /// The variable and its value; none at the start.
    assumed: Option<(usize, bool)>,
    forced: Vec<Forced>,
    end: End,
}

enum End {
    /// The formula that becomes false.
    Contradiction(usize),
    /// Both values of a variable, the second only when the first fails.
    Split(Vec<Branch>),
    Solved,
    /// The solver's patience is at an end.
    Stopped,
}

impl Branch {
    fn solved(&self) -> bool {
        match &self.end {
            End::Solved => true,
            End::Split(branches) => branches.last().is_some_and(Self::solved),
            End::Contradiction(_) | End::Stopped => false,
        }
    }

    /// Assumptions in it, with its own.
    fn size(&self) -> usize {
        1 + match &self.end {
            End::Split(branches) => branches.iter().map(Self::size).sum(),
            _ => 0,
        }
    }

    /// Sentences that tell it.
    fn sentences(&self) -> usize {
        2 + self.forced.len()
            + match &self.end {
                End::Split(branches) => 1 + branches.iter().map(Self::sentences).sum::<usize>(),
                _ => 1,
            }
    }
}

/// The formulas, and the sets of variables in them.
struct Solver<'a> {
    puzzle: &'a Deduction,
    sets: Vec<u64>,
    visited: u64,
    /// Scratch: what each node of a formula can be, and what it must be; both in prefix order.
    can: Vec<u8>,
    right: Vec<u32>,
    must: Vec<u8>,
}

/// A partial assignment: the variables with a value, and the true ones.
#[derive(Clone, Copy, Default)]
struct State {
    known: u64,
    values: u64,
}

impl State {
    fn get(self, v: usize) -> u8 {
        match (self.known >> v & 1, self.values >> v & 1) {
            (0, _) => EITHER,
            (_, 0) => FALSE,
            _ => TRUE,
        }
    }

    fn set(&mut self, v: usize, value: bool) {
        self.known |= 1 << v;
        self.values |= u64::from(value) << v;
    }
}

impl<'a> Solver<'a> {
    fn new(puzzle: &'a Deduction) -> Self {
        let sets = puzzle.formulas.iter().map(|formula| formula.variables()).collect();
        Self { puzzle, sets, visited: 0, can: vec![], right: vec![], must: vec![] }
    }

    /// What follows from formula `i` being true: values that a node must have because of what its
    /// operator and the other operand are. False when the formula cannot be true.
    fn follow(&mut self, i: usize, state: &mut State, mut note: impl FnMut(usize, bool)) -> bool {
        let nodes = &self.puzzle.formulas[i].0;
        self.can.clear();
        self.can.resize(nodes.len(), 0);
        self.right.clear();
        self.right.resize(nodes.len(), 0);
        let mut stack = [0u32; super::formula::MAX_DEPTH + 2];
        let mut top = 0;
        for (at, node) in nodes.iter().enumerate().rev() {
            self.can[at] = match node {
                Node::Variable(v) => {
                    top += 1;
                    state.get(usize::from(*v))
                }
                Node::Not => negate(self.can[at + 1]),
                Node::Binary(op) => {
                    top -= 1;
                    let right = stack[top - 1];
                    self.right[at] = right;
                    let (a, b) = (self.can[at + 1], self.can[right as usize]);
                    POSSIBLE[*op as usize][usize::from(a)][usize::from(b)]
                }
            };
            stack[top - 1] = at as u32;
        }
        if self.can[0] & TRUE == 0 {
            return false;
        }
        if self.can[0] == TRUE {
            return true;
        }
        self.must.clear();
        self.must.resize(nodes.len(), EITHER);
        self.must[0] = TRUE;
        for (at, node) in nodes.iter().enumerate() {
            let must = self.must[at];
            if must == EITHER {
                continue;
            }
            match node {
                Node::Variable(v) => {
                    let v = usize::from(*v);
                    let now = state.get(v);
                    if now & must == 0 {
                        return false;
                    }
                    if now == EITHER {
                        state.set(v, must == TRUE);
                        note(v, must == TRUE);
                    }
                }
                Node::Not => self.must[at + 1] = negate(must),
                Node::Binary(op) => {
                    let (a, b) = (at + 1, self.right[at] as usize);
                    let (x, y) = (self.can[a], self.can[b]);
                    let allowed = |value: u8, first: bool| {
                        let table = &POSSIBLE[*op as usize];
                        let (x, y) = if first { (value, y) } else { (x, value) };
                        table[usize::from(x)][usize::from(y)] & must != 0
                    };
                    let keep = |set: u8, first: bool| {
                        [FALSE, TRUE]
                            .into_iter()
                            .filter(|value| set & value != 0 && allowed(*value, first))
                            .sum()
                    };
                    self.must[a] = keep(x, true);
                    self.must[b] = keep(y, false);
                }
            }
        }
        true
    }

    /// Follows all formulas until nothing new comes. The formula that fails, if one does.
    fn propagate(&mut self, state: &mut State, mut note: impl FnMut(Forced)) -> Option<usize> {
        let mut stale = u64::MAX >> (64 - self.sets.len());
        while stale != 0 {
            let i = stale.trailing_zeros() as usize;
            stale &= stale - 1;
            let before = state.known;
            let holds = self.follow(i, state, |variable, value| {
                note(Forced { formula: i, variable, value });
            });
            if !holds {
                return Some(i);
            }
            let new = state.known & !before;
            if new != 0 {
                for (j, set) in self.sets.iter().enumerate() {
                    stale |= u64::from(set & new != 0) << j;
                }
            }
        }
        None
    }

    /// The next variable to assume: the first of the formula with the fewest open ones.
    fn choose(&self, state: State) -> Option<usize> {
        let open = |i: &usize| (self.sets[*i] & !state.known).count_ones();
        let i = (0..self.sets.len()).filter(|i| open(i) > 0).min_by_key(open)?;
        self.puzzle.formulas[i].0.iter().find_map(|node| match node {
            Node::Variable(v) if state.known >> v & 1 == 0 => Some(usize::from(*v)),
            _ => None,
        })
    }

    /// [`Solver::branch`] without a record: whether it came to a solution.
    fn count(&mut self, assumed: Option<(usize, bool)>, mut state: State) -> bool {
        self.visited += 1;
        if let Some((v, value)) = assumed {
            state.set(v, value);
        }
        if self.propagate(&mut state, |_| {}).is_some() || self.visited > PATIENCE {
            return false;
        }
        let next = self.choose(state);
        next.is_none_or(|v| {
            [true, false].into_iter().any(|value| self.count(Some((v, value)), state))
        })
    }

    fn branch(&mut self, assumed: Option<(usize, bool)>, mut state: State) -> Branch {
        self.visited += 1;
        if let Some((v, value)) = assumed {
            state.set(v, value);
        }
        let mut forced = Vec::new();
        let end = if let Some(formula) = self.propagate(&mut state, |f| forced.push(f)) {
            End::Contradiction(formula)
        } else if self.visited > PATIENCE {
            End::Stopped
        } else if let Some(v) = self.choose(state) {
            let mut branches = vec![self.branch(Some((v, true)), state)];
            if !branches[0].solved() {
                branches.push(self.branch(Some((v, false)), state));
            }
            End::Split(branches)
        } else {
            End::Solved
        };
        Branch { assumed, forced, end }
    }
}

fn negate(set: u8) -> u8 {
    set >> 1 | (set & 1) << 1
}

/// Nodes of the reference solver's search tree.
pub fn nodes(puzzle: &Deduction) -> u64 {
    let mut solver = Solver::new(puzzle);
    solver.count(None, State::default());
    solver.visited
}

/// The search in words.
pub fn prose(puzzle: &Deduction) -> String {
    let mut solver = Solver::new(puzzle);
    let root = solver.branch(None, State::default());
    let mut out = String::new();
    let mut state = State::default();
    // A search that was broken off shows nothing.
    if solver.visited <= PATIENCE {
        tell(&root, &mut SENTENCES.clone(), &mut state, &mut out);
    }
    verified(puzzle, out, state)
}

fn value(v: usize, value: bool) -> String {
    format!("{} is {value}", Name(v))
}

/// Writes a branch. What fails is written whole while sentences are left, else in one.
fn tell(branch: &Branch, left: &mut usize, state: &mut State, out: &mut String) {
    let outer = *state;
    let solved = branch.solved();
    if let Some((v, truth)) = branch.assumed {
        state.set(v, truth);
        // The second value is no assumption: the first has just failed.
        if truth {
            let _ = write!(out, "Suppose {}. ", value(v, truth));
        }
    }
    let told = solved || branch.assumed.is_none() || branch.sentences() <= *left;
    if !told {
        let (steps, s) = (branch.size(), if branch.size() == 1 { "" } else { "s" });
        let _ =
            write!(out, "Worked through in {steps} step{s}, this fails whatever the others are. ");
        *left = left.saturating_sub(1);
    } else {
        if !solved {
            *left = left.saturating_sub(2 + branch.forced.len());
        }
        let by = if branch.assumed.is_some() { "Then by" } else { "By" };
        for chunk in branch.forced.chunk_by(|a, b| a.formula == b.formula) {
            let values: Vec<String> = chunk.iter().map(|f| value(f.variable, f.value)).collect();
            let _ = write!(out, "{by} formula {} {}. ", chunk[0].formula + 1, values.join(" and "));
            chunk.iter().for_each(|f| state.set(f.variable, f.value));
        }
        match &branch.end {
            End::Contradiction(formula) => {
                let _ = write!(out, "But then formula {} is false, a contradiction. ", formula + 1);
            }
            End::Split(branches) => branches.iter().for_each(|b| tell(b, left, state, out)),
            End::Solved | End::Stopped => {}
        }
    }
    if !solved {
        *state = outer;
        if let Some((v, truth)) = branch.assumed {
            let _ = match truth {
                true => write!(out, "So {}. ", value(v, false)),
                false => write!(out, "So neither value of {} is possible here. ", Name(v)),
            };
        }
    }
}

/// Ends the text with the solution and what it makes of the formulas.
fn verified(puzzle: &Deduction, mut out: String, state: State) -> String {
    match puzzle.solved() {
        Solved::Never => out += "No assignment makes every formula true.",
        Solved::Unknown => out += "Neither a solution nor a proof that there is none was found.",
        Solved::By(found) => {
            // The values that the search has left open are free.
            let settled = |values: u64| puzzle.broken(values).is_none();
            let values = if settled(state.values) { state.values } else { found };
            let list: Vec<String> =
                (0..puzzle.variables).map(|v| value(v, values >> v & 1 == 1)).collect();
            let _ = write!(out, "That makes every formula true: {}.", list.join(", "));
        }
    }
    out
}

/// Assignments in order, each with the formulas valued under it up to the first false one: a way
/// for few variables and short formulas. Beyond [`VALUED`] only the solution is valued.
pub fn enumeration(puzzle: &Deduction) -> String {
    let mut out = String::new();
    let variables = puzzle.variables;
    let mut line = |assignment: u64| {
        if !out.is_empty() {
            out.push(' ');
        }
        for v in 0..variables {
            let _ = write!(out, "{}{}", Name(v), assignment >> v & 1);
        }
        out.push(':');
        for (i, formula) in puzzle.formulas.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            let _ = formula.write(Notation::Valued(assignment), &mut out);
            let holds = formula.value(assignment);
            out.push_str(if holds { "=1" } else { "=0" });
            if !holds {
                return false;
            }
        }
        true
    };
    if variables <= 16 && puzzle.nodes() << variables <= VALUED {
        let _ = (0..1 << variables).any(|number| line(table::assignment(variables, number)));
    } else if let Solved::By(assignment) = puzzle.solved() {
        line(assignment);
    }
    out
}
