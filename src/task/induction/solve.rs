//! The reference solver: every rule of least complexity that explains a series.

use super::rule::{Bounds, Kind, Linear, Rule, Step};
use super::series::{MOST_TERMS, Series};

/// Values of the missing term that a fault names; more are not kept.
const MOST_VALUES: usize = 8;

/// All rules of the least complexity at which any explains the visible terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    pub complexity: usize,
    /// Of the first rule found, in the order of the class.
    pub kind: Kind,
    pub rule: Rule,
    /// The missing term under each rule; distinct, the first rule's first.
    pub values: Vec<i64>,
    /// How many rules there are. A rule that two kinds can state counts for both.
    pub rules: u64,
    /// Rules tried to find them, a cycle once for each gap that it is compared with.
    pub tried: u64,
}

/// Tries the rules of `class` from simple to complex.
pub fn solve(series: &Series, class: &Bounds) -> Option<Solution> {
    let mut gaps = [Place::new(class); MOST_TERMS];
    for (gap, pair) in series.terms().windows(2).enumerate() {
        if gap != series.hole() && gap + 1 != series.hole() {
            gaps[gap].lead(pair[0], pair[1]);
        }
    }
    let mut search = Search { series, class, gaps, found: None, tried: 0 };
    for complexity in 1..=class.longest.max(4) {
        for &kind in &class.rules {
            if kind.of_letters() == series.letters() {
                search.fit(kind, complexity);
            }
        }
        if let Some(mut solution) = search.found {
            (solution.complexity, solution.tried) = (complexity, search.tried);
            return Some(solution);
        }
    }
    None
}

struct Search<'a> {
    series: &'a Series,
    class: &'a Bounds,
    /// Operations that lead over each gap: all of the class where an end of it is the hole.
    gaps: [Place; MOST_TERMS],
    found: Option<Solution>,
    tried: u64,
}

