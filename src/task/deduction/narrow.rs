//! Puzzles whose formulas narrow the assignments down together, none of them alone.

use std::cell::OnceCell;
use std::ops::Range;

use super::draw::{ATTEMPTS, Dice, MARGIN, flat};
use super::formula::{Formula, Node, variables};
use super::shortcuts::Clue;
use super::table::{self, BLOCK};
use super::{Deduction, Parameters, Solutions, shortcuts};

/// Of the puzzles that some cheap guess solves, this share is kept. Rejecting them all would tell
/// a model which assignments are not the answer.
const LUCKY: f64 = 0.08;
/// Formulas to choose from, for each variable.
const POOL: usize = 4;
/// Attempts at a puzzle with the same formulas to choose from.
const REUSE: usize = 24;
/// Random looks for a formula that fits before all are looked at.
const LOOKS: usize = 6;

/// Formulas to choose from, with their truth tables: to try another one costs a few operations, to
/// draw another one a hundred.
#[derive(Default)]
struct Pool {
    nodes: Vec<Node>,
    /// Where each formula's nodes end.
    ends: Vec<usize>,
    tables: Vec<u64>,
    counts: Vec<usize>,
    clues: Vec<OnceCell<Clue>>,
    /// Where these are all formulas there are, as often as they are drawn: those with the same truth
    /// table. Empty where they are a few drawn ones.
    alike: Vec<Range<usize>>,
}

/// The values of each variable under the first 64 assignments.
fn columns(variables: usize) -> [u64; table::MAX_TABLED] {
    std::array::from_fn(|v| if v < variables { table::column(variables, v, 0) } else { 0 })
}

impl Pool {
    /// All that one operator can make of variables whose truth table is one word, if they leave at
    /// least `floor` assignments, and not all.
    fn all(variables: usize, floor: usize) -> Self {
        let mut all = Vec::new();
        flat(&columns(variables)[..variables], |nodes, truth| {
            all.push((truth & table::live(variables), nodes.to_vec()));
        });
        all.retain(|(truth, _)| (floor..1 << variables).contains(&(truth.count_ones() as usize)));
        all.sort_by_key(|(truth, _)| *truth);
        let mut pool = Self::default();
        for alike in all.chunk_by(|a, b| a.0 == b.0) {
            let start = pool.ends.len();
            pool.alike.push(start..start + alike.len());
            for (truth, nodes) in alike {
                pool.nodes.extend_from_slice(nodes);
                pool.tables.push(*truth);
                pool.add(truth.count_ones() as usize);
            }
        }
        pool
    }

    /// A formula's nodes and table are there.
    fn add(&mut self, count: usize) {
        self.ends.push(self.nodes.len());
        self.counts.push(count);
        self.clues.push(OnceCell::new());
    }

    /// Draws formulas that leave at least `floor` assignments, and not all.
    fn fill(&mut self, parameters: &Parameters, floor: usize, dice: &mut Dice) {
        let Parameters { variables, depth, .. } = *parameters;
        let words = table::words(variables);
        self.nodes.clear();
        self.ends.clear();
        self.tables.clear();
        self.counts.clear();
        self.clues.clear();
        let columns = columns(variables);
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
                self.add(count);
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
    words: usize,
    pool: Pool,
    /// The assignments that are left, as bits.
    left: Vec<u64>,
    chosen: Vec<usize>,
}

impl<'a> Narrowing<'a> {
    pub fn new(parameters: &'a Parameters, floor: usize) -> Self {
        let Parameters { variables, depth, .. } = *parameters;
        let words = table::words(variables);
        let pool =
            if depth == 1 && words == 1 { Pool::all(variables, floor) } else { Pool::default() };
        let (left, chosen) = Default::default();
        Self { parameters, floor, words, pool, left, chosen }
    }

