use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::formula::{MAX_DEPTH, Operator};
use super::*;
use crate::task::{FaultKind, Panel};

fn puzzle(json: Value) -> Deduction {
    serde_json::from_value(json).unwrap()
}

fn wrong(what: &str) -> Verdict {
    Verdict::Wrong(what.into())
}

fn canonical(puzzle: &Deduction) -> Vec<u8> {
    let mut out = Vec::new();
    puzzle.canonical(&mut out);
    out
}

fn parameters(json: Value) -> Parameters {
    let mut all = serde_json::to_value(Deduction::parameters(1)).unwrap();
    json.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    serde_json::from_value(all).unwrap()
}

fn drawn(parameters: &Parameters, count: usize) -> Vec<Deduction> {
    let mut source = Deduction::source(parameters);
    let draw = |i| source(&mut Stream::new(5, "test", i));
    (0..).filter_map(draw).take(count).collect()
}

#[test]
fn an_answer_is_checked_by_evaluation() {
    let puzzle = puzzle(json!({"variables": 3, "formulas": ["A>B", "~C^A", "(A|B)&~C"]}));
    assert_eq!(puzzle.text(Style::Compact), "D:A>B;~C^A;(A|B)&~C");
    assert_eq!(puzzle.answer(Style::Compact), "010");
    assert_eq!(puzzle.answer(Style::Paper), "(1) A is False\n(2) B is True\n(3) C is False");
    assert_eq!(
        puzzle.trace(Style::Compact),
        "A0B0C0:A0>B0=1,~C1^A0=1,(A0|B0)&~C1=0 \
         A0B0C1:A0>B0=1,~C0^A0=0 \
         A0B1C0:A0>B1=1,~C1^A0=1,(A0|B1)&~C1=1"
    );
    for (answer, verdict) in [
        ("010", Verdict::Correct),
        ("B=1, A=0,C=0", Verdict::Correct),
        ("(1) a IS false\n (2)  B is TRUE\n\n(3) C is False.", Verdict::Correct),
        ("A is false\nB is true\nC is false", Verdict::Correct),
        ("c: f; b: t; a: f", Verdict::Correct),
        ("011", wrong("formula 2")),
        ("000", wrong("formula 3")),
        ("none", wrong("satisfiable")),
        ("UNSATISFIABLE", wrong("satisfiable")),
        ("01", Verdict::Unparsed),
        ("A=0,B=1", Verdict::Unparsed),
        ("A=0,A=0,B=1,C=0", Verdict::Unparsed),
        ("A=0,B=1,C=0,D=0", Verdict::Unparsed),
        ("A=0,B=1,C=2", Verdict::Unparsed),
        ("perhaps", Verdict::Unparsed),
        ("", Verdict::Unparsed),
    ] {
        assert_eq!(puzzle.check(answer), verdict, "{answer}");
    }
}

#[test]
fn unsatisfiable_is_right_only_when_proven() {
    let puzzle = puzzle(json!({"variables": 2, "formulas": ["A&B", "~A"]}));
    assert_eq!(puzzle.answer(Style::Compact), "none");
    assert_eq!(
        puzzle.trace(Style::Compact),
        "A0B0:A0&B0=0 A0B1:A0&B1=0 A1B0:A1&B0=0 A1B1:A1&B1=1,~A0=0"
    );
    assert_eq!(puzzle.check("unsatisfiable"), Verdict::Correct);
    assert_eq!(puzzle.check("11"), wrong("formula 2"));
    assert_eq!(puzzle.certify().unwrap().kind, "unsatisfiable");
}