impl Search<'_> {
    fn add(&mut self, kind: Kind, value: i64, rules: u64, rule: impl FnOnce() -> Rule) {
        match &mut self.found {
            Some(found) => {
                found.rules = found.rules.saturating_add(rules);
                if found.values.len() < MOST_VALUES && !found.values.contains(&value) {
                    found.values.push(value);
                }
            }
            None => {
                let rule = rule();
                let values = vec![value];
                self.found = Some(Solution { complexity: 0, kind, rule, values, rules, tried: 0 });
            }
        }
    }

    fn fit(&mut self, kind: Kind, complexity: usize) {
        let one = complexity == 1;
        match kind {
            Kind::Cycle if complexity <= self.class.longest => self.cycle(complexity),
            Kind::Letters if complexity <= self.class.longest => self.letters(complexity),
            Kind::Pattern if complexity <= self.class.longest => self.pattern(complexity),
            Kind::Arithmetic | Kind::Geometric if one => {
                self.tried += 1;
                for (step, value) in steps(View::all(self.series), self.class) {
                    if matches!(step, Step::Sum(_)) == (kind == Kind::Arithmetic) {
                        self.add(kind, value, 1, || Rule::Cycle(vec![step]));
                    }
                }
            }
            Kind::Polynomial if !one && complexity <= self.class.degree => {
                self.polynomial(complexity);
            }
            Kind::Alternating if complexity == 3 => self.alternating(),
            Kind::Recurrence => self.recurrence(complexity),
            _ => {}
        }
    }

    /// Which operations each place of the cycle can have follows from the gaps with two visible
    /// ends; the operations around the hole must meet in one value.
    fn cycle(&mut self, length: usize) {
        let (series, hole) = (self.series, self.series.hole());
        // The first `length` gaps set the places, the others narrow them down.
        let gaps = series.len() - 1;
        let mut places = self.gaps;
        for gap in length..gaps {
            self.tried += 1;
            let place = &mut places[gap % length];
            place.meet(&self.gaps[gap]);
            if place.is_empty() {
                return;
            }
        }
        if places[..length.min(gaps)].iter().any(Place::is_empty) {
            return;
        }
        let places = &places[..length];
        let into = hole.checked_sub(1).map(|gap| gap % length);
        let out = series.after().map(|_| hole % length);
        let others: u64 = (0..length)
            .filter(|&place| Some(place) != into && Some(place) != out)
            .fold(1, |rules, place| rules.saturating_mul(places[place].count()));
        let rule = |place: Option<usize>, op: Step, other: Option<(usize, Step)>| {
            let mut steps: Vec<Step> = places.iter().filter_map(Place::first).collect();
            if let (Some(place), true) = (place, steps.len() == length) {
                steps[place] = op;
                if let Some((place, op)) = other {
                    steps[place] = op;
                }
            }
            Rule::Cycle(steps)
        };
        match (into.zip(series.before()), out.zip(series.after())) {
            (Some((into, before)), None) => {
                for op in places[into].steps() {
                    self.tried += 1;
                    self.add(Kind::Cycle, op.apply(before), others, || rule(Some(into), op, None));
                }
            }
            (None, Some((out, after))) => {
                for op in places[out].steps() {
                    self.tried += 1;
                    if let Some(value) = op.undo(after) {
                        self.add(Kind::Cycle, value, others, || rule(Some(out), op, None));
                    }
                }
            }
            (Some((into, before)), Some((out, after))) => {
                for op in places[into].steps() {
                    self.tried += 1;
                    let value = op.apply(before);
                    let mut next = places[out];
                    if into == out {
                        next = Place::only(op);
                    }
                    next.lead(value, after);
                    if let Some(second) = next.first() {
                        let rules = others.saturating_mul(next.count());
                        self.add(Kind::Cycle, value, rules, || {
                            rule(Some(into), op, Some((out, second)))
                        });
                    }
                }
            }
            (None, None) => {}
        }
    }

    fn polynomial(&mut self, degree: usize) {
        self.tried += 1;
        let coefficients: &[i64] = if degree == 2 { &[2, -1] } else { &[3, -3, 1] };
        let Some((constant, value)) = View::all(self.series).fit(coefficients, None) else {
            return;
        };
        // The differences at the first term, one for each degree.
        let mut row = self.series.filled(value);
        row.truncate(degree + 1);
        let bounded = (0..degree).all(|_| {
            row = row.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
            row[0].saturating_abs() <= self.class.step
        });
        if constant != 0 && bounded {
            self.add(Kind::Polynomial, value, 1, || {
                Rule::Polynomial(Linear { coefficients: coefficients.to_vec(), constant })
            });
        }
    }

    /// Complexity: the constants that are not 0, and 1 more for the second term that a rule of
    /// order 2 starts from. Order 1 without its constant, or with factor 1, is geometric or
    /// arithmetic.
    fn recurrence(&mut self, complexity: usize) {
        let view = View::all(self.series);
        let most = self.class.factor;
        for a in -most..=most {
            if complexity == 2 && a != 0 && a != 1 {
                self.linear(view, &[a], |constant| constant != 0);
            }
            for b in (-most..=most).filter(|&b| b != 0) {
                let stated = 2 + usize::from(a != 0);
                if stated == complexity || stated + 1 == complexity {
                    let with = stated < complexity;
                    self.linear(view, &[a, b], |constant| (constant != 0) == with);
                }
            }
        }
    }

    fn linear(&mut self, view: View, coefficients: &[i64], admit: impl Fn(i64) -> bool) {
        self.tried += 1;
        if let Some((constant, value)) = view.fit(coefficients, None)
            && constant.saturating_abs() <= self.class.step
            && admit(constant)
        {
            self.add(Kind::Recurrence, value, 1, || {
                Rule::Recurrence(Linear { coefficients: coefficients.to_vec(), constant })
            });
        }
    }

    fn alternating(&mut self) {
        self.tried += 1;
        let hole = self.series.hole();
        let halves = [0, 1].map(|parity| {
            let terms: Vec<i64> =
                self.series.terms().iter().skip(parity).step_by(2).copied().collect();
            let hole = if hole % 2 == parity { hole / 2 } else { usize::MAX };
            steps(View { terms: &terms, hole }, self.class)
        });
        for &(even, left) in &halves[0] {
            for &(odd, right) in &halves[1] {
                let value = [left, right][hole % 2];
                self.add(Kind::Alternating, value, 1, || Rule::Alternating([even, odd]));
            }
        }
    }

    fn letters(&mut self, length: usize) {
        self.tried += 1;
        let (up, down) = (self.class.add.min(12), self.class.subtract.min(12));
        let admit = |step: i64| (-down..=up).contains(&step);
        let mut places = [None; 32];
        let meet = |places: &mut [Option<i64>; 32], gap: usize, from: i64, to: i64| {
            // The step in -12..=13 that leads from one letter to the other.
            let step = (to - from + 12).rem_euclid(26) - 12;
            let place = &mut places[gap % length];
            admit(step) && *place.get_or_insert(step) == step
        };
        for gap in 0..self.series.len() - 1 {
            if let (Some(from), Some(to)) = (self.series.get(gap), self.series.get(gap + 1))
                && !meet(&mut places, gap, from, to)
            {
                return;
            }
        }
        let hole = self.series.hole();
        for value in 0..26 {
            let mut places = places;
            let fits = self.series.before().is_none_or(|x| meet(&mut places, hole - 1, x, value))
                && self.series.after().is_none_or(|x| meet(&mut places, hole, value, x));
            if fits {
                self.tried += 1;
                let free = places[..length].iter().filter(|place| place.is_none()).count();
                let rules = (up + down + 1).unsigned_abs().saturating_pow(free as u32);
                let steps = || places[..length].iter().map(|step| step.unwrap_or(0)).collect();
                self.add(Kind::Letters, value, rules, || Rule::Letters(steps()));
            }
        }
    }

    fn pattern(&mut self, period: usize) {
        self.tried += 1;
        let mut letters = [None; 32];
        let mut borne_out = false;
        for (at, value) in (0..self.series.len()).filter_map(|at| Some((at, self.series.get(at)?)))
        {
            match &mut letters[at % period] {
                Some(letter) if *letter != value => return,
                Some(_) => borne_out = true,
                place => *place = Some(value),
            }
        }
        match letters[self.series.hole() % period] {
            _ if !borne_out => {}
            Some(value) => self.add(Kind::Pattern, value, 1, || Rule::Pattern(period)),
            None => (0..26).for_each(|x| self.add(Kind::Pattern, x, 1, || Rule::Pattern(period))),
        }
    }
}

