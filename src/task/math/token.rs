//! Tokens of LaTeX and of plain formulas: one alphabet for both.

use num_bigint::BigInt;

use super::Reason;
use super::command::{COMMANDS, PLAIN, is_layout, is_text, is_word, starts_with_function, symbol};
use super::number::Rational;
use super::unit::Unit;

/// Digits that a number may have.
const DIGITS: usize = 2000;

#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'a> {
    /// And whether it has a point.
    Number(Rational, bool),
    /// One letter, or the name of a Greek or unknown command.
    Name(&'a str),
    /// `frac`, `sqrt`, `sin`: a command or word that takes arguments.
    Command(&'a str),
    /// What `\text{}` holds, or a word.
    Text(&'a str),
    /// Punctuation, operators and relations, each one character: `\le` and `<=` are `≤`, set braces
    /// are `⦃⦄`, a matrix stands in `⟬⟭`, its rows end in `⏎`.
    Symbol(char),
}

#[derive(Debug, Clone)]
pub struct Token<'a> {
    pub kind: Kind<'a>,
    /// Space stands before it.
    pub space: bool,
}

/// How commas between digits are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commas {
    /// `1,234` is one number outside of brackets; `1,23` are two.
    Thousands,
    /// They always separate.
    Separate,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    commas: Commas,
    /// Open brackets.
    depth: usize,
    /// `\\` ends a row; elsewhere it is a backslash that was escaped.
    rows: bool,
    /// Arguments of a fraction that are still to come: outside of braces they are one digit.
    single: usize,
    saved: Vec<usize>,
    out: Vec<Token<'a>>,
}

