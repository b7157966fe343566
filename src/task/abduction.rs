//! Abduction: which goals follow from known atoms by rules, searched backward from the goals.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Puzzle, Verdict};
use crate::entropy::Stream;

/// A rule graph with known atoms and goals. Atoms are letters A to Z.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abduction {
    rules: Vec<Rule>,
    known: Vec<char>,
    goals: Vec<char>,
    /// Steps that the shortest search for a goal must take.
    depth: usize,
    /// Write rules as `C<A&B` instead of `CAB`.
    #[serde(default)]
    arrows: bool,
}

/// All of `body` make `head`. Several rules for one head are alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    body: Vec<char>,
    head: char,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Rules between a goal and the atom that decides it.
    depth: [usize; 2],
    goals: usize,
    /// Rules that lead to no goal, besides one for each goal.
    distractors: [usize; 2],
    /// Share of rules with two premises.
    and_share: f64,
    /// Share of goals with a second, failing way.
    or_share: f64,
    /// Share of goals with a rule that leads back to the goal.
    cycle_share: f64,
    /// Write rules as `C<A&B` instead of `CAB`.
    arrows: bool,
}

/// Draws atoms and rules of one puzzle.
struct Builder<'a> {
    stream: &'a mut Stream,
    free: Vec<char>,
    rules: Vec<Rule>,
    known: Vec<char>,
}

impl Builder<'_> {
    fn atom(&mut self) -> Option<char> {
        self.free.pop()
    }

    fn rule(&mut self, mut body: Vec<char>, head: char) {
        self.stream.shuffle(&mut body);
        self.rules.push(Rule { body, head });
    }

    /// A rule for a fresh atom, from atoms that occur already or fresh ones, known or not.
    fn distractor(&mut self, parameters: &Parameters) -> Option<()> {
        let head = self.atom()?;
        let premises = if self.stream.chance(parameters.and_share) { 2 } else { 1 };
        let mut body: Vec<char> = Vec::new();
        while body.len() < premises {
            let atom = if self.stream.chance(0.6) {
                let rule = self.stream.below(self.rules.len());
                self.rules[rule].head
            } else {
                let fresh = self.atom()?;
                if self.stream.chance(0.5) {
                    self.known.push(fresh);
                }
                fresh
            };
            if !body.contains(&atom) {
                body.push(atom);
            }
        }
        self.rule(body, head);
        Some(())
    }

    /// A goal with its chain. Whether it can be reached hangs on the last atom only; a chain
    /// beside it ends the opposite way, so that neither counts of known atoms nor of rules tell.
    fn goal(&mut self, parameters: &Parameters) -> Option<char> {
        let depth = self.stream.between(parameters.depth[0] as i64, parameters.depth[1] as i64);
        let reachable = self.stream.chance(0.5);
        let goal = self.atom()?;
        let mut chain = vec![goal];
        for _ in 0..depth {
            let head = *chain.last()?;
            let next = self.atom()?;
            let mut body = vec![next];
            if self.stream.chance(parameters.and_share) {
                let side = self.atom()?;
                self.known.push(side);
                body.push(side);
            }
            self.rule(body, head);
            chain.push(next);
        }
        let (last, decoy, beside) = (*chain.last()?, self.atom()?, self.atom()?);
        self.known.push(if reachable { last } else { decoy });
        self.rule(vec![decoy], beside);
        if self.stream.chance(parameters.or_share) {
            let dead = self.atom()?;
            let head = chain[self.stream.below(chain.len() - 1)];
            self.rule(vec![dead], head);
        }
        if self.stream.chance(parameters.cycle_share) && chain.len() > 2 {
            let head = chain[1 + self.stream.below(chain.len() - 2)];
            self.rule(vec![goal], head);
        }
        Some(goal)
    }
}

/// What a backward search of one goal found.
struct Search {
    reached: bool,
    /// Atoms visited.
    visits: usize,
    /// Longest path walked, rules.
    depth: usize,
}

impl Abduction {
    /// The head, then the premises: `CAB` for C from A and B. A tiny model finds the premises of C
    /// by copying what stood behind C before; with an arrow between, it stayed at chance.
    fn rule_text(&self, rule: &Rule) -> String {
        let body: Vec<_> = rule.body.iter().map(char::to_string).collect();
        if self.arrows {
            format!("{}<{}", rule.head, body.join("&"))
        } else {
            format!("{}{}", rule.head, body.concat())
        }
    }

