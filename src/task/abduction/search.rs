//! The reference solver: goal-directed backward search, and its reasoning in writing.

use super::graph::{AND, NOT, Token, atom, is_literal};
use super::notation::Name;
use super::{Abduction, Mode};
use crate::task::Style;

/// One step of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A goal is taken up.
    Goal(u8),
    Known(u8),
    /// No rule makes it.
    Dead(u8),
    /// It stands on the way to itself.
    Circle(u8),
    /// Decided before.
    Again(u8, bool),
    /// It may be assumed.
    Hypothesis(u8),
    /// A rule is tried.
    Rule(u16),
    /// The atom above is decided.
    Close(u8, bool),
    /// The goal is decided.
    Answer(u8, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    /// On the way to what is searched, at this place.
    Open(u16),
    Proven,
    Failed,
    /// Failed because of an atom that is open, the first of them at this place.
    FailedWhile(u16),
}

/// Depth first, premises from left to right, each body no further than it takes. What is decided is
/// kept: an atom that was proven stays so; one that failed against an open atom stays failed until
/// that atom is proven. So no more than (atoms)^2 atoms are taken up in all, and where nothing is
/// shared, each once.
pub struct Search<'a> {
    puzzle: &'a Abduction,
    states: Vec<State>,
    /// Atoms in [`State::FailedWhile`], in the order in which they failed.
    pending: Vec<u8>,
    open: u16,
    steps: Vec<Step>,
    /// Atoms looked at.
    pub visits: u64,
    pub reached: Vec<bool>,
}

/// No open atom.
const NONE: u16 = u16::MAX;

impl<'a> Search<'a> {
    /// Of stratified rules; else without end steps, and no result to rely on.
    pub fn of(puzzle: &'a Abduction) -> Self {
        let mut states = vec![State::Untouched; puzzle.graph.atoms];
        puzzle.known.iter().for_each(|&a| states[a as usize] = State::Proven);
        let mut search = Self {
            puzzle,
            states,
            pending: Vec::new(),
            open: 0,
            steps: Vec::with_capacity(4 * puzzle.graph.atoms),
            visits: 0,
            reached: Vec::new(),
        };
        for &goal in &puzzle.goals {
            search.steps.push(Step::Goal(goal));
            let reached = match puzzle.mode {
                Mode::Reachability => search.visit(goal).0,
                Mode::Explanation => {
                    search.walk(goal);
                    true
                }
            };
            search.reached.push(reached);
            search.steps.push(Step::Answer(goal, reached));
        }
        search
    }

    /// Whether `a` can be reached, and the first open atom that its failing hangs on.
    fn visit(&mut self, a: u8) -> (bool, u16) {
        self.visits += 1;
        let known = |search: &Self| search.puzzle.known.contains(&a);
        match self.states[a as usize] {
            State::Proven => {
                self.steps.push(if known(self) { Step::Known(a) } else { Step::Again(a, true) });
                return (true, NONE);
            }
            State::Open(place) => {
                self.steps.push(Step::Circle(a));
                return (false, place);
            }
            State::Failed | State::FailedWhile(_) => {
                let dead = self.puzzle.graph.rules_for(a).is_empty();
                self.steps.push(if dead { Step::Dead(a) } else { Step::Again(a, false) });
                let State::FailedWhile(place) = self.states[a as usize] else {
                    return (false, NONE);
                };
                return (false, place);
            }
            State::Untouched => {}
        }
        if self.puzzle.graph.rules_for(a).is_empty() {
            self.steps.push(Step::Dead(a));
            self.states[a as usize] = State::Failed;
            return (false, NONE);
        }
        let (place, pending) = (self.open, self.pending.len());
        self.states[a as usize] = State::Open(place);
        self.open += 1;
        let (mut reached, mut hangs_on) = (false, NONE);
        for &rule in self.puzzle.graph.rules_for(a) {
            self.steps.push(Step::Rule(rule));
            let body = self.puzzle.graph.rules[rule as usize].body;
            let (holds, why) = self.body(&mut self.puzzle.graph.tokens(body).iter());
            hangs_on = hangs_on.min(why);
            if holds {
                reached = true;
                break;
            }
        }
        self.open -= 1;
        self.steps.push(Step::Close(a, reached));
        if reached {
            // What failed against `a`, or may have, is open again.
            for other in self.pending.drain(pending..) {
                self.states[other as usize] = State::Untouched;
            }
            self.states[a as usize] = State::Proven;
            return (true, NONE);
        }
        if hangs_on < place {
            // What failed because of `a` fails, like `a`, because of an atom further up.
            self.pending.push(a);
            for &other in &self.pending[pending..] {
                self.states[other as usize] = State::FailedWhile(hangs_on);
            }
            return (false, hangs_on);
        }
        for other in self.pending.drain(pending..) {
            self.states[other as usize] = State::Failed;
        }
        self.states[a as usize] = State::Failed;
        (false, NONE)
    }

    /// Decides a body no further than it takes; what is left of it is skipped.
    fn body(&mut self, rest: &mut std::slice::Iter<'_, Token>) -> (bool, u16) {
        let Some(&token) = rest.next() else { return (true, NONE) };
        if is_literal(token) {
            let (reached, hangs_on) = self.visit(atom(token));
            return (reached == (token < NOT), hangs_on);
        }
        let (first, first_on) = self.body(rest);
        if first != (token == AND) {
            skip(rest);
            return (first, first_on);
        }
        let (second, second_on) = self.body(rest);
        (second, first_on.min(second_on))
    }

