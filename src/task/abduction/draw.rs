//! Draws puzzles whose answers show nowhere but at the end of their chains.
//!
//! Each goal has a chain of rules down to an end, and a decoy beside it, drawn alike, that leads to
//! no goal. One of the two ends is known, by a coin that is tossed when all rules stand. So nothing
//! that can be counted or seen near a goal or near a known atom says which one it is; only the way
//! from the goal to its end does. In explanation the chains end at the abducible atoms, in an order
//! that is shuffled after everything else.

use super::graph::{AND, ATOMS, Graph, NOT, OR, Rule, Token};
use super::notation::Name;
use super::{Abduction, Mode, Parameters};
use crate::entropy::Stream;

/// Rules of a decoy at least, where its goal's chain is no shorter: with fewer, a look three rules
/// ahead from the known atoms would tell it from the chain.
const DECOY: usize = 3;

/// Distractors beside the decoys, where that many are asked for: what makes small puzzles differ.
const SINGLE: usize = 4;

/// Names of one letter.
const LETTERS: usize = 24;

/// Atoms in chains and decoys up to which a puzzle should do with letters.
const SMALL: usize = 16;

struct Builder<'a> {
    parameters: &'a Parameters,
    stream: Dice<'a>,
    graph: Graph,
    known: Vec<u8>,
}

/// A body of a few literals.
struct Draft {
    tokens: [Token; 8],
    length: usize,
}

impl Draft {
    fn of(literal: Token) -> Self {
        let mut tokens = [0; 8];
        tokens[0] = literal;
        Self { tokens, length: 1 }
    }

    /// Puts `operator` over what is there and a literal, before or behind it.
    fn join(&mut self, operator: Token, literal: Token, before: bool) {
        let shift = if before { 2 } else { 1 };
        self.tokens.copy_within(0..self.length, shift);
        self.tokens[0] = operator;
        self.tokens[if before { 1 } else { self.length + 1 }] = literal;
        self.length += 2;
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens[..self.length]
    }
}

/// Random numbers by a few bits each: a puzzle takes hundreds, and most are coins.
struct Dice<'a> {
    stream: &'a mut Stream,
    pool: u64,
    left: u32,
}

impl<'a> Dice<'a> {
    fn new(stream: &'a mut Stream) -> Self {
        Self { stream, pool: 0, left: 0 }
    }

    fn bits(&mut self, count: u32) -> u64 {
        if self.left < count {
            self.pool = self.stream.next_u64();
            self.left = 64;
        }
        let bits = self.pool & ((1 << count) - 1);
        self.pool >>= count;
        self.left -= count;
        bits
    }

    /// To 1 / 65,536.
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && (self.bits(16) as f64) < probability * 65_536.0
    }

    /// Uniform in 0..n, `n` > 0, with a bias below n / 2^32.
    fn below(&mut self, n: usize) -> usize {
        ((self.bits(32) * n as u64) >> 32) as usize
    }

    /// Uniform in low..=high.
    fn between(&mut self, [low, high]: [usize; 2]) -> usize {
        low + self.below(high - low + 1)
    }

    /// Fisher-Yates.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

