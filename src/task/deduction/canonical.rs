//! One form for all puzzles that differ in the names of variables, the order of formulas and the
//! order of operands of ∧ ∨ ↔ ⊕ only.

use super::formula::{MAX_DEPTH, Node, Operator};
use super::{Deduction, Solutions};

/// Numberings that are tried before symmetry is given up on. Only puzzles made for it, with dozens
/// of interchangeable groups of variables, come near.
const PATIENCE: usize = 10_000;
/// Nodes that refinement visits before symmetry is given up on: some tenths of a second. Without it
/// a long puzzle could take minutes of its numberings.
const WORK: usize = 1 << 26;

/// Appends the form: the formulas' texts under some numbering of the variables, sorted.
pub fn write(puzzle: &Deduction, out: &mut Vec<u8>) {
    let mut search = Search::new(puzzle);
    if puzzle.variables <= 3 {
        // At most six numberings: the smallest text of them all.
        let mut names: Vec<u8> = (0..puzzle.variables as u8).collect();
        permute(&mut names, 0, &mut |names| {
            search.leaf(names);
        });
    } else {
        search.explore(vec![0; puzzle.variables]);
    }
    out.append(&mut search.best);
    if puzzle.solutions == Solutions::Any {
        out.push(b'?');
    }
}

/// Visits every permutation of `items[from..]`.
fn permute(items: &mut [u8], from: usize, visit: &mut impl FnMut(&[u8])) {
    if from + 1 >= items.len() {
        return visit(items);
    }
    for i in from..items.len() {
        items.swap(from, i);
        permute(items, from + 1, visit);
        items.swap(from, i);
    }
}

/// Colour refinement, and individualisation where it leaves variables alike (McKay, Practical Graph
/// Isomorphism, 1981). Colours are hashes that do not depend on names or order. Where two hashes
/// collide variables stay alike that need not, which costs time and nothing else.
struct Search<'a> {
    puzzle: &'a Deduction,
    /// The nodes of all formulas, one after the other, and where the second operand of each binary
    /// operator begins.
    nodes: Vec<Node>,
    right: Vec<u32>,
    roots: Vec<usize>,
    /// The set of variables in the formulas.
    named: u64,
    best: Vec<u8>,
    /// Numberings and nodes that are left to try and to visit.
    left: usize,
    work: usize,
    /// Scratch: hashes of what stands below and above each node.
    up: Vec<u64>,
    down: Vec<u64>,
}

fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ b
}

impl<'a> Search<'a> {
    fn new(puzzle: &'a Deduction) -> Self {
        let size = puzzle.nodes();
        let (mut nodes, mut right) = (Vec::with_capacity(size), vec![0; size]);
        let mut roots = Vec::with_capacity(puzzle.formulas.len());
        for formula in &puzzle.formulas {
            roots.push(nodes.len());
            nodes.extend_from_slice(&formula.0);
        }
        let mut stack = [0; MAX_DEPTH + 2];
        let mut top = 0;
        for (i, node) in nodes.iter().enumerate().rev() {
            match node {
                Node::Variable(_) => top += 1,
                Node::Not => {}
                Node::Binary(_) => {
                    top -= 1;
                    right[i] = stack[top - 1];
                }
            }
            stack[top - 1] = i as u32;
            // Above a root nothing stands: the next formula starts anew.
            if roots.binary_search(&i).is_ok() {
                top = 0;
            }
        }
        let (up, down) = (vec![0; size], vec![0; size]);
        let named = puzzle.named();
        let (best, left, work) = (Vec::new(), PATIENCE, WORK);
        Self { puzzle, nodes, right, roots, named, best, left, work, up, down }
    }

    /// A variable's new colour says where in which formulas it stands beside what colours.
    fn round(&mut self, colours: &mut [u64]) {
        let Self { nodes, right, roots, up, down, .. } = self;
        for (i, node) in nodes.iter().enumerate().rev() {
            up[i] = match node {
                Node::Variable(v) => mix(colours[usize::from(*v)], 2),
                Node::Not => mix(up[i + 1], 3),
                Node::Binary(op) => {
                    let (a, b) = (up[i + 1], up[right[i] as usize]);
                    if *op == Operator::Implies {
                        mix(mix(a, 4), b)
                    } else {
                        mix(a.wrapping_add(b), mix(a ^ b, 5 + *op as u64))
                    }
                }
            };
        }
        colours.iter_mut().for_each(|colour| *colour = mix(*colour, 1));
        roots.iter().for_each(|&root| down[root] = up[root]);
        for (i, node) in nodes.iter().enumerate() {
            match node {
                Node::Variable(v) => {
                    let colour = &mut colours[usize::from(*v)];
                    *colour = colour.wrapping_add(mix(down[i], 10));
                }
                Node::Not => down[i + 1] = mix(down[i], 11),
                Node::Binary(op) => {
                    let (a, b) = (i + 1, right[i] as usize);
                    let side = u64::from(*op == Operator::Implies);
                    let here = mix(down[i], 12 + *op as u64);
                    down[a] = mix(here, up[b]);
                    down[b] = mix(here.wrapping_add(side), up[a]);
                }
            }
        }
    }

