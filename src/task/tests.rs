//! What holds for every family.

use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::reward::{Judge, Rule};

fn request(family: Family, split: Split, seed: u64, levels: Vec<Level>) -> Request {
    Request { family, split, seed, form: Form::default(), levels }
}

fn draw(request: &Request, workers: usize) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    let mut sink = |rows: Vec<Task>| {
        tasks.extend(rows);
        Ok(())
    };
    generate(request, workers, &mut sink)?;
    Ok(tasks)
}

fn level(json: Value) -> Level {
    serde_json::from_value(json).unwrap()
}

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
        _ => [json!({}), json!({})],
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

#[test]
fn every_task_is_certified_and_its_demonstration_is_right() {
    for family in Family::ALL {
        for style in [Style::Compact, Style::Paper] {
            let form = Form { style, chat: style == Style::Paper };
            let request = Request { form, ..request(family, Split::Train, 1, levels(family, 200)) };
            let tasks = draw(&request, 2).unwrap();
            assert_eq!(tasks.len(), 400);
            let distinct: HashSet<_> = tasks.iter().map(|task| &task.canonical).collect();
            assert_eq!(distinct.len(), 400);
            for task in &tasks {
                certify(task).unwrap();
                let shown = response(&demonstrate(task).unwrap(), &task.answer);
                let judged = Judge::new(task).unwrap().judge(&shown, Rule::Released);
                assert_eq!(judged.reward, 3.0, "{shown}");
                let puzzle = AnyPuzzle::of(task).unwrap();
                assert_eq!(puzzle.check("perhaps"), Verdict::Unparsed, "{}", task.prompt);
                assert_eq!(Split::of(&task.canonical), Split::Train);
                assert_eq!(task.canonical, puzzle.canonical());
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_number_of_workers() {
    let request = request(Family::Abduction, Split::Train, 5, levels(Family::Abduction, 700));
    let one = draw(&request, 1).unwrap();
    assert_eq!(one, draw(&request, 3).unwrap());
}

#[test]
fn splits_are_disjoint_whatever_the_seed() {
    for family in Family::ALL {
        let ids = |split, seed| -> HashSet<String> {
            let tasks = draw(&request(family, split, seed, levels(family, 150)), 2).unwrap();
            tasks.into_iter().map(|task| task.task_id).collect()
        };
        let train = ids(Split::Train, 1);
        assert!(train.is_disjoint(&ids(Split::Heldout, 2)));
        assert!(train.is_disjoint(&ids(Split::Validation, 1)));
        assert_eq!(train, ids(Split::Train, 1));
        assert_ne!(train, ids(Split::Train, 2));
    }
}

/// Over the tasks of a paper level no shortcut may do much better than chance.
#[test]
fn no_shortcut_beats_chance() {
    for family in [Family::Deduction, Family::Induction, Family::Abduction] {
        for number in 1..=3 {
            let levels = vec![level(json!({"level": number, "count": 1500}))];
            let mut count = 0;
            let mut sink = |rows: Vec<Task>| {
                count += rows.len();
                Ok(())
            };
            let request = request(family, Split::Train, 9, levels);
            let findings = generate(&request, 2, &mut sink).unwrap().findings();
            assert_eq!(count, 1500);
            assert!(findings.len() > 5, "{family}: {findings:?}");
            for finding in findings {
                assert!(!finding.beats_chance(), "{family} {finding:?}");
            }
        }
    }
}

#[test]
fn levels_are_checked_and_filled_in() {
    let filled = resolve(Family::Deduction, &level(json!({"level": 2, "count": 5}))).unwrap();
    assert_eq!(filled.parameters["variables"], 6);
    let odd = level(json!({"level": 1, "count": 5, "varables": 3}));
    let message = resolve(Family::Deduction, &odd).unwrap_err().to_string();
    assert!(message.contains("`varables`") && message.contains("variables"), "{message}");
    for family in Family::PUBLISHED {
        let asked = level(json!({"level": 1, "count": 5}));
        let message = resolve(family, &asked).unwrap_err().to_string();
        assert!(message.contains("are not drawn: `import-tasks`"), "{message}");
    }
    let narrow = level(json!({"level": 1, "count": 500, "operations": 1, "operands": [0, 2]}));
    let request = request(Family::Arithmetic, Split::Heldout, 1, vec![narrow]);
    let message = draw(&request, 1).unwrap_err().to_string();
    assert!(message.contains("lower `count`"), "{message}");
}

#[test]
fn the_papers_levels_can_be_drawn() {
    for family in Family::ALL {
        for number in 1..=5 {
            let levels = vec![level(json!({"level": number, "count": 2}))];
            let tasks = draw(&request(family, Split::Train, 1, levels), 1).unwrap();
            tasks.iter().for_each(|task| certify(task).unwrap());
        }
    }
}

#[test]
fn renamed_tasks_keep_their_identity() {
    let mut stream = Stream::new(1, "renamed", 0);
    for family in Family::ALL {
        let levels = vec![level(json!({"level": 1, "count": 20}))];
        for task in draw(&request(family, Split::Train, 1, levels), 1).unwrap() {
            let Ok(other) = renamed(&task, &mut stream) else {
                assert!([Family::Induction, Family::Arithmetic].contains(&family), "{family}");
                continue;
            };
            assert_eq!(other.task_id, task.task_id);
            assert_eq!(other.canonical, task.canonical);
            assert_ne!(other.prompt, task.prompt);
            certify(&other).unwrap();
        }
    }
}

#[test]
fn a_level_that_is_none_is_not_taken_for_one() {
    let level = |level: u64| {
        let row = json!({"question": "1 + 1 = ?", "answer": "2", "level": level});
        Record::read(row.as_object().unwrap(), "train", 7).unwrap().level
    };
    assert_eq!((level(3), level((1 << 32) + 3)), (3, 7));
}
