//! The reward rule: format and answer of one response.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::dataset::Task;
use crate::task::{self, Verdict};

/// How a response is rewarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Stage A of the paper (arXiv 2505.10554 and its released code): format +1 or -1, plus
    /// answer +2 when correct, -1.5 when wrong, -2 when unparsed or the format is bad.
    FormatAnswer,
    /// Stage C: 1 for a correct answer, else 0.
    Correct,
}

/// What was found in a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Exactly one think part, then exactly one answer part, then nothing.
    pub format_ok: bool,
    pub verdict: Verdict,
    /// The text of the answer part, empty without one.
    pub extracted: String,
    pub reward: f32,
}

/// Judges `response` to `task`. A prompt that ends with an open `<think>` opens the think part.
pub fn judge(task: &Task, response: &str, rule: Rule) -> Result<Judgement> {
    let open = if task.prompt.trim_end().ends_with("<think>") { "<think>" } else { "" };
    let text = format!("{open}{response}");
    let format_ok = well_formed(&text);
    let extracted = extract(&text).unwrap_or_default().trim().to_string();
    let verdict =
        if extracted.is_empty() { Verdict::Unparsed } else { task::check(task, &extracted)? };
    let reward = match rule {
        Rule::Correct => f32::from(u8::from(verdict == Verdict::Correct)),
        Rule::FormatAnswer => match (format_ok, verdict) {
            (true, Verdict::Correct) => 1.0 + 2.0,
            (true, Verdict::Wrong) => 1.0 - 1.5,
            (true, Verdict::Unparsed) => 1.0 - 2.0,
            (false, _) => -1.0 - 2.0,
        },
    };
    Ok(Judgement { format_ok, verdict, extracted, reward })
}

fn well_formed(text: &str) -> bool {
    let places: Option<Vec<usize>> = ["<think>", "</think>", "<answer>", "</answer>"]
        .into_iter()
        .map(|tag| {
            let mut found = text.match_indices(tag).map(|(at, _)| at);
            found.next().filter(|_| found.next().is_none())
        })
        .collect();
    places.is_some_and(|places| {
        places.is_sorted()
            && text[..places[0]].trim().is_empty()
            && text[places[1] + "</think>".len()..places[2]].trim().is_empty()
            && text[places[3] + "</answer>".len()..].trim().is_empty()
    })
}

/// The first answer part.
fn extract(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<answer>")?;
    rest.split_once("</answer>").map(|(answer, _)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Family, Level, Split};

    fn arithmetic() -> Task {
        let level = Level { level: 1, count: 1, parameters: Default::default() };
        task::generate(Family::Arithmetic, &[level], Split::Train, 3).unwrap().remove(0)
    }

    #[test]
    fn the_papers_reward_table() {
        let task = arithmetic();
        let right = &task.answer;
        let wrong = (right.parse::<i64>().unwrap() + 1).to_string();
        let cases = [
            (format!("x</think><answer>{right}</answer>"), true, 3.0, 1.0),
            (format!("x</think>\n<answer> {right} </answer>\n"), true, 3.0, 1.0),
            (format!("x</think><answer>{wrong}</answer>"), true, -0.5, 0.0),
            ("x</think><answer>many</answer>".into(), true, -1.0, 0.0),
            ("x</think><answer></answer>".into(), true, -1.0, 0.0),
            // A second think part, a missing end, text around the parts, parts out of order.
            (format!("<think>x</think><answer>{right}</answer>"), false, -3.0, 1.0),
            (format!("x<answer>{right}</answer>"), false, -3.0, 1.0),
            (format!("x</think><answer>{right}</answer> so"), false, -3.0, 1.0),
            (format!("x</think>so <answer>{right}</answer>"), false, -3.0, 1.0),
            (format!("<answer>{right}</answer></think>"), false, -3.0, 1.0),
            (format!("x</think><answer>{right}</answer><answer>1</answer>"), false, -3.0, 1.0),
            (format!("x</think><answer>{right}"), false, -3.0, 0.0),
            (String::new(), false, -3.0, 0.0),
        ];
        for (response, format_ok, staged, domain) in cases {
            let judged = judge(&task, &response, Rule::FormatAnswer).unwrap();
            assert_eq!((judged.format_ok, judged.reward), (format_ok, staged), "{response}");
            assert_eq!(
                judge(&task, &response, Rule::Correct).unwrap().reward,
                domain,
                "{response}"
            );
        }
    }

    #[test]
    fn the_think_tag_may_stand_in_the_prompt_or_in_the_response() {
        let mut task = arithmetic();
        let closed = format!("x</think><answer>{}</answer>", task.answer);
        assert!(judge(&task, &closed, Rule::FormatAnswer).unwrap().format_ok);
        task.prompt = "M:1+1=?".into();
        assert!(!judge(&task, &closed, Rule::FormatAnswer).unwrap().format_ok);
        let opened = format!("<think>{closed}");
        assert!(judge(&task, &opened, Rule::FormatAnswer).unwrap().format_ok);
    }
}
