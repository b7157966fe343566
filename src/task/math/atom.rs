//! Numbers, names and brackets: what operators stand between.

use super::Reason;
use super::expression::{Expr, Function};
use super::function::root;
use super::number::Rational;
use super::parse::Parser;
use super::token::Kind;

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Result<Expr, Reason> {
        let kind = self.kind().ok_or(Reason::Syntax("it ends too early"))?;
        self.at += 1;
        Ok(match kind {
            Kind::Number(value, decimal) => return self.mixed(value, *decimal),
            Kind::Name("e") => Expr::E,
            Kind::Name("i") | Kind::Symbol('ⅈ') => Expr::I,
            Kind::Name(name) => return self.name(name),
            Kind::Text(text) => Expr::Text((*text).to_owned()),
            Kind::Command(name) => return self.deeper(|parser| parser.command(name)),
            Kind::Symbol('π') => Expr::Pi,
            Kind::Symbol('∞') => Expr::Infinity,
            Kind::Symbol('ℝ') => Expr::Reals,
            Kind::Symbol('∅') => Expr::Set(Vec::new()),
            Kind::Symbol('…') => Expr::variable("…"),
            Kind::Symbol('√') => root(self.argument()?, 2),
            Kind::Symbol('∛') => root(self.argument()?, 3),
            Kind::Symbol(c @ ('(' | '[')) => return self.bracket(*c),
            Kind::Symbol('{') => return self.group(),
            Kind::Symbol('⦃') => return self.set(),
            Kind::Symbol('|') => {
                let inner = self.inside(true, Self::sum)?;
                self.expect('|')?;
                // Double bars are a norm, which of a number is the same.
                Expr::Call(Function::Abs, vec![inner])
            }
            Kind::Symbol('⌊') => self.closed('⌋', Function::Floor)?,
            Kind::Symbol('⌈') => self.closed('⌉', Function::Ceil)?,
            Kind::Symbol('⟬') => self.inside(false, Self::matrix)?,
            Kind::Symbol(_) => return Err(Reason::Syntax("a sign without its sides")),
        })
    }

    pub(super) fn closed(&mut self, close: char, function: Function) -> Result<Expr, Reason> {
        let inner = self.inside(false, Self::sum)?;
        self.expect(close)?;
        Ok(Expr::Call(function, vec![inner]))
    }

    /// `1 1/2`, `1\frac12`.
    pub(super) fn mixed(&mut self, value: &Rational, decimal: bool) -> Result<Expr, Reason> {
        let whole = Expr::Number(value.clone());
        if decimal {
            return Ok(Expr::Decimal(value.clone()));
        }
        let slash = |parser: &Self, at: usize| {
            let token = |by: usize| parser.tokens.get(at + by).map(|token| &token.kind);
            match (token(0), token(1), token(2)) {
                (
                    Some(Kind::Number(num, false)),
                    Some(Kind::Symbol('/')),
                    Some(Kind::Number(den, false)),
                ) => num.mul(&den.inv()?),
                _ => None,
            }
        };
        if let Some(fraction) = slash(self, self.at)
            && value.is_integer()
        {
            self.at += 3;
            return Ok(Expr::Number(value.add(&fraction).ok_or(Reason::TooLarge)?));
        }
        if self.kind() == Some(&Kind::Command("frac")) && value.is_integer() {
            let before = self.at;
            self.at += 1;
            let fraction = self.deeper(|parser| parser.command("frac"))?;
            if let Expr::Mul(parts) = &fraction
                && let [Expr::Number(num), Expr::Pow(below)] = &parts[..]
                && let [Expr::Number(den), _] = &below[..]
                && let Some(part) = den.inv().and_then(|inverse| num.mul(&inverse))
            {
                return Ok(Expr::Number(value.add(&part).ok_or(Reason::TooLarge)?));
            }
            self.at = before;
        }
        Ok(whole)
    }

    pub(super) fn name(&mut self, name: &str) -> Result<Expr, Reason> {
        let mut name = name.to_owned();
        loop {
            let at = self.at;
            let prime = self.eat('\'') || (self.eat('^') && self.sign_above('\''));
            if !prime {
                self.at = at;
                break;
            }
            name.push('\'');
        }
        if self.peek() == Some('_') {
            // One name where the index is one token, else a sequence at an index.
            let braces = usize::from(matches!(self.ahead(1), Some(Kind::Symbol('{'))));
            let index = match self.ahead(1 + braces) {
                Some(Kind::Number(value, false)) => Some(value.num().to_string()),
                Some(Kind::Name(index) | Kind::Text(index) | Kind::Command(index)) => {
                    Some((*index).to_owned())
                }
                _ => None,
            };
            let closes = braces == 0 || matches!(self.ahead(3), Some(Kind::Symbol('}')));
            if let Some(index) = index.filter(|_| closes) {
                self.at += 2 + 2 * braces;
                name = format!("{name}_{index}");
            } else {
                self.at += 1;
                let index = self.argument()?;
                return Ok(Expr::Opaque(name, vec![index]));
            }
        }
        let adjacent =
            self.peek() == Some('(') && self.tokens.get(self.at).is_some_and(|token| !token.space);
        // `f(x + 1)`, `P(A)`, `I(0)`; but `P(1 + r)` is a product.
        let short = matches!(self.ahead(1), Some(Kind::Number(..) | Kind::Name(_)))
            && self.ahead(2) == Some(&Kind::Symbol(')'));
        let call = adjacent
            && match name.trim_end_matches('\'') {
                "f" | "g" | "h" => true,
                name => short && name.len() == 1 && name.starts_with(char::is_uppercase),
            };
        if call {
            self.at += 1;
            let parts = self.inside(false, |parser| parser.list(','))?;
            self.expect(')')?;
            return Ok(Expr::Opaque(name, parts));
        }
        Ok(Expr::Variable(name))
    }

    pub(super) fn bracket(&mut self, open: char) -> Result<Expr, Reason> {
        let mut items = self.inside(false, |parser| {
            let mut items = parser.list(',')?;
            if parser.peek() == Some(';') {
                while parser.eat(';') {
                    items.extend(parser.list(',')?);
                }
            }
            Ok(items)
        })?;
        let close = match self.peek() {
            Some(c @ (')' | ']')) => c,
            _ => return Err(Reason::Syntax("unbalanced brackets")),
        };
        self.at += 1;
        if items.len() == 1 && (open == '(') == (close == ')') {
            return Ok(items.remove(0));
        }
        if items.is_empty() {
            return Err(Reason::Syntax("empty brackets"));
        }
        Ok(Expr::Tuple(open, items, close))
    }

    pub(super) fn group(&mut self) -> Result<Expr, Reason> {
        let mut items = self.inside(false, |parser| {
            let items = parser.list(',')?;
            if parser.kind() == Some(&Kind::Command("choose")) {
                parser.at += 1;
                let below = parser.sum()?;
                let above = items.into_iter().next().ok_or(Reason::Syntax("nothing to choose"))?;
                return Ok(vec![Expr::Call(Function::Binomial, vec![above, below])]);
            }
            Ok(items)
        })?;
        self.expect('}')?;
        match items.len() {
            0 => Err(Reason::Syntax("empty braces")),
            1 => Ok(items.remove(0)),
            _ => Ok(Expr::Set(items)),
        }
    }

    /// A set by its members, or by the condition behind its bar.
    pub(super) fn set(&mut self) -> Result<Expr, Reason> {
        let found = self.inside(false, |parser| {
            let start = parser.at;
            let name = matches!(parser.kind(), Some(Kind::Name(_)));
            let bar = matches!(parser.ahead(1), Some(Kind::Symbol('|' | '∣' | ':')));
            if name && bar {
                parser.at += 2;
                let mut conditions = parser.list(',')?;
                return Ok(match conditions.len() {
                    1 => conditions.remove(0),
                    _ => Expr::Opaque("where".into(), conditions),
                });
            }
            if name && matches!(parser.ahead(1), Some(Kind::Symbol('∈'))) {
                parser.at += 2;
                let from = parser.join()?;
                if matches!(parser.peek(), Some('|' | '∣' | ':')) {
                    parser.at += 1;
                    let condition = parser.relation()?;
                    return Ok(match from {
                        Expr::Reals => condition,
                        from => Expr::Opaque("where".into(), vec![from, condition]),
                    });
                }
                parser.at = start;
            }
            let mut items = parser.list(',')?;
            while parser.eat(';') {
                items.extend(parser.list(',')?);
            }
            Ok(Expr::Set(items))
        })?;
        self.expect('⦄')?;
        Ok(found)
    }
}
