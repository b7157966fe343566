//! Solvers that do not look for the rule.

use super::rule::{Kind, Rule, Step};
use super::series::MOST_TERMS;
use super::{Induction, Probe};

/// The terms around a place, which itself is not looked at. Reversed where the hole stands in the
/// first half, so that most of the series always comes before it.
type Terms = [Option<i64>];
type Guess = fn(&Terms, usize) -> Option<i64>;

/// A shortcut by name. It tells any term from those around it.
struct Shortcut {
    name: &'static str,
    guess: Guess,
    /// It repeats what was done so many places back, which is the rule where its period divides
    /// them.
    back: Option<usize>,
    /// It names an operation of the class, and is right as often as that is drawn.
    of_class: bool,
}

const fn shortcut(name: &'static str, guess: Guess) -> Shortcut {
    Shortcut { name, guess, back: None, of_class: false }
}

const fn repeat(name: &'static str, back: usize, guess: Guess) -> Shortcut {
    Shortcut { name, guess, back: Some(back), of_class: false }
}

const fn operation(name: &'static str, guess: Guess) -> Shortcut {
    Shortcut { name, guess, back: None, of_class: true }
}

const SHORTCUTS: [Shortcut; 30] =
    [
        shortcut("copy the last term", |t, i| back(t, i, 1)),
        shortcut("copy the term before the last", |t, i| back(t, i, 2)),
        shortcut("copy the next term", |t, i| *t.get(i + 1)?),
        shortcut("copy the first term", |t, i| if i == 0 { None } else { t[0] }),
        shortcut("most frequent term", |t, i| most_frequent(others(t, i))),
        repeat("last difference", 1, |t, i| repeat_difference(t, i, 1)),
        repeat("last ratio", 1, |t, i| repeat_ratio(t, i, 1)),
        repeat("difference 2 back", 2, |t, i| repeat_difference(t, i, 2)),
        repeat("ratio 2 back", 2, |t, i| repeat_ratio(t, i, 2)),
        repeat("difference 3 back", 3, |t, i| repeat_difference(t, i, 3)),
        repeat("difference 4 back", 4, |t, i| repeat_difference(t, i, 4)),
        repeat("difference 5 back", 5, |t, i| repeat_difference(t, i, 5)),
        repeat("ratio 3 back", 3, |t, i| repeat_ratio(t, i, 3)),
        repeat("ratio 4 back", 4, |t, i| repeat_ratio(t, i, 4)),
        repeat("ratio 5 back", 5, |t, i| repeat_ratio(t, i, 5)),
        shortcut("first difference", |t, i| {
            if i < 2 { None } else { back(t, i, 1)?.checked_add(t[1]?.checked_sub(t[0]?)?) }
        }),
        shortcut("first ratio", |t, i| {
            if i < 2 { None } else { times_ratio(back(t, i, 1)?, t[0]?, t[1]?) }
        }),
        shortcut("most frequent difference", |t, i| {
            back(t, i, 1)?.checked_add(most_frequent(differences(t, i))?)
        }),
        shortcut("most frequent ratio", |t, i| {
            back(t, i, 1)?.checked_mul(most_frequent(ratios(t, i))?)
        }),
        shortcut("mean difference", |t, i| {
            let (first, last) = (t[..i].iter().flatten().next()?, back(t, i, 1)?);
            let gaps = i64::try_from(i.checked_sub(1)?).ok().filter(|&gaps| gaps > 0)?;
            last.checked_add(last.checked_sub(*first)?.div_euclid(gaps))
        }),
        repeat("every second term", 2, |t, i| {
            back(t, i, 2)?.checked_mul(2)?.checked_sub(back(t, i, 4)?)
        }),
        shortcut("constant second difference", |t, i| {
            let (x, y, z) = (back(t, i, 1)?, back(t, i, 2)?, back(t, i, 3)?);
            x.checked_sub(y)?.checked_mul(3)?.checked_add(z)
        }),
        shortcut("mean of the neighbours", |t, i| {
            let sum = back(t, i, 1)?.checked_add((*t.get(i + 1)?)?)?;
            (sum % 2 == 0).then_some(sum / 2)
        }),
        shortcut("sum of the last two", |t, i| back(t, i, 1)?.checked_add(back(t, i, 2)?)),
        operation("greatest and one", |t, i| t[..i].iter().flatten().max()?.checked_add(1)),
        operation("least less one", |t, i| t[..i].iter().flatten().min()?.checked_sub(1)),
        operation("last and one", |t, i| back(t, i, 1)?.checked_add(1)),
        operation("last less one", |t, i| back(t, i, 1)?.checked_sub(1)),
        operation("last and two", |t, i| back(t, i, 1)?.checked_add(2)),
        operation("last doubled", |t, i| back(t, i, 1)?.checked_mul(2)),
    ];

fn back(t: &Terms, i: usize, by: usize) -> Option<i64> {
    t[i.checked_sub(by)?]
}

fn repeat_difference(t: &Terms, i: usize, by: usize) -> Option<i64> {
    back(t, i, 1)?.checked_add(back(t, i, by)?.checked_sub(back(t, i, by + 1)?)?)
}

fn repeat_ratio(t: &Terms, i: usize, by: usize) -> Option<i64> {
    times_ratio(back(t, i, 1)?, back(t, i, by + 1)?, back(t, i, by)?)
}

fn times_ratio(x: i64, from: i64, to: i64) -> Option<i64> {
    let product = x.checked_mul(to)?;
    (product.checked_rem(from)? == 0).then(|| product / from)
}

