//! The exact canonical form: colours from how atoms are used, and a try of every order where colours
//! leave a choice that matters.
//!
//! Two puzzles have the same bytes if and only if one becomes the other by renaming atoms and by
//! reordering rules, constraints, lists and operands; `A AND (B AND C)` is no other body than
//! `(A AND B) AND C`, nor is `A AND A` another than `A`, and a rule may stand twice.

use super::Abduction;
use super::graph::{AND, ATOMS, Token, atom, is_literal};

/// Orders that are written out at most. Puzzles that need more are as regular as graphs made to
/// defeat this algorithm; those get the least form among the orders that were tried.
const ORDERS: u32 = 2000;
/// No parent: the top of a body.
const TOP: u16 = u16::MAX;

/// A literal or an operator of any number of operands, none of them of the same operator and none
/// twice.
#[derive(Debug, Clone, Copy)]
struct Node {
    token: Token,
    /// The operator that it stands under; its rule's other nodes lie behind it.
    parent: u16,
}

/// A rule or, without a head, a constraint.
#[derive(Debug, Clone, Copy)]
struct Tree {
    head: Option<u8>,
    start: u16,
    end: u16,
}

impl Tree {
    fn places(&self) -> std::ops::Range<usize> {
        self.start.into()..self.end.into()
    }
}

pub struct Form {
    atoms: usize,
    /// What else is said of each atom: known, abducible, how often a goal.
    marks: Vec<u64>,
    used: Vec<bool>,
    nodes: Vec<Node>,
    /// By the levels of their heads; those without a head come first.
    trees: Vec<Tree>,
    /// How far each atom is from the goals and from the atoms that are no premise.
    levels: [u8; ATOMS],
}

/// Scratch space of the refinement.
struct Values {
    nodes: Vec<u64>,
    contexts: Vec<u64>,
    uses: Vec<u64>,
    /// The atoms in the order of their colours.
    order: Vec<(u64, u8)>,
}

impl Form {
    pub fn new(puzzle: &Abduction) -> Self {
        let atoms = puzzle.graph.atoms;
        let mut form = Self {
            atoms,
            marks: vec![0; atoms],
            used: vec![false; atoms],
            nodes: Vec::with_capacity(4 * puzzle.graph.rules.len()),
            trees: Vec::with_capacity(puzzle.graph.rules.len()),
            levels: [255; ATOMS],
        };
        for &a in &puzzle.known {
            form.marks[a as usize] |= 1;
        }
        for &a in &puzzle.abducibles {
            form.marks[a as usize] |= 2;
        }
        for &a in &puzzle.goals {
            form.marks[a as usize] += 4;
        }
        let rules = puzzle.graph.rules.iter().map(|rule| (Some(rule.head), rule.body));
        let constraints = puzzle.graph.constraints.iter().map(|&body| (None, body));
        for (head, body) in rules.chain(constraints) {
            let tokens = puzzle.graph.tokens(body);
            let start = form.nodes.len();
            form.flatten(&mut tokens.iter(), TOP, 0);
            if repeats(&form.nodes[start..]) {
                form.nodes.truncate(start);
                let (_, simple) = simplify(&mut tokens.iter());
                form.flatten(&mut simple.iter(), TOP, 0);
            }
            let literals = form.nodes[start..].iter().filter(|node| is_literal(node.token));
            for a in literals.map(|node| atom(node.token)).chain(head) {
                form.used[a as usize] = true;
            }
            form.trees.push(Tree { head, start: start as u16, end: form.nodes.len() as u16 });
        }
        if form.may_have_copies() {
            form.drop_copies();
        }
        let mut tops = vec![true; atoms];
        let literals = form.nodes.iter().filter(|node| is_literal(node.token));
        literals.for_each(|node| tops[atom(node.token) as usize] = false);
        puzzle.goals.iter().for_each(|&goal| tops[goal as usize] = true);
        let tops = (0..atoms).filter(|&a| tops[a]).map(|a| a as u8);
        form.levels = puzzle.graph.cone(tops).distance;
        form.trees.sort_unstable_by_key(|tree| tree.head.map(|head| form.levels[head as usize]));
        form
    }

    /// Adds the nodes of the body that comes next. Operands of an operator inside the same operator
    /// stand under the outer one.
    fn flatten(&mut self, rest: &mut std::slice::Iter<'_, Token>, parent: u16, outer: Token) {
        let Some(&token) = rest.next() else { return };
        let mut place = parent;
        if is_literal(token) || token != outer {
            place = self.nodes.len() as u16;
            self.nodes.push(Node { token, parent });
        }
        if !is_literal(token) {
            self.flatten(rest, place, token);
            self.flatten(rest, place, token);
        }
    }

