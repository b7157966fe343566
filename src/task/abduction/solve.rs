//! What is true of a puzzle, proven from its rules: the model, how far a solver must look, and the
//! smallest explanations.

use serde_json::json;

use super::graph::{ATOMS, Body, Lanes, Program};
use super::search::Search;
use super::{Abduction, Mode};
use crate::task::{Certificate, Fault, FaultKind};

/// Sets of hypotheses that are tried at most.
const SETS: u64 = 200_000;
/// Atoms that may be assumed, at most: a set of them is a word of bits.
pub const ABDUCIBLES: usize = 32;
/// Sets from which the goals follow, but against a constraint, that are kept for the trace.
const REFUSED: usize = 4;

/// What a puzzle's rules say, worked out once.
#[derive(Debug, Clone, Default)]
pub struct Solved {
    /// Whether each goal is reachable: true in the well-founded model. In explanation, assuming the
    /// first smallest explanation.
    pub reached: Vec<bool>,
    /// For each goal the least d such that the rules up to d away from it decide it, whatever stands
    /// farther away. No solver that goes from the goals backward can do with less.
    pub depths: Vec<u32>,
    /// Whether no atom hangs on its own negation.
    pub stratified: bool,
    /// Premises read by a solver that chains forward from what is known.
    pub forward: u64,
    pub explanations: Explanations,
}

#[derive(Debug, Clone, Default)]
pub struct Explanations {
    /// All smallest sets of hypotheses, as bits over the abducible atoms.
    pub smallest: Vec<u64>,
    /// Sets no larger than those that make the goals follow but break a constraint, the first few.
    pub refused: Vec<u64>,
    /// Sets that were tried.
    pub tried: u64,
    /// Whether the search came to its end: to a smallest set, or to the last one.
    pub complete: bool,
}

impl Abduction {
    pub(super) fn solved(&self) -> &Solved {
        self.solved.get_or_init(|| {
            let mut solved = Solved::default();
            let mut base = self.base();
            if self.mode == Mode::Explanation {
                solved.explanations = self.explain();
                if let Some(&set) = solved.explanations.smallest.first() {
                    self.assume(set, u64::MAX, &mut base);
                }
            }
            self.look(&base, &mut solved);
            solved
        })
    }

    /// The known atoms, true in every case.
    pub(super) fn base(&self) -> Lanes {
        let mut base = [0; ATOMS];
        for &a in &self.known {
            base[a as usize] = u64::MAX;
        }
        base
    }

    /// Makes the hypotheses of `set` true in `cases`.
    fn assume(&self, set: u64, cases: u64, base: &mut Lanes) {
        for (bit, &a) in self.abducibles.iter().take(64).enumerate() {
            if set >> bit & 1 == 1 {
                base[a as usize] |= cases;
            }
        }
    }

    /// Decides the goals, and from how near: all at once where the cases suffice, or else each in a
    /// turn of its own. Of rules that are not stratified, which have no certificate, no depths.
    fn look(&self, base: &Lanes, solved: &mut Solved) {
        let all = self.graph.program((0..self.graph.atoms).map(|a| a as u8));
        solved.stratified = all.is_stratified();
        if !solved.stratified {
            let model = self.graph.whole(&all, base);
            let certain = self.goals.iter().map(|&goal| model.certain[goal as usize] & 1 == 1);
            solved.reached = certain.collect();
            solved.depths = vec![0; self.goals.len()];
            return;
        }
        if !self.look_at(&self.goals, &all, base, solved) {
            solved.reached.clear();
            solved.depths.clear();
            for goal in self.goals.chunks(1) {
                self.look_at(goal, &all, base, solved);
            }
        }
    }

    /// In one case, the last, everything is seen. Each goal has its share of the others: in its case
    /// d, atoms that are d rules away from it are seen to be known, or without a rule, or else
    /// nothing is seen of them. Whether the cases sufficed.
    fn look_at(&self, goals: &[u8], all: &Program, base: &Lanes, solved: &mut Solved) -> bool {
        let cases = 63 / goals.len() as u32;
        let mask = (1u64 << cases) - 1;
        let (mut open, mut free) = ([1 << 63; ATOMS], [0; ATOMS]);
        for (place, &goal) in (0..).zip(goals) {
            let cone = self.graph.cone([goal]);
            for &a in &cone.heads {
                let distance = u32::from(cone.distance[a as usize]);
                let seen = if distance + 1 < cases { (mask << (distance + 1)) & mask } else { 0 };
                open[a as usize] |= seen << (place * cases);
                free[a as usize] |= (mask & !seen) << (place * cases);
            }
        }
        let model = self.graph.model(all, base, &open, &free);
        for (place, &goal) in (0..).zip(goals) {
            let (certain, possible) = (model.certain[goal as usize], model.possible[goal as usize]);
            let decided = ((certain | !possible) >> (place * cases)) & mask;
            solved.reached.push(certain >> 63 == 1);
            solved.depths.push(decided.trailing_zeros().min(cases));
        }
        solved.forward = self.graph.forward(base, &model);
        solved.depths.iter().all(|&depth| depth < cases)
    }