impl Builder<'_> {
    fn atom(&mut self) -> Option<u8> {
        let atom = self.graph.atoms;
        self.graph.atoms += 1;
        (atom < ATOMS).then_some(atom as u8)
    }

    fn rule(&mut self, head: u8, body: &[Token]) -> Option<()> {
        let body = self.graph.add_body(body)?;
        self.graph.rules.push(Rule { head, body });
        Some(())
    }

    /// A literal over a fresh atom, decided at once: it holds, or it fails.
    fn side(&mut self, holds: bool) -> Option<Token> {
        let negated = self.stream.chance(self.parameters.negation_share);
        let fresh = self.atom()?;
        if holds != negated {
            self.known.push(fresh);
        }
        Some(Token::from(fresh) | if negated { NOT } else { 0 })
    }

    /// `head` from `literal`, which decides it, and sides that do not.
    fn link(&mut self, head: u8, literal: Token) -> Option<()> {
        let shape = if self.stream.chance(self.parameters.nested_share) {
            1 + self.stream.below(3)
        } else if self.stream.chance(self.parameters.and_share) {
            4
        } else {
            0
        };
        // x OR f; (x OR f) AND t; (x AND t) OR f; x AND t.
        let operators: &[Token] = [&[][..], &[OR], &[OR, AND], &[AND, OR], &[AND]][shape];
        let mut body = Draft::of(literal);
        for &operator in operators {
            let side = self.side(operator == AND)?;
            body.join(operator, side, self.stream.chance(0.5));
        }
        self.rule(head, body.tokens())
    }

    /// Which of `length` links in a row are negated, from the top down. When `even`, so many that
    /// the first atom holds like the last.
    fn negations(&mut self, length: usize, even: bool) -> Vec<bool> {
        let mut negated: Vec<bool> =
            (0..length).map(|_| self.stream.chance(self.parameters.negation_share)).collect();
        if even && negated.iter().filter(|&&negated| negated).count() % 2 == 1 {
            let place = self.stream.below(length);
            negated[place] = !negated[place];
        }
        negated
    }

    /// Rules down from `top`, one for each of `negated`; the last atom.
    fn chain(&mut self, top: u8, negated: &[bool]) -> Option<u8> {
        let length = negated.len();
        let mut atoms = Vec::with_capacity(length + 1);
        atoms.push(top);
        for &negated in negated {
            let (head, next) = (*atoms.last()?, self.atom()?);
            self.link(head, Token::from(next) | if negated { NOT } else { 0 })?;
            atoms.push(next);
        }
        if self.stream.chance(self.parameters.or_share) && length > 0 {
            let dead = self.atom()?;
            let head = atoms[self.stream.below(length)];
            self.rule(head, &[dead.into()])?;
        }
        if self.stream.chance(self.parameters.cycle_share) && length > 1 {
            // Back to the first atom that nothing but rules without a negation lies before.
            let place = 1 + self.stream.below(length - 1);
            let first = (0..place).rev().take_while(|&i| !negated[i]).last();
            if let Some(first) = first {
                self.rule(atoms[place], &[atoms[first].into()])?;
            }
        }
        atoms.last().copied()
    }

    /// A rule for a fresh atom, from heads of other rules or fresh atoms, known or not.
    fn distractor(&mut self) -> Option<()> {
        let head = self.atom()?;
        let shape = if self.stream.chance(self.parameters.nested_share) {
            Some(OR)
        } else {
            self.stream.chance(self.parameters.and_share).then_some(AND)
        };
        let first = self.premise()?;
        let mut body = Draft::of(first);
        if let Some(operator) = shape {
            let mut second = self.premise()?;
            if second & !NOT == first & !NOT {
                let holds = self.stream.chance(0.5);
                second = self.side(holds)?;
            }
            body.join(operator, second, self.stream.chance(0.5));
        }
        self.rule(head, body.tokens())
    }

    fn premise(&mut self) -> Option<Token> {
        if !self.stream.chance(0.6) {
            let holds = self.stream.chance(0.5);
            return self.side(holds);
        }
        let negated = self.stream.chance(self.parameters.negation_share);
        let head = self.graph.rules[self.stream.below(self.graph.rules.len())].head;
        Some(Token::from(head) | if negated { NOT } else { 0 })
    }

    /// Goals, each with its chain and its decoy.
    fn reachability(&mut self) -> Option<Vec<u8>> {
        let Parameters { goals: count, depth, decoys, distractors, .. } = *self.parameters;
        let mut goals = Vec::new();
        let mut ends = Vec::new();
        let extra = self.stream.between(distractors);
        let mut rest = extra + if decoys { count } else { 0 };
        for left in (1..=count).rev() {
            let (goal, length) = (self.atom()?, self.stream.between(depth));
            let negated = self.negations(length, false);
            let chain = self.chain(goal, &negated)?;
            goals.push(goal);
            if !decoys {
                ends.push([Some(chain), None]);
                continue;
            }
            let decoy_length = length.min(DECOY.max(rest.saturating_sub(SINGLE) / left));
            rest = rest.saturating_sub(decoy_length);
            let top = self.atom()?;
            // Negated where the chain is, counted from the end: or else the number of atoms that
            // follow in a round or two would tell which end is known.
            let decoy = self.chain(top, &negated[length - decoy_length..])?;
            ends.push([Some(chain), Some(decoy)]);
        }
        for _ in 0..rest.max(extra.min(SINGLE)) {
            self.distractor()?;
        }
        for ends in ends {
            self.known.extend(ends[self.stream.below(2)]);
        }
        Some(goals)
    }

    /// Goals, and the atoms that may be assumed: each the end of a chain of its own. A goal follows
    /// from the tops of a few chains together, in two or three ways; a decoy atom, drawn alike,
    /// stands beside each goal. Constraints forbid pairs of hypotheses, some of them a way's.
    fn explanation(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let Parameters { goals: count, depth, abducibles, distractors, .. } = *self.parameters;
        let (mut tops, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..self.stream.between(abducibles) {
            let (top, length) = (self.atom()?, self.stream.between(depth) - 1);
            tops.push(top);
            let negated = self.negations(length, true);
            ends.push(self.chain(top, &negated)?);
        }
        let mut goals = Vec::new();
        let mut pairs: Vec<[usize; 2]> = Vec::new();
        for i in 0..2 * count {
            let (head, ways) = (self.atom()?, self.ways(tops.len()));
            let joined = ways.len() > 1 && self.stream.chance(self.parameters.nested_share);
            let mut bodies: Vec<Vec<Token>> =
                ways.iter().map(|way| conjunction(way, &tops)).collect();
            if joined {
                let first = bodies.pop()?;
                bodies[0].splice(0..0, [OR]);
                bodies[0].extend(first);
            }
            for body in bodies {
                self.rule(head, &body)?;
            }
            if i % 2 == 0 {
                goals.push(head);
            }
            if self.stream.chance(0.5) {
                pairs.push([ways[0][0], ways[0][1]]);
            }
        }
        for _ in 0..self.stream.between([0, tops.len() / 3]) {
            let mut places: Vec<usize> = (0..tops.len()).collect();
            self.stream.shuffle(&mut places);
            pairs.push([places[0], places[1]]);
        }
        pairs.iter_mut().for_each(|pair| pair.sort_unstable());
        pairs.sort_unstable();
        pairs.dedup();
        for pair in pairs {
            let body = self.graph.add_body(&conjunction(&pair, &ends))?;
            self.graph.constraints.push(body);
        }
        for _ in 0..self.stream.between(distractors) {
            self.distractor()?;
        }
        Some((goals, ends))
    }

    /// Two or three sets of two or three places each.
    fn ways(&mut self, places: usize) -> Vec<Vec<usize>> {
        let count = self.stream.between([2, 3]);
        (0..count)
            .map(|_| {
                let mut all: Vec<usize> = (0..places).collect();
                self.stream.shuffle(&mut all);
                all.truncate(self.stream.between([2, 3]));
                all
            })
            .collect()
    }
}

