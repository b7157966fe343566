//! Deduction: propositional satisfiability of nested formulas.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Puzzle, Verdict};
use crate::entropy::Stream;

/// Formulas over variables A, B, …; exactly one assignment satisfies them, or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deduction {
    variables: usize,
    formulas: Vec<Formula>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// 2 to 16.
    variables: usize,
    /// Fewest and most formulas.
    formulas: [usize; 2],
    /// Nesting depth of operators, at most.
    depth: usize,
    /// Share of puzzles without a solution.
    unsatisfiable: f64,
}

/// `~ & | > = ^` for not, and, or, implies, iff, xor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Formula {
    Variable(usize),
    Not(Box<Formula>),
    Binary(Operator, Box<Formula>, Box<Formula>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operator {
    And,
    Or,
    Implies,
    Iff,
    Xor,
}

impl Operator {
    const ALL: [Self; 5] = [Self::And, Self::Or, Self::Implies, Self::Iff, Self::Xor];

    fn symbol(self) -> char {
        match self {
            Self::And => '&',
            Self::Or => '|',
            Self::Implies => '>',
            Self::Iff => '=',
            Self::Xor => '^',
        }
    }

    fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Implies => !a | b,
            Self::Iff => !(a ^ b),
            Self::Xor => a ^ b,
        }
    }
}

impl Formula {
    /// The truth values of 64 assignments: those numbered 64 * word ... 64 * word + 63. Bit
    /// (variables - 1 - v) of an assignment's number is the value of variable v.
    fn word(&self, variables: usize, word: usize) -> u64 {
        const PATTERNS: [u64; 6] = [
            0xAAAA_AAAA_AAAA_AAAA,
            0xCCCC_CCCC_CCCC_CCCC,
            0xF0F0_F0F0_F0F0_F0F0,
            0xFF00_FF00_FF00_FF00,
            0xFFFF_0000_FFFF_0000,
            0xFFFF_FFFF_0000_0000,
        ];
        match self {
            Self::Variable(v) => match variables - 1 - v {
                bit @ 0..6 => PATTERNS[bit],
                bit => {
                    if word >> (bit - 6) & 1 == 1 {
                        u64::MAX
                    } else {
                        0
                    }
                }
            },
            Self::Not(inner) => !inner.word(variables, word),
            Self::Binary(op, a, b) => op.apply(a.word(variables, word), b.word(variables, word)),
        }
    }

    fn mentions(&self, variable: usize) -> bool {
        match self {
            Self::Variable(v) => *v == variable,
            Self::Not(inner) => inner.mentions(variable),
            Self::Binary(_, a, b) => a.mentions(variable) || b.mentions(variable),
        }
    }

    fn value(&self, assignment: &[bool]) -> bool {
        match self {
            Self::Variable(v) => assignment[*v],
            Self::Not(inner) => !inner.value(assignment),
            Self::Binary(op, a, b) => {
                let (a, b) = (u64::from(a.value(assignment)), u64::from(b.value(assignment)));
                op.apply(a, b) & 1 == 1
            }
        }
    }

    /// The formula with each literal's value written behind it: `~C^A` under A = 1, C = 0 is
    /// `~C1^A1`.
    fn valued(&self, assignment: &[bool]) -> String {
        let value = || u8::from(self.value(assignment));
        let operand = |formula: &Self| match formula {
            Self::Binary(..) => format!("({})", formula.valued(assignment)),
            plain => plain.valued(assignment),
        };
        match self {
            Self::Variable(_) => format!("{self}{}", value()),
            Self::Not(inner) => match **inner {
                Self::Variable(_) => format!("{self}{}", value()),
                _ => format!("~{}", operand(inner)),
            },
            Self::Binary(op, a, b) => format!("{}{}{}", operand(a), op.symbol(), operand(b)),
        }
    }

    /// Text under a renaming of the variables, operands of commutative operators in order.
    fn canonical(&self, names: &[usize]) -> String {
        match self {
            Self::Variable(v) => names[*v].to_string(),
            Self::Not(inner) => format!("~{}", inner.canonical(names)),
            Self::Binary(op, a, b) => {
                let (a, b) = (a.canonical(names), b.canonical(names));
                let (a, b) = if *op == Operator::Implies || a <= b { (a, b) } else { (b, a) };
                format!("({a}{}{b})", op.symbol())
            }
        }
    }

    fn leaf(variables: usize, stream: &mut Stream) -> Self {
        let variable = Self::Variable(stream.below(variables));
        if stream.chance(0.4) { Self::Not(Box::new(variable)) } else { variable }
    }