#[test]
fn a_certificate_says_what_was_proven() {
    let fault = |json| puzzle(json).certify().unwrap_err();
    let two = fault(json!({"variables": 2, "formulas": ["A|B", "A^B"]}));
    assert_eq!(two.kind, FaultKind::Ambiguous);
    assert_eq!(two.detail, "both 01 and 10 satisfy the formulas");
    let told = fault(json!({"variables": 2, "formulas": ["A", "~~~B"]}));
    assert_eq!(told.kind, FaultKind::Leak);
    let unnamed = fault(json!({"variables": 3, "formulas": ["A&C"]}));
    assert_eq!(
        (unnamed.kind, unnamed.detail.as_str()),
        (FaultKind::Malformed, "no formula mentions B")
    );
    let any = json!({"variables": 2, "formulas": ["A|B", "A^B"], "solutions": "any"});
    let any = puzzle(any).certify().unwrap();
    assert_eq!((any.kind, any.proof["solutions"].as_u64()), ("satisfiable", Some(2)));
    let deep = json!({"variables": 3, "formulas": ["~((~A|B)>~~C)", "A&B"]});
    let deep = puzzle(deep).certify().unwrap();
    assert_eq!((deep.kind, deep.size, deep.depth), ("unique", 5, 3));
    for odd in [
        json!({"variables": 0, "formulas": ["A"]}),
        json!({"variables": 65, "formulas": ["A"]}),
        json!({"variables": 1, "formulas": []}),
        json!({"variables": 1, "formulas": ["A&B"]}),
        json!({"variables": 1, "formulas": ["A&"]}),
        json!({"variables": 1, "formulas": ["A"], "more": 1}),
        json!({"variables": 1, "formulas": [format!("{}A", "~".repeat(1_000_000))]}),
        json!({"variables": 1, "formulas": [format!("{}A", "(".repeat(1_000_000))]}),
    ] {
        assert!(serde_json::from_value::<Deduction>(odd).is_err());
    }
}

#[test]
fn the_solver_and_the_tables_agree() {
    for (i, puzzle) in drawn(&parameters(json!({"unsatisfiable": 0.5})), 200).iter().enumerate() {
        let mut search = sat::Search::new(puzzle.variables, &puzzle.formulas);
        match (search.next(), puzzle.solved()) {
            (Found::Model(model), Solved::By(found)) => {
                assert_eq!(model, found, "{i}");
                search.exclude(model);
                assert!(matches!(search.next(), Found::Nothing));
            }
            (Found::Nothing, Solved::Never) => {}
            _ => panic!("{i}: {}", puzzle.text(Style::Compact)),
        }
    }
}

#[test]
fn puzzles_beyond_truth_tables_are_proven_by_the_solver() {
    let large = parameters(
        json!({"variables": 28, "formulas": [40, 40], "depth": 2, "unsatisfiable": 0.5}),
    );
    let mut kinds = HashMap::new();
    for puzzle in drawn(&large, 6) {
        let certificate = puzzle.certify().unwrap();
        assert_eq!(certificate.proof["method"], "sat");
        assert_eq!(puzzle.check(&puzzle.answer(Style::Paper)), Verdict::Correct);
        assert_eq!(puzzle.check(&puzzle.answer(Style::Compact)), Verdict::Correct);
        assert!(puzzle.text(Style::Paper).contains("AB"));
        *kinds.entry(certificate.kind).or_insert(0) += 1;
    }
    assert_eq!(kinds.len(), 2, "{kinds:?}");
}

#[test]
fn released_texts_are_read() {
    let text = "Below are some nested formulas:\n  - ¬(C)\n  - (A ↔ ¬D)\n  - (C ⊕ ¬A)\n  - \
                (A ∨ ¬A)\n  - (¬B ∨ B)\n  - (B → ¬B)\nPlease list the truth value of each \
                variable\n\n";
    let released = Deduction::read(text).unwrap();
    assert_eq!(released.text(Style::Compact), "D:~C;A=~D;C^~A;A|~A;~B|B;B>~B");
    assert_eq!(released.certify().unwrap().kind, "unique");
    let answer = "(1) A is False\n(2) B is False\n(3) C is False\n(4) D is True\n";
    assert_eq!(released.check(answer), Verdict::Correct);
    assert!(Deduction::read("Below are some nested formulas:\n").is_err());
    let message = Deduction::read("  - (A ∨ )").unwrap_err();
    assert_eq!(message, "formula `(A ∨ )` has no operand at byte 8");
}

#[test]
fn all_spellings_of_an_operator_are_read() {
    let read = |text: &str| Formula::read(text).unwrap().to_string();
    for text in ["NOT (A AND B) IMPLIES C", "!(a && b) -> c", "¬(A ∧ B) → C", "~(A&B)>C"] {
        assert_eq!(read(text), "~(A&B)>C");
    }
    assert_eq!(read("(A <-> B) xor (C or AA)"), "(A=B)^(C|AA)");
    assert_eq!(read("A iff B || C".split(" ||").next().unwrap()), "A=B");
    assert!(Formula::read("A & B | C").is_err());
    assert!(Formula::read("A ? B").is_err());
}

