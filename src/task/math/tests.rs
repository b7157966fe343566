use std::time::Instant;

use proptest::prelude::*;

use super::*;

const CASES: &str = include_str!("cases.txt");

/// (line, gold, answer, what the verdict must be)
fn cases() -> Vec<(usize, &'static str, &'static str, char)> {
    let mut gold = "";
    let mut cases = Vec::new();
    for (number, line) in CASES.lines().enumerate() {
        let Some((mark, text)) = line.split_once(' ').filter(|(mark, _)| mark.len() == 1) else {
            continue;
        };
        let text = text.strip_suffix(" ~").unwrap_or(text);
        match mark {
            ">" => gold = text,
            "=" | "!" | "?" => cases.push((number + 1, gold, text, mark.chars().next().unwrap())),
            _ => {}
        }
    }
    cases
}

fn mark(verdict: Equality) -> char {
    match verdict {
        Equality::Equal => '=',
        Equality::Different => '!',
        Equality::Unknown(_) => '?',
    }
}

#[test]
fn the_verdicts_are_those_of_the_cases() {
    let cases = cases();
    assert!(cases.len() > 400, "{}", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(line, gold, answer, want)| {
            let verdict = grade(gold, answer);
            (mark(verdict) != *want)
                .then(|| format!("{line}: {gold} | {answer}: {verdict:?}, not {want}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_answer_equals_itself_and_equality_of_values_has_no_order() {
    for (line, gold, answer, want) in cases() {
        assert_eq!(grade(gold, gold), Equality::Equal, "{line}");
        let value = |text: &str| read(text, Commas::Thousands).is_ok_and(|e| e.is_scalar());
        if want == '=' && value(gold) && value(answer) {
            assert_eq!(grade(answer, gold), Equality::Equal, "{line}: {answer} | {gold}");
        }
    }
}

#[test]
fn the_answer_is_found() {
    let cases = [
        ("so \\boxed{5}", Some("5")),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}.", Some("\\frac{1}{\\sqrt{2}}")),
        ("first \\boxed{1}, then after a long derivation of it \\boxed{2}", Some("2")),
        ("\\boxed{1} and \\boxed{-2}.", Some("\\boxed{1} and \\boxed{-2}")),
        ("\\fbox{7}", Some("7")),
        ("it is $\\boxed 7$.", Some("7")),
        ("\\boxed{\\{1, 2\\}}", Some("\\{1, 2\\}")),
        ("\\boxed{3", Some("3")),
        ("<answer>12</answer>", Some("12")),
        ("<answer>x = \\boxed{3}</answer>", Some("3")),
        ("<answer>1</answer><answer>The answer is 2.</answer>", Some("2")),
        ("so 6 * 7 = 42\n#### 42", Some("42")),
        ("#### $1,234", Some("$1,234")),
        ("The answer is 42. I hope it is correct.", Some("42")),
        ("The answer is $\\frac12$ because of 7.", Some("$\\frac12$")),
        ("Answer: 3.5", Some("3.5")),
        ("**Answer:** 17", Some("17")),
        ("Final Answer: The largest $n$ is 34.", Some("34")),
        ("\\boxed{255}. Final Answer: The final answer is $10,455$. I hope", Some("$10,455$")),
        ("the result is **73**", Some("73")),
        ("the result is **73** dollars", Some("73")),
        ("hence $x = 3$ or so", Some("$x = 3$")),
        ("hence $1$ and $2$", Some("$1$ and $2$")),
        ("the number is not 10 but 1,000.99€", Some("1,000.99")),
        ("increases by 100%.", Some("100%")),
        ("it is -7 then", Some("-7")),
        ("that is (1/2)/(3/4) = 2/3 of it", Some("2/3")),
        ("\\frac{1}{2}", Some("\\frac{1}{2}")),
        ("x = 5", Some("x = 5")),
        ("Evelyn", Some("Evelyn")),
        ("AZYUK2A", None),
        ("I do not know it at all", None),
        ("", None),
        ("\\boxed{}", None),
    ];
    for (response, answer) in cases {
        assert_eq!(extract(response), answer, "{response}");
    }
}

#[test]
fn hostile_texts_end_soon() {
    let many = |text: &str, n: usize| text.repeat(n);
    let texts = [
        "10^10^10^10^10".into(),
        "9^{9^{9^{9^9}}}".into(),
        "(10^{10^{10}})!".into(),
        "1000000000!!!!!".into(),
        "\\binom{10^9}{5 \\cdot 10^8}".into(),
        many("9", 5000),
        format!("0.{}1", many("0", 5000)),
        "1e999999999".into(),
        "2^{-10^{18}}".into(),
        "\\sin(10^{40})".into(),
        "x^{x^{x^{x^x}}}".into(),
        "1/0".into(),
        "0^0".into(),
        "\\frac{1}{\\sin(\\pi)}".into(),
        "\\sqrt[0]{5}".into(),
        "\\log_1 5".into(),
        many("{", 4000),
        many("(", 1_000_000),
        many("\\boxed{", 200_000),
        many("\\frac{", 2000),
        many("-", 8000) + "1",
        many("2*-", 2000) + "1",
        many("2^-", 2000) + "1",
        many("1/", 2000) + "1",
        "5".to_owned() + &many("!", 3000),
        many("\\sqrt", 2000) + "2",
        many("|", 4000),
        many("1+", 1400) + "\\sqrt{2}",
        many("(x+1)", 500),
        (1..400).map(|n| n.to_string()).collect::<Vec<_>>().join(", "),
        (1..400).map(|n| format!("\\sqrt{{{n}}}")).collect::<Vec<_>>().join(", "),
        many("\\pm", 2000) + "1",
        many("\\begin{pmatrix}1&1\\\\1&1\\end{pmatrix}", 60),
        format!(
            "{}\\begin{{pmatrix}}x&y\\\\y&x\\end{{pmatrix}}{}",
            many("(", 40),
            many(")\\begin{pmatrix}x&y\\\\y&x\\end{pmatrix}", 40)
        ),
        many("\\cup", 1000),
        (1..300).map(|n| format!("({n},{})", 2 * n)).collect::<Vec<_>>().join(" \\cup "),
        many("a:", 1000) + "b",
        format!("{}x{}", many("(", 40), many(":a:b)", 40)),
        many("$", 8000),
        many("**", 4000),
        many("answer is ", 20_000),
        (3..400).map(|n| format!("1/{n}^{{3000}}")).collect::<Vec<_>>().join(" + "),
        (3..400).map(|n| format!("({n}00)!")).collect::<Vec<_>>().join(" + "),
        (3..400).map(|n| format!("x^{{{n}^{{2000}}}}")).collect::<Vec<_>>().join(" + "),
    ];
    let golds = ["7", "\\sqrt{2}", "x^2 + 1", "\\{1, 2\\}", "(0, 1)", "x > 3", "[0,1] \\cup [2,3]"];
    for text in &texts {
        let started = Instant::now();
        for gold in golds {
            let found = extract(text).unwrap_or(text);
            let verdict = grade(gold, found);
            assert_ne!(verdict, Equality::Equal, "{gold} | {}", &text[..text.len().min(60)]);
            assert!(!matches!(grade(found, gold), Equality::Equal));
        }
        // Generous: what is tested is that none of them takes minutes or the stack.
        assert!(started.elapsed().as_secs() < 20, "{}", &text[..text.len().min(60)]);
    }
}

proptest! {
    #[test]
    fn no_text_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "1", "2", "10", "0", "x", "y", "n", "e", "i", "\\pi", "+", "-", "*", "/", "^", "_", "(", ")",
            "[", "]", "{", "}", "\\{", "\\}", "|", "!", ",", ";", ":", "=", "<", "\\le", "\\ne", "\\frac",
            "\\sqrt", "\\sin", "\\ln", "\\log_", "\\binom", "\\pm", "\\cup", "\\infty", "\\text{and}",
            "\\text{cm}", "%", "^\\circ", " ", ".", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\",
            "\\mathbb{R}", "\\setminus", "\\in", "f(", "\\lfloor", "\\rfloor", "\\approx", "ä", "²", "½",
            "apples", "\\boxed{", "$", "é", "1,000", "\\sum_{k=1}", "\\left", "\\right", "'",
        ]), 0..14),
        gold in prop::sample::select(vec!["2", "x^2+1", "\\{1,2\\}", "x > 1", "(0, 1]", "\\sqrt 2", "x = 2, y = 3"]),
    ) {
        let text = parts.concat();
        let _ = grade(gold, &text);
        let _ = grade(&text, gold);
        prop_assert!(text.trim().is_empty() || grade(&text, &text) == Equality::Equal || extract(&text).is_none() || unboxed(text.trim()).is_empty());
        if let Some(found) = extract(&text) {
            prop_assert!(text.contains(found));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        let _ = grade("x + 1", &text);
        if let Some(found) = extract(&text) {
            prop_assert!(text.contains(found));
        }
    }

    /// Values by construction: a sum of fractions and roots in two orders and writings.
    #[test]
    fn writings_of_one_value_are_equal(a in -50_i64..50, b in 1_i64..30, c in 1_i64..30, d in 2_i64..40) {
        let one = format!("\\frac{{{a}}}{{{b}}} + {c}\\sqrt{{{d}}}");
        let other = format!("\\sqrt{{{}}} + {a}/{b}", c * c * d);
        prop_assert_eq!(grade(&one, &other), Equality::Equal);
        let near = format!("\\sqrt{{{}}} + {a}/{b}", c * c * d + 1);
        prop_assert_eq!(grade(&one, &near), Equality::Different);
    }

    #[test]
    fn expanding_a_product_changes_nothing(a in -9_i64..9, b in -9_i64..9, c in -9_i64..9) {
        let one = format!("(x + ({a}))(x + ({b}))(x + ({c}))");
        let (p, q, r) = (a + b + c, a * b + b * c + a * c, a * b * c);
        let other = format!("x^3 + ({p})x^2 + ({q})x + ({r})");
        prop_assert_eq!(grade(&one, &other), Equality::Equal);
        prop_assert_eq!(grade(&one, &format!("{other} + 1")), Equality::Different);
    }
}
