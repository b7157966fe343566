//! How puzzles are written and read: names, bodies, rules, the paper's texts.

use super::graph::{AND, Body, Graph, NESTING, NOT, OR, RULES, Token, atom, is_literal};
use super::{Abduction, Mode};

/// Goals of one puzzle at most.
const GOALS: usize = 63;

/// An atom's name in upper case: a letter, then letters, digits, underscores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; 15],
    length: u8,
}

impl Name {
    pub fn new(text: &str) -> Option<Self> {
        let mut name = Self { length: text.len() as u8, bytes: [0; 15] };
        let place = name.bytes.get_mut(..text.len())?;
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        if !text.as_bytes().first()?.is_ascii_alphabetic() || !text.bytes().all(|b| word(&b)) {
            return None;
        }
        place.copy_from_slice(text.as_bytes());
        place.make_ascii_uppercase();
        let reserved = ["AND", "OR", "NOT"].iter().any(|word| text.eq_ignore_ascii_case(word));
        (!reserved).then_some(name)
    }

    /// Of upper-case letters, at most fifteen.
    pub fn ascii(letters: &[u8]) -> Option<Self> {
        let mut name = Self { length: letters.len() as u8, bytes: [0; 15] };
        name.bytes.get_mut(..letters.len())?.copy_from_slice(letters);
        Some(name)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }

    pub fn is_letter(&self) -> bool {
        self.length == 1
    }

    pub fn write(&self, out: &mut String) {
        out.push_str(std::str::from_utf8(self.bytes()).unwrap_or_default());
    }

    /// `KB` as `Kb`, so that names can stand side by side; `F` and `T`, which stand for false and
    /// true there, as `Ff` and `Tt`.
    pub fn write_compact(&self, out: &mut String) {
        let letter =
            |(i, &b): (usize, &u8)| char::from(if i == 0 { b } else { b.to_ascii_lowercase() });
        out.extend(self.bytes().iter().enumerate().map(letter));
        match self.bytes() {
            b"F" => out.push('f'),
            b"T" => out.push('t'),
            _ => {}
        }
    }
}

impl Abduction {
    pub(super) fn name(&self, atom: u8) -> String {
        let mut out = String::new();
        self.names[atom as usize].write(&mut out);
        out
    }

    /// `(A AND (NOT B))`, as in the released data.
    pub(super) fn write_body(&self, body: Body, out: &mut String) {
        self.write_expression(&mut self.graph.tokens(body).iter(), out);
    }

    fn write_expression(&self, rest: &mut std::slice::Iter<'_, Token>, out: &mut String) {
        let Some(&token) = rest.next() else { return };
        if !is_literal(token) {
            out.push('(');
            self.write_expression(rest, out);
            out.push_str(if token == AND { " AND " } else { " OR " });
            self.write_expression(rest, out);
            out.push(')');
        } else if token >= NOT {
            out.push_str("(NOT ");
            self.names[atom(token) as usize].write(out);
            out.push(')');
        } else {
            self.names[atom(token) as usize].write(out);
        }
    }

    /// `((A AND (NOT B))) => C`, as in the released data.
    pub(super) fn write_rule(&self, rule: usize, out: &mut String) {
        let rule = self.graph.rules[rule];
        out.push('(');
        self.write_body(rule.body, out);
        out.push_str(") => ");
        self.names[rule.head as usize].write(out);
    }

    /// `A~B` for A and not B, `A|B` for A or B, `(A|B)C` for both.
    pub(super) fn write_body_compact(&self, body: Body, out: &mut String) {
        self.write_compact(&mut self.graph.tokens(body).iter(), OR, out);
    }

    fn write_compact(
        &self,
        rest: &mut std::slice::Iter<'_, Token>,
        parent: Token,
        out: &mut String,
    ) {
        let Some(&token) = rest.next() else { return };
        if is_literal(token) {
            if token >= NOT {
                out.push('~');
            }
            return self.names[atom(token) as usize].write_compact(out);
        }
        let brackets = token == OR && parent == AND;
        if brackets {
            out.push('(');
        }
        self.write_compact(rest, token, out);
        if token == OR {
            out.push('|');
        }
        self.write_compact(rest, token, out);
        if brackets {
            out.push(')');
        }
    }

    /// The head, then the premises: `CAB` for C from A and B. A tiny model finds the premises of C
    /// by copying what stood behind C before; with an arrow between, it stayed at chance.
    pub(super) fn write_rule_compact(&self, rule: usize, out: &mut String) {
        let rule = self.graph.rules[rule];
        self.names[rule.head as usize].write_compact(out);
        self.write_body_compact(rule.body, out);
    }

