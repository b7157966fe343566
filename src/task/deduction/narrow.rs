//! Puzzles whose formulas narrow the assignments down together, none of them alone.

use super::draw::{ATTEMPTS, Dice, MARGIN};
use super::formula::{Formula, Node, variables};
use super::shortcuts::Tables;
use super::table::{self, BLOCK};
use super::{Deduction, Parameters, Solutions, shortcuts};

/// Of the puzzles that some cheap guess solves, this share is kept. Rejecting them all would tell
/// a model which assignments are not the answer.
const LUCKY: f64 = 0.08;
/// Formulas to choose from, for each variable.
const POOL: usize = 4;
/// Attempts at a puzzle with the same formulas to choose from.
const REUSE: usize = 24;

/// Formulas to choose from, with their truth tables: to try another one costs a few operations, to
/// draw another one a hundred.
#[derive(Default)]
struct Pool {
    nodes: Vec<Node>,
    /// Where each formula's nodes end.
    ends: Vec<usize>,
    tables: Vec<u64>,
    counts: Vec<usize>,
}

impl Pool {
    /// Draws formulas that leave at least `floor` assignments, and not all.
    fn fill(&mut self, parameters: &Parameters, floor: usize, dice: &mut Dice) {
        let Parameters { variables, depth, .. } = *parameters;
        let words = table::words(variables);
        self.nodes.clear();
        self.ends.clear();
        self.tables.clear();
        self.counts.clear();
        let columns: [u64; table::MAX_TABLED] =
            std::array::from_fn(|v| if v < variables { table::column(variables, v, 0) } else { 0 });
        let size = POOL * variables;
        self.nodes.reserve(4 * size * depth);
        self.tables.reserve(size * words);
        for _ in 0..8 * size {
            if self.ends.len() == size {
                return;
            }
            let (start, end) = (self.nodes.len(), self.tables.len());
            let truth = dice.formula(depth, &columns[..variables], &mut self.nodes);
            if words == 1 {
                self.tables.push(truth & table::live(variables));
            } else {
                for first in (0..words).step_by(BLOCK) {
                    let truth = table::truth::<BLOCK>(&self.nodes[start..], variables, first);
                    self.tables.extend(truth.iter().take(words - first));
                }
            }
            let count = table::ones(&self.tables[end..]);
            if count >= floor && count < 1 << variables {
                self.ends.push(self.nodes.len());
                self.counts.push(count);
            } else {
                self.nodes.truncate(start);
                self.tables.truncate(end);
            }
        }
    }

    fn formula(&self, i: usize) -> &[Node] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.nodes[start..self.ends[i]]
    }
}

/// Formulas that each narrow what the ones before have left, by about equal factors, so that none
/// is the one to look at; then in random order.
pub struct Narrowing<'a> {
    parameters: &'a Parameters,
    /// What each formula must leave by itself.
    floor: usize,
    dice: Dice<'a>,
    words: usize,
    pool: Pool,
    /// The assignments that are left, as bits.
    left: Vec<u64>,
    chosen: Vec<usize>,
}

impl<'a> Narrowing<'a> {
    pub fn new(parameters: &'a Parameters, floor: usize, dice: Dice<'a>) -> Self {
        let words = table::words(parameters.variables);
        let (pool, left, chosen) = Default::default();
        Self { parameters, floor, dice, words, pool, left, chosen }
    }

    pub fn puzzle(&mut self, unsatisfiable: bool) -> Option<Deduction> {
        let [fewest, most] = self.parameters.formulas;
        let fewest = fewest.max(self.needed()).min(most);
        let mut fixed = None;
        for attempt in 0..ATTEMPTS {
            if attempt % REUSE == 0 {
                self.pool.fill(self.parameters, self.floor, &mut self.dice);
            }
            let count = fixed.unwrap_or_else(|| fewest + self.dice.below(most - fewest + 1));
            let Some(mut last) = self.satisfiable(count) else { continue };
            if unsatisfiable {
                // The number of formulas must not tell the kinds apart.
                fixed = Some(count);
                let Some(other) = self.contradicting() else { continue };
                last = other;
            }
            let mut formulas: Vec<Formula> =
                self.with(last).map(|i| Formula(self.pool.formula(i).to_vec())).collect();
            self.dice.stream.shuffle(&mut formulas);
            let Parameters { variables, solutions, .. } = *self.parameters;
            return Some(Deduction::new(variables, formulas, solutions));
        }
        None
    }