#[test]
fn reasoning_assumes_propagates_contradicts_and_revises() {
    let puzzle = puzzle(json!({"variables": 3, "formulas": ["A>B", "A>~B", "A|C", "B=C"]}));
    assert_eq!(
        puzzle.trace(Style::Paper),
        "Suppose A is true. Then by formula 1 B is true. But then formula 2 is false, a \
         contradiction. So A is false. Then by formula 3 C is true. Then by formula 4 B is true. \
         That makes every formula true: A is false, B is true, C is true."
    );
    let certificate = puzzle.certify().unwrap();
    assert_eq!(certificate.nodes, 3);
}

#[test]
fn every_level_is_certified_and_demonstrated() {
    for level in 1..=5 {
        let parameters = Parameters { unsatisfiable: 0.3, ..Deduction::parameters(level) };
        for puzzle in drawn(&parameters, 60) {
            let certificate = puzzle.certify().unwrap();
            assert_eq!(certificate.depth, level);
            for style in [Style::Compact, Style::Paper] {
                assert_eq!(puzzle.check(&puzzle.answer(style)), Verdict::Correct);
            }
            let reasoning = puzzle.trace(Style::Paper);
            let ending =
                if certificate.kind == "unsatisfiable" { "No assignment" } else { "That makes" };
            assert!(reasoning.contains(ending), "{reasoning}");
            assert!(reasoning.len() < 6_000, "{}", reasoning.len());
        }
    }
}

#[test]
fn any_number_of_solutions_can_be_asked_for() {
    let parameters = parameters(json!({"variables": 8, "depth": 3, "solutions": "any"}));
    let puzzles = drawn(&parameters, 100);
    let count = |kind| puzzles.iter().filter(|p| p.certify().unwrap().kind == kind).count();
    assert!(count("satisfiable") > 30 && count("unsatisfiable") > 0);
    for puzzle in &puzzles {
        let again = Deduction::read(&puzzle.text(Style::Paper)).unwrap();
        assert_eq!(again.text(Style::Compact), puzzle.text(Style::Compact));
    }
}

/// The smallest text over all renamings, by trying them all.
fn brute(puzzle: &Deduction) -> Vec<u8> {
    fn text(formula: &mut std::slice::Iter<Node>, names: &[usize]) -> String {
        match formula.next().unwrap() {
            Node::Variable(v) => names[usize::from(*v)].to_string(),
            Node::Not => format!("~{}", text(formula, names)),
            Node::Binary(op) => {
                let (a, b) = (text(formula, names), text(formula, names));
                let (a, b) = if *op == Operator::Implies || a <= b { (a, b) } else { (b, a) };
                format!("({a}{}{b})", op.symbol())
            }
        }
    }
    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![vec![]];
        }
        let longer = |p: Vec<usize>| {
            (0..n).map(move |at| {
                let mut p = p.clone();
                p.insert(at, n - 1);
                p
            })
        };
        permutations(n - 1).into_iter().flat_map(longer).collect()
    }
    let form = |names: Vec<usize>| {
        let mut all: Vec<_> =
            puzzle.formulas.iter().map(|f| text(&mut f.0.iter(), &names)).collect();
        all.sort();
        all.join(";")
    };
    permutations(puzzle.variables).into_iter().map(form).min().unwrap().into_bytes()
}

#[test]
fn canonical_forms_are_those_of_brute_force() {
    // Few and short formulas over one or two operators: many are isomorphic, many symmetric.
    for (variables, depth, most) in [(2, 2, 2), (3, 1, 3), (4, 1, 2), (4, 1, 4), (5, 1, 3)] {
        let (mut by_brute, mut by_form) = (HashMap::new(), HashMap::new());
        let mut stream = Stream::new(3, "canonical", variables as u64);
        for _ in 0..1500 {
            let formulas = (0..stream.between(1, most))
                .map(|_| {
                    let mut leaf = || Node::Variable(stream.below(variables) as u8);
                    let (a, b, c) = (leaf(), leaf(), leaf());
                    let op = |i: usize| Node::Binary(Operator::ALL[[0, 2, 4][i]]);
                    Formula(match depth {
                        1 => vec![op(stream.below(2)), a, b],
                        _ => vec![op(stream.below(3)), op(stream.below(3)), a, b, c],
                    })
                })
                .collect();
            let puzzle = Deduction::new(variables, formulas, Solutions::One);
            let (brute, form) = (brute(&puzzle), canonical(&puzzle));
            assert_eq!(*by_brute.entry(brute.clone()).or_insert(form.clone()), form);
            assert_eq!(*by_form.entry(form).or_insert(brute.clone()), brute);
        }
        assert_eq!(by_brute.len(), by_form.len());
    }
}