fn others(t: &Terms, i: usize) -> impl Iterator<Item = i64> {
    t.iter().enumerate().filter_map(move |(at, term)| term.filter(|_| at != i))
}

fn differences(t: &Terms, i: usize) -> impl Iterator<Item = i64> {
    (1..t.len())
        .filter(move |&at| at != i && at != i + 1)
        .filter_map(|at| t[at]?.checked_sub(t[at - 1]?))
}

/// The whole ones.
fn ratios(t: &Terms, i: usize) -> impl Iterator<Item = i64> {
    (1..t.len()).filter(move |&at| at != i && at != i + 1).filter_map(|at| {
        let (from, to) = (t[at - 1]?, t[at]?);
        (to.checked_rem(from)? == 0).then(|| to / from)
    })
}

/// The last of those that occur most often, where one occurs twice at least.
fn most_frequent(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut all = [0; MOST_TERMS];
    let count = all.iter_mut().zip(values).map(|(slot, value)| *slot = value).count();
    let all = &all[..count];
    let times = |value: i64| all.iter().filter(|&&other| other == value).count();
    let (times, value) = all.iter().map(|&value| (times(value), value)).max_by_key(|x| x.0)?;
    (times > 1).then_some(value)
}

/// Chance: one step of the class from a neighbour of the hole; in a pattern one of the letters
/// shown. A guess that knows the length k of a cycle besides is right once in k.
pub fn blind(puzzle: &Induction) -> Vec<Probe> {
    let (class, series) = (&puzzle.class, &puzzle.series);
    let one_of = |count: i64| 1.0 / count.max(1) as f64;
    let value = puzzle.value();
    let constant = |x: i64| f64::from(u8::from(!series.letters() && value == Some(x)));
    let kind = puzzle.solution().map(|found| found.kind);
    let step = match kind {
        Some(Kind::Cycle) => one_of(class.add + class.subtract + class.multiply.max(1) - 1),
        Some(Kind::Arithmetic) => one_of(2 * class.step),
        Some(Kind::Geometric) => one_of(class.factor - 1),
        Some(Kind::Letters) => one_of(class.add + class.subtract),
        _ => 0.0,
    };
    let same = (0..series.len()).filter(|&at| series.get(at).is_some_and(|x| Some(x) == value));
    let shown = if kind == Some(Kind::Pattern) {
        same.count() as f64 / (series.len() - 1) as f64
    } else {
        0.0
    };
    vec![
        ("any step", step),
        ("any letter", if series.letters() { 1.0 / 26.0 } else { 0.0 }),
        ("any letter shown", shown),
        ("always 0", constant(0)),
        ("always 1", constant(1)),
        ("always 2", constant(2)),
    ]
}

/// One that has an answer, and tells every visible term which it can be tried on, amounts to a rule
/// that fits, and is left out. One without an answer is wrong.
pub fn shortcuts(puzzle: &Induction) -> Vec<Probe> {
    let trial = Trial::new(puzzle);
    SHORTCUTS
        .iter()
        .filter(|shortcut| !trial.is_rule(shortcut))
        .map(|shortcut| (shortcut.name, f64::from(u8::from(trial.is_right(shortcut)))))
        .collect()
}

/// Whether any solves the puzzle, but for those that only name an operation of the class.
pub fn solved(puzzle: &Induction) -> bool {
    let trial = Trial::new(puzzle);
    SHORTCUTS
        .iter()
        .any(|shortcut| !shortcut.of_class && trial.is_right(shortcut) && !trial.is_rule(shortcut))
}

struct Trial {
    terms: [Option<i64>; MOST_TERMS],
    len: usize,
    hole: usize,
    letters: bool,
    value: Option<i64>,
    /// After how many terms the rule at the hole comes again.
    period: usize,
}

impl Trial {
    fn new(puzzle: &Induction) -> Self {
        let series = &puzzle.series;
        let (len, mut hole) = (series.len(), series.hole());
        let mut terms = [None; MOST_TERMS];
        (0..len).for_each(|at| terms[at] = series.get(at));
        let period = match puzzle.solution().map(|found| &found.rule) {
            Some(Rule::Cycle(steps)) => steps.len(),
            Some(Rule::Letters(steps)) => steps.len(),
            Some(Rule::Pattern(period)) => *period,
            Some(Rule::Alternating(pair)) if matches!(pair[hole % 2], Step::Sum(_)) => 2,
            _ => usize::MAX,
        };
        if hole < len / 2 {
            terms[..len].reverse();
            hole = len - 1 - hole;
        }
        Self { terms, len, hole, letters: series.letters(), value: puzzle.value(), period }
    }

    fn tells(&self, shortcut: &Shortcut, at: usize, term: Option<i64>) -> Option<bool> {
        let guess = (shortcut.guess)(&self.terms[..self.len], at)?;
        let term = term?;
        Some(if self.letters { (guess - term).rem_euclid(26) == 0 } else { guess == term })
    }

    fn is_right(&self, shortcut: &Shortcut) -> bool {
        self.tells(shortcut, self.hole, self.value) == Some(true)
    }

    fn is_rule(&self, shortcut: &Shortcut) -> bool {
        shortcut.back.is_some_and(|back| back % self.period == 0)
            || (shortcut.guess)(&self.terms[..self.len], self.hole).is_some()
                && (0..self.len).all(|at| self.tells(shortcut, at, self.terms[at]) != Some(false))
    }
}
