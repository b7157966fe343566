//! Deduction: propositional satisfiability of nested formulas.

mod answer;
mod canonical;
mod draw;
mod formula;
mod narrow;
mod sat;
mod search;
mod shortcuts;
mod table;

use std::cell::OnceCell;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Certificate, Fault, FaultKind, Probe, Puzzle, Style, Verdict};
use crate::entropy::Stream;
use answer::Claim;
use formula::{Formula, MAX_NODES, MAX_VARIABLES, Name, Node, Notation};
use sat::Found;

/// Formulas that a puzzle can have.
const MAX_FORMULAS: usize = 64;

/// Formulas over variables A, B, …: which assignment satisfies them all?
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Deduction {
    variables: usize,
    formulas: Vec<Formula>,
    #[serde(skip_serializing_if = "Solutions::is_one")]
    solutions: Solutions,
    /// An assignment that satisfies all formulas, once it has been looked for.
    #[serde(skip)]
    found: OnceCell<Solved>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    variables: usize,
    formulas: Vec<Formula>,
    #[serde(default)]
    solutions: Solutions,
}

/// How many assignments may satisfy a puzzle that is not unsatisfiable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solutions {
    /// Exactly one, as in the paper.
    #[default]
    One,
    Any,
}

impl Solutions {
    fn is_one(&self) -> bool {
        *self == Self::One
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// 1 to 64.
    variables: usize,
    /// Fewest and most formulas, 1 to 64.
    formulas: [usize; 2],
    /// Operators inside one another in every formula, 1 to 12.
    depth: usize,
    /// Share of puzzles without a solution.
    unsatisfiable: f64,
    /// Of the others: exactly one solution, or any number.
    solutions: Solutions,
}

/// What a search for a solution came to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Solved {
    /// The set of true variables.
    By(u64),
    Never,
    Unknown,
}

impl TryFrom<Raw> for Deduction {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { variables, formulas, solutions } = raw;
        if !(1..=MAX_VARIABLES).contains(&variables) {
            return Err(format!("{variables} variables; 1 to {MAX_VARIABLES} are possible"));
        }
        if !(1..=MAX_FORMULAS).contains(&formulas.len()) {
            return Err(format!("{} formulas; 1 to {MAX_FORMULAS} are possible", formulas.len()));
        }
        let puzzle = Self::new(variables, formulas, solutions);
        if puzzle.nodes() > MAX_NODES {
            return Err(format!("the formulas have more than {MAX_NODES} nodes"));
        }
        let odd = |f: &Formula| f.variables() & !puzzle.all() != 0;
        match puzzle.formulas.iter().find(|formula| odd(formula)) {
            Some(formula) => Err(format!("`{formula}` is over more than {variables} variables")),
            None => Ok(puzzle),
        }
    }
}

impl Deduction {
    fn new(variables: usize, formulas: Vec<Formula>, solutions: Solutions) -> Self {
        Self { variables, formulas, solutions, found: OnceCell::new() }
    }

    /// The set of all variables.
    fn all(&self) -> u64 {
        u64::MAX >> (64 - self.variables)
    }

    /// The set of variables that some formula names.
    fn named(&self) -> u64 {
        self.formulas.iter().fold(0, |set, formula| set | formula.variables())
    }

    fn nodes(&self) -> usize {
        self.formulas.iter().map(|formula| formula.0.len()).sum()
    }

    fn tabled(&self) -> bool {
        table::tabled(self.variables, self.nodes())
    }

    /// The first formula, from 0, that is false under `assignment`.
    fn broken(&self, assignment: u64) -> Option<usize> {
        self.formulas.iter().position(|formula| !formula.value(assignment))
    }

    /// A solution: the first in the order of `A…` = `00…0`, `0…01`, …, or the solver's.
    fn solved(&self) -> Solved {
        *self.found.get_or_init(|| {
            if self.tabled() {
                let (_, [first, _]) = table::solutions(self.variables, &self.formulas, 1);
                return first.map_or(Solved::Never, Solved::By);
            }
            match sat::Search::new(self.variables, &self.formulas).next() {
                Found::Model(assignment) => Solved::By(assignment),
                Found::Nothing => Solved::Never,
                Found::GaveUp => Solved::Unknown,
            }
        })
    }

    /// The values as `010`, A first.
    fn bits(&self, assignment: u64) -> String {
        (0..self.variables).map(|v| if assignment >> v & 1 == 1 { '1' } else { '0' }).collect()
    }

