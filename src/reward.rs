//! The reward rules: format and answer of one response.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::Task;
use crate::nearest::hint;
use crate::task::code::Code;
use crate::task::{AnyPuzzle, Verdict};
use crate::{Error, Result};

/// How a response is rewarded. The format is worth +1 when it is right and -1 when it is not, in
/// both rules of stage A; a bad format takes the worst answer reward with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Stage A as the paper's text has it (arXiv 2505.10554): answer +2 when correct, else -2.
    Paper,
    /// Stage A as its released code has it: +2 when correct, -1.5 when read but wrong, -2 when
    /// missing or unreadable.
    Released,
    /// Stage C: 1 for a correct answer, else 0.
    Correct,
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "paper" => Self::Paper,
            "released" => Self::Released,
            "correct" => Self::Correct,
            _ => {
                let hint = hint(text, ["paper", "released", "correct"]);
                return Err(Error::usage(format!("no reward rule `{text}`{hint}")));
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Think,
    ThinkEnd,
    Answer,
    AnswerEnd,
}

impl Tag {
    /// In the order in which a response must have them.
    const ALL: [Self; 4] = [Self::Think, Self::ThinkEnd, Self::Answer, Self::AnswerEnd];

    pub fn text(self) -> &'static str {
        match self {
            Self::Think => "<think>",
            Self::ThinkEnd => "</think>",
            Self::Answer => "<answer>",
            Self::AnswerEnd => "</answer>",
        }
    }
}

/// Whether a response is exactly one think part, then exactly one answer part, then nothing; and
/// what is wrong first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Ok,
    Missing(Tag),
    Repeated(Tag),
    /// Each tag once, out of order.
    Disordered,
    /// Text before, between or after the two parts.
    Outside,
}

/// `ok`, `missing </think>`, `repeated <answer>`, `disordered`, `outside`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Missing(tag) => write!(f, "missing {}", tag.text()),
            Self::Repeated(tag) => write!(f, "repeated {}", tag.text()),
            Self::Disordered => f.write_str("disordered"),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// What was found in a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement<'a> {
    pub format: Format,
    /// `None`: there is no answer, or nothing in it.
    pub verdict: Option<Verdict>,
    /// What the puzzle finds in the response, else the text of the first answer part; empty
    /// without one.
    pub extracted: &'a str,
    pub reward: f32,
}

impl Judgement<'_> {
    /// `correct`, `wrong`, `unparsed` or `missing`.
    pub fn word(&self) -> &'static str {
        self.verdict.as_ref().map_or("missing", Verdict::as_str)
    }
}

/// A task made ready to judge many responses.
pub struct Judge {
    puzzle: AnyPuzzle,
    /// The prompt ends with an open `<think>`, which is the response's first tag.
    open: bool,
}

impl Judge {
    /// # Errors
    /// Those of [`AnyPuzzle::of`].
    pub fn new(task: &Task) -> Result<Self> {
        Ok(Self::of(AnyPuzzle::of(task)?, &task.prompt))
    }

    /// Judges responses to `puzzle` put as `prompt`.
    pub fn of(puzzle: AnyPuzzle, prompt: &str) -> Self {
        Self { puzzle, open: prompt.trim_end().ends_with(Tag::Think.text()) }
    }

    /// Whether answers are programs, which have to be run.
    pub fn runs(&self) -> bool {
        self.puzzle.code().is_some()
    }