    /// Whether some rules look alike at a glance. Most puzzles have none that do.
    fn may_have_copies(&self) -> bool {
        let mut seen = [0u64; ATOMS];
        self.trees.iter().any(|tree| {
            // Of a single literal the literal, of others the number of nodes.
            let nodes = &self.nodes[tree.places()];
            let look = if let [node] = nodes { 1 << (node.token % 63) } else { 1 << 63 };
            let seen = &mut seen[tree.head.map_or(0, usize::from)];
            let before = *seen;
            *seen |= look;
            *seen == before
        })
    }

    /// Keeps one of rules that say the same.
    fn drop_copies(&mut self) {
        let numbers: Vec<u64> = (0..self.atoms as u64).collect();
        let mut values = self.values();
        self.trees.iter().for_each(|tree| self.evaluate(tree, &numbers, &mut values));
        let name = |tree: &Tree| (tree.head, values.nodes[tree.start as usize]);
        self.trees.sort_unstable_by_key(name);
        self.trees.dedup_by_key(|tree| name(tree));
    }

    fn values(&self) -> Values {
        let (nodes, atoms) = (self.nodes.len(), self.atoms);
        Values {
            nodes: vec![0; nodes],
            contexts: vec![0; nodes],
            uses: vec![0; atoms],
            order: Vec::new(),
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let mut colours: Vec<u64> = self.marks.iter().map(|&mark| mix(mark, 5)).collect();
        let mut values = self.values();
        self.sweep(&mut colours, &mut values);
        let mut orders = ORDERS;
        out.extend(self.least(colours, &mut values, &mut orders));
    }

    /// The least form over all orders that agree with the colours.
    fn least(&self, mut colours: Vec<u64>, values: &mut Values, orders: &mut u32) -> Vec<u8> {
        let Some(cell) = self.refine(&mut colours, values) else {
            *orders = orders.saturating_sub(1);
            return self.bytes(&colours, values);
        };
        let mut best: Option<Vec<u8>> = None;
        let mut firsts: Vec<Vec<u8>> = Vec::new();
        for &a in &cell {
            if *orders == 0 && best.is_some() {
                break;
            }
            let mut single = colours.clone();
            single[a as usize] = mix(single[a as usize], 7);
            // Where the first order found from here reads like one from another atom of the cell,
            // a symmetry takes one to the other: there is nothing new to be found.
            let first = self.first(single.clone(), values, orders);
            if firsts.contains(&first) {
                continue;
            }
            firsts.push(first);
            let found = self.least(single, values, orders);
            if best.as_ref().is_none_or(|best| found < *best) {
                best = Some(found);
            }
        }
        best.unwrap_or_default()
    }

    /// The form of the first order that agrees with the colours.
    fn first(&self, mut colours: Vec<u64>, values: &mut Values, orders: &mut u32) -> Vec<u8> {
        while let Some(cell) = self.refine(&mut colours, values) {
            if let Some(&a) = cell.first() {
                colours[a as usize] = mix(colours[a as usize], 7);
            }
        }
        *orders = orders.saturating_sub(1);
        self.bytes(&colours, values)
    }

    /// Refines until the number of colours stands. Where that leaves a choice between atoms that
    /// matters, returns the smallest such choice.
    fn refine(&self, colours: &mut [u64], values: &mut Values) -> Option<Vec<u8>> {
        let mut count = 0;
        loop {
            values.order.clear();
            values.order.extend((0..self.atoms).map(|a| (colours[a], a as u8)));
            values.order.sort_unstable();
            let next = values.order.chunk_by(|a, b| a.0 == b.0).count();
            if next == self.atoms {
                return None;
            }
            if next == count {
                break;
            }
            count = next;
            self.round(colours, values);
        }
        // Atoms that stand in no rule are all alike.
        let open = |cell: &&[(u64, u8)]| cell.len() > 1 && self.used[cell[0].1 as usize];
        let cells = || values.order.chunk_by(|a, b| a.0 == b.0).filter(open);
        if self.is_forest(cells().flatten().map(|&(_, a)| a)) {
            return None;
        }
        let cell = cells().min_by_key(|cell| cell.len())?;
        Some(cell.iter().map(|&(_, a)| a).collect())
    }

    /// Whether the rules and those of their atoms that share a colour hang together without a
    /// cycle. Colour refinement tells a forest from every other graph (Immerman and Lander 1990),
    /// so no order among such atoms matters.
    fn is_forest(&self, shared: impl Iterator<Item = u8>) -> bool {
        // Union-find over the atoms (numbers below) and the rules.
        let mut above: Vec<u16> = (0..(self.atoms + self.trees.len()) as u16).collect();
        let mut is_shared = vec![false; self.atoms];
        shared.for_each(|a| is_shared[a as usize] = true);
        fn top(above: &mut [u16], mut x: u16) -> u16 {
            while above[x as usize] != x {
                above[x as usize] = above[above[x as usize] as usize];
                x = above[x as usize];
            }
            x
        }
        self.trees.iter().enumerate().all(|(number, tree)| {
            let nodes = &self.nodes[tree.places()];
            let literals = nodes.iter().filter(|node| is_literal(node.token));
            literals.map(|node| atom(node.token)).chain(tree.head).all(|a| {
                if !is_shared[a as usize] {
                    return true;
                }
                let a = top(&mut above, a.into());
                let rule = top(&mut above, (self.atoms + number) as u16);
                above[a as usize] = rule;
                a != rule
            })
        })
    }

    fn round(&self, colours: &mut [u64], values: &mut Values) {
        values.uses.fill(0);
        for tree in &self.trees {
            self.evaluate(tree, colours, values);
            self.give_up(tree, values);
            self.give_down(tree, colours, values);
        }
        for (colour, uses) in colours.iter_mut().zip(&values.uses) {
            *colour = mix(*colour, *uses);
        }
    }

    /// From the farthest level to the nearest, then back: what a round takes one rule away, this
    /// takes all along a chain. After it, most puzzles need a round or two. Atoms of one level change together, so that no order shows.
    fn sweep(&self, colours: &mut [u64], values: &mut Values) {
        values.uses.fill(0);
        let level = |tree: &Tree| tree.head.map(|head| self.levels[head as usize]);
        for trees in self.trees.chunk_by(|a, b| level(a) == level(b)).rev() {
            for tree in trees {
                self.evaluate(tree, colours, values);
                self.give_up(tree, values);
            }
            for head in trees.iter().filter_map(|tree| tree.head) {
                self.take(head, colours, values);
            }
        }
        for trees in self.trees.chunk_by(|a, b| level(a) == level(b)) {
            for head in trees.iter().filter_map(|tree| tree.head) {
                self.take(head, colours, values);
            }
            for tree in trees {
                self.give_down(tree, colours, values);
            }
        }
        (0..self.atoms).for_each(|a| self.take(a as u8, colours, values));
    }

    fn take(&self, a: u8, colours: &mut [u64], values: &mut Values) {
        let uses = std::mem::take(&mut values.uses[a as usize]);
        if uses != 0 {
            colours[a as usize] = mix(colours[a as usize], uses);
        }
    }

    /// Lets the head know of the body.
    fn give_up(&self, tree: &Tree, values: &mut Values) {
        if let Some(head) = tree.head {
            let uses = &mut values.uses[head as usize];
            *uses = uses.wrapping_add(mix(values.nodes[tree.start as usize], 17));
        }
    }

    /// Lets the literals know of the head and of what stands beside them.
    fn give_down(&self, tree: &Tree, colours: &[u64], values: &mut Values) {
        let top = tree.head.map_or(11, |head| mix(colours[head as usize], 13));
        for place in tree.places() {
            let Node { token, parent } = self.nodes[place];
            let above = if parent == TOP { top } else { values.contexts[parent as usize] };
            if is_literal(token) {
                let uses = &mut values.uses[atom(token) as usize];
                *uses = uses.wrapping_add(mix(above, u64::from(token >> 8) + 19));
            } else {
                values.contexts[place] = mix(mix(above, token.into()), values.nodes[place]);
            }
        }
    }

    /// Hashes of a body's nodes from the colours of their atoms, whatever the order of operands.
    fn evaluate(&self, tree: &Tree, colours: &[u64], values: &mut Values) {
        values.nodes[tree.places()].fill(0);
        for place in tree.places().rev() {
            let Node { token, parent } = self.nodes[place];
            let value = if is_literal(token) {
                mix(colours[atom(token) as usize], u64::from(token >> 8) + 23)
            } else {
                mix(values.nodes[place], token.into())
            };
            values.nodes[place] = value;
            if parent != TOP {
                let sum = &mut values.nodes[parent as usize];
                *sum = sum.wrapping_add(mix(value, 29));
            }
        }
    }

    /// The whole puzzle with ranks for names, in the order of the colours.
    fn bytes(&self, colours: &[u64], values: &mut Values) -> Vec<u8> {
        self.trees.iter().for_each(|tree| self.evaluate(tree, colours, values));
        // Atoms of one colour have one rank.
        let mut ranks = vec![0u8; self.atoms];
        let mut last = 0;
        let mut out = Vec::with_capacity(8 * self.trees.len() + 4 * self.atoms);
        out.extend((self.atoms as u16).to_le_bytes());
        for (place, &(colour, a)) in values.order.iter().enumerate() {
            if place == 0 || values.order[place - 1].0 != colour {
                last = place as u8;
            }
            ranks[a as usize] = last;
            out.push(last);
            out.extend((self.marks[a as usize] as u16).to_le_bytes());
        }
        let mut trees: Vec<(Option<u8>, u64, &Tree)> = self
            .trees
            .iter()
            .map(|tree| {
                (
                    tree.head.map(|head| ranks[head as usize]),
                    values.nodes[tree.start as usize],
                    tree,
                )
            })
            .collect();
        trees.sort_unstable_by_key(|&(head, value, _)| (head, value));
        let mut stack = Vec::new();
        for (head, _, tree) in trees {
            match head {
                Some(rank) => out.extend([1, rank]),
                None => out.push(0),
            }
            self.body(tree.places(), &ranks, &values.nodes, &mut stack, &mut out);
        }
        out
    }

    /// The body at the first of `places`, operands in the order of their hashes.
    fn body(
        &self,
        places: std::ops::Range<usize>,
        ranks: &[u8],
        values: &[u64],
        stack: &mut Vec<usize>,
        out: &mut Vec<u8>,
    ) {
        let place = places.start;
        let token = self.nodes[place].token;
        if is_literal(token) {
            out.extend([2 + (token >> 8) as u8, ranks[atom(token) as usize]]);
            return;
        }
        let start = stack.len();
        stack.extend((place + 1..places.end).filter(|&i| self.nodes[i].parent == place as u16));
        stack[start..].sort_unstable_by_key(|&i| values[i]);
        out.push(if token == AND { 4 } else { 5 });
        out.extend(((stack.len() - start) as u16).to_le_bytes());
        for i in start..stack.len() {
            self.body(stack[i]..places.end, ranks, values, stack, out);
        }
        stack.truncate(start);
    }
}

/// Whether an atom stands twice in a body.
fn repeats(nodes: &[Node]) -> bool {
    let literals = || nodes.iter().filter(|node| is_literal(node.token));
    let mut seen = [0u64; 4];
    literals().any(|node| {
        let a = atom(node.token);
        let (word, bit) = (&mut seen[usize::from(a >> 6)], 1 << (a & 63));
        let twice = *word & bit != 0;
        *word |= bit;
        twice
    })
}

/// The body that comes next with each operand of an operator once, and a hash of what it says.
fn simplify(rest: &mut std::slice::Iter<'_, Token>) -> (u64, Vec<Token>) {
    let Some(&token) = rest.next() else { return (0, Vec::new()) };
    if is_literal(token) {
        return (mix(1, token.into()), vec![token]);
    }
    let mut operands = Vec::new();
    collect(token, rest, &mut operands);
    operands.sort();
    operands.dedup();
    let sum = operands.iter().fold(0u64, |sum, (one, _)| sum.wrapping_add(mix(3, *one)));
    let name = if operands.len() > 1 { mix(sum, token.into()) } else { operands[0].0 };
    let mut tokens = vec![token; operands.len() - 1];
    tokens.extend(operands.into_iter().flat_map(|(_, tokens)| tokens));
    (name, tokens)
}

/// Both operands of an operator, simplified; one of the same operator gives its own.
fn collect(
    operator: Token,
    rest: &mut std::slice::Iter<'_, Token>,
    out: &mut Vec<(u64, Vec<Token>)>,
) {
    for _ in 0..2 {
        let (name, tokens) = simplify(rest);
        if tokens.first() == Some(&operator) {
            collect(operator, &mut tokens[1..].iter(), out);
        } else {
            out.push((name, tokens));
        }
    }
}

/// Mixes two words. Splits hang on it, so it stays the same for ever.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from(b ^ 0xBF58_476D_1CE4_E5B9);
    (product >> 64) as u64 ^ product as u64
}