    /// Every set of hypotheses in order of size, 64 at a time, up to the size of the smallest that
    /// makes all goals follow and breaks no constraint.
    fn explain(&self) -> Explanations {
        let mut found = Explanations::default();
        let count = self.abducibles.len();
        if count > ABDUCIBLES {
            return found;
        }
        let roots = self.goals.iter().copied();
        let constrained = self
            .graph
            .constraints
            .iter()
            .flat_map(|&body| self.graph.literals(body).map(super::graph::atom));
        let program = self.graph.program(roots.chain(constrained));
        for size in 0..=count {
            let mut sets = Subsets::new(count, size).peekable();
            while sets.peek().is_some() {
                let batch: Vec<u64> = sets.by_ref().take(64).collect();
                found.tried += batch.len() as u64;
                if found.tried > SETS {
                    return found;
                }
                self.try_sets(&program, &batch, &mut found);
            }
            if !found.smallest.is_empty() {
                break;
            }
        }
        found.complete = true;
        found
    }

    fn try_sets(&self, program: &Program, batch: &[u64], found: &mut Explanations) {
        let mut base = self.base();
        for (case, &set) in batch.iter().enumerate() {
            self.assume(set, 1 << case, &mut base);
        }
        let model = self.graph.whole(program, &base);
        let cases = u64::MAX >> (64 - batch.len());
        let follow =
            self.goals.iter().fold(cases, |cases, &goal| cases & model.certain[goal as usize]);
        let holds = |&body: &Body| self.graph.holds(body, &model);
        let broken = self.graph.constraints.iter().map(holds).fold(0, |all, one| all | one);
        for (case, &set) in batch.iter().enumerate() {
            if follow & !broken & 1 << case != 0 {
                found.smallest.push(set);
            } else if follow & 1 << case != 0 && found.refused.len() < REFUSED {
                found.refused.push(set);
            }
        }
    }

    /// The first goal that does not follow from the hypotheses of `set`, or else the first
    /// constraint that they break.
    pub(super) fn refutation(&self, set: u64) -> Option<String> {
        let mut base = self.base();
        self.assume(set, 1, &mut base);
        let roots = self.goals.iter().copied();
        let constrained = self
            .graph
            .constraints
            .iter()
            .flat_map(|&body| self.graph.literals(body).map(super::graph::atom));
        let program = self.graph.program(roots.chain(constrained));
        let model = self.graph.whole(&program, &base);
        let fails = self.goals.iter().find(|&&goal| model.certain[goal as usize] & 1 == 0);
        if let Some(&goal) = fails {
            return Some(format!("goal {}", self.name(goal)));
        }
        let broken =
            self.graph.constraints.iter().position(|&c| self.graph.holds(c, &model) & 1 == 1);
        broken.map(|number| format!("constraint {}", number + 1))
    }

