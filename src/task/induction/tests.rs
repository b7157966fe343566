use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::rule::{Kind, Rule, Step};
use super::*;
use crate::task::Panel;

fn bounds() -> Bounds {
    Bounds { longest: 4, add: 5, subtract: 5, ..Bounds::everything() }
}

fn puzzle(series: &str, bounds: Bounds) -> Induction {
    Induction::new(Series::read(series).unwrap(), Class::try_from(bounds).unwrap())
}

fn of(series: &str, rules: &[Kind]) -> Induction {
    puzzle(series, Bounds { rules: rules.to_vec(), ..bounds() })
}

/// The parameters of `level` with some replaced.
fn parameters(level: u32, changes: Value) -> Parameters {
    let mut all = serde_json::to_value(Induction::parameters(level)).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        all[key] = value.clone();
    }
    let all = serde_json::from_value(all).unwrap();
    Induction::validate(&all).unwrap();
    all
}

fn drawn(parameters: &Parameters, count: usize) -> Vec<Induction> {
    let mut source = Induction::source(parameters);
    let draw = |index| source(&mut Stream::new(1, "test", index));
    (0..).filter_map(draw).take(count).collect()
}

fn every_kind() -> Vec<Induction> {
    Kind::ALL
        .iter()
        .flat_map(|kind| {
            let changes = json!({
                "rules": [kind], "cycle": [2, 4], "terms": [8, 12], "start": [0, 40],
                "missing": "any", "limit": 100_000_000,
            });
            drawn(&parameters(1, changes), 150)
        })
        .collect()
}

#[test]
fn cycles_have_the_answer_of_their_simplest_rules() {
    let cycle = of("3,6,5,10,9,?", &[Kind::Cycle]);
    assert_eq!(cycle.text(Style::Compact), "I:3,6,5,10,9,?");
    assert_eq!(cycle.trace(Style::Compact), "*2-1*2-1*2:9*2=18");
    assert_eq!(cycle.certify().unwrap().proof["rule"], "*2-1");
    let middle = of("1,3,?,7", &[Kind::Cycle]);
    assert_eq!(middle.answer(Style::Compact), "5");
    assert_eq!(middle.trace(Style::Compact), "+2+2+2:3+2=5");
    let first = of("?,5,7,9", &[Kind::Cycle]);
    assert_eq!(first.trace(Style::Compact), "+2+2+2:5-2=3");
    // 2, 4, ?: +2 gives 6, *2 gives 8.
    let open = of("2,4,?", &[Kind::Cycle]);
    let fault = open.certify().unwrap_err();
    assert_eq!(fault.kind, FaultKind::Ambiguous);
    assert!(fault.detail.contains("6, 8"), "{fault}");
    assert_eq!((open.answer(Style::Compact).as_str(), open.check("6").is_correct()), ("", false));
    assert_eq!(of("1,50,?", &[Kind::Cycle]).certify().unwrap_err().kind, FaultKind::Unsolvable);
}

#[test]
fn every_kind_has_its_trace() {
    for (series, kind, depth, answer, trace) in [
        ("3,10,17,?", "arithmetic", 1, "24", "+7+7+7:17+7=24"),
        ("?,-6,12,-24", "geometric", 1, "3", "*-2*-2*-2:-6/-2=3"),
        ("1,2,5,10,17,?", "polynomial", 2, "26", "+1+3+5+7+9:+2+2+2+2:17+9=26"),
        ("1,9,4,18,7,36,?", "alternating", 3, "10", "+3*2+3*2+3:7+3=10"),
        ("1,9,4,?,7,36,10,72", "alternating", 3, "18", "+3*2+3*2+3*2:9*2=18"),
        ("1,1,2,3,5,?,13", "recurrence", 3, "8", "x+y:1*5+1*3=8"),
        ("?,7,22,67,202", "recurrence", 2, "2", "3x+1:3*2+1=7"),
        ("A,C,B,D,C,E,?", "letters", 2, "D", "+2-1+2-1+2-1:E-1=D"),
        ("Y,Z,A,?,C", "letters", 1, "B", "+1+1+1+1:A+1=B"),
        ("A,Q,A,Q,A,?", "pattern", 2, "Q", "AQ:2=Q"),
    ] {
        let puzzle = of(series, &Kind::ALL);
        let proof = puzzle.certify().unwrap();
        assert_eq!((proof.kind, proof.depth), (kind, depth), "{series}");
        assert_eq!(puzzle.answer(Style::Paper), answer, "{series}");
        assert_eq!(puzzle.trace(Style::Compact), trace, "{series}");
        assert!(puzzle.trace(Style::Paper).ends_with(&format!("term is {answer}.")), "{series}");
    }
}