    /// Refines until no more colours come apart. The variables in order of colour.
    fn refine(&mut self, colours: &mut [u64]) -> Vec<u8> {
        let mut order: Vec<u8> = (0..colours.len() as u8).collect();
        let mut apart = 0;
        loop {
            self.work = self.work.saturating_sub(self.nodes.len() + colours.len());
            self.round(colours);
            order.sort_by_key(|&v| colours[usize::from(v)]);
            let differ =
                |pair: &[u8]| colours[usize::from(pair[0])] != colours[usize::from(pair[1])];
            let now = 1 + order.windows(2).filter(|pair| differ(pair)).count();
            if now == apart || now == colours.len() {
                return order;
            }
            apart = now;
        }
    }

    /// The variables of the smallest set of more than one that are alike; empty when none are.
    /// Those that no formula names are all alike.
    fn cell(&self, order: &[u8], colours: &[u64]) -> Vec<u8> {
        let alike = |a: &u8, b: &u8| colours[usize::from(*a)] == colours[usize::from(*b)];
        let open = |cell: &&[u8]| cell.len() > 1 && self.named >> cell[0] & 1 == 1;
        let cells = order.chunk_by(alike).filter(open);
        cells.min_by_key(|cell| cell.len()).map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn single_out(colours: &[u64], v: u8) -> Vec<u64> {
        let mut colours = colours.to_vec();
        colours[usize::from(v)] = mix(colours[usize::from(v)], 20);
        colours
    }

    /// The first form on the way down, without looking left or right.
    fn path(&mut self, mut colours: Vec<u64>) -> Vec<u8> {
        loop {
            let order = self.refine(&mut colours);
            match self.cell(&order, &colours).first() {
                Some(&v) => colours = Self::single_out(&colours, v),
                None => return self.numbered(&order),
            }
        }
    }

    fn numbered(&mut self, order: &[u8]) -> Vec<u8> {
        let mut names = vec![0; order.len()];
        (0..).zip(order).for_each(|(name, v)| names[usize::from(*v)] = name);
        self.leaf(&names)
    }

    /// Tries every numbering that refinement leaves possible, but no two that a symmetry of the
    /// puzzle maps on each other: then their first forms are equal. Returns the first form.
    fn explore(&mut self, mut colours: Vec<u64>) -> Vec<u8> {
        let order = self.refine(&mut colours);
        let cell = self.cell(&order, &colours);
        if cell.is_empty() {
            return self.numbered(&order);
        }
        let mut firsts: Vec<Vec<u8>> = Vec::new();
        for v in cell {
            let child = Self::single_out(&colours, v);
            let spent = self.left == 0 || self.work == 0;
            if !firsts.is_empty() && (spent || firsts.contains(&self.path(child.clone()))) {
                continue;
            }
            firsts.push(self.explore(child));
        }
        firsts.swap_remove(0)
    }

    /// The form under a numbering, kept when it is the smallest so far.
    fn leaf(&mut self, names: &[u8]) -> Vec<u8> {
        self.left = self.left.saturating_sub(1);
        let mut all = Vec::with_capacity(4 * self.puzzle.nodes());
        let mut ends = Vec::with_capacity(self.puzzle.formulas.len());
        for formula in &self.puzzle.formulas {
            let start = all.len();
            encode(&mut formula.0.iter(), names, &mut all);
            ends.push((start, all.len()));
        }
        ends.sort_by(|a, b| all[a.0..a.1].cmp(&all[b.0..b.1]));
        let mut form = Vec::with_capacity(all.len() + ends.len());
        for (i, (start, end)) in ends.into_iter().enumerate() {
            if i > 0 {
                form.push(b';');
            }
            form.extend_from_slice(&all[start..end]);
        }
        if self.best.is_empty() || form < self.best {
            self.best.clone_from(&form);
        }
        form
    }
}

/// Appends a formula's text under a numbering: `(0>1)`, `(1^~2)`, operands in order where the
/// operator does not care.
fn encode(nodes: &mut std::slice::Iter<Node>, names: &[u8], out: &mut Vec<u8>) {
    match nodes.next() {
        Some(Node::Variable(v)) => {
            let name = names[usize::from(*v)];
            if name > 9 {
                out.push(b'0' + name / 10);
            }
            out.push(b'0' + name % 10);
        }
        Some(Node::Not) => {
            out.push(b'~');
            encode(nodes, names, out);
        }
        Some(Node::Binary(op)) => {
            out.push(b'(');
            let start = out.len();
            encode(nodes, names, out);
            let mut middle = out.len();
            encode(nodes, names, out);
            if *op != Operator::Implies && out[middle..] < out[start..middle] {
                out[start..].rotate_left(middle - start);
                middle = start + out.len() - middle;
            }
            out.insert(middle, op.symbol() as u8);
            out.push(b')');
        }
        None => {}
    }
}