    pub fn puzzle(&mut self, unsatisfiable: bool, dice: &mut Dice) -> Option<Deduction> {
        let [fewest, most] = self.parameters.formulas;
        let fewest = fewest.max(self.needed()).min(most);
        let mut fixed = None;
        for attempt in 0..ATTEMPTS {
            if attempt % REUSE == 0 && self.pool.alike.is_empty() {
                self.pool.fill(self.parameters, self.floor, dice);
            }
            let count = fixed.unwrap_or_else(|| fewest + dice.below(most - fewest + 1));
            let Some(mut last) = self.satisfiable(count, dice) else { continue };
            if unsatisfiable {
                // The number of formulas must not tell the kinds apart.
                fixed = Some(count);
                let Some(other) = self.contradicting(dice) else { continue };
                last = other;
            }
            let mut formulas: Vec<Formula> =
                self.with(last).map(|i| Formula(self.pool.formula(i).to_vec())).collect();
            dice.stream.shuffle(&mut formulas);
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

    fn clue(&self, i: usize) -> &Clue {
        let new = || Clue::new(self.parameters.variables, self.pool.formula(i), self.table(i));
        self.pool.clues[i].get_or_init(new)
    }

    /// A random one of the formulas that fit; of a few drawn ones the next that does.
    fn pick(&self, dice: &mut Dice, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let size = self.pool.ends.len();
        if self.pool.alike.is_empty() {
            let start = dice.below(size);
            return (start..size).chain(0..start).find(|&i| fits(i));
        }
        // Most often some random one fits, and those that do are then equally likely, too.
        if let Some(i) = (0..LOOKS).map(|_| dice.below(size)).find(|&i| fits(i)) {
            return Some(i);
        }
        let fitting = || self.pool.alike.iter().filter(|alike| fits(alike.start));
        let mut number = dice.below(fitting().map(Range::len).sum());
        for alike in fitting() {
            if number < alike.len() {
                return Some(alike.start + number);
            }
            number -= alike.len();
        }
        None
    }

    /// How many of the assignments left a formula leaves.
    fn leaves(&self, i: usize) -> usize {
        if let [left] = self.left[..] {
            return (self.pool.tables[i] & left).count_ones() as usize;
        }
        let pairs = self.table(i).iter().zip(&self.left);
        pairs.map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// A formula that leaves fewest..=most of the assignments left, and that number.
    fn find(&self, fewest: usize, most: usize, dice: &mut Dice) -> Option<(usize, usize)> {
        let i = self.pick(dice, |i| (fewest..=most).contains(&self.leaves(i)))?;
        Some((i, self.leaves(i)))
    }

    fn choose(&mut self, i: usize) {
        let table = &self.pool.tables[i * self.words..(i + 1) * self.words];
        self.left.iter_mut().zip(table).for_each(|(left, table)| *left &= table);
        self.chosen.push(i);
    }

    /// Chooses all but the last of `count` formulas, and returns the last.
    fn satisfiable(&mut self, count: usize, dice: &mut Dice) -> Option<usize> {
        let Parameters { variables, solutions, unsatisfiable, .. } = *self.parameters;
        let goal = match solutions {
            Solutions::One => 1,
            Solutions::Any => 1 + dice.below(1 << (variables / 2)),
        };
        self.left.clear();
        self.left.resize(self.words, table::live(variables));
        self.chosen.clear();
        let mut before = 1 << variables;
        for rest in (1..count).rev() {
            // To come down to the goal in equal factors, within a factor of two.
            let ratio = root(before as f32 / goal as f32, rest, rest + 1);
            let most = ((2.0 * goal as f32 * ratio) as usize).min(before - 1);
            let (i, found) = self.find(goal + 1, most, dice)?;
            self.choose(i);
            before = found;
        }
        let most = if solutions.is_one() { 1 } else { (2 * goal).min(before - 1) };
        let (last, found) = self.find(1, most, dice)?;
        if !self.names_all(last) {
            return None;
        }
        // For one solution the floor of each formula sees to fairness.
        if !solutions.is_one() {
            let tightest = self.with(last).map(|i| self.pool.counts[i]).min().unwrap_or(0);
            if !shortcuts::fair(variables, tightest, found, unsatisfiable, MARGIN) {
                return None;
            }
        }
        let clues: Vec<&Clue> = self.with(last).map(|i| self.clue(i)).collect();
        let pairs = self.left.iter().zip(self.table(last));
        let solved: Vec<u64> = pairs.map(|(a, b)| a & b).collect();
        let lucky = count > 1 && shortcuts::lucky(variables, &clues, &solved);
        (!lucky || dice.stream.chance(LUCKY)).then_some(last)
    }

    /// Another last formula, for an unsatisfiable puzzle, so that what the others are like tells
    /// nothing about it. It contradicts none of them by itself.
    fn contradicting(&self, dice: &mut Dice) -> Option<usize> {
        let last = self.pick(dice, |i| {
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
