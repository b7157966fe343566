//! Formulas: evaluation, reading and writing.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize, Serializer};

/// Variables a puzzle can have: the bits of an assignment, bit v for variable v.
pub const MAX_VARIABLES: usize = 64;
/// Operators inside one another that are read: what recursion and the stack of `eval` rest on.
pub const MAX_DEPTH: usize = 30;
/// Nodes that one formula may have.
pub const MAX_NODES: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    And,
    Or,
    Implies,
    Iff,
    Xor,
}

impl Operator {
    pub const ALL: [Self; 5] = [Self::And, Self::Or, Self::Implies, Self::Iff, Self::Xor];

    pub fn symbol(self) -> char {
        match self {
            Self::And => '&',
            Self::Or => '|',
            Self::Implies => '>',
            Self::Iff => '=',
            Self::Xor => '^',
        }
    }

    fn sign(self) -> char {
        match self {
            Self::And => '∧',
            Self::Or => '∨',
            Self::Implies => '→',
            Self::Iff => '↔',
            Self::Xor => '⊕',
        }
    }

    pub fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Implies => !a | b,
            Self::Iff => !(a ^ b),
            Self::Xor => a ^ b,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Variable(u8),
    Not,
    Binary(Operator),
}

/// Nodes in prefix order, an operator before its operands: written by one walk forward, evaluated
/// by one walk backward, and no box for each node.
///
/// In JSON `~ & | > = ^` stand for not, and, or, implies, iff, xor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Formula(pub Vec<Node>);

/// How a formula is written.
#[derive(Clone, Copy)]
pub enum Notation {
    /// `~C^A`
    Compact,
    /// The same under an assignment, each literal's value behind it: `~C1^A1`.
    Valued(u64),
    /// `(¬C ⊕ A)`, as in the paper's released data.
    Paper,
}

/// `A` … `Z`, then `AA`, `AB`, …
#[derive(Clone, Copy)]
pub struct Name(pub usize);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

impl Name {
    /// Several times faster than `write!`.
    pub fn write(self, out: &mut impl Write) -> fmt::Result {
        let letter = |index: usize| char::from(b'A' + (index % 26) as u8);
        if self.0 >= 26 {
            out.write_char(letter(self.0 / 26 - 1))?;
        }
        out.write_char(letter(self.0))
    }

    /// The index of the variable with this name, in either case.
    pub fn index(name: &str) -> Option<usize> {
        let digit =
            |b: u8| b.is_ascii_alphabetic().then(|| usize::from(b.to_ascii_uppercase() - b'A'));
        let index = match name.as_bytes() {
            [a] => digit(*a)?,
            [a, b] => 26 * (digit(*a)? + 1) + digit(*b)?,
            _ => return None,
        };
        (index < MAX_VARIABLES).then_some(index)
    }
}

/// Evaluates nodes in prefix order for 64 * B assignments at a time; `column` gives the values of a
/// variable.
pub fn eval<const B: usize>(nodes: &[Node], column: impl Fn(usize) -> [u64; B]) -> [u64; B] {
    let mut stack = [[0; B]; MAX_DEPTH + 2];
    let mut top = 0;
    for node in nodes.iter().rev() {
        match node {
            Node::Variable(v) => {
                stack[top] = column(usize::from(*v));
                top += 1;
            }
            Node::Not => stack[top - 1].iter_mut().for_each(|word| *word = !*word),
            Node::Binary(op) => {
                let a = stack[top - 1];
                top -= 1;
                for (word, a) in stack[top - 1].iter_mut().zip(a) {
                    *word = op.apply(a, *word);
                }
            }
        }
    }
    stack[0]
}

/// The set of variables in a formula's nodes.
pub fn variables(nodes: &[Node]) -> u64 {
    nodes.iter().fold(0, |set, node| match node {
        Node::Variable(v) => set | 1 << v,
        _ => set,
    })
}

impl Formula {
    pub fn value(&self, assignment: u64) -> bool {
        eval(&self.0, |v| [assignment >> v])[0] & 1 == 1
    }

    /// The set of variables in it.
    pub fn variables(&self) -> u64 {
        variables(&self.0)
    }

    pub fn literals(&self) -> usize {
        self.0.iter().filter(|node| matches!(node, Node::Variable(_))).count()
    }

    /// Operators inside one another. The negation of a variable counts as none: it is a literal.
    pub fn depth(&self) -> usize {
        let mut stack = [0usize; MAX_DEPTH + 2];
        let mut top = 0;
        for (i, node) in self.0.iter().enumerate().rev() {
            match node {
                Node::Variable(_) => {
                    stack[top] = 0;
                    top += 1;
                }
                Node::Not if matches!(self.0[i + 1], Node::Variable(_)) => {}
                Node::Not => stack[top - 1] += 1,
                Node::Binary(_) => {
                    top -= 1;
                    stack[top - 1] = 1 + stack[top - 1].max(stack[top]);
                }
            }
        }
        stack[0]
    }

    pub fn write(&self, notation: Notation, out: &mut impl Write) -> fmt::Result {
        write(&mut self.0.iter(), notation, true, out)
    }
}