    pub(super) fn prove(&self) -> Result<Certificate, Fault> {
        self.read_off()?;
        let solved = self.solved();
        if !solved.stratified {
            let cycle = self.graph.negative_cycle().unwrap_or_default();
            let names: Vec<String> = cycle.iter().map(|&a| self.name(a)).collect();
            let what = format!(
                "not stratified: {} hang on one another in a circle, through a negation",
                names.join(" → ")
            );
            return Err(Fault::new(FaultKind::Malformed, what));
        }
        let (kind, method) = match self.mode {
            Mode::Reachability => ("reachability", "backward search and well-founded model"),
            Mode::Explanation => ("explanation", "all sets of hypotheses in order of size"),
        };
        let Explanations { smallest, tried, complete, .. } = &solved.explanations;
        if self.mode == Mode::Explanation {
            match smallest.first() {
                _ if !complete => {
                    let what = format!("none of {SETS} sets of hypotheses explains the goals");
                    return Err(Fault::new(FaultKind::Unproven, what));
                }
                None => {
                    let what = "no set of hypotheses explains the goals";
                    return Err(Fault::new(FaultKind::Unsolvable, what));
                }
                Some(0) => {
                    let what = "the goals follow without a hypothesis";
                    return Err(Fault::new(FaultKind::Leak, what));
                }
                Some(_) => {}
            }
        }
        let search = Search::of(self);
        for ((&goal, &reached), found) in
            self.goals.iter().zip(&solved.reached).zip(&search.reached)
        {
            if self.mode == Mode::Reachability && reached != *found {
                let what = format!("two searches disagree on goal {}", self.name(goal));
                return Err(Fault::new(FaultKind::Unproven, what));
            }
        }
        let least = solved.depths.iter().copied().min().unwrap_or(0);
        if least < self.depth {
            let what = format!("a goal is decided {least} rules away, {} are promised", self.depth);
            return Err(Fault::new(FaultKind::Shallow, what));
        }
        let (backward, forward) = (search.visits, solved.forward * (*tried).max(1));
        if backward >= forward {
            let what = format!("backward search costs {backward}, forward {forward}");
            return Err(Fault::new(FaultKind::Shallow, what));
        }
        let mut proof = json!({
            "method": method,
            "depths": solved.depths,
            "backward_visits": backward,
            "forward_looks": forward,
        });
        if self.mode == Mode::Explanation {
            proof["size"] = json!(smallest.first().map_or(0, |set| set.count_ones()));
            proof["smallest_sets"] = json!(smallest.len());
            proof["sets_tried"] = json!(tried);
        } else {
            proof["reachable"] = json!(solved.reached.iter().filter(|&&reached| reached).count());
        }
        Ok(Certificate {
            kind,
            size: self.graph.size() as u32,
            depth: solved.depths.iter().copied().max().unwrap_or(0),
            nodes: backward,
            proof,
        })
    }

    /// Goals that are decided without a rule, and what is no puzzle at all.
    fn read_off(&self) -> Result<(), Fault> {
        let fault = |kind, what: String| Err(Fault::new(kind, what));
        for goal in &self.goals {
            let name = || self.name(*goal);
            if self.known.contains(goal) {
                return fault(FaultKind::Leak, format!("goal {} is a known atom", name()));
            }
            if self.mode == Mode::Explanation && self.abducibles.contains(goal) {
                return fault(FaultKind::Leak, format!("goal {} may be assumed", name()));
            }
            if self.graph.rules_for(*goal).is_empty() {
                return fault(FaultKind::Leak, format!("no rule makes goal {}", name()));
            }
        }
        let twice = |(i, goal): (usize, &u8)| self.goals[..i].contains(goal).then_some(*goal);
        if let Some(goal) = self.goals.iter().enumerate().find_map(twice) {
            let what = format!("goal {} stands twice", self.name(goal));
            return fault(FaultKind::Malformed, what);
        }
        if self.mode == Mode::Explanation {
            if self.abducibles.is_empty() {
                return fault(FaultKind::Malformed, "no atom may be assumed".into());
            }
            if self.abducibles.len() > ABDUCIBLES {
                let what = format!("more than {ABDUCIBLES} atoms may be assumed");
                return fault(FaultKind::Unproven, what);
            }
            let odd = self
                .abducibles
                .iter()
                .enumerate()
                .find(|(i, a)| self.known.contains(a) || self.abducibles[..*i].contains(a));
            if let Some((_, &a)) = odd {
                let what = format!("{} may be assumed, and stands twice", self.name(a));
                return fault(FaultKind::Malformed, what);
            }
        } else if !self.graph.constraints.is_empty() || !self.abducibles.is_empty() {
            let what = "hypotheses and constraints where nothing is to be explained";
            return fault(FaultKind::Malformed, what.into());
        }
        Ok(())
    }
}

/// The subsets of `0..count` with `size` elements, as bits, in ascending order.
struct Subsets {
    next: Option<u64>,
    end: u64,
}

impl Subsets {
    fn new(count: usize, size: usize) -> Self {
        Self { next: Some((1 << size) - 1), end: 1 << count }
    }
}

impl Iterator for Subsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let set = self.next.filter(|&set| set < self.end)?;
        // Gosper's hack: the next larger number with as many bits.
        let low = set & set.wrapping_neg();
        self.next = (set != 0).then(|| {
            let ripple = set + low;
            (((ripple ^ set) >> 2) / low) | ripple
        });
        Some(set)
    }
}