    /// The paper's distribution: 20% negations, else one of the five binary operators.
    fn draw(depth: usize, variables: usize, stream: &mut Stream) -> Self {
        if depth == 0 {
            return Self::leaf(variables, stream);
        }
        if depth > 1 && stream.chance(0.2) {
            return Self::Not(Box::new(Self::draw(depth - 1, variables, stream)));
        }
        let op = *stream.choose(&Operator::ALL);
        let deep = Self::draw(depth - 1, variables, stream);
        let other = Self::draw(stream.below(depth), variables, stream);
        let (a, b) = if stream.chance(0.5) { (deep, other) } else { (other, deep) };
        Self::Binary(op, Box::new(a), Box::new(b))
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// An operand: in parentheses when it is binary.
        struct Operand<'a>(&'a Formula);
        impl fmt::Display for Operand<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Formula::Binary(..) => write!(f, "({})", self.0),
                    plain => plain.fmt(f),
                }
            }
        }
        match self {
            Self::Variable(v) => write!(f, "{}", (b'A' + *v as u8) as char),
            Self::Not(inner) => write!(f, "~{}", Operand(inner)),
            Self::Binary(op, a, b) => write!(f, "{}{}{}", Operand(a), op.symbol(), Operand(b)),
        }
    }
}

impl From<Formula> for String {
    fn from(formula: Formula) -> Self {
        formula.to_string()
    }
}

impl TryFrom<String> for Formula {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut rest = text.as_str();
        let formula = parse(&mut rest).filter(|_| rest.is_empty());
        formula.ok_or_else(|| format!("`{text}` is no formula"))
    }
}

/// operand, or operand operator operand.
fn parse(rest: &mut &str) -> Option<Formula> {
    let first = operand(rest)?;
    let Some(op) = Operator::ALL.into_iter().find(|op| rest.starts_with(op.symbol())) else {
        return Some(first);
    };
    *rest = &rest[1..];
    Some(Formula::Binary(op, Box::new(first), Box::new(operand(rest)?)))
}

fn operand(rest: &mut &str) -> Option<Formula> {
    let first = rest.chars().next()?;
    *rest = &rest[first.len_utf8()..];
    match first {
        '~' => Some(Formula::Not(Box::new(operand(rest)?))),
        '(' => {
            let inner = parse(rest)?;
            *rest = rest.strip_prefix(')')?;
            Some(inner)
        }
        'A'..='Z' => Some(Formula::Variable((first as u8 - b'A') as usize)),
        _ => None,
    }
}