fn conjunction(places: &[usize], atoms: &[u8]) -> Vec<Token> {
    let mut body = vec![AND; places.len() - 1];
    body.extend(places.iter().map(|&place| Token::from(atoms[place])));
    body
}

impl Abduction {
    pub(super) fn drawn(parameters: &Parameters, stream: &mut Stream) -> Option<Self> {
        let (graph, known) = (Graph::default(), Vec::new());
        let stream = Dice::new(stream);
        let mut builder = Builder { parameters, stream, graph, known };
        let (goals, mut abducibles) = match parameters.mode {
            Mode::Reachability => (builder.reachability()?, Vec::new()),
            Mode::Explanation => builder.explanation()?,
        };
        let Builder { mut stream, mut graph, mut known, .. } = builder;
        // Where most puzzles do with letters all do: the quickstart's small model reads nothing else.
        let bare = 2 * parameters.goals * (parameters.depth[1] + 1);
        if bare <= SMALL && graph.atoms > LETTERS {
            return None;
        }
        stream.shuffle(&mut graph.rules);
        stream.shuffle(&mut graph.constraints);
        stream.shuffle(&mut known);
        stream.shuffle(&mut abducibles);
        graph.index();
        let names = names(graph.atoms, &mut stream);
        let depth = parameters.depth[0] as u32;
        let mode = parameters.mode;
        Some(Self {
            mode,
            graph,
            names,
            known,
            goals,
            abducibles,
            depth,
            solved: Default::default(),
        })
    }

    pub(super) fn under_other_names(&self, stream: &mut Stream) -> Self {
        let mut stream = Dice::new(stream);
        let mut other = Self { solved: Default::default(), ..self.clone() };
        other.names = names(self.graph.atoms, &mut stream);
        stream.shuffle(&mut other.graph.rules);
        stream.shuffle(&mut other.graph.constraints);
        for list in [&mut other.known, &mut other.goals, &mut other.abducibles] {
            stream.shuffle(list);
        }
        other.graph.index();
        other
    }
}

/// Letters while they suffice, without F and T, which stand for false and true in the compact style;
/// beyond, pairs of letters too.
fn names(count: usize, stream: &mut Dice<'_>) -> Vec<Name> {
    let mut names: Vec<Name> =
        (b'A'..=b'Z').filter(|c| !b"FT".contains(c)).filter_map(|c| Name::ascii(&[c])).collect();
    let mut taken = [[false; 26]; 26];
    // `OR` is a word of the notation, the others would read oddly in sentences.
    for [a, b] in [b"OR", b"IS", b"SO", b"NO", b"IF"] {
        taken[(a - b'A') as usize][(b - b'A') as usize] = true;
    }
    while names.len() < count {
        let pair = stream.below(26 * 26);
        let [a, b] = [pair / 26, pair % 26];
        if !std::mem::replace(&mut taken[a][b], true) {
            names.extend(Name::ascii(&[a, b].map(|letter| b'A' + letter as u8)));
        }
    }
    stream.shuffle(&mut names);
    names.truncate(count);
    names
}