    fn rules_for(&self, head: char) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.head == head)
    }

    /// Depth-first backward search in the order of the rules, written down step by step.
    fn search(&self, atom: char, path: &mut Vec<char>, steps: &mut Vec<String>) -> Search {
        let end = |mark: char, reached: bool, steps: &mut Vec<String>, depth: usize| {
            steps.push(format!("{atom}{mark}"));
            Search { reached, visits: 1, depth }
        };
        if self.known.contains(&atom) {
            return end('!', true, steps, path.len());
        }
        if path.contains(&atom) {
            return end('@', false, steps, path.len());
        }
        if self.rules_for(atom).next().is_none() {
            return end('?', false, steps, path.len());
        }
        let mut whole = Search { reached: false, visits: 1, depth: path.len() };
        path.push(atom);
        for rule in self.rules_for(atom) {
            steps.push(self.rule_text(rule));
            let mut all = true;
            for &premise in &rule.body {
                let found = self.search(premise, path, steps);
                whole.visits += found.visits;
                whole.depth = whole.depth.max(found.depth);
                all &= found.reached;
                if !all {
                    break;
                }
            }
            if all {
                whole.reached = true;
                break;
            }
        }
        path.pop();
        whole
    }

    /// All atoms that follow, by forward chaining to the fixed point, and the premises looked at.
    fn closure(&self) -> (BTreeSet<char>, usize) {
        let mut known: BTreeSet<char> = self.known.iter().copied().collect();
        let mut looks = 0;
        loop {
            let before = known.len();
            for rule in &self.rules {
                looks += rule.body.len();
                if rule.body.iter().all(|atom| known.contains(atom)) {
                    known.insert(rule.head);
                }
            }
            if known.len() == before {
                return (known, looks);
            }
        }
    }

    fn reached(&self) -> Vec<bool> {
        let (closure, _) = self.closure();
        self.goals.iter().map(|goal| closure.contains(goal)).collect()
    }

    /// `01`, or `A=0, C=1` in any order.
    fn parse(&self, answer: &str) -> Option<Vec<bool>> {
        let value = |text: &str| match text.trim() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        };
        if !answer.contains('=') {
            let values: Option<Vec<bool>> =
                answer.chars().map(|c| value(c.encode_utf8(&mut [0; 4]))).collect();
            return values.filter(|values| values.len() == self.goals.len());
        }
        let mut named = BTreeMap::new();
        for part in answer.split(',') {
            let (name, text) = part.split_once('=')?;
            if named.insert(name.trim().to_string(), value(text)?).is_some() {
                return None;
            }
        }
        if named.len() != self.goals.len() {
            return None;
        }
        self.goals.iter().map(|goal| named.get(&goal.to_string()).copied()).collect()
    }
}

impl Puzzle for Abduction {
    type Parameters = Parameters;

    fn parameters(level: u32) -> Parameters {
        let level = level.clamp(1, 5) as usize;
        Parameters {
            depth: [level.min(3) + 1, level.min(3) + 2],
            goals: [1, 2, 2, 2, 2][level - 1],
            distractors: [level, level + 1],
            and_share: 0.25,
            or_share: 0.25,
            cycle_share: 0.05 + 0.05 * level as f64,
            arrows: false,
        }
    }

    fn draw(parameters: &Parameters, stream: &mut Stream) -> Option<Self> {
        let Parameters { depth, distractors, .. } = parameters;
        if depth[0] == 0 || depth[0] > depth[1] || distractors[0] > distractors[1] {
            return None;
        }
        let mut free: Vec<char> = ('A'..='Z').collect();
        stream.shuffle(&mut free);
        let extra = stream.between(distractors[0] as i64, distractors[1] as i64);
        let mut builder = Builder { stream, free, rules: Vec::new(), known: Vec::new() };
        let goals =
            (0..parameters.goals).map(|_| builder.goal(parameters)).collect::<Option<Vec<_>>>()?;
        for _ in 0..extra {
            builder.distractor(parameters)?;
        }
        let Builder { stream, mut rules, mut known, .. } = builder;
        stream.shuffle(&mut rules);
        stream.shuffle(&mut known);
        let puzzle = Self { rules, known, goals, depth: depth[0], arrows: parameters.arrows };
        puzzle.certify().is_ok().then_some(puzzle)
    }