impl Deduction {
    /// The satisfying assignments' numbers, ascending, at most `limit` of them.
    fn solutions(&self, limit: usize) -> Vec<usize> {
        let total = 1usize << self.variables;
        let mut found = Vec::new();
        for word in 0..total.div_ceil(64) {
            let mut bits = self
                .formulas
                .iter()
                .fold(u64::MAX, |all, formula| all & formula.word(self.variables, word));
            if total < 64 {
                bits &= (1 << total) - 1;
            }
            while bits != 0 && found.len() < limit {
                found.push(64 * word + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        found
    }

    /// Assignment number as text: the value of A first.
    fn bits(&self, number: usize) -> String {
        (0..self.variables)
            .rev()
            .map(|bit| if number >> bit & 1 == 1 { '1' } else { '0' })
            .collect()
    }

    fn assignment(&self, number: usize) -> Vec<bool> {
        (0..self.variables).rev().map(|bit| number >> bit & 1 == 1).collect()
    }

    /// `010`, or `A=0, B=1, C=0` in any order.
    fn parse_assignment(&self, answer: &str) -> Option<Vec<bool>> {
        if !answer.contains('=') {
            let bits: Option<Vec<bool>> = answer
                .chars()
                .map(|c| match c {
                    '0' => Some(false),
                    '1' => Some(true),
                    _ => None,
                })
                .collect();
            return bits.filter(|bits| bits.len() == self.variables);
        }
        let mut values = vec![None; self.variables];
        for part in answer.split(',') {
            let (name, value) = part.split_once('=')?;
            let letter = name.trim().bytes().next().filter(|_| name.trim().len() == 1)?;
            let slot = values.get_mut(letter.checked_sub(b'A')? as usize)?;
            let value = match value.trim() {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        values.into_iter().collect()
    }
}

impl Puzzle for Deduction {
    type Parameters = Parameters;

    fn parameters(level: u32) -> Parameters {
        let level = level.clamp(1, 5) as usize;
        Parameters { variables: 2 + 2 * level, formulas: [3, 6], depth: level, unsatisfiable: 0.1 }
    }

    fn draw(parameters: &Parameters, stream: &mut Stream) -> Option<Self> {
        let Parameters { variables, formulas: [fewest, most], depth, .. } = *parameters;
        if !(1..=16).contains(&variables) || fewest > most {
            return None;
        }
        let wanted = if stream.chance(parameters.unsatisfiable) { 0 } else { 1 };
        for _ in 0..400 {
            let count = stream.between(fewest as i64, most as i64) as usize;
            let formulas =
                (0..count).map(|_| Formula::draw(depth, variables, stream)).collect::<Vec<_>>();
            let puzzle = Self { variables, formulas };
            let named =
                (0..variables).all(|v| puzzle.formulas.iter().any(|formula| formula.mentions(v)));
            if named && puzzle.solutions(2).len() == wanted {
                return Some(puzzle);
            }
        }
        None
    }

    /// Counts all solutions by truth tables, then evaluates the one found formula by formula.
    fn certify(&self) -> Result<Value, String> {
        if !(1..=16).contains(&self.variables) {
            return Err(format!("{} variables, 1 to 16 can be certified", self.variables));
        }
        let solutions = self.solutions(2);
        if solutions.len() > 1 {
            return Err("more than one assignment satisfies the formulas".into());
        }
        for &number in &solutions {
            let assignment = self.assignment(number);
            if !self.formulas.iter().all(|formula| formula.value(&assignment)) {
                return Err(format!("assignment {} fails on evaluation", self.bits(number)));
            }
        }
        Ok(json!({
            "method": "truth table",
            "assignments": 1usize << self.variables,
            "solutions": solutions.len(),
        }))
    }

    fn text(&self) -> String {
        let formulas: Vec<_> = self.formulas.iter().map(Formula::to_string).collect();
        format!("D:{}", formulas.join(";"))
    }

    fn answer(&self) -> String {
        self.solutions(1).first().map_or_else(|| "none".into(), |&number| self.bits(number))
    }

    /// Assignments in order, each with the formulas valued under it up to the first false one.
    fn trace(&self) -> String {
        let last = self.solutions(1).first().map_or((1 << self.variables) - 1, |&number| number);
        let tried: Vec<String> = (0..=last)
            .map(|number| {
                let assignment = self.assignment(number);
                let mut line: String = (0..self.variables)
                    .map(|v| format!("{}{}", Formula::Variable(v), u8::from(assignment[v])))
                    .collect();
                line.push(':');
                for (i, formula) in self.formulas.iter().enumerate() {
                    let value = formula.value(&assignment);
                    let comma = if i > 0 { "," } else { "" };
                    line += &format!("{comma}{}={}", formula.valued(&assignment), u8::from(value));
                    if !value {
                        break;
                    }
                }
                line
            })
            .collect();
        tried.join(" ")
    }

    /// Any satisfying assignment is right; "none" is right when no assignment satisfies.
    fn check(&self, answer: &str) -> Verdict {
        let right = if matches!(answer, "none" | "unsat" | "unsatisfiable") {
            self.solutions(1).is_empty()
        } else {
            let Some(assignment) = self.parse_assignment(answer) else { return Verdict::Unparsed };
            self.formulas.iter().all(|formula| formula.value(&assignment))
        };
        if right { Verdict::Correct } else { Verdict::Wrong }
    }

    /// The smallest text over all renamings, for up to 6 variables; beyond, over the renaming that
    /// orders variables by how often they occur, which can miss an isomorphic pair.
    fn canonical(&self) -> String {
        let text = |names: &[usize]| {
            let mut formulas: Vec<_> =
                self.formulas.iter().map(|formula| formula.canonical(names)).collect();
            formulas.sort();
            formulas.join(";")
        };
        if self.variables > 6 {
            let mut order: Vec<usize> = (0..self.variables).collect();
            let uses = |v: usize| self.formulas.iter().filter(|f| f.mentions(v)).count();
            order.sort_by_key(|&v| uses(v));
            let mut names = vec![0; self.variables];
            for (name, v) in order.into_iter().enumerate() {
                names[v] = name;
            }
            return text(&names);
        }
        let mut names: Vec<usize> = (0..self.variables).collect();
        let mut best = text(&names);
        permute(&mut names, 0, &mut |names| {
            let candidate = text(names);
            if candidate < best {
                best = candidate;
            }
        });
        best
    }
}

/// Visits every permutation of `items[from..]`.
fn permute(items: &mut [usize], from: usize, visit: &mut impl FnMut(&[usize])) {
    if from + 1 >= items.len() {
        visit(items);
        return;
    }
    for i in from..items.len() {
        items.swap(from, i);
        permute(items, from + 1, visit);
        items.swap(from, i);
    }
}