fn write(
    nodes: &mut std::slice::Iter<Node>,
    notation: Notation,
    top: bool,
    out: &mut impl Write,
) -> fmt::Result {
    let negated = |nodes: &std::slice::Iter<Node>| match nodes.as_slice().first() {
        Some(Node::Variable(v)) => Some(usize::from(*v)),
        _ => None,
    };
    match nodes.next() {
        None => Ok(()),
        Some(Node::Variable(v)) => {
            Name(usize::from(*v)).write(out)?;
            match notation {
                Notation::Valued(assignment) => write!(out, "{}", assignment >> v & 1),
                _ => Ok(()),
            }
        }
        Some(Node::Not) => {
            out.write_char(if matches!(notation, Notation::Paper) { '¬' } else { '~' })?;
            if let (Notation::Valued(assignment), Some(v)) = (notation, negated(nodes)) {
                nodes.next();
                return write!(out, "{}{}", Name(v), !assignment >> v & 1);
            }
            write(nodes, notation, false, out)
        }
        Some(Node::Binary(op)) => {
            let paper = matches!(notation, Notation::Paper);
            let parentheses = paper || !top;
            if parentheses {
                out.write_char('(')?;
            }
            write(nodes, notation, false, out)?;
            if paper {
                out.write_char(' ')?;
                out.write_char(op.sign())?;
                out.write_char(' ')?;
            } else {
                out.write_char(op.symbol())?;
            }
            write(nodes, notation, false, out)?;
            if parentheses {
                out.write_char(')')?;
            }
            Ok(())
        }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(Notation::Compact, f)
    }
}

impl Serialize for Formula {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for Formula {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
    }
}

impl Formula {
    /// Reads signs, symbols and words in any mixture: `¬(A → B)`, `~(A>B)`, `NOT (A IMPLIES B)`.
    /// More than one binary operator needs parentheses.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut nodes = Vec::new();
        let mut rest = text;
        binary(&mut rest, &mut nodes, 0)
            .and_then(|()| if rest.trim().is_empty() { Ok(()) } else { Err("is followed by more") })
            .map(|()| Self(nodes))
            .map_err(|what| {
                let head: String = text.chars().take(60).collect();
                let at = text.len() - rest.len();
                format!("formula `{head}` {what} at byte {at}")
            })
    }
}

#[derive(Clone, Copy)]
enum Token {
    Open,
    Close,
    Not,
    Operator(Operator),
    Variable(usize),
}

/// The next token and what follows it.
fn token(text: &str) -> Option<(Token, &str)> {
    use Operator::{And, Iff, Implies, Or, Xor};
    // Longer before shorter.
    const SIGNS: [(&str, Token); 27] = [
        ("(", Token::Open),
        (")", Token::Close),
        ("¬", Token::Not),
        ("~", Token::Not),
        ("!", Token::Not),
        ("<->", Token::Operator(Iff)),
        ("<=>", Token::Operator(Iff)),
        ("==", Token::Operator(Iff)),
        ("=>", Token::Operator(Implies)),
        ("->", Token::Operator(Implies)),
        ("&&", Token::Operator(And)),
        ("||", Token::Operator(Or)),
        ("∧", Token::Operator(And)),
        ("∨", Token::Operator(Or)),
        ("→", Token::Operator(Implies)),
        ("⇒", Token::Operator(Implies)),
        ("↔", Token::Operator(Iff)),
        ("⇔", Token::Operator(Iff)),
        ("⊕", Token::Operator(Xor)),
        ("⊻", Token::Operator(Xor)),
        ("&", Token::Operator(And)),
        ("|", Token::Operator(Or)),
        (">", Token::Operator(Implies)),
        ("=", Token::Operator(Iff)),
        ("≡", Token::Operator(Iff)),
        ("^", Token::Operator(Xor)),
        ("-", Token::Not),
    ];
    const WORDS: [(&str, Token); 6] = [
        ("not", Token::Not),
        ("and", Token::Operator(And)),
        ("or", Token::Operator(Or)),
        ("implies", Token::Operator(Implies)),
        ("iff", Token::Operator(Iff)),
        ("xor", Token::Operator(Xor)),
    ];
    let text = text.trim_start();
    let letters = text.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
    if letters > 0 {
        let (word, rest) = text.split_at(letters);
        let known = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let token = known.map(|(_, token)| *token).or(Name::index(word).map(Token::Variable));
        return Some((token?, rest));
    }
    SIGNS.iter().find_map(|(sign, token)| Some((*token, text.strip_prefix(sign)?)))
}

/// operand, or operand operator operand.
fn binary(rest: &mut &str, nodes: &mut Vec<Node>, depth: usize) -> Result<(), &'static str> {
    let start = nodes.len();
    operand(rest, nodes, depth)?;
    if let Some((Token::Operator(op), after)) = token(rest) {
        *rest = after;
        // Moves the first operand up by one, at most once for each level of nesting.
        nodes.insert(start, Node::Binary(op));
        operand(rest, nodes, depth + 1)?;
        // The first operand was read as if it stood alone: one level less than it has.
        if depth + 1 > MAX_DEPTH {
            return Err("is nested too deeply");
        }
    }
    Ok(())
}

fn operand(rest: &mut &str, nodes: &mut Vec<Node>, depth: usize) -> Result<(), &'static str> {
    if depth >= MAX_DEPTH {
        return Err("is nested too deeply");
    }
    if nodes.len() >= MAX_NODES {
        return Err("is too long");
    }
    let (first, after) = token(rest).ok_or("has no operand")?;
    *rest = after;
    match first {
        Token::Not => {
            nodes.push(Node::Not);
            operand(rest, nodes, depth + 1)
        }
        Token::Open => {
            binary(rest, nodes, depth + 1)?;
            match token(rest) {
                Some((Token::Close, after)) => {
                    *rest = after;
                    Ok(())
                }
                _ => Err("lacks a `)`"),
            }
        }
        Token::Variable(v) => {
            nodes.push(Node::Variable(v as u8));
            Ok(())
        }
        Token::Close | Token::Operator(_) => Err("has no operand"),
    }
}