    /// Every rule that bears on `a`, each atom once: for an explanation all ways count.
    fn walk(&mut self, a: u8) {
        self.visits += 1;
        let puzzle = self.puzzle;
        if puzzle.known.contains(&a) {
            return self.steps.push(Step::Known(a));
        }
        if puzzle.abducibles.contains(&a) {
            self.steps.push(Step::Hypothesis(a));
        }
        if self.states[a as usize] != State::Untouched {
            return;
        }
        self.states[a as usize] = State::Proven;
        if puzzle.graph.rules_for(a).is_empty() && !puzzle.abducibles.contains(&a) {
            self.steps.push(Step::Dead(a));
        }
        for &rule in puzzle.graph.rules_for(a) {
            self.steps.push(Step::Rule(rule));
            let body = puzzle.graph.rules[rule as usize].body;
            for token in puzzle.graph.literals(body) {
                self.walk(atom(token));
            }
        }
    }

    pub fn text(&self, style: Style) -> String {
        match (style, self.puzzle.mode) {
            (Style::Compact, Mode::Reachability) => self.compact(),
            (Style::Compact, Mode::Explanation) => self.compact() + &self.compact_sets(),
            (Style::Paper, Mode::Reachability) => self.words(),
            (Style::Paper, Mode::Explanation) => self.words() + &self.sets_in_words(),
        }
    }

    /// `CB` by a rule, `AT` known, `DF` without a rule, `C@` already on the path, `E+` proven or
    /// `E-` failed before, `F*` may be assumed; at the end of each goal `=1` or `=0`.
    fn compact(&self) -> String {
        let mut out = String::with_capacity(4 * self.steps.len());
        let mut first = true;
        for &step in &self.steps {
            if !matches!(step, Step::Goal(_) | Step::Close(..) | Step::Answer(..)) && !first {
                out.push(' ');
            }
            first = false;
            let mut mark = |a: u8, mark: char| {
                self.puzzle.names[a as usize].write_compact(&mut out);
                out.push(mark);
            };
            match step {
                Step::Known(a) => mark(a, 'T'),
                Step::Dead(a) => mark(a, 'F'),
                Step::Circle(a) => mark(a, '@'),
                Step::Again(a, reached) => mark(a, if reached { '+' } else { '-' }),
                Step::Hypothesis(a) => mark(a, '*'),
                Step::Rule(rule) => self.puzzle.write_rule_compact(rule.into(), &mut out),
                Step::Close(..) => {}
                Step::Goal(_) => {
                    if !out.is_empty() {
                        out.push(';');
                    }
                    first = true;
                }
                Step::Answer(_, reached) if self.puzzle.mode == Mode::Reachability => {
                    out.push_str(if reached { "=1" } else { "=0" });
                }
                Step::Answer(..) => {}
            }
        }
        out
    }

    /// `;X,Y#` for a set that breaks a constraint, then `=` and the first smallest one.
    fn compact_sets(&self) -> String {
        let found = &self.puzzle.solved().explanations;
        let mut out = String::new();
        for &set in &found.refused {
            out.push(';');
            out.push_str(&self.puzzle.set(set, ",", Name::write_compact));
            out.push('#');
        }
        if let Some(&set) = found.smallest.first() {
            out.push('=');
            out.push_str(&self.puzzle.set(set, ",", Name::write_compact));
        }
        out
    }

    fn words(&self) -> String {
        let mut out = String::with_capacity(40 * self.steps.len());
        let explains = self.puzzle.mode == Mode::Explanation;
        for &step in &self.steps {
            let (before, a, after) = match step {
                Step::Goal(a) if explains => ("What makes goal ", a, "?\n"),
                Step::Goal(a) => ("Assume goal ", a, ".\n"),
                Step::Known(a) => ("", a, " is known.\n"),
                Step::Dead(a) => ("", a, " is not known and no premise gives it: it fails.\n"),
                Step::Circle(a) => ("", a, " is what we are after: this way goes in a circle.\n"),
                Step::Again(a, true) => ("", a, " was shown above.\n"),
                Step::Again(a, false) => ("", a, " failed above.\n"),
                Step::Hypothesis(a) => ("", a, " may be assumed.\n"),
                Step::Rule(rule) => {
                    let rule = self.puzzle.graph.rules[rule as usize];
                    self.puzzle.names[rule.head as usize].write(&mut out);
                    out.push_str(" would follow from ");
                    self.puzzle.write_body(rule.body, &mut out);
                    out.push_str(".\n");
                    continue;
                }
                Step::Close(a, true) => ("So ", a, " holds.\n"),
                Step::Close(a, false) => ("So ", a, " fails.\n"),
                Step::Answer(..) if explains => continue,
                Step::Answer(a, true) => ("Goal ", a, " is reachable.\n"),
                Step::Answer(a, false) => ("Goal ", a, " is unreachable.\n"),
            };
            out.push_str(before);
            self.puzzle.names[a as usize].write(&mut out);
            out.push_str(after);
        }
        out
    }

    fn sets_in_words(&self) -> String {
        let found = &self.puzzle.solved().explanations;
        let mut out = String::new();
        for &set in &found.refused {
            out.push_str(&self.puzzle.set(set, " and ", Name::write));
            let why = self.puzzle.refutation(set).unwrap_or_default();
            out.push_str(&format!(": every goal follows, but this breaks {why}.\n"));
        }
        if let Some(&set) = found.smallest.first() {
            out.push_str(&self.puzzle.set(set, " and ", Name::write));
            out.push_str(": every goal follows, and this breaks no constraint; ");
            out.push_str("no smaller set does both.\n");
        }
        out
    }
}

/// Steps over one body in prefix form.
fn skip(rest: &mut std::slice::Iter<'_, Token>) {
    let mut open = 1;
    while open > 0 {
        match rest.next() {
            Some(&token) if is_literal(token) => open -= 1,
            Some(_) => open += 1,
            None => return,
        }
    }
}
