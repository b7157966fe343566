//! From tokens to an expression, by recursive descent.

use super::Reason;
use super::expression::{Expr, Function, Join, Sign};
use super::matrix::{MATRIX, add_matrices, product_of};
use super::token::{Commas, Kind, Token, tokens};
use super::unit::Unit;

/// Brackets, functions and exponents within one another.
const DEPTH: u32 = 48;
/// Tokens of one answer.
const TOKENS: usize = 3000;

/// What `text` says. `±` gives two members, of which the first has the upper signs.
pub fn parse(text: &str, commas: Commas) -> Result<Expr, Reason> {
    let tokens = tokens(text, commas)?;
    if tokens.len() > TOKENS {
        return Err(Reason::TooLong);
    }
    let upper = Parser::new(&tokens, true).whole()?;
    if !tokens.iter().any(|token| matches!(token.kind, Kind::Symbol('±' | '∓'))) {
        return Ok(upper);
    }
    let lower = Parser::new(&tokens, false).whole()?;
    Ok(match (upper, lower) {
        (Expr::Set(mut upper), Expr::Set(lower)) => {
            upper.extend(lower);
            Expr::Set(upper)
        }
        (upper, lower) => Expr::Set(vec![upper, lower]),
    })
}

pub struct Parser<'a> {
    pub(super) tokens: &'a [Token<'a>],
    pub(super) at: usize,
    depth: u32,
    /// The innermost bracket is `|`, so that the next one closes.
    pub(super) bars: bool,
    upper: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn new(tokens: &'a [Token<'a>], upper: bool) -> Self {
        Self { tokens, at: 0, depth: 0, bars: false, upper }
    }

    pub(super) fn kind(&self) -> Option<&'a Kind<'a>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    pub(super) fn ahead(&self, by: usize) -> Option<&'a Kind<'a>> {
        self.tokens.get(self.at + by).map(|token| &token.kind)
    }

    pub(super) fn peek(&self) -> Option<char> {
        match self.kind() {
            Some(Kind::Symbol(c)) => Some(*c),
            _ => None,
        }
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, c: char) -> Result<(), Reason> {
        if self.eat(c) { Ok(()) } else { Err(Reason::Syntax("unbalanced brackets")) }
    }

    pub(super) fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, Reason>,
    ) -> Result<T, Reason> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Reason::TooDeep);
        }
        let found = parse(self);
        self.depth -= 1;
        found
    }

    /// `parse` between brackets, where bars open anew.
    pub(super) fn inside<T>(
        &mut self,
        bars: bool,
        parse: impl FnOnce(&mut Self) -> Result<T, Reason>,
    ) -> Result<T, Reason> {
        let saved = std::mem::replace(&mut self.bars, bars);
        let found = self.deeper(parse);
        self.bars = saved;
        found
    }

    pub(super) fn whole(mut self) -> Result<Expr, Reason> {
        let mut groups = vec![self.list(',')?];
        while self.eat(';') {
            if self.kind().is_some() {
                groups.push(self.list(',')?);
            }
        }
        while self.peek().is_some_and(|c| matches!(c, ',' | ';' | ':' | '!')) {
            self.at += 1;
        }
        if self.at < self.tokens.len() {
            return Err(Reason::Syntax("more than one expression"));
        }
        let tuple = |mut items: Vec<Expr>| match items.len() {
            1 => items.remove(0),
            _ => Expr::Tuple('(', items, ')'),
        };
        let mut items = match groups.len() {
            1 => groups.remove(0),
            _ => groups.into_iter().map(tuple).collect(),
        };
        match items.len() {
            0 => Err(Reason::Syntax("nothing")),
            1 => Ok(items.remove(0)),
            _ => Ok(Expr::Set(items)),
        }
    }

    /// Elements with separators between them, up to a closing bracket or the end.
    pub(super) fn list(&mut self, separator: char) -> Result<Vec<Expr>, Reason> {
        let mut items = Vec::new();
        loop {
            while self.eat(separator) {}
            let ends = matches!(self.peek(), Some(')' | ']' | '⦄' | '}' | ';'));
            if self.kind().is_none() || ends || (self.bars && self.peek() == Some('|')) {
                return Ok(items);
            }
            items.push(self.relation()?);
            if self.peek() != Some(separator) {
                return Ok(items);
            }
        }
    }

    pub(super) fn sign(&self) -> Option<Sign> {
        Some(match self.peek()? {
            '=' | '≡' => Sign::Equal,
            '≠' => Sign::Unequal,
            '<' => Sign::Less,
            '>' => Sign::Greater,
            '≤' | '⩽' => Sign::AtMost,
            '≥' | '⩾' => Sign::AtLeast,
            _ => return None,
        })
    }

    pub(super) fn relation(&mut self) -> Result<Expr, Reason> {
        while self.eat('≈') || self.eat('=') {}
        let mut terms = vec![self.join()?];
        let mut signs = Vec::new();
        loop {
            if let Some(sign) = self.sign() {
                self.at += 1;
                // `x = ` and nothing: the sentence goes on in words.
                signs.push(sign);
                terms.push(self.join()?);
            } else if self.eat('≈') {
                let rounded = self.join()?;
                // `x ≈ 3` says x; `x = 1/3 ≈ 0.33` has said it.
                if signs.is_empty() && terms[0].is_name() {
                    signs.push(Sign::Equal);
                    terms.push(rounded);
                }
            } else if self.eat('→') {
                terms = vec![self.join()?];
                signs.clear();
            } else if self.peek() == Some('∈') && terms.iter().all(Expr::is_name) {
                self.at += 1;
                terms = vec![self.join()?];
                signs.clear();
            } else {
                break;
            }
        }
        if signs.is_empty() { Ok(terms.remove(0)) } else { Ok(Expr::Relation(terms, signs)) }
    }

    pub(super) fn join(&mut self) -> Result<Expr, Reason> {
        let mut left = self.ratio()?;
        let mut count = 0;
        loop {
            let join = match self.peek() {
                Some('∪') => Join::Union,
                Some('∩') => Join::Intersection,
                Some('∖') => Join::Difference,
                Some('-') if matches!(left, Expr::Reals | Expr::Join(..)) => Join::Difference,
                _ => return Ok(left),
            };
            count += 1;
            if count > DEPTH {
                return Err(Reason::TooDeep);
            }
            self.at += 1;
            left = Expr::Join(join, Box::new([left, self.ratio()?]));
        }
    }

    /// `a : b` is a quotient, `a : b : c` a point of quotients by the first.
    pub(super) fn ratio(&mut self) -> Result<Expr, Reason> {
        let mut items = vec![self.sum()?];
        while self.peek() == Some(':') && self.ahead(1).is_some() {
            self.at += 1;
            items.push(self.sum()?);
        }
        if items.len() == 1 {
            return Ok(items.remove(0));
        }
        let first = items.remove(0);
        if !first.is_scalar() {
            return Err(Reason::Syntax("a ratio of what is no number"));
        }
        if let [second] = &items[..] {
            return Ok(Expr::Mul(vec![first, second.clone().inv()]));
        }
        let over = |item: Expr| Expr::Mul(vec![item, first.clone().inv()]);
        Ok(Expr::Tuple('(', items.into_iter().map(over).collect(), ')'))
    }

    pub(super) fn sum(&mut self) -> Result<Expr, Reason> {
        let mut terms = vec![self.term()?];
        loop {
            let negative = match self.peek() {
                Some('+') => false,
                Some('-') if !matches!(terms[..], [Expr::Reals]) => true,
                Some('±') => !self.upper,
                Some('∓') => self.upper,
                _ => break,
            };
            self.at += 1;
            let term = self.term()?;
            terms.push(if negative { term.neg() } else { term });
        }
        if terms.len() == 1 {
            return Ok(terms.remove(0));
        }
        if terms.iter().any(|term| matches!(term, Expr::Matrix(_))) {
            return terms
                .into_iter()
                .map(Ok)
                .reduce(|a, b| add_matrices(a?, b?))
                .unwrap_or(Err(MATRIX));
        }
        Ok(Expr::Add(terms))
    }

    /// A product with its signs.
    pub(super) fn term(&mut self) -> Result<Expr, Reason> {
        self.signed(Self::product)
    }

    pub(super) fn signed(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Expr, Reason>,
    ) -> Result<Expr, Reason> {
        let mut negative = false;
        loop {
            negative ^= match self.peek() {
                Some('+') => false,
                Some('-') => true,
                Some('±') => !self.upper,
                Some('∓') => self.upper,
                _ => break,
            };
            self.at += 1;
        }
        let value = parse(self)?;
        Ok(if negative { value.neg() } else { value })
    }

    pub(super) fn product(&mut self) -> Result<Expr, Reason> {
        let mut factors = vec![self.power()?];
        loop {
            match self.peek() {
                Some('*') => {
                    self.at += 1;
                    factors.push(self.signed(Self::power)?);
                    continue;
                }
                Some('/') => {
                    self.at += 1;
                    let below = self.divisor(factors.last())?;
                    factors.push(below.inv());
                    continue;
                }
                _ => {}
            }
            if let Some(Kind::Text(text)) = self.kind() {
                if let [Expr::Text(words)] = &mut factors[..] {
                    words.push(' ');
                    words.push_str(text);
                    self.at += 1;
                    continue;
                }
                let unit = self.unit();
                let value = Box::new(product_of(factors)?);
                return Ok(Expr::Quantity(value, unit));
            }
            if !self.starts_factor() {
                break;
            }
            if let (Some(Kind::Number(..)), Some(Expr::Number(_) | Expr::Decimal(_))) =
                (self.kind(), factors.last())
            {
                return Err(Reason::Syntax("two numbers side by side"));
            }
            factors.push(self.power()?);
        }
        product_of(factors)
    }

    /// `1/2x` is half of x, `a/bc` is a over bc.
    pub(super) fn divisor(&mut self, above: Option<&Expr>) -> Result<Expr, Reason> {
        let first = self.signed(Self::power)?;
        let fraction =
            matches!((above, &first), (Some(Expr::Number(_)), Expr::Number(_) | Expr::Decimal(_)));
        let mut factors = vec![first];
        while !fraction
            && self.tokens.get(self.at).is_some_and(|token| !token.space)
            && matches!(self.kind(), Some(Kind::Name(_) | Kind::Symbol('π')))
        {
            factors.push(self.power()?);
        }
        product_of(factors)
    }

    pub(super) fn starts_factor(&self) -> bool {
        match self.kind() {
            Some(Kind::Number(..) | Kind::Name(_)) => true,
            Some(Kind::Command(name)) => !matches!(*name, "choose" | "mod" | "pmod"),
            Some(Kind::Symbol('|')) => !self.bars,
            Some(Kind::Symbol(c)) => "([{⦃√∛∞πⅈ⌊⌈⟬".contains(*c),
            _ => false,
        }
    }

    /// Words behind a value, with what belongs to them: `m/s`, `cm^2`.
    pub(super) fn unit(&mut self) -> Unit {
        let mut words = String::new();
        let mut power = 1;
        loop {
            match self.kind() {
                Some(Kind::Text(text)) => {
                    words.push(' ');
                    words.push_str(text);
                }
                Some(Kind::Name(name)) => words.push_str(name),
                Some(Kind::Symbol('/')) => words.push('/'),
                Some(Kind::Symbol('^')) => {
                    let braces = matches!(self.ahead(1), Some(Kind::Symbol('{')));
                    let Some(Kind::Number(value, _)) = self.ahead(1 + usize::from(braces)) else {
                        break;
                    };
                    power = value.to_i64().filter(|n| (1..=9).contains(n)).unwrap_or(1);
                    self.at += 1 + 2 * usize::from(braces);
                }
                _ => break,
            }
            self.at += 1;
        }
        Unit::read(words.trim(), power)
    }

    pub(super) fn power(&mut self) -> Result<Expr, Reason> {
        let base = self.atom()?;
        self.postfix(base)
    }

    pub(super) fn postfix(&mut self, mut base: Expr) -> Result<Expr, Reason> {
        for _ in 0..8 {
            match self.peek() {
                Some('!') => {
                    self.at += 1;
                    base = Expr::Call(Function::Factorial, vec![base]);
                }
                Some('%') => {
                    self.at += 1;
                    base = Expr::Quantity(Box::new(base), Unit::Percent);
                }
                Some('°') => {
                    self.at += 1;
                    base = Expr::Quantity(Box::new(base), Unit::Degree);
                }
                Some('^') => {
                    self.at += 1;
                    if self.sign_above('°') {
                        base = Expr::Quantity(Box::new(base), Unit::Degree);
                        continue;
                    }
                    base = Expr::pow(base, self.deeper(Self::exponent)?);
                }
                Some('_') => {
                    self.at += 1;
                    let subscript = self.argument()?;
                    base = match (&base, subscript) {
                        // The base of its digits.
                        (Expr::Number(_), Expr::Number(of)) => {
                            let of = of.to_i64().unwrap_or(0);
                            Expr::Quantity(Box::new(base), Unit::Word(format!("base {of}")))
                        }
                        (_, subscript) => Expr::Opaque("_".into(), vec![base, subscript]),
                    };
                }
                _ => return Ok(base),
            }
        }
        Err(Reason::TooDeep)
    }

    /// `\circ` or `{\circ}` behind a `^`.
    pub(super) fn sign_above(&mut self, sign: char) -> bool {
        if self.eat(sign) {
            return true;
        }
        let braced = self.peek() == Some('{')
            && self.ahead(1) == Some(&Kind::Symbol(sign))
            && self.ahead(2) == Some(&Kind::Symbol('}'));
        self.at += 3 * usize::from(braced);
        braced
    }

    pub(super) fn exponent(&mut self) -> Result<Expr, Reason> {
        self.signed(|parser| {
            let base = parser.atom()?;
            if !parser.eat('^') {
                return Ok(base);
            }
            Ok(Expr::pow(base, parser.deeper(Self::exponent)?))
        })
    }

    /// A braced group, or one factor.
    pub(super) fn argument(&mut self) -> Result<Expr, Reason> {
        self.deeper(Self::atom)
    }
}
