use std::collections::HashSet;

use serde_json::json;

use super::*;

/// Levels as the quickstart has them.
fn levels(family: Family, count: usize) -> Vec<Level> {
    let parameters = match family {
        Family::Deduction => [
            json!({"variables": 3, "formulas": [2, 4], "depth": 1}),
            json!({"variables": 3, "formulas": [2, 4], "depth": 2}),
        ],
        Family::Induction => [
            json!({"cycle": [1, 1], "terms": [4, 6], "start": [0, 99], "add": 30, "subtract": 30, "limit": 300}),
            json!({"cycle": [2, 2], "terms": [6, 7], "start": [1, 30], "add": 9, "subtract": 9, "multiply": 3, "limit": 200}),
        ],
        Family::Abduction => [
            json!({"depth": [2, 3], "goals": 2, "distractors": [2, 4], "and_share": 0.0, "or_share": 0.0, "cycle_share": 0.0}),
            json!({"depth": [2, 3], "goals": 2, "distractors": [1, 2], "and_share": 0.3, "or_share": 0.3, "cycle_share": 0.1}),
        ],
        Family::Arithmetic => [json!({}), json!({})],
    };
    (1..)
        .zip(parameters)
        .map(|(level, parameters)| Level {
            level,
            count,
            parameters: parameters.as_object().unwrap().clone(),
        })
        .collect()
}

fn tasks(family: Family, count: usize) -> Vec<Task> {
    generate(family, &levels(family, count), Split::Train, 1).unwrap()
}

#[test]
fn every_task_is_certified_and_its_demonstration_is_right() {
    for family in Family::ALL {
        let tasks = tasks(family, 200);
        assert_eq!(tasks.len(), 400);
        let distinct: HashSet<_> = tasks.iter().map(|task| &task.canonical).collect();
        assert_eq!(distinct.len(), 400);
        for task in &tasks {
            certify(task).unwrap();
            assert!(!demonstrate(task).unwrap().is_empty());
            assert_eq!(check(task, &task.answer).unwrap(), Verdict::Correct);
            assert_eq!(check(task, "perhaps").unwrap(), Verdict::Unparsed);
            assert_eq!(Split::of(&task.canonical), Split::Train);
        }
    }
}

#[test]
fn splits_are_disjoint_whatever_the_seed() {
    for family in Family::ALL {
        let draw = |split, seed| -> HashSet<String> {
            let tasks = generate(family, &levels(family, 150), split, seed).unwrap();
            tasks.into_iter().map(|task| task.task_id).collect()
        };
        let train = draw(Split::Train, 1);
        assert!(train.is_disjoint(&draw(Split::Heldout, 2)));
        assert!(train.is_disjoint(&draw(Split::Validation, 1)));
        assert_eq!(train, draw(Split::Train, 1));
        assert_ne!(train, draw(Split::Train, 2));
    }
}

fn puzzle<P: Puzzle>(json: Value) -> P {
    serde_json::from_value(json).unwrap()
}

#[test]
fn deduction_is_checked_by_evaluation() {
    let puzzle: deduction::Deduction =
        puzzle(json!({"variables": 3, "formulas": ["A>B", "~C^A", "(A|B)&~C"]}));
    assert_eq!(puzzle.text(), "D:A>B;~C^A;(A|B)&~C");
    assert_eq!(puzzle.answer(), "010");
    assert_eq!(
        puzzle.trace(),
        "A0B0C0:A0>B0=1,~C1^A0=1,(A0|B0)&~C1=0 \
         A0B0C1:A0>B0=1,~C0^A0=0 \
         A0B1C0:A0>B1=1,~C1^A0=1,(A0|B1)&~C1=1"
    );
    for (answer, verdict) in [
        ("010", Verdict::Correct),
        ("B=1, A=0,C=0", Verdict::Correct),
        ("011", Verdict::Wrong),
        ("none", Verdict::Wrong),
        ("01", Verdict::Unparsed),
        ("A=0,B=1", Verdict::Unparsed),
        ("A=0,A=0,B=1,C=0", Verdict::Unparsed),
    ] {
        assert_eq!(puzzle.check(answer), verdict, "{answer}");
    }
}