#[test]
fn symmetric_puzzles_have_a_form_too() {
    // Sixteen pairs that can change places, and 64 variables that are all alike.
    let name = |v: usize| Name(v).to_string();
    let pairs = |step: usize| -> Vec<String> {
        (0..16).map(|i| format!("{}^{}", name(i * step % 32), name((i * step + 16) % 32))).collect()
    };
    let form = |formulas: Vec<String>, n: usize| {
        canonical(&puzzle(json!({"variables": n, "formulas": formulas})))
    };
    assert_eq!(form(pairs(1), 32), form(pairs(3), 32));
    let alike: Vec<String> = (0..64).map(name).collect();
    assert_eq!(form(alike.clone(), 64), form(alike.into_iter().rev().collect(), 64));
}

/// Renames variables, reorders formulas, swaps operands.
fn disguised(puzzle: &Deduction, stream: &mut Stream) -> Deduction {
    fn walk(nodes: &mut std::slice::Iter<Node>, names: &[u8], stream: &mut Stream) -> Vec<Node> {
        match *nodes.next().unwrap() {
            Node::Variable(v) => vec![Node::Variable(names[usize::from(v)])],
            Node::Not => [vec![Node::Not], walk(nodes, names, stream)].concat(),
            Node::Binary(op) => {
                let (a, b) = (walk(nodes, names, stream), walk(nodes, names, stream));
                let swap = op != Operator::Implies && stream.chance(0.5);
                let (a, b) = if swap { (b, a) } else { (a, b) };
                [vec![Node::Binary(op)], a, b].concat()
            }
        }
    }
    let mut names: Vec<u8> = (0..puzzle.variables as u8).collect();
    stream.shuffle(&mut names);
    let mut formulas: Vec<Formula> =
        puzzle.formulas.iter().map(|f| Formula(walk(&mut f.0.iter(), &names, stream))).collect();
    stream.shuffle(&mut formulas);
    Deduction::new(puzzle.variables, formulas, puzzle.solutions)
}

#[test]
fn canonical_forms_ignore_names_and_order() {
    let mut stream = Stream::new(1, "disguise", 0);
    for level in 1..=5 {
        for puzzle in drawn(&Deduction::parameters(level), 40) {
            let form = canonical(&puzzle);
            for _ in 0..3 {
                assert_eq!(canonical(&disguised(&puzzle, &mut stream)), form);
            }
            let mut other = puzzle.clone();
            other.formulas[0].0.insert(0, Node::Not);
            assert_ne!(canonical(&other), form);
        }
    }
}

#[test]
fn no_shortcut_beats_chance() {
    for unsatisfiable in [0.0, 0.1, 0.5] {
        let mut panel = Panel::default();
        for level in 1..=4 {
            let parameters = Parameters { unsatisfiable, ..Deduction::parameters(level) };
            for puzzle in drawn(&parameters, 1000) {
                panel.add(&level.to_string(), &[puzzle.blind(), puzzle.shortcuts()]);
            }
        }
        for finding in panel.findings() {
            assert!(!finding.beats_chance(), "{finding:?}");
        }
    }
}

