//! Abduction: from rules and goals back to what must hold. Which goals are reachable from known
//! atoms, or which hypotheses explain the goals.
//!
//! Negation is negation as failure over stratified rules: `NOT A` holds when A cannot be reached
//! (the perfect model). Rules that are not stratified have no certificate; their answers are judged
//! by the well-founded model, in which a goal that is undefined counts as unreachable.
//!
//! An explanation is a set of abducible atoms from which all goals follow and no constraint is
//! broken. Right is every one that is smallest by number. Smallest by inclusion would be a weaker
//! test, and with negation it is not even kept by leaving hypotheses out one at a time.

mod answer;
mod canonical;
mod draw;
mod graph;
mod notation;
mod panel;
mod search;
mod solve;

use std::cell::OnceCell;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};

use super::{Certificate, Fault, Probe, Puzzle, Style, Verdict};
use crate::entropy::Stream;
use graph::{ATOMS, Graph};
use notation::{Name, Reader};
use search::Search;
use solve::{ABDUCIBLES, Solved};

/// A rule graph with known atoms and goals.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Json")]
pub struct Abduction {
    mode: Mode,
    graph: Graph,
    names: Vec<Name>,
    known: Vec<u8>,
    goals: Vec<u8>,
    /// Atoms that may be assumed, in explanation.
    abducibles: Vec<u8>,
    /// Rules that a solver must look away from each goal: the least that is promised.
    depth: u32,
    solved: OnceCell<Solved>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Which goals are reachable.
    #[default]
    Reachability,
    /// Which hypotheses explain all goals.
    Explanation,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    mode: Mode,
    /// Rules between a goal and the atom that decides it.
    depth: [usize; 2],
    goals: usize,
    /// Beside each goal's chain one that is drawn alike and leads to no goal. Without, shortcuts
    /// tell the answer: that is for exercises, in reachability only.
    decoys: bool,
    /// Rules that lead to no goal, besides one for each goal with a decoy. There are more where the
    /// decoys need more.
    distractors: [usize; 2],
    /// Share of rules with two premises, both needed.
    and_share: f64,
    /// Share of chains with a second, failing way.
    or_share: f64,
    /// Share of chains with a rule that leads back.
    cycle_share: f64,
    /// Share of rules with a nested body that has an OR.
    nested_share: f64,
    /// Share of negated premises.
    negation_share: f64,
    /// Atoms that may be assumed, in explanation.
    abducibles: [usize; 2],
}

/// The form that datasets store: rules and constraints as the paper writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(default)]
    mode: Mode,
    rules: Vec<String>,
    known: Vec<String>,
    goals: Vec<String>,
    #[serde(default)]
    abducibles: Vec<String>,
    #[serde(default)]
    constraints: Vec<String>,
    #[serde(default)]
    depth: u32,
}

impl TryFrom<Json> for Abduction {
    type Error = String;

    fn try_from(json: Json) -> Result<Self, String> {
        let mut reader = Reader::default();
        for (i, rule) in json.rules.iter().enumerate() {
            reader.rule(rule).map_err(|what| format!("rule {}: {what}", i + 1))?;
        }
        for (i, constraint) in json.constraints.iter().enumerate() {
            reader
                .constraint(constraint)
                .map_err(|what| format!("constraint {}: {what}", i + 1))?;
        }
        let mut lists = [json.known, json.goals, json.abducibles].into_iter().map(|names| {
            let mut list = Vec::new();
            names.iter().try_for_each(|name| reader.listed(name, &mut list))?;
            Ok::<_, String>(list)
        });
        let mut list = || lists.next().unwrap_or(Ok(Vec::new()));
        let (known, goals, abducibles) = (list()?, list()?, list()?);
        reader.finish(json.mode, known, goals, abducibles, json.depth)
    }
}

/// Strings that are written into one buffer, one after the other.
struct Lines<'a, F>(usize, &'a F);

impl<F: Fn(usize, &mut String)> Serialize for Lines<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0))?;
        let mut line = String::new();
        for i in 0..self.0 {
            line.clear();
            self.1(i, &mut line);
            seq.serialize_element(&line)?;
        }
        seq.end()
    }
}

impl Serialize for Abduction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Hypotheses are a fault where nothing is to be explained, and stay one when read back.
        let (hypotheses, constraints) = (self.abducibles.len(), self.graph.constraints.len());
        let explains = self.mode == Mode::Explanation || hypotheses + constraints > 0;
        let mut json = serializer.serialize_struct("Abduction", 5 + 2 * usize::from(explains))?;
        let rule = |i, line: &mut String| self.write_rule(i, line);
        let constraint =
            |i: usize, line: &mut String| self.write_body(self.graph.constraints[i], line);
        let known = |i: usize, line: &mut String| self.names[self.known[i] as usize].write(line);
        let goal = |i: usize, line: &mut String| self.names[self.goals[i] as usize].write(line);
        let abducible =
            |i: usize, line: &mut String| self.names[self.abducibles[i] as usize].write(line);
        json.serialize_field("mode", &self.mode)?;
        json.serialize_field("rules", &Lines(self.graph.rules.len(), &rule))?;
        json.serialize_field("known", &Lines(self.known.len(), &known))?;
        json.serialize_field("goals", &Lines(self.goals.len(), &goal))?;
        if explains {
            json.serialize_field("abducibles", &Lines(hypotheses, &abducible))?;
            json.serialize_field("constraints", &Lines(constraints, &constraint))?;
        }
        json.serialize_field("depth", &self.depth)?;
        json.end()
    }
}