    /// The program in a response, and the problem whose tests it has to pass.
    pub fn program<'a>(&self, response: &'a str) -> Option<(&Code, &'a str)> {
        let code = self.puzzle.code()?;
        let (_, program) = self.read(response);
        (!program.is_empty()).then_some((code, program))
    }

    /// Judges one response, in time linear in its length.
    pub fn judge<'a>(&self, response: &'a str, rule: Rule) -> Judgement<'a> {
        self.decide(response, rule, |answer| self.puzzle.check(answer))
    }

    /// The same where `check` says what an answer is worth.
    pub fn decide<'a>(
        &self,
        response: &'a str,
        rule: Rule,
        check: impl FnOnce(&str) -> Verdict,
    ) -> Judgement<'a> {
        let (format, extracted) = self.read(response);
        let verdict = (!extracted.is_empty()).then(|| check(extracted));
        let reward = reward(rule, format == Format::Ok, verdict.as_ref());
        Judgement { format, verdict, extracted, reward }
    }

    /// The format, and the answer without the blanks around it.
    fn read<'a>(&self, response: &'a str) -> (Format, &'a str) {
        let tags = Tags::find(response, self.open);
        let found = self.puzzle.find(response).or_else(|| tags.answer(response));
        (tags.format(response, self.open), found.unwrap_or_default().trim())
    }
}

fn reward(rule: Rule, format_ok: bool, verdict: Option<&Verdict>) -> f32 {
    let correct = verdict.is_some_and(Verdict::is_correct);
    if rule == Rule::Correct {
        return f32::from(u8::from(correct));
    }
    let answer = match verdict {
        _ if !format_ok => -2.0,
        Some(Verdict::Correct) => 2.0,
        Some(Verdict::Wrong(_)) if rule == Rule::Released => -1.5,
        _ => -2.0,
    };
    answer + if format_ok { 1.0 } else { -1.0 }
}

/// Where each tag first begins, and how often it occurs.
struct Tags {
    first: [usize; 4],
    count: [usize; 4],
}

impl Tags {
    fn find(text: &str, open: bool) -> Self {
        let mut tags = Self { first: [0; 4], count: [usize::from(open), 0, 0, 0] };
        for (at, _) in text.match_indices('<') {
            let here = &text.as_bytes()[at..];
            let Some(tag) = Tag::ALL.iter().position(|t| here.starts_with(t.text().as_bytes()))
            else {
                continue;
            };
            if tags.count[tag] == 0 {
                tags.first[tag] = at;
            }
            tags.count[tag] += 1;
        }
        tags
    }

    /// `open`: the think part begins before the text.
    fn format(&self, text: &str, open: bool) -> Format {
        for (tag, &count) in Tag::ALL.into_iter().zip(&self.count) {
            match count {
                0 => return Format::Missing(tag),
                1 => {}
                _ => return Format::Repeated(tag),
            }
        }
        let [think, think_end, answer, answer_end] = self.first;
        if !(think <= think_end && think_end < answer && answer < answer_end) {
            return Format::Disordered;
        }
        let before = if open { 0..0 } else { 0..think };
        let between = think_end + Tag::ThinkEnd.text().len()..answer;
        let after = answer_end + Tag::AnswerEnd.text().len()..text.len();
        let blank = |range: std::ops::Range<usize>| text[range].trim().is_empty();
        if blank(before) && blank(between) && blank(after) { Format::Ok } else { Format::Outside }
    }