#[test]
fn reads_the_released_texts() {
    let text = "Given the following sequence,\n['3', '-1', '2', '-2', '?']\n\
                What is the value at the question mark?";
    let puzzle = Induction::read(text).unwrap();
    assert_eq!(puzzle.text(Style::Paper), text);
    assert_eq!(puzzle.answer(Style::Paper), "1");
    assert_eq!(puzzle, Induction::read("I:3,-1,2,-2,?").unwrap());
    for (text, message) in [
        ("[1, 2, 3]", "no term is missing"),
        ("[1, ?, ?]", "term 3: a second `?`"),
        ("[1, b, ?]", "letters and numbers"),
        ("[1, 2, ?", "no `]`"),
        ("[1, 2,, ?]", "`` is no term"),
        ("[?]", "no visible term"),
        ("[1, 1000000000001, ?]", "beyond"),
    ] {
        let error = Induction::read(text).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn answers_are_read_in_many_forms() {
    let number = of("3,6,5,10,9,?", &Kind::ALL);
    for right in ["18", " 18\n", "+18", "18.0", "'18'", "018", "18.000"] {
        assert_eq!(number.check(right), Verdict::Correct, "{right}");
    }
    for wrong in ["19", "-18", "18.5", "A", "99999999999999999999"] {
        assert_eq!(number.check(wrong), Verdict::Wrong("term".into()), "{wrong}");
    }
    for unparsed in ["", "18.", "eighteen", "1 8", "18, 19", "?", "1e1", "--18", "AB", "x=18"] {
        assert_eq!(number.check(unparsed), Verdict::Unparsed, "{unparsed}");
    }
    let letter = of("A,C,E,?", &Kind::ALL);
    assert!(letter.check("g").is_correct() && letter.check("\"G\"").is_correct());
    assert!(!letter.check("6").is_correct());
    assert!(of("3,1,-1,?", &Kind::ALL).check("\u{2212}3").is_correct());
}

#[test]
fn drawn_puzzles_are_certified_and_read_back() {
    for puzzle in every_kind() {
        let text = puzzle.text(Style::Compact);
        puzzle.certify().unwrap();
        for style in [Style::Compact, Style::Paper] {
            assert!(puzzle.check(&puzzle.answer(style)).is_correct(), "{text}");
            let trace = puzzle.trace(style);
            assert!((1..3000).contains(&trace.len()), "{text}: {trace}");
            let again = Induction::read(&puzzle.text(style)).unwrap();
            assert_eq!(again.series, puzzle.series);
        }
        let stored = serde_json::to_string(&puzzle).unwrap();
        let again: Induction = serde_json::from_str(&stored).unwrap();
        assert_eq!(again, puzzle);
        assert_eq!(again.certify().unwrap(), puzzle.certify().unwrap());
    }
}

/// Every cycle and every value of the missing term, one by one.
fn exhaustive(series: &Series, operations: &[Step], longest: u32) -> Option<(usize, Vec<i64>)> {
    let number = operations.len();
    (1..=longest).find_map(|length| {
        let rules = (0..number.pow(length)).map(|rule| {
            let place = |at| operations[rule / number.pow(at) % number];
            (0..length).map(place).collect::<Vec<Step>>()
        });
        let mut found = Vec::new();
        for rule in rules {
            for value in -400..=800 {
                let filled = series.filled(value);
                let mut gaps = filled.windows(2).zip(rule.iter().cycle());
                if gaps.all(|(pair, step)| step.apply(pair[0]) == pair[1]) {
                    found.push(value);
                }
            }
        }
        (!found.is_empty()).then_some((length as usize, found))
    })
}

#[test]
fn the_solver_agrees_with_exhaustive_search() {
    let mut stream = Stream::new(5, "brute", 0);
    for (add, subtract, multiply) in [(2, 2, 3), (0, 0, 3), (1, 0, 2), (3, 3, 0)] {
        let rules = vec![Kind::Cycle];
        let class = Bounds { rules, longest: 3, add, subtract, multiply, ..bounds() };
        let sums = (1..=add).chain((1..=subtract).map(|b| -b)).map(Step::Sum);
        let operations: Vec<Step> = sums.chain((2..=multiply).map(Step::Product)).collect();
        for _ in 0..150 {
            let count = 3 + stream.below(4);
            let mut terms = vec![stream.between(-1, 3)];
            let rule: Vec<Step> = (0..3).map(|_| *stream.choose(&operations)).collect();
            for gap in 0..count - 1 {
                let odd = stream.chance(0.1);
                let step = if odd { *stream.choose(&operations) } else { rule[gap % 3] };
                terms.push(step.apply(terms[gap]));
            }
            let series = Series::hide(terms, stream.below(count), false).unwrap();
            let distinct = |values: &[i64]| values.iter().copied().collect::<BTreeSet<i64>>();
            let solution = solve(&series, &class);
            let expected = exhaustive(&series, &operations, 3);
            assert_eq!(
                solution.map(|found| (found.complexity, found.rules, distinct(&found.values))),
                expected.map(|(k, found)| (k, found.len() as u64, distinct(&found))),
                "{series}"
            );
        }
    }
}

/// The rule that a recurrence was drawn with is among those found, or a simpler one is.
#[test]
fn recurrences_are_found_wherever_the_hole_is() {
    let changes = json!({"rules": ["recurrence"], "terms": [7, 9], "start": [0, 9]});
    for puzzle in drawn(&parameters(1, changes), 60) {
        let found = puzzle.solution().unwrap();
        let terms = puzzle.series.filled(found.values[0]);
        for hole in 0..terms.len() {
            let series = Series::hide(terms.clone(), hole, false).unwrap();
            let other = solve(&series, &puzzle.class).unwrap();
            assert!(other.complexity <= found.complexity, "{series}");
            if other.values.len() == 1 && other.rule == found.rule {
                assert_eq!(other.values[0], terms[hole], "{series}");
            }
        }
    }
}

fn canonical(puzzle: &Induction) -> Vec<u8> {
    let mut bytes = Vec::new();
    puzzle.canonical(&mut bytes);
    bytes
}

#[test]
fn letters_are_the_same_up_to_a_shift_and_patterns_up_to_names() {
    let all = |series: &str| canonical(&of(series, &Kind::ALL));
    assert_eq!(all("A,C,E,?"), all("X,Z,B,?"));
    assert_ne!(all("A,C,E,?"), all("A,B,C,?"));
    assert_ne!(all("A,C,E,?"), all("E,C,A,?"));
    assert_ne!(all("A,C,E,?"), all("?,A,C,E"));
    assert_eq!(all("A,Q,K,A,Q,K,?"), all("M,Z,B,M,Z,B,?"));
    assert_ne!(all("A,Q,K,A,Q,K,?"), all("A,Q,Q,A,Q,Q,?"));
    assert_ne!(all("1,2,3,?"), all("2,3,4,?"));
    for puzzle in every_kind().iter().filter(|puzzle| puzzle.series.letters()) {
        let base = canonical(puzzle);
        let value = puzzle.value().unwrap();
        for shift in 1..26 {
            let terms = puzzle.series.filled(value);
            let terms = terms.into_iter().map(|x| (x + shift) % 26).collect();
            let series = Series::hide(terms, puzzle.series.hole(), true).unwrap();
            let other = Induction::new(series, puzzle.class.clone());
            assert_eq!(canonical(&other), base);
            assert_eq!(other.value(), Some((value + shift) % 26));
        }
    }
}

#[test]
fn no_shortcut_beats_chance() {
    let small = json!({
        "cycle": [2, 2], "terms": [6, 7], "start": [0, 40], "add": 9, "subtract": 9,
        "multiply": 2, "limit": 99,
    });
    let mut panel = Panel::default();
    let levels = (1..=5).map(|level| (level.to_string(), parameters(level, json!({}))));
    for (name, parameters) in levels.chain([("small".into(), parameters(1, small))]) {
        for puzzle in drawn(&parameters, 1000) {
            panel.add(&name, &[puzzle.blind(), puzzle.shortcuts()]);
        }
    }
    for finding in panel.findings() {
        assert!(!finding.beats_chance(), "{finding:?}");
    }
}

#[test]
fn parameters_are_checked() {
    for (changes, name) in [
        (json!({"cycle": [0, 3]}), "`cycle`"),
        (json!({"cycle": [1, 99]}), "`cycle`"),
        (json!({"terms": [2, 3]}), "`terms`"),
        (json!({"terms": [9, 90]}), "`terms`"),
        (json!({"start": [5, 1]}), "`start`"),
        (json!({"limit": -1}), "`limit`"),
        (json!({"rules": []}), "`rules`"),
        (json!({"rules": ["cycle", "cycle"]}), "`rules`"),
        (json!({"add": 0, "subtract": 0, "multiply": 1}), "`add`"),
        (json!({"add": i64::MAX}), "`add`"),
        (json!({"rules": ["geometric"], "factor": 1}), "`factor`"),
    ] {
        let mut all = serde_json::to_value(Induction::parameters(1)).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            all[key] = value.clone();
        }
        let message = Induction::validate(&serde_json::from_value(all).unwrap()).unwrap_err();
        assert!(message.contains(name), "{changes}: {message}");
    }
}

/// Every method on a puzzle, for what it may do with odd values.
fn exercise(puzzle: &Induction) {
    let right = puzzle.certify().is_ok();
    for style in [Style::Compact, Style::Paper] {
        assert_eq!(puzzle.check(&puzzle.answer(style)).is_correct(), right);
        puzzle.trace(style);
        puzzle.text(style);
    }
    puzzle.blind();
    puzzle.shortcuts();
    canonical(puzzle);
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}", list in "[\\[\\]0-9A-Fa-f?,' -]{0,80}") {
        for text in [text, list] {
            if let Ok(puzzle) = Induction::read(&text) {
                exercise(&puzzle);
            }
            of("1,2,?", &Kind::ALL).check(&text);
        }
    }

    #[test]
    fn no_stored_puzzle_panics(
        terms in prop::collection::vec(
            prop_oneof![-9i64..9, -series::LARGEST..=series::LARGEST, any::<i64>()], 2..64),
        hole in 0usize..70,
        numbers in prop::collection::vec(
            prop_oneof![0i64..10, -2i64..1001, Just(i64::MAX), Just(i64::MIN)], 6),
        letters: bool,
    ) {
        let text: Vec<String> = terms.iter().enumerate().map(|(at, x)| match x {
            _ if at == hole => "?".into(),
            x if letters => char::from(b'a' + x.rem_euclid(26) as u8).to_string(),
            x => x.to_string(),
        }).collect();
        let json = json!({"series": text.join(","), "class": {
            "rules": Kind::ALL, "longest": numbers[0].max(0), "add": numbers[1],
            "subtract": numbers[2], "multiply": numbers[3], "step": numbers[4],
            "factor": numbers[5], "degree": 3,
        }});
        if let Ok(puzzle) = serde_json::from_value::<Induction>(json) {
            exercise(&puzzle);
        }
    }
}

#[test]
fn a_megabyte_is_refused_quickly() {
    let number = of("3,6,5,10,9,?", &Kind::ALL);
    for piece in ["1", "[", "1,", "?,", "'", ".", "<think>"] {
        let text = piece.repeat(1_000_000 / piece.len());
        assert!(!number.check(&text).is_correct());
        assert!(Induction::read(&text).is_err());
    }
}

#[test]
fn a_rule_is_written_as_its_constants() {
    let rule = |series: &str| of(series, &Kind::ALL).solution().unwrap().rule.clone();
    assert_eq!(rule("1,3,5,?"), Rule::Cycle(vec![Step::Sum(2)]));
    assert_eq!(rule("2,3,7,13,27,53,?").to_string(), "x+2y");
    assert_eq!(rule("5,1,5,3,5,9,?").to_string(), "+0|*3");
    assert_eq!(rule("0,1,5,14,30,55,?").to_string(), "difference 3: 2");
}
