//! Guesses that do not reason.

use super::graph::{ATOMS, Lanes, NOT, Token, atom, is_literal};
use super::{Abduction, Mode};
use crate::task::Probe;

impl Abduction {
    pub(super) fn guesses(&self) -> Vec<Probe> {
        match self.mode {
            Mode::Reachability => {
                let reached = self.share(|_, _| true);
                vec![("reachable", reached), ("unreachable", 1.0 - reached), ("coin", 0.5)]
            }
            Mode::Explanation => {
                let names = ["one at random", "two at random", "three at random", "four at random"];
                let mut probes: Vec<Probe> =
                    (1..).zip(names).map(|(size, name)| (name, self.hit(size))).collect();
                probes.push(("all of them", f64::from(self.is_smallest(self.everything()))));
                probes
            }
        }
    }

    /// The share of goals for which `guess`, given a goal's place and the goal, is right.
    fn share(&self, mut guess: impl FnMut(usize, u8) -> bool) -> f64 {
        let reached = &self.solved().reached;
        let right = |(place, &goal)| guess(place, goal) == reached[place];
        let right = self.goals.iter().enumerate().map(right).filter(|&right| right).count();
        right as f64 / self.goals.len() as f64
    }

    /// How often `size` hypotheses at random are right.
    fn hit(&self, size: u32) -> f64 {
        let smallest = &self.solved().explanations.smallest;
        if smallest.first().is_none_or(|set| set.count_ones() != size) {
            return 0.0;
        }
        let count = self.abducibles.len() as f64;
        let sets: f64 = (0..size).map(f64::from).map(|i| (count - i) / (i + 1.0)).product();
        smallest.len() as f64 / sets
    }

    fn everything(&self) -> u64 {
        u64::MAX.checked_shr(64 - self.abducibles.len().min(64) as u32).unwrap_or(0)
    }

    fn is_smallest(&self, set: u64) -> u8 {
        u8::from(self.solved().explanations.smallest.binary_search(&set).is_ok())
    }

    pub(super) fn cheap(&self) -> Vec<Probe> {
        match self.mode {
            Mode::Reachability => self.cheap_reachability(),
            Mode::Explanation => self.cheap_explanation(),
        }
    }

    fn cheap_reachability(&self) -> Vec<Probe> {
        let graph = &self.graph;
        let census = Census::of(self);
        let known = |a: u8| census.known[a as usize] != 0;
        let rules = |a: u8| graph.rules_for(a).len();
        let atoms = graph.atoms.max(1);
        let (count, known_count) = (graph.rules.len(), self.known.len());
        let mean = census.uses.iter().map(|&uses| usize::from(uses)).sum::<usize>() / atoms;
        let uses = |a: u8| usize::from(census.uses[a as usize]);
        let literals =
            |a: u8| graph.bodies_for(a).flatten().copied().filter(|&token| is_literal(token));
        let holds = |token: Token| known(atom(token)) == (token < NOT);
        let place = |a: u8| graph.rules_for(a).first().map_or(0, |&rule| rule as usize);
        // Rules whose premises are all known: what one round forward brings.
        let fresh = |a: u8| !known(a) && census.once[a as usize] != 0;
        let brought = (0..graph.atoms).filter(|&a| fresh(a as u8)).count();
        let used = (0..graph.atoms).filter(|&a| fresh(a as u8) && census.premise[a]).count();
        let leaves = census.leaves;
        let mut probes = vec![
            ("known atom", self.share(|_, a| known(a))),
            ("head of a rule", self.share(|_, a| rules(a) > 0)),
            ("more than one rule", self.share(|_, a| rules(a) > 1)),
            ("odd number of rules for it", self.share(|_, a| rules(a) % 2 == 1)),
            ("frequent atom", self.share(|_, a| uses(a) + rules(a) > mean + 1)),
            ("is a premise", self.share(|_, a| uses(a) > 0)),
            ("long bodies", self.share(|_, a| literals(a).count() > rules(a))),
            ("no negation in its rules", self.share(|_, a| literals(a).all(|t| t < NOT))),
            ("a rule early in the list", self.share(|_, a| 2 * place(a) < count)),
            ("first goals", self.share(|place, _| 2 * place < self.goals.len())),
            ("every other goal", self.share(|place, _| place % 2 == 0)),
            ("early name", self.share(|_, a| self.names[a as usize].bytes() < &b"N"[..])),
            ("odd number of rules", self.share(|_, _| count % 2 == 1)),
            ("odd number of known atoms", self.share(|_, _| known_count % 2 == 1)),
            ("known for every second rule", self.share(|_, _| 2 * known_count > count)),
            ("known for every third rule", self.share(|_, _| 3 * known_count > count)),
            ("half of the leaves known", self.share(|_, _| 2 * known_count > leaves)),
            ("even number of negations", self.share(|_, _| census.negations.is_multiple_of(2))),
            ("many follow in one round", self.share(|_, _| 4 * brought > count)),
            ("what follows leads on", self.share(|_, _| 2 * used > brought)),
            ("all that follows leads on", self.share(|_, _| used == brought)),
            ("known atoms lead on", self.share(|_, _| 2 * census.leading > known_count)),
        ];
        // What looks a rule or two ahead reasons enough for a goal that this decides.
        let shallow =
            |depth: u32| self.solved().depths.iter().any(|&least| (1..=depth).contains(&least));
        if !shallow(1) {
            probes.extend([
                ("some premise known", self.share(|_, a| literals(a).any(holds))),
                (
                    "most premises known",
                    self.share(|_, a| {
                        2 * literals(a).filter(|&t| holds(t)).count() > literals(a).count()
                    }),
                ),
                ("a rule's premises known", self.share(|_, a| census.once[a as usize] != 0)),
                (
                    "each premise has a rule",
                    self.share(|_, a| literals(a).all(|t| known(atom(t)) || rules(atom(t)) > 0)),
                ),
            ]);
        }
        if !shallow(2) {
            probes.extend([
                ("two rounds forward", self.share(|_, a| census.twice[a as usize] != 0)),
                (
                    "known two rules away",
                    self.share(|_, a| literals(a).any(|t| literals(atom(t)).any(holds))),
                ),
                (
                    "mostly known two rules away",
                    self.share(|_, a| {
                        let near = || literals(a).flat_map(|t| literals(atom(t)));
                        2 * near().filter(|&t| holds(t)).count() > near().count()
                    }),
                ),
            ]);
        }
        probes
    }

