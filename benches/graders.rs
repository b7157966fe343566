//! Verdicts on mathematical answers per second, one core: `cargo bench --bench graders`.
//! With `-- --lines` reads {"gold", "answer"} as JSON lines and prints a verdict for each, for
//! benches/graders.py.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use triad::task::math::{Equality, extract, grade};

/// Right answers of the kinds, and about in the shares, that MATH-500 has (two in three are
/// integers, then fractions, expressions, points, intervals, lists, words), each with what a model
/// answers: half of them letter for letter, a fourth in another writing, a fourth wrong.
const MIX: &[(&str, &str)] = &[
    ("9", "9"),
    ("42", "42"),
    ("-3", "3"),
    ("1251", "1251"),
    ("13535", "13{,}535"),
    ("0", "0"),
    ("2220", "2220"),
    ("8", "x = 8"),
    ("18", "20"),
    ("11", "11"),
    ("5", "5"),
    ("70", "70"),
    ("27", "\\text{27}"),
    ("6", "6"),
    ("28", "28"),
    ("144", "144"),
    ("17", "19"),
    ("3", "3"),
    ("4", "4.0"),
    ("24", "24"),
    ("90^\\circ", "90"),
    ("10", "10"),
    ("25", "25"),
    ("6", "7"),
    ("1", "1"),
    ("225", "225"),
    ("50", "50\\%"),
    ("12", "12"),
    ("2", "2"),
    ("36", "36\\text{ cm}^2"),
    ("7", "7"),
    ("54", "45"),
    ("\\$32,\\!348", "32348"),
    ("15", "15"),
    ("\\frac{14}{3}", "\\frac{14}{3}"),
    ("\\frac{3}{56}", "3/56"),
    ("\\dfrac{9}{256}", "\\frac{9}{256}"),
    ("\\frac{1}{2}", "0.5"),
    ("\\frac43", "\\frac{3}{4}"),
    ("-\\frac{35}{9}", "\\frac{-35}{9}"),
    ("2\\sqrt{5}", "\\sqrt{20}"),
    ("3\\sqrt{13}", "3\\sqrt{13}"),
    ("6 - 5i", "6 - 5i"),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}"),
    ("p - q", "p - q"),
    ("x^3 + 3x - 6", "x^3+3x-6"),
    ("\\frac{\\pi}{2}", "\\frac{\\pi}{3}"),
    ("2k", "2k"),
    ("(3,4]", "(3, 4]"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)"),
    ("[-2,7]", "[-2, 7]"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(-\\infty,2)\\cup(3,\\infty)"),
    ("-2,1", "1, -2"),
    ("\\text{Evelyn}", "Evelyn"),
    ("\\text{(C)}", "C"),
    ("\\begin{pmatrix} 1 \\\\ -2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\-2\\end{pmatrix}"),
    ("y = 2x + 3", "y = 2x + 3"),
    ("5x - 7y + 11z + 4 = 0", "5x-7y+11z+4=0"),
    ("11\\sqrt2", "11\\sqrt{2}"),
    ("0.35", "0.35"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|argument| argument == "--lines") {
        return lines();
    }
    rate("all", MIX.iter().collect());
    rate("not letter for letter", MIX.iter().filter(|(gold, answer)| gold != answer).collect());
    Ok(())
}

fn rate(what: &str, pairs: Vec<&(&str, &str)>) {
    let mut rates = Vec::new();
    for _ in 0..15 {
        let started = Instant::now();
        for _ in 0..200 {
            for (gold, answer) in &pairs {
                black_box(grade(gold, answer));
            }
        }
        rates.push((200 * pairs.len()) as f64 / started.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("{what}: {:.0} verdicts/s (15 runs: {:.0} to {:.0})", rates[7], rates[0], rates[14]);
}

fn lines() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let pair: serde_json::Value = serde_json::from_str(&line?)?;
        let text = |name: &str| pair[name].as_str().unwrap_or_default();
        let verdict = match (extract(text("gold")), extract(text("answer"))) {
            (Some(gold), Some(answer)) => grade(gold, answer),
            _ => Equality::Different,
        };
        let (word, reason) = match verdict {
            Equality::Equal => ("equal", String::new()),
            Equality::Different => ("different", String::new()),
            Equality::Unknown(reason) => ("unknown", reason.to_string()),
        };
        writeln!(out, "{}", serde_json::json!({"verdict": word, "reason": reason}))?;
    }
    Ok(())
}