pub fn tokens(text: &str, commas: Commas) -> Result<Vec<Token<'_>>, Reason> {
    let rows = text.contains("matrix") || text.contains("{array}");
    let (saved, out) = (Vec::new(), Vec::with_capacity(16));
    let mut scanner = Scanner { text, at: 0, commas, depth: 0, rows, single: 0, saved, out };
    while scanner.at < text.len() {
        scanner.step()?;
    }
    Ok(scanner.out)
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind<'a>, from: usize) {
        let before = self.text[..from].chars().next_back();
        let space = before.is_some_and(char::is_whitespace)
            || self.text[..from].ends_with("\\,")
            || self.text[..from].ends_with('~');
        self.out.push(Token { kind, space });
    }

    fn symbol(&mut self, c: char, length: usize) {
        let from = self.at;
        self.at += length;
        match c {
            '(' | '[' | '⦃' => self.depth += 1,
            ')' | ']' | '⦄' => self.depth = self.depth.saturating_sub(1),
            '{' => {
                self.saved.push(self.single.saturating_sub(1));
                self.single = 0;
            }
            '}' => self.single = self.saved.pop().unwrap_or(0),
            _ => {}
        }
        self.push(Kind::Symbol(c), from);
    }

    fn step(&mut self) -> Result<(), Reason> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return Ok(()) };
        let size = c.len_utf8();
        match c {
            c if c.is_whitespace() => self.at += size,
            '~' if rest.starts_with("~=") => self.symbol('≈', 2),
            '~' | '$' | '€' | '£' | '¥' | '₹' | '"' | '?' => self.at += size,
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit())
                || rest[1..].starts_with("\\overline{") =>
            {
                self.number();
            }
            '.' if rest.starts_with("...") => self.symbol('…', 3),
            '.' => self.at += 1,
            '\\' => self.command(),
            'a'..='z' | 'A'..='Z' => self.letters(),
            '<' if rest.starts_with("<=") => self.symbol('≤', 2),
            '>' if rest.starts_with(">=") => self.symbol('≥', 2),
            '!' if rest.starts_with("!=") => self.symbol('≠', 2),
            '=' if rest.starts_with("==") => self.symbol('=', 2),
            '*' if rest.starts_with("**") => self.symbol('^', 2),
            '−' | '–' | '‐' | '‑' => self.symbol('-', size),
            '×' | '·' | '⋅' | '∙' => self.symbol('*', size),
            '÷' | '∕' => self.symbol('/', size),
            '²' => self.power("2", size),
            '³' => self.power("3", size),
            '½' | '¼' | '¾' => {
                let (num, den) = if c == '½' { (1, 2) } else { (1 + 2 * i64::from(c == '¾'), 4) };
                let value = Rational::new(BigInt::from(num), BigInt::from(den));
                let value = value.ok_or(Reason::Syntax("fraction"))?;
                self.push(Kind::Number(value, false), self.at);
                self.at += size;
            }
            '\u{2009}' | '\u{202f}' | '\u{200b}' => self.at += size,
            c if c.is_alphabetic() && !"πⅈℝ".contains(c) => {
                let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
                let kind =
                    if end == size { Kind::Name(&rest[..end]) } else { Kind::Text(&rest[..end]) };
                self.push(kind, self.at);
                self.at += end;
            }
            c => self.symbol(c, size),
        }
        Ok(())
    }

    fn power(&mut self, exponent: &'a str, size: usize) {
        self.push(Kind::Symbol('^'), self.at);
        self.push(Kind::Number(if exponent == "2" { 2 } else { 3 }.into(), false), self.at);
        self.at += size;
    }

    fn digits(&self, from: usize) -> usize {
        self.text[from..].bytes().take_while(u8::is_ascii_digit).count()
    }

    /// The length of a separator between thousands at `at`.
    fn separator(&self, at: usize) -> Option<usize> {
        let rest = &self.text[at..];
        let always = ["{,}", ",\\!", "{,}\\!", "\\!,", "{,\\!}", " {, }", "{, }", " {,}", ",\\! "];
        let open = ["\\,", "\\ ", " ", "\u{2009}", "\u{202f}", "~"];
        let outside = self.depth == 0 && self.saved.is_empty();
        let length = match always.iter().filter(|s| rest.starts_with(**s)).map(|s| s.len()).max() {
            Some(length) => length,
            None if self.commas == Commas::Separate => return None,
            None if rest.starts_with(',') && outside => 1,
            None if outside => open.iter().find(|s| rest.starts_with(**s))?.len(),
            None => return None,
        };
        (self.digits(at + length) == 3).then_some(length)
    }

    fn number(&mut self) {
        let from = self.at;
        if self.single > 0 {
            self.single -= 1;
            if let Some(digit) = self.text.as_bytes()[from].checked_sub(b'0') {
                self.at += 1;
                return self.push(Kind::Number(i64::from(digit).into(), false), from);
            }
        }
        let first = self.digits(from);
        let mut integer = self.text[from..from + first].to_owned();
        self.at += first;
        if (1..=3).contains(&first) && !integer.starts_with('0') {
            while let Some(length) = self.separator(self.at) {
                integer.push_str(&self.text[self.at + length..][..3]);
                self.at += length + 3;
            }
        }
        let mut fraction = "";
        let mut decimal = false;
        let mut repeat = None;
        if self.rest().starts_with('.') {
            let digits = self.digits(self.at + 1);
            let after = &self.text[self.at + 1 + digits..];
            repeat = ["\\overline{", "\\bar{", "\\overline ", "\\dot{"]
                .iter()
                .find_map(|bar| after.strip_prefix(*bar))
                .and_then(|inside| inside.split_once('}'))
                .map(|(inside, _)| inside)
                .filter(|inside| {
                    (1..50).contains(&inside.len()) && inside.bytes().all(|b| b.is_ascii_digit())
                });
            if digits > 0 || repeat.is_some() {
                decimal = true;
                fraction = &self.text[self.at + 1..][..digits];
                self.at += 1 + digits;
            }
        }
        let mut power = 0;
        if let Some(tail) = self.rest().strip_prefix(['e', 'E']) {
            let signed = tail.strip_prefix(['+', '-']).unwrap_or(tail);
            let digits = signed.bytes().take_while(u8::is_ascii_digit).count();
            let length = tail.len() - signed.len() + digits;
            let ends = !signed[digits..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '^');
            if (1..=4).contains(&digits) && ends {
                power = tail[..length].trim_start_matches('+').parse().unwrap_or(0);
                self.at += 1 + length;
                decimal = true;
            }
        }
        let value = if integer.len() + fraction.len() > DIGITS {
            None
        } else {
            Rational::decimal(&integer, fraction, power)
        };
        let value = match (value, repeat) {
            (Some(value), Some(repeat)) => {
                decimal = false;
                self.at += self.rest().find('}').map_or(0, |end| end + 1);
                repeating(&value, repeat, fraction.len())
            }
            (value, _) => value,
        };
        match value {
            Some(value) => self.push(Kind::Number(value, decimal), from),
            // A name that no other number has: equal to itself.
            None => self.push(Kind::Text(&self.text[from..self.at]), from),
        }
    }

    fn command(&mut self) {
        let from = self.at;
        let mut rest = &self.text[from + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            let escaped = !self.rows && after.starts_with(|c: char| !c.is_whitespace());
            if !escaped {
                self.at += 2;
                let kind = if self.rows { '⏎' } else { ' ' };
                if kind != ' ' {
                    self.push(Kind::Symbol(kind), from);
                }
                return;
            }
            rest = after;
        }
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let length =
            if letters > 0 { letters } else { rest.chars().next().map_or(0, char::len_utf8) };
        let name = &rest[..length];
        self.at = self.text.len() - rest.len() + length;
        if is_layout(name) {
            // `\left.` has no bracket.
            if matches!(name, "left" | "right") && self.rest().starts_with('.') {
                self.at += 1;
            }
            return;
        }
        if matches!(name, "begin" | "end") {
            return self.environment(name == "begin", from);
        }
        if is_text(name) {
            return self.text(name, from);
        }
        if matches!(name, "mathbb" | "hspace" | "phantom" | "color" | "textcolor") {
            let inside = self.argument();
            if name == "mathbb" {
                let kind = if inside == "R" { Kind::Symbol('ℝ') } else { Kind::Name(inside) };
                self.push(kind, from);
            }
            return;
        }
        if let Some(c) = symbol(name) {
            let at = self.at;
            self.at = from;
            return self.symbol(c, at - from);
        }
        let name = match name {
            "dfrac" | "tfrac" | "cfrac" => "frac",
            "dbinom" | "tbinom" => "binom",
            "sgn" | "operatorname*" => "sgn",
            "bar" => "overline",
            other => other,
        };
        if matches!(name, "frac" | "binom") {
            self.single = 2;
        }
        let known = COMMANDS.iter().find(|known| **known == name);
        self.push(known.map_or(Kind::Name(name), |known| Kind::Command(known)), from);
    }

    /// What stands in the braces that follow, or the next character.
    fn argument(&mut self) -> &'a str {
        let rest = self.rest();
        let open = rest.trim_start();
        self.at += rest.len() - open.len();
        let Some(inside) = open.strip_prefix('{') else {
            let size = open.chars().next().map_or(0, char::len_utf8);
            self.at += size;
            return &open[..size];
        };
        let mut depth = 1;
        for (at, b) in inside.bytes().enumerate() {
            match b {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at += at + 2;
                return &inside[..at];
            }
        }
        self.at = self.text.len();
        inside
    }

    fn environment(&mut self, begins: bool, from: usize) {
        let name = self.argument();
        if !(name.ends_with("matrix") || name == "array") {
            return self.push(Kind::Name(name), from);
        }
        if begins && name == "array" {
            self.argument();
        }
        self.push(Kind::Symbol(if begins { '⟬' } else { '⟭' }), from);
    }

    fn behind_value(&self) -> bool {
        matches!(
            self.out.last().map(|token| &token.kind),
            Some(Kind::Number(..) | Kind::Symbol(')' | '}' | 'π'))
        )
    }

    fn text(&mut self, command: &str, from: usize) {
        let inside = self.argument();
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == ',' || c == '~');
        let kind = match word {
            "" if inside.contains(',') => Kind::Symbol(','),
            "" => return,
            "and" | "or" | "AND" | "OR" | "y" => Kind::Symbol(','),
            "%" | "\\%" | "percent" | "percentage" | "pct" => Kind::Symbol('%'),
            "R" if self.text[..self.at].ends_with("mathbb{R}") => Kind::Symbol('ℝ'),
            "e" | "i" if command != "text" => Kind::Name(word),
            _ if command == "mathrm" && word.len() == 1 && !self.behind_value() => Kind::Name(word),
            _ if word.len() < 20 && word.bytes().all(|b| b.is_ascii_digit()) => {
                match Rational::decimal(word, "", 0) {
                    Some(value) => Kind::Number(value, false),
                    None => return,
                }
            }
            _ => match COMMANDS.iter().find(|known| **known == word) {
                Some(known) => Kind::Command(known),
                None => Kind::Text(word),
            },
        };
        self.push(kind, from);
    }

    /// A run of letters without a backslash.
    fn letters(&mut self) {
        let from = self.at;
        let rest = self.rest();
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let run = &rest[..length];
        self.at += length;
        let behind_value = self.behind_value();
        match run {
            "and" | "or" | "And" | "Or" => return self.push(Kind::Symbol(','), from),
            "pi" | "Pi" => return self.push(Kind::Symbol('π'), from),
            "inf" | "infinity" | "infty" | "oo" => return self.push(Kind::Symbol('∞'), from),
            "percent" | "percentage" | "pct" => return self.push(Kind::Symbol('%'), from),
            "in" if !behind_value => return self.push(Kind::Symbol('∈'), from),
            "U" if self.out.last().is_some_and(|t| t.kind == Kind::Symbol(')')) => {
                return self.push(Kind::Symbol('∪'), from);
            }
            _ => {}
        }
        // `1orx=2`
        let joined = ["or", "and"]
            .iter()
            .find(|word| behind_value && run.starts_with(**word) && length - word.len() < 2);
        if let Some(word) = joined {
            self.push(Kind::Symbol(','), from);
            self.at = from + word.len();
            return;
        }
        if let Some(known) = PLAIN.iter().find(|known| **known == run) {
            return self.push(Kind::Command(known), from);
        }
        // A unit, or words: `5 cm`, `12 apples`, `Evelyn`. `2abc` is a product.
        let spaced = self.text[..from].ends_with(char::is_whitespace);
        let word = if behind_value {
            Unit::is_name(run) || (length > 3 && spaced)
        } else {
            length > 3 || (length > 1 && run.chars().all(char::is_alphabetic) && is_word(run))
        };
        if word && !starts_with_function(run) {
            return self.push(Kind::Text(run), from);
        }
        // `sinx`, `2pir`
        let mut letters = run;
        while !letters.is_empty() {
            let at = self.at - letters.len();
            let known = PLAIN.iter().find(|known| known.len() > 1 && letters.starts_with(**known));
            if let Some(known) = known.filter(|known| letters.len() - known.len() < 3) {
                self.push(Kind::Command(known), at);
                letters = &letters[known.len()..];
            } else if letters.starts_with("pi") && letters.len() < 5 {
                self.push(Kind::Symbol('π'), at);
                letters = &letters[2..];
            } else {
                self.push(Kind::Name(&letters[..1]), at);
                letters = &letters[1..];
            }
        }
    }
}

/// `value` with `digits` repeated for ever after its `places` places.
fn repeating(value: &Rational, digits: &str, places: usize) -> Option<Rational> {
    let tail = Rational::decimal(digits, "", -i64::try_from(places + digits.len()).ok()?)?;
    let length = i64::try_from(digits.len()).ok()?;
    // x + x/10^n + ... = x / (1 - 10^-n)
    let ratio = Rational::from(1).add(&Rational::from(10).pow(-length)?.neg())?;
    value.add(&tail.mul(&ratio.inv()?)?)
}
