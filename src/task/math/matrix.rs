//! Matrices, their sums and products.

use super::Reason;
use super::expression::Expr;
use super::parse::Parser;

impl Parser<'_> {
    pub(super) fn matrix(&mut self) -> Result<Expr, Reason> {
        let mut rows = vec![Vec::new()];
        loop {
            if self.eat('⟭') {
                break;
            }
            if self.eat('⏎') {
                rows.push(Vec::new());
            } else if !self.eat('&') {
                let entry = self.sum()?;
                rows.last_mut().ok_or(MATRIX)?.push(entry);
            }
            if self.kind().is_none() {
                return Err(Reason::Syntax("a matrix without an end"));
            }
        }
        rows.retain(|row: &Vec<Expr>| !row.is_empty());
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(Reason::Syntax("a matrix with rows of different lengths"));
        }
        Ok(Expr::Matrix(rows))
    }
}

pub const MATRIX: Reason = Reason::Syntax("matrices that do not fit");

pub fn add_matrices(left: Expr, right: Expr) -> Result<Expr, Reason> {
    let (Expr::Matrix(left), Expr::Matrix(right)) = (left, right) else { return Err(MATRIX) };
    let fits =
        left.len() == right.len() && left.iter().zip(&right).all(|(a, b)| a.len() == b.len());
    if !fits {
        return Err(MATRIX);
    }
    let row = |(left, right): (Vec<Expr>, Vec<Expr>)| {
        left.into_iter().zip(right).map(|(a, b)| Expr::Add(vec![a, b])).collect()
    };
    Ok(Expr::Matrix(left.into_iter().zip(right).map(row).collect()))
}

fn multiply(left: Expr, right: Expr) -> Result<Expr, Reason> {
    let scale = |factor: Expr, rows: Vec<Vec<Expr>>| {
        let times = |entry| Expr::Mul(vec![factor.clone(), entry]);
        Expr::Matrix(rows.into_iter().map(|row| row.into_iter().map(times).collect()).collect())
    };
    match (left, right) {
        (Expr::Matrix(left), Expr::Matrix(right)) => {
            let width = right.first().map_or(0, Vec::len);
            let inner = right.len();
            let size = left.len() * inner * width;
            let copies = |rows: &[Vec<Expr>], times: usize| {
                rows.iter().flatten().map(Expr::nodes).sum::<usize>() * times
            };
            let grown = copies(&left, width) + copies(&right, left.len());
            if left.iter().any(|row| row.len() != inner) || size > 1000 || grown > 10_000 {
                return Err(MATRIX);
            }
            let entry = |row: &[Expr], column: usize| {
                let pairs = row.iter().zip(&right);
                let term =
                    |(a, b): (&Expr, &Vec<Expr>)| Expr::Mul(vec![a.clone(), b[column].clone()]);
                Expr::Add(pairs.map(term).collect())
            };
            let row = |row: &Vec<Expr>| (0..width).map(|column| entry(row, column)).collect();
            Ok(Expr::Matrix(left.iter().map(row).collect()))
        }
        (Expr::Matrix(rows), factor) | (factor, Expr::Matrix(rows)) => {
            let copies = factor.nodes() * rows.iter().map(Vec::len).sum::<usize>();
            if copies > 10_000 { Err(MATRIX) } else { Ok(scale(factor, rows)) }
        }
        (left, right) => Ok(Expr::Mul(vec![left, right])),
    }
}

pub fn product_of(mut factors: Vec<Expr>) -> Result<Expr, Reason> {
    if factors.len() == 1 {
        return Ok(factors.remove(0));
    }
    if factors.iter().any(|factor| matches!(factor, Expr::Text(_))) {
        return Err(Reason::Syntax("words within a formula"));
    }
    if !factors.iter().any(|factor| matches!(factor, Expr::Matrix(_))) {
        return Ok(Expr::Mul(factors));
    }
    let size = |factor: &Expr| match factor {
        Expr::Matrix(rows) => rows.len(),
        _ => 1,
    };
    if factors.len() > 3 || factors.iter().map(size).max() > Some(8) {
        return Err(MATRIX);
    }
    factors.into_iter().map(Ok).reduce(|a, b| multiply(a?, b?)).unwrap_or(Err(MATRIX))
}
