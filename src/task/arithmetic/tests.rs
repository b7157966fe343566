use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn puzzle(json: Value) -> Arithmetic {
    serde_json::from_value(json).unwrap()
}

#[test]
fn expressions_are_reduced_step_by_step() {
    let puzzle = puzzle(json!({"expression": "(3+4)*2-5", "limit": 99}));
    assert_eq!(puzzle.text(Style::Compact), "M:(3+4)*2-5=?");
    assert_eq!(puzzle.trace(Style::Compact), "7*2-5 14-5 9");
    assert_eq!(puzzle.text(Style::Paper), "(3 + 4) * 2 - 5 = ?");
    assert_eq!(
        puzzle.trace(Style::Paper),
        "3 + 4 = 7, so 7 * 2 - 5 is left.\n7 * 2 = 14, so 14 - 5 is left.\n14 - 5 = 9."
    );
    for (answer, verdict) in [
        ("9", Verdict::Correct),
        (" +9. ", Verdict::Correct),
        ("10", Verdict::Wrong("value".into())),
        ("nine", Verdict::Unparsed),
        ("", Verdict::Unparsed),
    ] {
        assert_eq!(puzzle.check(answer), verdict, "{answer}");
    }
    let certificate = puzzle.certify().unwrap();
    assert_eq!((certificate.size, certificate.depth, certificate.nodes), (4, 3, 3));
}

#[test]
fn faults_name_the_expression_or_the_value() {
    let detail = |expression: &str| {
        let fault = puzzle(json!({"expression": expression, "limit": 99})).certify().unwrap_err();
        fault.detail
    };
    assert_eq!(detail("3-4*2"), "the intermediate result -5 leaves 0..=99");
    assert_eq!(detail("50*2"), "the intermediate result 100 leaves 0..=99");
    assert_eq!(detail("3-"), "`3-` is no expression");
    assert_eq!(detail("7"), "nothing is to be computed");
    assert!(detail(&["9".repeat(18), "9".repeat(18)].join("*")).contains("no expression"));
    for long in ["(".repeat(100_000), "1-".to_string() + &"9".repeat(30)] {
        let long = json!({"expression": long, "limit": 99});
        assert!(serde_json::from_value::<Arithmetic>(long).is_err());
    }
}

#[test]
fn every_draw_is_right_in_both_styles_and_read_back() {
    for index in 0..500 {
        let level = 1 + (index % 5) as u32;
        let parameters = Arithmetic::parameters(level);
        Arithmetic::validate(&parameters).unwrap();
        let mut stream = Stream::new(1, "arithmetic", index);
        let Some(puzzle) = Arithmetic::source(&parameters)(&mut stream) else { continue };
        assert_eq!(puzzle.check(&puzzle.answer(Style::Paper)), Verdict::Correct);
        let read = Arithmetic::read(&puzzle.text(Style::Paper)).unwrap();
        assert_eq!(read.text(Style::Compact), puzzle.text(Style::Compact));
        assert!(puzzle.trace(Style::Paper).ends_with(&format!("{}.", puzzle.answer(Style::Paper))));
    }
    let mut odd = Arithmetic::parameters(1);
    odd.operands = [5, 3];
    assert!(Arithmetic::validate(&odd).unwrap_err().contains("`operands` is [5, 3]"));
}

/// A number that is too large was read as the largest there is, and the expression got a
/// certificate.
#[test]
fn numbers_are_read_as_they_are_or_not_at_all() {
    let message = Arithmetic::read("99999999999999999999 - 1").unwrap_err();
    assert_eq!(message, "a number beyond 9223372036854775807");
    let form = |text| {
        let mut out = Vec::new();
        Arithmetic::read(text).unwrap().canonical(&mut out);
        out
    };
    assert_eq!(form("007 + 00 * 10 = ?"), form("7 + 0 * 10"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-0-9+*() =?×]{0,300}", answer in "\\PC*") {
        Arithmetic::read(&text).ok();
        let expression: String = text.chars().take(200).collect();
        if let Ok(puzzle) = serde_json::from_value::<Arithmetic>(json!({"expression": expression, "limit": 9})) {
            puzzle.certify().ok();
            puzzle.check(&answer);
            puzzle.trace(Style::Paper);
            puzzle.shortcuts();
            puzzle.blind();
        }
    }
}