/// The operations that one place of a cycle can have: whole ranges, since a gap leaves one sum and
/// one product at most, or all products where 0 stays 0.
#[derive(Clone, Copy)]
struct Place {
    /// Without 0.
    sums: (i64, i64),
    products: (i64, i64),
}

impl Place {
    fn new(class: &Bounds) -> Self {
        let sums =
            if class.add + class.subtract > 0 { (-class.subtract, class.add) } else { (1, 0) };
        Self { sums, products: (2, class.multiply) }
    }

    fn only(step: Step) -> Self {
        match step {
            Step::Sum(d) => Self { sums: (d, d), products: (1, 0) },
            Step::Product(r) => Self { sums: (1, 0), products: (r, r) },
        }
    }

    fn meet(&mut self, other: &Self) {
        let both = |a: (i64, i64), b: (i64, i64)| (a.0.max(b.0), a.1.min(b.1));
        self.sums = both(self.sums, other.sums);
        self.products = both(self.products, other.products);
    }

    /// Keeps the operations that lead from one term to another.
    fn lead(&mut self, from: i64, to: i64) {
        let narrow = |range: &mut (i64, i64), to: i64| {
            *range = if range.0 <= to && to <= range.1 { (to, to) } else { (1, 0) };
        };
        match to.saturating_sub(from) {
            0 => self.sums = (1, 0),
            step => narrow(&mut self.sums, step),
        }
        match to.checked_div(from) {
            Some(ratio) if ratio.checked_mul(from) == Some(to) => narrow(&mut self.products, ratio),
            // 0 stays 0 under every product.
            None if from == 0 && to == 0 => {}
            _ => self.products = (1, 0),
        }
    }