impl Puzzle for Abduction {
    type Parameters = Parameters;

    /// The paper's. Levels 1 and 2 have plain conjunctions, as the quickstart's small model reads
    /// them; nested bodies and negation come with level 3.
    fn parameters(level: u32) -> Parameters {
        let level = level.clamp(1, 5) as usize;
        let beyond = level.saturating_sub(2) as f64;
        Parameters {
            mode: Mode::Reachability,
            depth: [level + 1, level + 2],
            goals: [1, 2, 2, 3, 3][level - 1],
            decoys: true,
            distractors: [[3, 5], [5, 7], [7, 9], [8, 10], [10, 12]][level - 1],
            and_share: 0.25,
            or_share: 0.25,
            cycle_share: 0.05 + 0.05 * level as f64,
            nested_share: 0.1 * beyond,
            negation_share: 0.05 * beyond,
            abducibles: [6, 7 + level / 3],
        }
    }

    fn validate(parameters: &Parameters) -> Result<(), String> {
        let Parameters { depth, goals, distractors, abducibles, .. } = parameters;
        for (name, [low, high], least, most) in [
            ("depth", depth, 1, 60),
            ("distractors", distractors, 0, 100),
            ("abducibles", abducibles, 4, ABDUCIBLES / 2),
        ] {
            if low > high || *low < least || *high > most {
                return Err(format!(
                    "`{name}` is [{low}, {high}]; it must be [least, most] within {least}..={most}"
                ));
            }
        }
        if parameters.mode == Mode::Explanation && !parameters.decoys {
            return Err("`decoys` is false; puzzles of explanation always have them".into());
        }
        let chains = if parameters.mode == Mode::Explanation { abducibles[1] } else { 2 * goals };
        if *goals == 0 || *goals > 20 || chains * (depth[1] + 1) + distractors[1] > ATOMS / 2 {
            return Err(format!(
                "`goals` is {goals}; it must be 1..=20, and with this depth the chains have more \
                 than {} atoms",
                ATOMS / 2
            ));
        }
        for (name, share, most) in [
            ("and_share", parameters.and_share, 1.0),
            ("or_share", parameters.or_share, 1.0),
            ("cycle_share", parameters.cycle_share, 1.0),
            ("nested_share", parameters.nested_share, 1.0),
            ("negation_share", parameters.negation_share, 1.0),
        ] {
            if !(0.0..=most).contains(&share) {
                return Err(format!("`{name}` is {share}; it must be within 0..={most}"));
            }
        }
        Ok(())
    }

    fn source(parameters: &Parameters) -> impl FnMut(&mut Stream) -> Option<Self> {
        |stream| Self::drawn(parameters, stream)
    }

    fn certify(&self) -> Result<Certificate, Fault> {
        self.prove()
    }

    fn text(&self, style: Style) -> String {
        match style {
            Style::Compact => self.compact_text(),
            Style::Paper => self.paper_text(),
        }
    }

    fn instruction(&self) -> &'static str {
        match self.mode {
            Mode::Reachability => answer::REACHABILITY,
            Mode::Explanation => answer::EXPLANATION,
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn answer(&self, style: Style) -> String {
        match self.mode {
            Mode::Reachability => self.statements(style),
            Mode::Explanation => self.hypotheses(style),
        }
    }

    /// The backward search of each goal. Where nothing is shared it takes each atom up once; at
    /// worst (atoms)^2 times (see [`Search`]). Of rules that are not stratified there is none.
    fn trace(&self, style: Style) -> String {
        if !self.solved().stratified {
            return String::new();
        }
        Search::of(self).text(style)
    }

    fn check(&self, answer: &str) -> Verdict {
        match self.mode {
            Mode::Reachability => self.check_statements(answer),
            Mode::Explanation => self.check_hypotheses(answer),
        }
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        out.push(self.mode as u8);
        canonical::Form::new(self).write(out);
    }

    fn renamed(&self, stream: &mut Stream) -> Option<Self> {
        Some(self.under_other_names(stream))
    }

    fn blind(&self) -> Vec<Probe> {
        self.guesses()
    }

    fn shortcuts(&self) -> Vec<Probe> {
        self.cheap()
    }
}

#[cfg(test)]
mod tests;