    fn cheap_explanation(&self) -> Vec<Probe> {
        let graph = &self.graph;
        let census = Census::of(self);
        let count = self.abducibles.len();
        let all: Vec<usize> = (0..count.min(64)).collect();
        // As many hypotheses as the goals' shortest rule has premises.
        let literals = |a: u8| {
            graph.bodies_for(a).map(|body| body.iter().filter(|&&token| is_literal(token)).count())
        };
        let size = self.goals.iter().filter_map(|&a| literals(a).min()).max().unwrap_or(1);
        let by = |key: &dyn Fn(usize) -> i64, among: &[usize]| {
            let mut order = among.to_vec();
            order.sort_by_key(|&i| key(i));
            f64::from(self.is_smallest(order.iter().take(size).fold(0, |set, i| set | 1 << i)))
        };
        let uses = |i: usize| i64::from(census.uses[self.abducibles[i] as usize]);
        // The place of the name among all of them, short names first.
        let letters = |i: usize| self.names[self.abducibles[i] as usize].bytes();
        let key = |i: usize| (letters(i).len(), letters(i));
        let name = |i: usize| all.iter().filter(|&&other| key(other) < key(i)).count() as i64;
        let constrained = graph.constraints.iter().flat_map(|&body| graph.literals(body));
        let constrained: Vec<u8> = constrained.map(atom).collect();
        let unbound: Vec<usize> =
            all.iter().copied().filter(|&i| !constrained.contains(&self.abducibles[i])).collect();
        // Where the atom stands first among the rules, and how far from a goal's rule.
        let place = |a: u8| {
            let stands = |body| graph.literals(body).any(|token| atom(token) == a);
            graph.rules.iter().position(|rule| stands(rule.body)).map_or(-1, |place| place as i64)
        };
        let goal_place =
            graph.rules.iter().position(|rule| self.goals.contains(&rule.head)).unwrap_or(0) as i64;
        let direct: Vec<usize> = {
            let near = |a: u8| {
                self.goals
                    .iter()
                    .flat_map(|&goal| graph.bodies_for(goal))
                    .flatten()
                    .any(|&token| is_literal(token) && atom(token) == a)
            };
            all.iter().copied().filter(|&i| near(self.abducibles[i])).collect()
        };
        let first =
            |set: &[usize]| f64::from(self.is_smallest(set.iter().fold(0, |s, i| s | 1 << i)));
        let mut probes = vec![
            ("the first", by(&|i| i as i64, &all)),
            ("the last", by(&|i| -(i as i64), &all)),
            ("only the first", first(&all[..1.min(all.len())])),
            ("all hypotheses", first(&all)),
            ("most frequent", by(&|i| -uses(i), &all)),
            ("least frequent", by(&uses, &all)),
            ("first by name", by(&name, &all)),
            ("outside of constraints", by(&|i| i as i64, &unbound)),
            ("all outside of constraints", first(&unbound)),
            ("in early rules", by(&|i| place(self.abducibles[i]), &all)),
            ("in late rules", by(&|i| -place(self.abducibles[i]), &all)),
            (
                "in rules beside the goal's",
                by(&|i| (place(self.abducibles[i]) - goal_place).abs(), &all),
            ),
        ];
        if !self.solved().depths.iter().any(|&least| least <= 1) {
            probes.push(("in the goals' rules", first(&direct)));
        }
        probes
    }
}

/// What one look over the rules counts.
struct Census {
    known: Lanes,
    /// Literals over each atom.
    uses: Vec<u16>,
    /// Whether it is a positive premise.
    premise: [bool; ATOMS],
    negations: usize,
    /// Atoms without a rule.
    leaves: usize,
    /// Known atoms that are a premise of a head which is a premise itself.
    leading: usize,
    /// What follows after one round forward and after two, counting only what is known as known.
    once: Lanes,
    twice: Lanes,
}

impl Census {
    fn of(puzzle: &Abduction) -> Self {
        let graph = &puzzle.graph;
        let mut census = Self {
            known: puzzle.base(),
            uses: vec![0; graph.atoms],
            premise: [false; ATOMS],
            negations: 0,
            leaves: 0,
            leading: 0,
            once: [0; ATOMS],
            twice: [0; ATOMS],
        };
        for rule in &graph.rules {
            for token in graph.literals(rule.body) {
                census.uses[atom(token) as usize] += 1;
                census.premise[atom(token) as usize] |= token < NOT;
                census.negations += usize::from(token >= NOT);
            }
        }
        census.leaves = (0..graph.atoms).filter(|&a| graph.rules_for(a as u8).is_empty()).count();
        for rule in graph.rules.iter().filter(|rule| census.premise[rule.head as usize]) {
            let known = |&token: &Token| census.known[atom(token) as usize] != 0;
            census.leading += graph.literals(rule.body).filter(known).count();
        }
        census.once = graph.round(&census.known);
        census.twice = graph.round(&census.once);
        census
    }
}