    /// `A:` and the rules, `#AB;` for a constraint (never both), then the atoms at which a search
    /// ends, by name: `AT;` for a known one, `AF;` for one without a rule, `A*;` for one that may be
    /// assumed; `?` and the goals.
    ///
    /// All of these read like rules and stand in the trace as they stand here: a tiny model learnt
    /// this with one copying circuit in 300 steps. Known atoms as `A!B!`, with nothing said of the
    /// others, it had not learnt after 3,500: it followed each chain and guessed at its end.
    pub(super) fn compact_text(&self) -> String {
        let mut out = String::from("A:");
        for rule in 0..self.graph.rules.len() {
            self.write_rule_compact(rule, &mut out);
            out.push(';');
        }
        for &constraint in &self.graph.constraints {
            out.push('#');
            self.write_body_compact(constraint, &mut out);
            out.push(';');
        }
        let headed = |a: u8| self.graph.rules.iter().any(|rule| rule.head == a);
        let mut ends: Vec<(Name, char)> = (0..self.names.len() as u8)
            .filter_map(|a| {
                let mark = match a {
                    a if self.known.contains(&a) => 'T',
                    a if self.abducibles.contains(&a) => '*',
                    a if headed(a) => return None,
                    _ => 'F',
                };
                Some((self.names[a as usize], mark))
            })
            .collect();
        ends.sort_unstable();
        for (name, mark) in ends {
            name.write_compact(&mut out);
            out.extend([mark, ';']);
        }
        for (i, &goal) in self.goals.iter().enumerate() {
            out.push(if i == 0 { '?' } else { ',' });
            self.names[goal as usize].write_compact(&mut out);
        }
        out
    }

    /// Lists in Python's notation, one a line, as in the released data.
    pub(super) fn paper_text(&self) -> String {
        let mut out = String::with_capacity(64 * self.graph.rules.len());
        let names = |atoms: &[u8], out: &mut String| {
            list(atoms.len(), out, |i, out| self.names[atoms[i] as usize].write(out));
        };
        out.push_str("premises: ");
        list(self.graph.rules.len(), &mut out, |i, out| self.write_rule(i, out));
        out.push_str("\nknown_atoms: ");
        names(&self.known, &mut out);
        if self.mode == Mode::Explanation {
            out.push_str("\nabducibles: ");
            names(&self.abducibles, &mut out);
            out.push_str("\nconstraints: ");
            let constraints = &self.graph.constraints;
            list(constraints.len(), &mut out, |i, out| self.write_body(constraints[i], out));
        }
        out.push_str("\ngoals: ");
        names(&self.goals, &mut out);
        out
    }

    /// Reads [`Self::paper_text`] and the released texts: lines that start with one of its keys.
    /// A list of abducibles makes it a puzzle of explanation.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::default();
        let (mut known, mut goals, mut abducibles) = (None, None, None);
        let (mut premises, mut constraints) = (false, false);
        for line in text.lines() {
            let Some((key, rest)) = line.split_once(':') else { continue };
            let atoms = match key.trim() {
                "premises" if !premises => {
                    premises = true;
                    items(rest, "premises", |item| reader.rule(item))?;
                    continue;
                }
                "constraints" if !constraints => {
                    constraints = true;
                    items(rest, "constraints", |item| reader.constraint(item))?;
                    continue;
                }
                "known_atoms" => &mut known,
                "goals" => &mut goals,
                "abducibles" => &mut abducibles,
                _ => continue,
            };
            if atoms.is_none() {
                let mut list = Vec::new();
                items(rest, key.trim(), |item| reader.listed(item, &mut list))?;
                *atoms = Some(list);
            }
        }
        if !premises {
            return Err("no line `premises: [...]`".into());
        }
        let known = known.ok_or("no line `known_atoms: [...]`")?;
        let goals = goals.ok_or("no line `goals: [...]`")?;
        let mode = if abducibles.is_some() { Mode::Explanation } else { Mode::Reachability };
        reader.finish(mode, known, goals, abducibles.unwrap_or_default(), 0)
    }
}

fn list(length: usize, out: &mut String, item: impl Fn(usize, &mut String)) {
    out.push('[');
    for i in 0..length {
        out.push_str(if i == 0 { "'" } else { ", '" });
        item(i, out);
        out.push('\'');
    }
    out.push(']');
}

/// The quoted items of a list in brackets.
fn items(
    text: &str,
    key: &str,
    mut each: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    let inside = text
        .trim()
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .ok_or_else(|| format!("{key} are no list in brackets"))?;
    let mut rest = inside.trim();
    let mut number = 0;
    while let Some(quote) = rest.chars().next() {
        number += 1;
        let fault = || format!("{key}: item {number} is not in quotes");
        if quote != '\'' && quote != '"' {
            return Err(fault());
        }
        let (item, tail) = rest[1..].split_once(quote).ok_or_else(fault)?;
        each(item).map_err(|what| format!("{key}: item {number}: {what}"))?;
        let tail = tail.trim_start();
        rest = match tail.strip_prefix(',') {
            Some(tail) => tail.trim_start(),
            None if tail.is_empty() => tail,
            None => return Err(format!("{key}: no comma after item {number}")),
        };
    }
    Ok(())
}

/// Gives atoms their numbers as their names come.
#[derive(Default)]
pub(super) struct Reader {
    graph: Graph,
    names: Vec<Name>,
    tokens: Vec<Token>,
}