#[test]
fn unsatisfiable_is_right_only_when_proven() {
    let puzzle: deduction::Deduction = puzzle(json!({"variables": 2, "formulas": ["A&B", "~A"]}));
    assert_eq!(puzzle.answer(), "none");
    assert_eq!(puzzle.trace(), "A0B0:A0&B0=0 A0B1:A0&B1=0 A1B0:A1&B0=0 A1B1:A1&B1=1,~A0=0");
    assert_eq!(puzzle.check("unsatisfiable"), Verdict::Correct);
    assert_eq!(puzzle.check("11"), Verdict::Wrong);
}

#[test]
fn truth_tables_beyond_one_word_agree_with_evaluation() {
    // Eight variables, each fixed by a formula: bits 10110010.
    let formulas = ["A", "~B", "C", "D", "~E", "~F", "G", "~H"];
    let puzzle: deduction::Deduction = puzzle(json!({"variables": 8, "formulas": formulas}));
    assert_eq!(puzzle.answer(), "10110010");
    puzzle.certify().unwrap();
}

#[test]
fn canonical_forms_ignore_names_and_order() {
    let form = |formulas: Value| {
        puzzle::<deduction::Deduction>(json!({"variables": 3, "formulas": formulas})).canonical()
    };
    assert_eq!(form(json!(["A>B", "~C^A"])), form(json!(["C^~B", "C>A"])));
    assert_ne!(form(json!(["A>B", "~C^A"])), form(json!(["A>B", "C^A"])));
    let graph = |rules: Value, known: Value, goals: Value| {
        let json = json!({"rules": rules, "known": known, "goals": goals, "depth": 1});
        puzzle::<abduction::Abduction>(json).canonical()
    };
    let rule = |body: &[&str], head: &str| json!({"body": body, "head": head});
    let first =
        graph(json!([rule(&["A"], "B"), rule(&["C", "B"], "D")]), json!(["A", "C"]), json!(["D"]));
    let second =
        graph(json!([rule(&["X", "Q"], "Z"), rule(&["Y"], "X")]), json!(["Q", "Y"]), json!(["Z"]));
    let third =
        graph(json!([rule(&["X", "Q"], "Z"), rule(&["Y"], "X")]), json!(["Q"]), json!(["Z"]));
    assert_eq!(first, second);
    assert_ne!(first, third);
}

#[test]
fn induction_needs_one_answer_under_the_simplest_rules() {
    let operations = json!({"add": 5, "subtract": 5, "multiply": 4});
    let series = |terms: Value| {
        let json = json!({"terms": terms, "longest": 2, "operations": operations});
        puzzle::<induction::Induction>(json)
    };
    let cycle = series(json!([3, 6, 5, 10, 9, null]));
    assert_eq!(cycle.text(), "I:3,6,5,10,9,?");
    assert_eq!(cycle.trace(), "*2-1*2-1*2:9*2=18");
    assert_eq!(cycle.check("18"), Verdict::Correct);
    assert_eq!(cycle.check("12"), Verdict::Wrong);
    // 2, 4, ?: +2 gives 6, *2 gives 8.
    assert!(series(json!([2, 4, null])).certify().unwrap_err().contains("{6, 8}"));
    assert!(series(json!([1, 50, null])).certify().is_err());
    let middle = series(json!([1, 3, null, 7]));
    assert_eq!((middle.answer().as_str(), middle.trace().as_str()), ("5", "+2+2+2:3+2=5"));
}