    /// The numbers of the chosen formulas and of one more.
    fn with(&self, last: usize) -> impl Iterator<Item = usize> {
        self.chosen.iter().copied().chain([last])
    }

    fn names_all(&self, last: usize) -> bool {
        let all = u64::MAX >> (64 - self.parameters.variables);
        self.with(last).fold(0, |set, i| set | variables(self.pool.formula(i))) == all
    }

    /// Formulas without which no puzzle comes about: those that leave no fewer than the floor must
    /// exclude all but the solution together.
    fn needed(&self) -> usize {
        let all = 1usize << self.parameters.variables;
        let out = if self.parameters.solutions.is_one() { all - 1 } else { 1 };
        out.div_ceil((all - self.floor).max(1))
    }

    fn table(&self, i: usize) -> &[u64] {
        &self.pool.tables[i * self.words..(i + 1) * self.words]
    }

    /// A formula that leaves fewest..=most of the assignments left, and that number.
    fn find(&mut self, fewest: usize, most: usize) -> Option<(usize, usize)> {
        let size = self.pool.ends.len();
        let start = self.dice.below(size);
        (start..size).chain(0..start).find_map(|i| {
            let pairs = self.table(i).iter().zip(&self.left);
            let found: usize = pairs.map(|(a, b)| (a & b).count_ones() as usize).sum();
            (fewest <= found && found <= most).then_some((i, found))
        })
    }

    fn choose(&mut self, i: usize) {
        let table = &self.pool.tables[i * self.words..(i + 1) * self.words];
        self.left.iter_mut().zip(table).for_each(|(left, table)| *left &= table);
        self.chosen.push(i);
    }

    /// Chooses all but the last of `count` formulas, and returns the last.
    fn satisfiable(&mut self, count: usize) -> Option<usize> {
        let Parameters { variables, solutions, unsatisfiable, .. } = *self.parameters;
        let goal = match solutions {
            Solutions::One => 1,
            Solutions::Any => 1 + self.dice.below(1 << (variables / 2)),
        };
        self.left.clear();
        self.left.resize(self.words, table::live(variables));
        self.chosen.clear();
        let mut before = 1 << variables;
        for rest in (1..count).rev() {
            // To come down to the goal in equal factors, within a factor of two.
            let ratio = root(before as f32 / goal as f32, rest, rest + 1);
            let most = ((2.0 * goal as f32 * ratio) as usize).min(before - 1);
            let (i, found) = self.find(goal + 1, most)?;
            self.choose(i);
            before = found;
        }
        let most = if solutions.is_one() { 1 } else { (2 * goal).min(before - 1) };
        let (last, found) = self.find(1, most)?;
        if !self.names_all(last) {
            return None;
        }
        let tables = Tables {
            variables,
            bits: self.with(last).map(|i| self.table(i)).collect(),
            counts: self.with(last).map(|i| self.pool.counts[i]).collect(),
        };
        // For one solution the floor of each formula sees to fairness.
        if !solutions.is_one() && !shortcuts::fair(&tables, found, unsatisfiable, MARGIN) {
            return None;
        }
        let formulas: Vec<&[Node]> = self.with(last).map(|i| self.pool.formula(i)).collect();
        let pairs = self.left.iter().zip(self.table(last));
        let solved: Vec<u64> = pairs.map(|(a, b)| a & b).collect();
        let lucky = count > 1 && shortcuts::lucky(&formulas, &tables, &solved);
        (!lucky || self.dice.stream.chance(LUCKY)).then_some(last)
    }

    /// Another last formula, for an unsatisfiable puzzle, so that what the others are like tells
    /// nothing about it. It contradicts none of them by itself.
    fn contradicting(&mut self) -> Option<usize> {
        let last = (0..self.pool.ends.len()).find(|&i| {
            table::disjoint(self.table(i), &self.left)
                && !self.chosen.iter().any(|&j| table::disjoint(self.table(i), self.table(j)))
        })?;
        self.names_all(last).then_some(last)
    }
}

/// `x` to the power of `over / under`, for `x` >= 1, within a few per cent: the bits of a float are
/// about its logarithm. The same on every machine, which `powf` is not.
fn root(x: f32, over: usize, under: usize) -> f32 {
    let one = 1f32.to_bits();
    f32::from_bits(one + ((x.to_bits() - one) as u64 * over as u64 / under as u64) as u32)
}
