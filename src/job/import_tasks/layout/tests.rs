use std::path::Path;

use super::*;
use crate::task::{Family, Verdict};

fn read(layout: Layout, row: Value) -> (Record, Map<String, Value>) {
    let reader = Reader::new(Some(layout), &Mapping::default(), 1, 7);
    reader.read(row.as_object().unwrap(), 3, "test").unwrap()
}

/// Rows in the layouts of their publishers, and an answer that is right.
fn rows() -> Vec<(Layout, Value, &'static str, u32, &'static str)> {
    vec![
        (
            Layout::Math500,
            json!({"problem": "Simplify $\\frac{6}{8}$.", "solution": "It is $\\boxed{\\frac34}$.",
                   "answer": "\\frac{3}{4}", "subject": "Prealgebra", "level": 2,
                   "unique_id": "test/prealgebra/1.json"}),
            "0.75",
            2,
            "test/prealgebra/1.json",
        ),
        (
            Layout::Math500,
            json!({"problem": "How many?", "level": "Level 5", "type": "Algebra",
                   "solution": "There are $3 \\cdot 4 = \\boxed{12}$ of them."}),
            "12",
            5,
            "3",
        ),
        (
            Layout::Aime,
            json!({"ID": "1990-4", "Year": "1990", "Problem Number": "4", "Question": "Find $n$.",
                   "Answer": "013", "Part": ""}),
            "13",
            1,
            "1990-4",
        ),
        (
            Layout::Aime,
            json!({"id": 60, "problem": "Find $m+n$.", "solution": "long", "answer": "204",
                   "url": "somewhere", "year": "2024"}),
            "\\boxed{204}",
            1,
            "60",
        ),
        (
            Layout::Amc,
            json!({"id": 0, "problem": "What is it?", "answer": 142.0, "url": ""}),
            "142",
            1,
            "0",
        ),
        (
            Layout::Omnimath,
            json!({"domain": ["Mathematics -> Algebra"], "difficulty": 6.5, "problem": "Find all $x$.",
                   "solution": "…", "answer": "$x = 1, 2$", "source": "imo"}),
            "2, 1",
            6,
            "3",
        ),
        (
            Layout::Olympiadbench,
            json!({"id": 1606, "question": "What is the sum?", "solution": ["…"], "context": "Let $a=2$.",
                   "final_answer": ["$2 \\pi$"], "is_multiple_answer": false, "unit": null,
                   "answer_type": "Numerical", "error": null, "subfield": "Algebra", "subject": "Math",
                   "language": "English", "question_type": "Open-ended"}),
            "2\\pi",
            1,
            "1606",
        ),
        (
            Layout::Gsm8k,
            json!({"question": "How much?", "answer": "She has 2 * 600 = <<2*600=1200>>1200.\n#### 1,200"}),
            "The answer is 1200.",
            1,
            "3",
        ),
        (
            Layout::Simplerl,
            json!({"question": "What is $1+1$?", "gt_answer": "2", "answer": "long", "level": 4,
                   "prompt": [{"role": "user", "content": "x"}],
                   "reward_model": {"ground_truth": "2", "style": "rule"}}),
            "2",
            4,
            "3",
        ),
        (
            Layout::Simplerl,
            json!({"prompt": [{"role": "user", "content": "x"}], "ability": "math",
                   "reward_model": {"ground_truth": "7", "style": "rule"},
                   "extra_info": {"question": "What is $3+4$?", "level": 3}}),
            "7",
            3,
            "3",
        ),
    ]
}

#[test]
fn publishers_rows_are_read() {
    for (layout, row, right, level, id) in rows() {
        let (record, origin) = read(layout, row);
        let puzzle = record.puzzle.unwrap();
        assert_eq!(puzzle.family, Family::Math, "{layout:?}");
        assert_eq!((record.level, &origin["id"]), (level, &json!(id)), "{layout:?}");
        assert_eq!(origin["layout"], json!(layout));
        puzzle.certify().unwrap();
        let found = puzzle.find(right).unwrap();
        assert_eq!(puzzle.check(found), Verdict::Correct, "{layout:?} {}", record.answer);
        assert!(!puzzle.check("-77").is_correct());
        assert_eq!(puzzle.check(&record.answer), Verdict::Correct);
    }
    let (record, _) = read(Layout::Olympiadbench, rows().swap_remove(6).1);
    assert_eq!(record.text, "Let $a=2$.\n\nWhat is the sum?");
}