#[test]
fn abduction_searches_backward() {
    let rule = |body: &[&str], head: &str| json!({"body": body, "head": head});
    let puzzle: abduction::Abduction = puzzle(json!({
        "rules": [rule(&["D"], "B"), rule(&["F", "E"], "A"), rule(&["B"], "C"), rule(&["A"], "G"), rule(&["X"], "G"), rule(&["G"], "X")],
        "known": ["E", "F"], "goals": ["C", "G"], "depth": 2,
    }));
    assert_eq!(puzzle.text(), "A:BD;AFE;CB;GA;GX;XG;E!F!?C,G");
    assert_eq!(puzzle.trace(), "CB BD D?=0;GA AFE F! E!=1");
    assert_eq!(puzzle.answer(), "01");
    assert_eq!(puzzle.check("G=1, C=0"), Verdict::Correct);
    assert_eq!(puzzle.check("11"), Verdict::Wrong);
    assert_eq!(puzzle.check("1"), Verdict::Unparsed);
    puzzle.certify().unwrap();
}

/// Cheap solvers that never follow a chain: none may do much better than a coin.
#[test]
fn abduction_has_no_shortcut() {
    let tasks = tasks(Family::Abduction, 600);
    let mut right = [0usize; 4];
    let mut goals = 0;
    for task in &tasks {
        let puzzle: Value = serde_json::from_str(&task.puzzle).unwrap();
        let known: Vec<&str> =
            puzzle["known"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let rules = puzzle["rules"].as_array().unwrap();
        for (goal, answer) in puzzle["goals"].as_array().unwrap().iter().zip(task.answer.chars()) {
            let truth = answer == '1';
            let bodies: Vec<&Value> =
                rules.iter().filter(|r| r["head"] == *goal).map(|r| &r["body"]).collect();
            let some_premise_known = bodies.iter().any(|body| {
                body.as_array().unwrap().iter().any(|a| known.contains(&a.as_str().unwrap()))
            });
            let guesses = [
                true,
                known.contains(&goal.as_str().unwrap()),
                some_premise_known,
                2 * known.len() > rules.len(),
            ];
            for (count, guess) in right.iter_mut().zip(guesses) {
                *count += usize::from(guess == truth);
            }
            goals += 1;
        }
    }
    for (name, count) in
        ["all reachable", "is known", "premise known", "many known"].iter().zip(right)
    {
        let share = count as f64 / goals as f64;
        assert!((share - 0.5).abs() < 0.04, "{name}: {share:.3}");
    }
}

#[test]
fn arithmetic_is_reduced_step_by_step() {
    let puzzle: arithmetic::Arithmetic = puzzle(json!({"expression": "(3+4)*2-5", "limit": 99}));
    assert_eq!(puzzle.text(), "M:(3+4)*2-5=?");
    assert_eq!(puzzle.trace(), "7*2-5 14-5 9");
    assert_eq!(puzzle.check("9"), Verdict::Correct);
    assert_eq!(puzzle.check("nine"), Verdict::Unparsed);
    let mut low: arithmetic::Arithmetic =
        super::tests::puzzle(json!({"expression": "3-4*2", "limit": 99}));
    assert!(low.certify().unwrap_err().contains("0..=99"));
    low = super::tests::puzzle(json!({"expression": "3-", "limit": 99}));
    assert!(low.certify().is_err());
}

#[test]
fn levels_are_checked_and_filled_in() {
    let level = |json: Value| serde_json::from_value::<Level>(json).unwrap();
    let filled = resolve(Family::Deduction, &level(json!({"level": 2, "count": 5}))).unwrap();
    assert_eq!(filled.parameters["variables"], 6);
    let odd = level(json!({"level": 1, "count": 5, "varables": 3}));
    let message = resolve(Family::Deduction, &odd).unwrap_err().to_string();
    assert!(message.contains("`varables`") && message.contains("variables"), "{message}");
    let narrow = level(json!({"level": 1, "count": 500, "operations": 1, "operands": [0, 2]}));
    let message = generate(Family::Arithmetic, &[narrow], Split::Heldout, 1).unwrap_err();
    assert!(message.to_string().contains("lower `count`"), "{message}");
}

#[test]
fn the_papers_levels_can_be_drawn() {
    for family in Family::ALL {
        for level in 1..=5 {
            let level = Level { level, count: 2, parameters: Map::new() };
            let tasks = generate(family, &[level], Split::Train, 1).unwrap();
            tasks.iter().for_each(|task| certify(task).unwrap());
        }
    }
}