#[test]
fn parameters_are_checked() {
    for (odd, what) in [
        (json!({"variables": 65}), "`variables` is 65"),
        (json!({"formulas": [3, 2]}), "`formulas` is [3, 2]"),
        (json!({"depth": 0}), "`depth` is 0"),
        (json!({"unsatisfiable": 1.5}), "`unsatisfiable` is 1.5"),
    ] {
        let message = Deduction::validate(&parameters(odd)).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
    assert!((1..9).all(|level| Deduction::validate(&Deduction::parameters(level)).is_ok()));
}

fn formula() -> impl Strategy<Value = Formula> {
    let leaf = (0..70u8).prop_map(|v| vec![Node::Variable(v % 64)]);
    leaf.prop_recursive(MAX_DEPTH as u32 / 3, 60, 2, |inner| {
        let ops = proptest::sample::select(Operator::ALL.to_vec());
        prop_oneof![
            inner.clone().prop_map(|nodes| [vec![Node::Not], nodes].concat()),
            (ops, inner.clone(), inner)
                .prop_map(|(op, a, b)| [vec![Node::Binary(op)], a, b].concat()),
        ]
    })
    .prop_map(Formula)
}

proptest! {
    #[test]
    fn formulas_come_back_as_they_were_written(formula in formula()) {
        let mut paper = String::new();
        formula.write(Notation::Paper, &mut paper).unwrap();
        prop_assert_eq!(Formula::read(&paper).unwrap(), formula.clone());
        prop_assert_eq!(Formula::read(&formula.to_string()).unwrap(), formula);
    }

    #[test]
    fn puzzles_come_back_as_they_were_written(formulas in prop::collection::vec(formula(), 1..5)) {
        let named = formulas.iter().fold(0, |set, formula| set | formula.variables());
        let variables = 64 - named.leading_zeros() as usize;
        let puzzle = Deduction::new(variables, formulas, Solutions::One);
        let again = Deduction::read(&puzzle.text(Style::Paper)).unwrap();
        prop_assert_eq!(again.variables, puzzle.variables);
        prop_assert_eq!(&again.formulas, &puzzle.formulas);
        let json = serde_json::to_string(&puzzle).unwrap();
        let again: Deduction = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&again.formulas, &puzzle.formulas);
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,200}|[-A-D01()¬~&|>=^ \n.,is]{0,200}") {
        let puzzle = puzzle(json!({"variables": 2, "formulas": ["A&B"]}));
        puzzle.check(&text);
        let _ = Deduction::read(&text);
        let _ = Deduction::read(&format!("  - {text}"));
        let _ = Formula::read(&text);
    }

    #[test]
    fn no_puzzle_makes_a_method_panic(formulas in prop::collection::vec(formula(), 1..5)) {
        let puzzle = Deduction::new(64, formulas, Solutions::Any);
        let _ = puzzle.certify();
        for style in [Style::Compact, Style::Paper] {
            let _ = (puzzle.text(style), puzzle.answer(style), puzzle.trace(style));
        }
        let _ = (puzzle.blind(), puzzle.shortcuts(), canonical(&puzzle));
        puzzle.check("unsat");
    }
}

#[test]
fn garbage_is_read_in_linear_time() {
    let puzzle = puzzle(json!({"variables": 2, "formulas": ["A&B"]}));
    for piece in ["(", "A is true\n", "¬", "- ", "A&", "1", " ", "(A&", "\u{1F600}"] {
        let text = piece.repeat(1_000_000 / piece.len());
        assert_eq!(puzzle.check(&text), Verdict::Unparsed);
        assert!(Deduction::read(&text).is_err());
        assert!(Deduction::read(&format!("- {text}")).is_err());
    }
}

/// The paper's style has parentheses around the whole formula, which are no level of nesting.
#[test]
fn the_deepest_formula_comes_back() {
    let nested = |depth| (0..depth).fold("A".to_string(), |inner, _| format!("B>({inner})"));
    let deepest = (1..).map(nested).take_while(|text| Formula::read(text).is_ok()).last().unwrap();
    let puzzle = puzzle(json!({"variables": 2, "formulas": [deepest]}));
    let again = Deduction::read(&puzzle.text(Style::Paper)).unwrap();
    assert_eq!(again.formulas, puzzle.formulas);
}

#[test]
fn long_puzzles_are_not_enumerated() {
    let mut formulas: Vec<String> =
        (0..63).map(|i| format!("({0}|~{0})|(A|B)", Name(i % 16))).collect();
    formulas.push("A&~A".into());
    let puzzle = puzzle(json!({"variables": 16, "formulas": formulas}));
    assert_eq!(puzzle.trace(Style::Compact), "");
}

/// Their numberings would take minutes to try.
#[test]
fn long_puzzles_have_a_form_too() {
    fn all(name: Name, literals: usize) -> String {
        match literals {
            1 => name.to_string(),
            _ => format!("({}&{})", all(name, literals / 2), all(name, literals - literals / 2)),
        }
    }
    let formulas: Vec<String> = (0..64).map(|v| all(Name(v), 500)).collect();
    let puzzle = puzzle(json!({"variables": 64, "formulas": formulas}));
    let other = puzzle.renamed(&mut Stream::new(1, "renamed", 0)).unwrap();
    assert_eq!(canonical(&other), canonical(&puzzle));
}