impl Reader {
    fn atom(&mut self, text: &str) -> Result<u8, String> {
        let name = Name::new(text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            format!("`{shown}` is no name of an atom (a letter, then at most 14 letters or digits)")
        })?;
        let number = match self.names.iter().position(|known| *known == name) {
            Some(number) => number,
            None => {
                self.names.push(name);
                self.names.len() - 1
            }
        };
        u8::try_from(number).map_err(|_| "more than 256 atoms".to_string())
    }

    pub fn listed(&mut self, text: &str, list: &mut Vec<u8>) -> Result<(), String> {
        // Atoms may stand twice, as some released goals do; a list is bounded all the same.
        if list.len() > 2 * RULES {
            return Err(format!("more than {} atoms in a list", 2 * RULES));
        }
        list.push(self.atom(text.trim())?);
        Ok(())
    }

    /// `BODY => HEAD`.
    pub fn rule(&mut self, text: &str) -> Result<(), String> {
        let (body, head) = text.rsplit_once("=>").ok_or("no `=>`")?;
        let body = self.body(body)?;
        let head = self.atom(head.trim())?;
        self.graph.rules.push(super::graph::Rule { head, body });
        Ok(())
    }

    pub fn constraint(&mut self, text: &str) -> Result<(), String> {
        let body = self.body(text)?;
        self.graph.constraints.push(body);
        Ok(())
    }

    fn body(&mut self, text: &str) -> Result<Body, String> {
        self.tokens.clear();
        let rest = self.any(text, false, 0)?;
        if !rest.trim_start().is_empty() {
            let shown: String = rest.trim().chars().take(20).collect();
            return Err(format!("`{shown}` behind the end of the body"));
        }
        if nesting(&self.tokens) > NESTING {
            return Err(format!("nested deeper than {NESTING}"));
        }
        self.graph.add_body(&self.tokens).ok_or_else(|| "too many rules or premises".into())
    }

    fn any<'t>(&mut self, text: &'t str, negated: bool, depth: usize) -> Result<&'t str, String> {
        self.chain(text, negated, depth, "OR", if negated { AND } else { OR }, Self::all)
    }

    fn all<'t>(&mut self, text: &'t str, negated: bool, depth: usize) -> Result<&'t str, String> {
        self.chain(text, negated, depth, "AND", if negated { OR } else { AND }, Self::operand)
    }

    /// Operands joined by `word`, nested to the right. Under a negation the operators change sides
    /// (De Morgan), so that negation stands at atoms only.
    fn chain<'t>(
        &mut self,
        text: &'t str,
        negated: bool,
        depth: usize,
        word: &str,
        token: Token,
        operand: fn(&mut Self, &'t str, bool, usize) -> Result<&'t str, String>,
    ) -> Result<&'t str, String> {
        let mut last = self.tokens.len();
        let mut rest = operand(self, text, negated, depth)?;
        while let Some(tail) = keyword(rest, word) {
            if self.tokens.len() > super::graph::TOKENS {
                return Err("too many premises".into());
            }
            self.tokens.insert(last, token);
            last = self.tokens.len();
            rest = operand(self, tail, negated, depth)?;
        }
        Ok(rest)
    }

    fn operand<'t>(
        &mut self,
        text: &'t str,
        negated: bool,
        depth: usize,
    ) -> Result<&'t str, String> {
        // Brackets around brackets are no nesting of operators, so more of them are let through.
        if depth > 2 * NESTING + 2 {
            return Err(format!("nested deeper than {NESTING}"));
        }
        if let Some(rest) = keyword(text, "NOT") {
            return self.operand(rest, !negated, depth + 1);
        }
        let text = text.trim_start();
        if let Some(inside) = text.strip_prefix('(') {
            let rest = self.any(inside, negated, depth + 1)?;
            return rest.trim_start().strip_prefix(')').ok_or_else(|| "a `(` stays open".into());
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return Err("an operand is missing".into());
        }
        let atom = self.atom(name)?;
        self.tokens.push(Token::from(atom) | if negated { NOT } else { 0 });
        Ok(rest)
    }

    pub fn finish(
        mut self,
        mode: Mode,
        known: Vec<u8>,
        goals: Vec<u8>,
        abducibles: Vec<u8>,
        depth: u32,
    ) -> Result<Abduction, String> {
        self.graph.atoms = self.names.len();
        self.graph.index();
        if goals.is_empty() || goals.len() > GOALS {
            return Err(format!("goals: {}, must be 1..={GOALS}", goals.len()));
        }
        Ok(Abduction {
            mode,
            graph: self.graph,
            names: self.names,
            known,
            goals,
            abducibles,
            depth,
            solved: Default::default(),
        })
    }
}

/// What stands behind a word at the start of `text`.
fn keyword<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let text = text.trim_start();
    let head = text.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word))?;
    let rest = &text[head.len()..];
    let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    ends.then_some(rest)
}

/// Operators one inside the other, of a body in prefix form.
fn nesting(tokens: &[Token]) -> usize {
    let mut depths: Vec<usize> = Vec::new();
    for &token in tokens.iter().rev() {
        if is_literal(token) {
            depths.push(0);
        } else {
            let (a, b) = (depths.pop().unwrap_or(0), depths.pop().unwrap_or(0));
            depths.push(a.max(b) + 1);
        }
    }
    depths.pop().unwrap_or(0)
}
