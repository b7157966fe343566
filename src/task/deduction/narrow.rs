//! Puzzles whose formulas narrow the assignments down together, none of them alone.

use super::draw::{ATTEMPTS, Dice, MARGIN, named};
use super::formula::{Formula, Node};
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

    fn formula(&self, i: usize) -> Formula {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Formula(self.nodes[start..self.ends[i]].to_vec())
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
        let mut fixed = None;
        for attempt in 0..ATTEMPTS {
            if attempt % REUSE == 0 {
                self.pool.fill(self.parameters, self.floor, &mut self.dice);
            }
            let count = fixed.unwrap_or_else(|| fewest + self.dice.below(most - fewest + 1));
            let Some(mut puzzle) = self.satisfiable(count) else { continue };
            if unsatisfiable {
                // The number of formulas must not tell the kinds apart.
                fixed = Some(count);
                let Some(other) = self.contradicted() else { continue };
                puzzle = other;
            }
            self.dice.stream.shuffle(&mut puzzle.formulas);
            return Some(puzzle);
        }
        None
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

    fn satisfiable(&mut self, count: usize) -> Option<Deduction> {
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
            let ratio = (before as f32 / goal as f32).powf(rest as f32 / (rest + 1) as f32);
            let most = ((2.0 * goal as f32 * ratio) as usize).min(before - 1);
            let (i, found) = self.find(goal + 1, most)?;
            self.choose(i);
            before = found;
        }
        let most = if solutions.is_one() { 1 } else { (2 * goal).min(before - 1) };
        let (i, _) = self.find(1, most)?;
        let puzzle = self.with(i);
        let tables = self.tables(i);
        (named(&puzzle)
            && shortcuts::fair(&puzzle, &tables, unsatisfiable, MARGIN)
            && (self.dice.stream.chance(LUCKY) || !shortcuts::lucky(&puzzle, &tables)))
        .then_some(puzzle)
    }

    /// The puzzle of the chosen formulas and one more.
    fn with(&self, last: usize) -> Deduction {
        let Parameters { variables, solutions, .. } = *self.parameters;
        let all = self.chosen.iter().chain([&last]);
        Deduction::new(variables, all.map(|&i| self.pool.formula(i)).collect(), solutions)
    }

    fn tables(&self, last: usize) -> Tables {
        let all: Vec<usize> = self.chosen.iter().copied().chain([last]).collect();
        Tables {
            variables: self.parameters.variables,
            words: self.words,
            bits: all.iter().flat_map(|&i| self.table(i)).copied().collect(),
            counts: all.iter().map(|&i| self.pool.counts[i]).collect(),
        }
    }

    /// An unsatisfiable puzzle: the last formula of a satisfiable one chosen anew, so that what the
    /// others are like tells nothing about it. It contradicts none of them by itself.
    fn contradicted(&mut self) -> Option<Deduction> {
        let clash =
            |i: usize, j: usize| self.table(i).iter().zip(self.table(j)).all(|(a, b)| a & b == 0);
        let i = (0..self.pool.ends.len()).find(|&i| {
            let mut pairs = self.table(i).iter().zip(&self.left);
            pairs.all(|(a, b)| a & b == 0) && !self.chosen.iter().any(|&j| clash(i, j))
        })?;
        Some(self.with(i)).filter(named)
    }
}