    fn answer<'a>(&self, text: &'a str) -> Option<&'a str> {
        if self.count[2] == 0 {
            return None;
        }
        let inside = &text[self.first[2] + Tag::Answer.text().len()..];
        inside.split_once(Tag::AnswerEnd.text()).map(|(answer, _)| answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Family, Form, Level, Request, Split, generate};

    fn arithmetic() -> Task {
        let level = Level { level: 1, count: 1, parameters: Default::default() };
        let request = Request {
            family: Family::Arithmetic,
            split: Split::Train,
            seed: 3,
            form: Form::default(),
            levels: vec![level],
        };
        let mut tasks = Vec::new();
        let mut sink = |rows| {
            tasks.extend(rows);
            Ok(())
        };
        generate(&request, 1, &mut sink).unwrap();
        tasks.remove(0)
    }

    #[test]
    fn the_rules_reward_what_they_say() {
        let task = arithmetic();
        let right = &task.answer;
        let wrong = (right.parse::<i64>().unwrap() + 1).to_string();
        let cases = [
            (format!("x</think><answer>{right}</answer>"), "ok", [3.0, 3.0, 1.0]),
            (format!("x</think>\n<answer> {right} </answer>\n"), "ok", [3.0, 3.0, 1.0]),
            (format!("x</think><answer>{wrong}</answer>"), "ok", [-1.0, -0.5, 0.0]),
            ("x</think><answer>many</answer>".into(), "ok", [-1.0, -1.0, 0.0]),
            ("x</think><answer></answer>".into(), "ok", [-1.0, -1.0, 0.0]),
            (
                format!("<think>x</think><answer>{right}</answer>"),
                "repeated <think>",
                [-3.0, -3.0, 1.0],
            ),
            (format!("x<answer>{right}</answer>"), "missing </think>", [-3.0, -3.0, 1.0]),
            (format!("x</think><answer>{right}</answer> so"), "outside", [-3.0, -3.0, 1.0]),
            (format!("x</think>so <answer>{right}</answer>"), "outside", [-3.0, -3.0, 1.0]),
            (format!("<answer>{right}</answer></think>"), "disordered", [-3.0, -3.0, 1.0]),
            (
                format!("x</think><answer>{right}</answer><answer>1</answer>"),
                "repeated <answer>",
                [-3.0, -3.0, 1.0],
            ),
            (format!("x</think><answer>{right}"), "missing </answer>", [-3.0, -3.0, 0.0]),
            (String::new(), "missing </think>", [-3.0, -3.0, 0.0]),
        ];
        let judge = Judge::new(&task).unwrap();
        for (response, format, rewards) in cases {
            for (rule, reward) in [Rule::Paper, Rule::Released, Rule::Correct].iter().zip(rewards) {
                let judged = judge.judge(&response, *rule);
                assert_eq!(judged.format.to_string(), format, "{response}");
                assert_eq!(judged.reward, reward, "{rule:?} {response}");
            }
        }
    }

    #[test]
    fn the_think_tag_may_stand_in_the_prompt_or_in_the_response() {
        let mut task = arithmetic();
        let closed = format!("x</think><answer>{}</answer>", task.answer);
        let format =
            |task: &Task, text: &str| Judge::new(task).unwrap().judge(text, Rule::Released).format;
        assert_eq!(format(&task, &closed), Format::Ok);
        task.prompt = "M:1+1=?".into();
        assert_eq!(format(&task, &closed), Format::Missing(Tag::Think));
        assert_eq!(format(&task, &format!("<think>{closed}")), Format::Ok);
        assert_eq!(format(&task, &format!("so <think>{closed}")), Format::Outside);
    }

    proptest! {
        /// A slow reading of the same definition, on texts that are mostly tags.
        #[test]
        fn formats_agree_with_their_definition(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "<think>", "</think>", "<answer>", "</answer>", "<", "7", " ", "ä", "<think",
                ]),
                0..9,
            ),
            open in any::<bool>(),
        ) {
            let text = parts.concat();
            let whole = format!("{}{text}", if open { "<think>" } else { "" });
            let once = Tag::ALL.iter().all(|tag| whole.matches(tag.text()).count() == 1);
            let order: Vec<_> = Tag::ALL.iter().map(|tag| whole.find(tag.text())).collect();
            let mut rest = whole.clone();
            if let [Some(a), Some(b), Some(c), Some(d)] = order[..]
                && a < b && b < c && c < d
            {
                rest.replace_range(c..d + 9, "");
                rest.replace_range(a..b + 8, "");
            }
            let tags = Tags::find(&text, open);
            let ok = once && order.is_sorted() && rest.trim().is_empty();
            prop_assert_eq!(tags.format(&text, open) == Format::Ok, ok);
        }

        #[test]
        fn no_response_panics(response in "(<|/|think>|answer>|[0-9]|.){0,40}") {
            let judge = Judge::new(&arithmetic()).unwrap();
            let judged = judge.judge(&response, Rule::Released);
            prop_assert!(response.contains(judged.extracted));
        }
    }
}