    /// Counts the solutions, as far as the promise needs it, and the method's cost with them.
    fn count(&self) -> Result<(usize, [Option<u64>; 2], serde_json::Value), Fault> {
        if self.tabled() {
            let limit = if self.solutions.is_one() { 2 } else { usize::MAX };
            let (count, two) = table::solutions(self.variables, &self.formulas, limit);
            let assignments = 1u64 << self.variables;
            let proof = json!({
                "method": "truth table", "assignments": assignments, "solutions": count,
            });
            return Ok((count, two, proof));
        }
        let mut search = sat::Search::new(self.variables, &self.formulas);
        let mut two = [None; 2];
        let mut count = 0;
        // One after the other; a second solve with the first model excluded settles uniqueness.
        while count < 2 {
            match search.next() {
                Found::Model(assignment) => {
                    two[count] = Some(assignment);
                    search.exclude(assignment);
                    count += 1;
                }
                Found::Nothing => break,
                Found::GaveUp => {
                    return Err(Fault::new(
                        FaultKind::Unproven,
                        format!("the solver gave up after {} conflicts", search.conflicts()),
                    ));
                }
            }
        }
        let proof = json!({
            "method": "sat", "solver": "batsat", "conflicts": search.conflicts(),
            "solutions": count, "at_least": count == 2,
        });
        Ok((count, two, proof))
    }

    /// The variables whose value stands in a formula of its own: `A`, `~B`, `~~C`.
    fn stated(&self) -> u64 {
        self.formulas.iter().fold(0, |set, formula| match formula.0.split_last() {
            Some((Node::Variable(v), rest)) if rest.iter().all(|n| *n == Node::Not) => set | 1 << v,
            _ => set,
        })
    }
}

impl Puzzle for Deduction {
    type Parameters = Parameters;

    fn parameters(level: u32) -> Parameters {
        let level = level.clamp(1, 5) as usize;
        Parameters {
            variables: 2 + 2 * level,
            formulas: [3, 6],
            depth: level,
            unsatisfiable: 0.1,
            solutions: Solutions::One,
        }
    }

    fn validate(parameters: &Parameters) -> Result<(), String> {
        let Parameters { variables, formulas: [fewest, most], depth, unsatisfiable, .. } =
            *parameters;
        if !(1..=MAX_VARIABLES).contains(&variables) {
            return Err(format!("`variables` is {variables}; it must be in 1..={MAX_VARIABLES}"));
        }
        if !(1 <= fewest && fewest <= most && most <= MAX_FORMULAS) {
            return Err(format!(
                "`formulas` is [{fewest}, {most}]; it must be fewest and most, in 1..={MAX_FORMULAS}"
            ));
        }
        if !(1..=12).contains(&depth) {
            return Err(format!("`depth` is {depth}; it must be in 1..=12"));
        }
        if !(0.0..=1.0).contains(&unsatisfiable) {
            return Err(format!("`unsatisfiable` is {unsatisfiable}; it must be a share, 0 to 1"));
        }
        Ok(())
    }

    fn source(parameters: &Parameters) -> impl FnMut(&mut Stream) -> Option<Self> {
        draw::source(parameters)
    }

    fn certify(&self) -> Result<Certificate, Fault> {
        let named = self.named();
        if named != self.all() {
            let name = Name((!named).trailing_zeros() as usize);
            return Err(Fault::new(FaultKind::Malformed, format!("no formula mentions {name}")));
        }
        if self.stated() == self.all() {
            let what = "every variable's value stands in a formula of its own";
            return Err(Fault::new(FaultKind::Leak, what));
        }
        let (count, two, proof) = self.count()?;
        let kind = match (count, two) {
            (0, _) => "unsatisfiable",
            (1, _) => "unique",
            (_, [Some(a), Some(b)]) if self.solutions.is_one() => {
                let (a, b) = (self.bits(a), self.bits(b));
                let what = format!("both {a} and {b} satisfy the formulas");
                return Err(Fault::new(FaultKind::Ambiguous, what));
            }
            _ => "satisfiable",
        };
        // What the table or the solver found is evaluated once more, formula by formula.
        for assignment in two.into_iter().flatten() {
            if let Some(formula) = self.broken(assignment) {
                let what = format!("{} fails formula {}", self.bits(assignment), formula + 1);
                return Err(Fault::new(FaultKind::Unproven, what));
            }
        }
        let _ = self.found.set(two[0].map_or(Solved::Never, Solved::By));
        Ok(Certificate {
            kind,
            size: self.formulas.iter().map(Formula::literals).sum::<usize>() as u32,
            depth: self.formulas.iter().map(Formula::depth).max().unwrap_or(0) as u32,
            nodes: search::nodes(self),
            proof,
        })
    }