#[test]
fn options_are_put_in_an_order_that_seed_and_id_decide() {
    let row = |id: &str| {
        json!({"Question": "Which?", "Correct Answer": "right ", "Incorrect Answer 1": "no",
               "Incorrect Answer 2": "never", "Incorrect Answer 3": "not that",
               "Record ID": id, "Subdomain": "Genetics"})
    };
    let order = |id: &str| {
        let (record, origin) = read(Layout::Gpqa, row(id));
        assert_eq!((&origin["seed"], &origin["id"]), (&json!(7), &json!(id)));
        let puzzle = record.puzzle.unwrap();
        assert_eq!(puzzle.family, Family::Choice);
        assert_eq!(puzzle.check("right"), Verdict::Correct);
        assert!(matches!(puzzle.check("never"), Verdict::Wrong(_)));
        puzzle.answer()
    };
    assert_eq!(order("rec1"), order("rec1"));
    let letters: std::collections::HashSet<_> =
        (0..30).map(|n| order(&format!("rec{n}"))).collect();
    assert_eq!(letters.len(), 4);
}

#[test]
fn a_mapping_names_other_columns() {
    let mapping: Mapping = serde_json::from_value(json!({
        "problem": "task/text", "answer": ["key", "gold"], "options": "choices", "id": "n",
    }))
    .unwrap();
    let reader = Reader::new(None, &mapping, 4, 0);
    let row = |gold: Value| {
        let row =
            json!({"task": {"text": "Which?"}, "gold": gold, "choices": ["a", "b", "c"], "n": 5});
        reader.read(row.as_object().unwrap(), 1, "test").map(|(record, _)| record)
    };
    for gold in [json!("C"), json!(2), json!("c")] {
        let record = row(gold).unwrap();
        assert_eq!((record.level, record.puzzle.unwrap().check("c")), (4, Verdict::Correct));
    }
    let message = row(json!("D")).err().unwrap();
    assert_eq!(message, "answer `D` is none of the 3 options, nor the letter of one");
    let missing = Reader::new(Some(Layout::Aime), &Mapping::default(), 1, 0);
    let message = missing.read(&Map::new(), 1, "test").err().unwrap();
    assert!(message.contains("`Question`, `problem`"), "{message}");
    assert!(message.contains("`mapping: {problem: COLUMN}`"), "{message}");
    assert!(serde_json::from_value::<Mapping>(json!({"question": "q"})).is_err());
}

#[test]
fn problems_with_tests_are_read_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/code");
    let read = |layout, name: &str| {
        let rows = std::fs::read_to_string(folder.join(name)).unwrap();
        let mut reader = Reader::new(Some(layout), &Mapping::default(), 7, 0);
        reader.limits = Some(Limits { cpu_seconds: 3, ..Limits::default() });
        let read = |line: &str| {
            let row: Map<String, Value> = serde_json::from_str(line).unwrap();
            reader.read(&row, 1, "test").unwrap()
        };
        rows.lines().map(read).collect::<Vec<_>>()
    };
    let functions = read(Layout::Humaneval, "humaneval.jsonl");
    let contest = read(Layout::Livecodebench, "livecodebench.jsonl");
    let levels = |rows: &[(Record, _)]| rows.iter().map(|(row, _)| row.level).collect::<Vec<_>>();
    assert_eq!((levels(&functions), levels(&contest)), (vec![7, 7], vec![1, 3]));
    assert_eq!(contest[1].1["id"], "own_b");
    assert_eq!(contest[1].1["layout"], "livecodebench");
    for ((record, _), tests) in functions.iter().chain(&contest).zip([1, 1, 3, 3]) {
        let puzzle = record.puzzle.as_ref().unwrap();
        assert_eq!(puzzle.certify().unwrap().proof["tests"], tests);
        assert_eq!(puzzle.code().unwrap().limits.cpu_seconds, 3);
        assert!(puzzle.accepts(&record.answer));
    }
}