    /// Forward chaining must agree with the backward search on every goal.
    fn certify(&self) -> Result<Value, String> {
        let (closure, forward) = self.closure();
        let mut backward = 0;
        let mut least = usize::MAX;
        for goal in &self.goals {
            if self.known.contains(goal) {
                return Err(format!("goal {goal} is a known atom"));
            }
            let found = self.search(*goal, &mut Vec::new(), &mut Vec::new());
            if found.reached != closure.contains(goal) {
                return Err(format!("forward and backward search disagree on {goal}"));
            }
            backward += found.visits;
            least = least.min(found.depth);
        }
        if least < self.depth {
            return Err(format!("a goal is decided after {least} steps, {} promised", self.depth));
        }
        if backward >= forward {
            return Err(format!("backward search costs {backward}, forward {forward}"));
        }
        Ok(json!({
            "method": "forward closure",
            "depth": least,
            "backward_visits": backward,
            "forward_looks": forward,
        }))
    }

    /// `CAB` for a rule (C from A and B), `A!` for a known atom: just what the search writes down,
    /// so that each of its steps can be copied from behind the atom it is about.
    fn text(&self) -> String {
        let rules: String = self.rules.iter().map(|rule| self.rule_text(rule) + ";").collect();
        let known: String = self.known.iter().map(|atom| format!("{atom}!")).collect();
        let goals: Vec<_> = self.goals.iter().map(char::to_string).collect();
        format!("A:{rules}{known}?{}", goals.join(","))
    }

    fn answer(&self) -> String {
        self.reached().into_iter().map(|reached| if reached { '1' } else { '0' }).collect()
    }

    /// The backward search of each goal: `CB` by a rule, `A!` known, `D?` without a rule, `C@`
    /// already on the path.
    fn trace(&self) -> String {
        let goals: Vec<String> = self
            .goals
            .iter()
            .map(|goal| {
                let mut steps = Vec::new();
                let found = self.search(*goal, &mut Vec::new(), &mut steps);
                format!("{}={}", steps.join(" "), u8::from(found.reached))
            })
            .collect();
        goals.join(";")
    }

    fn check(&self, answer: &str) -> Verdict {
        match self.parse(answer) {
            None => Verdict::Unparsed,
            Some(values) if values == self.reached() => Verdict::Correct,
            Some(_) => Verdict::Wrong,
        }
    }

    /// Colour refinement: atoms get colours from how they are used, in rounds; the puzzle is then
    /// written with colours for names. Equal for isomorphic puzzles; two that differ may in
    /// principle agree, which only drops one of them.
    fn canonical(&self) -> String {
        let mut colours: BTreeMap<char, u64> = BTreeMap::new();
        for rule in &self.rules {
            for atom in rule.body.iter().chain([&rule.head]) {
                let marks = [self.known.contains(atom), self.goals.contains(atom)];
                colours.insert(*atom, mix(&marks.map(u64::from)));
            }
        }
        for atom in &self.known {
            colours.entry(*atom).or_insert(mix(&[1, 0]));
        }
        let body = |colours: &BTreeMap<char, u64>, rule: &Rule| {
            let mut all: Vec<u64> = rule.body.iter().map(|atom| colours[atom]).collect();
            all.sort_unstable();
            mix(&all)
        };
        for _ in 0..6 {
            let mut next = BTreeMap::new();
            for (&atom, &colour) in &colours {
                let mut uses: Vec<u64> = Vec::new();
                for rule in &self.rules {
                    if rule.head == atom {
                        uses.push(mix(&[2, body(&colours, rule)]));
                    }
                    if rule.body.contains(&atom) {
                        uses.push(mix(&[3, colours[&rule.head], body(&colours, rule)]));
                    }
                }
                uses.sort_unstable();
                uses.push(colour);
                next.insert(atom, mix(&uses));
            }
            colours = next;
        }
        let mut all: Vec<u64> = colours.into_values().collect();
        all.sort_unstable();
        format!("{all:x?}")
    }
}

/// FNV-1a over words: a hash that stays the same for ever, since splits hang on it.
fn mix(words: &[u64]) -> u64 {
    words.iter().flat_map(|word| word.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