    fn is_empty(&self) -> bool {
        self.sums.0 > self.sums.1 && self.products.0 > self.products.1
    }

    fn count(&self) -> u64 {
        let size = |range: (i64, i64)| (range.1 - range.0 + 1).max(0).unsigned_abs();
        let zero = u64::from((self.sums.0..=self.sums.1).contains(&0));
        size(self.sums) - zero + size(self.products)
    }

    /// From simple to complex: +1, +2, …, -1, -2, …, *2, *3, ….
    fn steps(&self) -> impl Iterator<Item = Step> + use<> {
        let (low, high) = self.sums;
        let up = (low.max(1)..=high).map(Step::Sum);
        let down = (low..=high.min(-1)).rev().map(Step::Sum);
        up.chain(down).chain((self.products.0..=self.products.1).map(Step::Product))
    }

    fn first(&self) -> Option<Step> {
        self.steps().next()
    }
}

/// The operations that lead through all visible terms, and the missing one under each.
fn steps(view: View, class: &Bounds) -> Vec<(Step, i64)> {
    let sum = view.fit(&[1], None).filter(|(d, _)| d.saturating_abs() <= class.step);
    let products = (-class.factor..=class.factor)
        .filter(|r| !(0..=1).contains(r))
        .filter_map(|r| Some((Step::Product(r), view.fit(&[r], Some(0))?.1)));
    sum.map(|(d, value)| (Step::Sum(d), value)).into_iter().chain(products).collect()
}

/// Terms with a hole, or none where the hole lies beyond them.
#[derive(Clone, Copy)]
struct View<'a> {
    terms: &'a [i64],
    hole: usize,
}

impl<'a> View<'a> {
    fn all(series: &'a Series) -> Self {
        Self { terms: series.terms(), hole: series.hole() }
    }

    /// The constant c and the missing term with which
    /// x(n) = coefficients[0] · x(n-1) + … + c holds at every n, provided that it can be seen to
    /// hold at one.
    fn fit(self, coefficients: &[i64], constant: Option<i64>) -> Option<(i64, i64)> {
        let order = coefficients.len();
        let rest = |n: usize| {
            let past = self.terms[..n].iter().rev();
            let sum: i64 = coefficients.iter().zip(past).map(|(a, x)| a * x).sum();
            self.terms[n] - sum
        };
        let windows = order..self.terms.len();
        let holds_hole = |n: &usize| (n - order..=*n).contains(&self.hole);
        let mut seen = windows.clone().filter(|n| !holds_hole(n)).map(rest);
        let first = seen.next()?;
        if constant.is_some_and(|constant| constant != first) || !seen.all(|rest| rest == first) {
            return None;
        }
        let mut value = None;
        for n in windows.filter(holds_hole) {
            let coefficient = if n == self.hole { 1 } else { -coefficients[n - self.hole - 1] };
            // rest(n) takes the missing term for 0, which is what stands there.
            let missing = first - rest(n);
            match value {
                Some(value) if coefficient * value != missing => return None,
                None if coefficient == 0 && missing != 0 => return None,
                None if coefficient != 0 => {
                    value = (missing % coefficient == 0).then_some(missing / coefficient);
                    value?;
                }
                _ => {}
            }
        }
        Some((first, value.unwrap_or(0)))
    }
}
