//! Truth tables, 64 assignments to the word.
//!
//! Assignments are counted as binary numbers with variable 0 as the highest bit, so that the text
//! `011` and the number 3 are the same; as a set of true variables bit v stands for variable v.

use super::formula::{Formula, Node, eval};

/// More variables are left to the SAT solver.
pub const MAX_TABLED: usize = 20;
/// Words times nodes that a proof by truth table may take: 50 ms or so.
const MAX_WORK: usize = 1 << 26;
/// Words evaluated at a time.
pub const BLOCK: usize = 8;

const PATTERNS: [u64; 6] = [
    0xAAAA_AAAA_AAAA_AAAA,
    0xCCCC_CCCC_CCCC_CCCC,
    0xF0F0_F0F0_F0F0_F0F0,
    0xFF00_FF00_FF00_FF00,
    0xFFFF_0000_FFFF_0000,
    0xFFFF_FFFF_0000_0000,
];

/// Whether truth tables are the way for formulas of so many nodes.
pub fn tabled(variables: usize, nodes: usize) -> bool {
    variables <= MAX_TABLED && nodes << variables.saturating_sub(6) <= MAX_WORK
}

/// Words of a truth table.
pub fn words(variables: usize) -> usize {
    1 << variables.saturating_sub(6)
}

/// The bits of the last word that stand for assignments.
pub fn live(variables: usize) -> u64 {
    if variables < 6 { (1 << (1 << variables)) - 1 } else { u64::MAX }
}

/// The set of true variables of the assignment with this number.
pub fn assignment(variables: usize, number: usize) -> u64 {
    (number as u64).reverse_bits() >> (64 - variables)
}

/// Word `word` of the truth table of variable `v`.
pub fn column(variables: usize, v: usize, word: usize) -> u64 {
    match variables - 1 - v {
        bit @ 0..6 => PATTERNS[bit],
        bit => 0u64.wrapping_sub((word >> (bit - 6) & 1) as u64),
    }
}

/// Words `first..first + B` of a formula's truth table, bits past its end cleared.
pub fn truth<const B: usize>(nodes: &[Node], variables: usize, first: usize) -> [u64; B] {
    let mut words = eval(nodes, |v| std::array::from_fn(|i| column(variables, v, first + i)));
    if variables < 6 {
        words[0] &= live(variables);
    }
    let end = self::words(variables) - first;
    words.iter_mut().skip(end).for_each(|word| *word = 0);
    words
}

/// How many assignments stand in a truth table.
pub fn ones(table: &[u64]) -> usize {
    table.iter().map(|word| word.count_ones() as usize).sum()
}

/// Whether no assignment stands in both truth tables.
pub fn disjoint(a: &[u64], b: &[u64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a & b == 0)
}

/// How many assignments satisfy all formulas, and the first two of them; counts no further than
/// `limit`.
pub fn solutions(
    variables: usize,
    formulas: &[Formula],
    limit: usize,
) -> (usize, [Option<u64>; 2]) {
    if variables <= 6 {
        return solve::<1>(variables, formulas, limit);
    }
    solve::<BLOCK>(variables, formulas, limit)
}

fn solve<const B: usize>(
    variables: usize,
    formulas: &[Formula],
    limit: usize,
) -> (usize, [Option<u64>; 2]) {
    let (mut count, mut found) = (0, [None; 2]);
    for first in (0..words(variables)).step_by(B) {
        let mut all = [u64::MAX; B];
        for formula in formulas {
            let truth = truth::<B>(&formula.0, variables, first);
            all.iter_mut().zip(truth).for_each(|(all, word)| *all &= word);
            if all == [0; B] {
                break;
            }
        }
        for (i, mut word) in all.into_iter().enumerate() {
            while word != 0 && count < 2 {
                let number = 64 * (first + i) + word.trailing_zeros() as usize;
                found[count] = Some(assignment(variables, number));
                count += 1;
                word &= word - 1;
            }
            count += word.count_ones() as usize;
        }
        if count >= limit {
            break;
        }
    }
    (count.min(limit), found)
}