    fn text(&self, style: Style) -> String {
        let mut out = String::with_capacity(64 + 8 * self.nodes());
        if style == Style::Paper {
            out += "Below are some nested formulas:\n";
        }
        for (i, formula) in self.formulas.iter().enumerate() {
            let (before, notation, after) = match style {
                Style::Compact if i == 0 => ("D:", Notation::Compact, ""),
                Style::Compact => (";", Notation::Compact, ""),
                Style::Paper => ("  - ", Notation::Paper, "\n"),
            };
            out += before;
            let _ = formula.write(notation, &mut out);
            out += after;
        }
        match (style, self.solutions) {
            (Style::Compact, Solutions::One) => {}
            (Style::Compact, Solutions::Any) => out += "?",
            (Style::Paper, Solutions::One) => {
                out += "Please list the truth value of each variable\n";
            }
            (Style::Paper, Solutions::Any) => {
                out += "Please list a truth value of each variable; any that satisfy all formulas \
                        will do\n";
            }
        }
        out
    }

    fn instruction(&self) -> &'static str {
        "You solve puzzles in propositional logic. Find truth values of the variables that make \
         every formula true. First reason inside <think> and </think>: assume a value, follow what \
         the formulas make of it, and take the assumption back when a formula becomes false. Then \
         give every variable's value on a line of its own inside <answer> and </answer>, in order \
         of their names, for example:\n<answer>\n(1) A is true\n(2) B is false\n</answer>\nIf no \
         truth values make every formula true, the answer is:\n<answer>unsatisfiable</answer>"
    }

    fn read(text: &str) -> Result<Self, String> {
        answer::read(text)
    }

    fn answer(&self, style: Style) -> String {
        match (self.solved(), style) {
            (Solved::Unknown, _) => String::new(),
            (Solved::Never, Style::Compact) => "none".into(),
            (Solved::Never, Style::Paper) => "unsatisfiable".into(),
            (Solved::By(assignment), Style::Compact) => self.bits(assignment),
            (Solved::By(assignment), Style::Paper) => {
                let mut out = String::with_capacity(16 * self.variables);
                for v in 0..self.variables {
                    let value = if assignment >> v & 1 == 1 { "True" } else { "False" };
                    let end = if v + 1 < self.variables { "\n" } else { "" };
                    let _ = write!(out, "({}) {} is {value}{end}", v + 1, Name(v));
                }
                out
            }
        }
    }

    fn trace(&self, style: Style) -> String {
        match style {
            Style::Compact => search::enumeration(self),
            Style::Paper => search::prose(self),
        }
    }

    fn check(&self, answer: &str) -> Verdict {
        let wrong = |what: String| Verdict::Wrong(what);
        match answer::claim(answer, self.variables) {
            None => Verdict::Unparsed,
            Some(Claim::Values(assignment)) => match self.broken(assignment) {
                None => Verdict::Correct,
                Some(formula) => wrong(format!("formula {}", formula + 1)),
            },
            Some(Claim::Unsatisfiable) => match self.solved() {
                Solved::Never => Verdict::Correct,
                Solved::By(_) => wrong("satisfiable".into()),
                Solved::Unknown => wrong("not proven".into()),
            },
        }
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        canonical::write(self, out);
    }

    fn renamed(&self, stream: &mut Stream) -> Option<Self> {
        let mut names: Vec<u8> = (0..self.variables as u8).collect();
        stream.shuffle(&mut names);
        let mut formulas = self.formulas.clone();
        for node in formulas.iter_mut().flat_map(|formula| &mut formula.0) {
            if let Node::Variable(v) = node {
                *v = names[usize::from(*v)];
            }
        }
        stream.shuffle(&mut formulas);
        Some(Self::new(self.variables, formulas, self.solutions))
    }

    fn blind(&self) -> Vec<Probe> {
        shortcuts::blind(self)
    }

    /// None for up to 3 variables: there the tightest of k formulas leaves at most
    /// 2^n - (2^n - 1)/k assignments, so a guess that satisfies it must beat chance, and trying out
    /// the few assignments is the reasoning that such puzzles ask for.
    fn shortcuts(&self) -> Vec<Probe> {
        if self.variables <= 3 { Vec::new() } else { shortcuts::all(self) }
    }
}

#[cfg(test)]
mod tests;
