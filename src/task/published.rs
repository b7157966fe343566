//! Problems whose answer somebody else published: nothing is proven of them. The right answer is
//! compared with the given one; there is no source of new ones and no solver.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::math::{self, Equality, Gold};
use super::{Certificate, Fault, FaultKind, Probe, Puzzle, Style, Verdict};
use crate::entropy::Stream;

/// A problem with one answer: a number, a formula, a set, a word.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    pub problem: String,
    pub answer: String,
}

/// A question with options, of which one is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub question: String,
    pub options: Vec<String>,
    /// Position of the right one.
    pub answer: usize,
}

/// There is nothing to choose where nothing is drawn.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imported {}

/// What is the same in every family of published answers: nothing is drawn, solved or guessed.
macro_rules! published {
    () => {
        type Parameters = $crate::task::published::Imported;
        const THINK: &'static str = "";

        fn parameters(_: u32) -> Self::Parameters {
            Self::Parameters {}
        }
        fn validate(_: &Self::Parameters) -> Result<(), String> {
            Err("tasks of this family are not drawn: `import-tasks` takes them from a file with a \
                 `layout`"
                .into())
        }
        fn source(
            _: &Self::Parameters,
        ) -> impl FnMut(&mut $crate::entropy::Stream) -> Option<Self> {
            |_| None
        }
        fn read(_: &str) -> Result<Self, String> {
            Err("a task of this family is read with its published answer: name a `layout`".into())
        }
        fn trace(&self, _: Style) -> String {
            String::new()
        }
        fn blind(&self) -> Vec<Probe> {
            Vec::new()
        }
        fn shortcuts(&self) -> Vec<Probe> {
            Vec::new()
        }
    };
}
pub(super) use published;

impl Puzzle for Problem {
    published!();

    /// That there is a problem and an answer, and how answers are compared with it.
    fn certify(&self) -> Result<Certificate, Fault> {
        named(&self.problem, "problem")?;
        named(&self.answer, "answer")?;
        let compared = match Gold::new(&self.answer).fault() {
            None => "as a value".into(),
            Some(reason) => format!("letter for letter: {reason}"),
        };
        Ok(reference(&self.problem, &compared))
    }

    fn text(&self, style: Style) -> String {
        asked(&self.problem, self.instruction(), style)
    }
    fn instruction(&self) -> &'static str {
        "Please reason step by step, and put your final answer within \\boxed{}."
    }
    fn answer(&self, _: Style) -> String {
        self.answer.clone()
    }

    fn check(&self, answer: &str) -> Verdict {
        match math::grade(&self.answer, answer) {
            Equality::Equal => Verdict::Correct,
            Equality::Different => Verdict::Wrong("answer".into()),
            Equality::Unknown(reason) => Verdict::Unknown(reason.to_string()),
        }
    }

    fn find<'a>(&self, response: &'a str) -> Option<&'a str> {
        math::extract(concluded(response)).or_else(|| math::extract(response))
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        out.extend(b"math\0");
        words(&self.problem, out);
    }
}

impl Choice {
    /// The first of `options` is right; `stream` decides in which order they are put.
    pub fn shuffled(question: String, options: Vec<String>, stream: &mut Stream) -> Self {
        let mut order: Vec<usize> = (0..options.len()).collect();
        stream.shuffle(&mut order);
        let answer = order.iter().position(|at| *at == 0).unwrap_or(0);
        let options = order.iter().map(|at| options[*at].clone()).collect();
        Self { question, options, answer }
    }

    /// The option that a text names by its letter: `(C)`, `\text{C}`, `C. because`, `option C`.
    fn named(&self, text: &str) -> Option<usize> {
        let at = letter(text, self.options.len())?;
        Some(usize::from(text.as_bytes()[at] - b'A'))
    }
}

/// The letter of an option by its position.
fn name(option: usize) -> char {
    char::from(b'A' + u8::try_from(option).unwrap_or(25).min(25))
}

/// Where in `text` a letter stands that names one of `options`: before it nothing but markup and
/// the words that lead to it, behind it no further letter or digit.
fn letter(text: &str, options: usize) -> Option<usize> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..length];
        let at = text.len() - rest.len();
        if let [letter @ b'A'..=b'Z'] = word.as_bytes() {
            return (usize::from(letter - b'A') < options).then_some(at);
        }
        let lead = ["text", "textbf", "mathrm", "mathbf", "boxed", "option", "choice", "is", "the"];
        let lead = lead.iter().any(|lead| word.eq_ignore_ascii_case(lead));
        if !lead || word.is_empty() {
            return None;
        }
        rest = &rest[length..];
    }
}

impl Puzzle for Choice {
    published!();

    /// That there is a question, two to 26 options that differ, and that the right one is there.
    fn certify(&self) -> Result<Certificate, Fault> {
        named(&self.question, "question")?;
        let fault = |detail: String| Err(Fault::new(FaultKind::Malformed, detail));
        let count = self.options.len();
        if !(2..=26).contains(&count) {
            return fault(format!("{count} options; 2 to 26 have letters"));
        }
        if self.answer >= count {
            return fault(format!("option {} of {count} is said to be right", self.answer + 1));
        }
        for (at, option) in self.options.iter().enumerate() {
            named(option, "option")?;
            if self.options[..at].iter().any(|other| other.trim() == option.trim()) {
                return Err(Fault::new(FaultKind::Ambiguous, format!("`{option}` is there twice")));
            }
        }
        Ok(reference(&self.question, "by its letter"))
    }

    fn text(&self, style: Style) -> String {
        let options: String = self
            .options
            .iter()
            .enumerate()
            .map(|(at, option)| format!("\n{}) {}", name(at), option.trim()))
            .collect();
        asked(&format!("{}\n{options}", self.question.trim()), self.instruction(), style)
    }
    fn instruction(&self) -> &'static str {
        "Please reason step by step, and put the letter of the right option within \\boxed{}."
    }
    fn answer(&self, _: Style) -> String {
        name(self.answer).into()
    }

    /// By the letter, or by the words of an option.
    fn check(&self, answer: &str) -> Verdict {
        let same = |option: &String| option.trim().eq_ignore_ascii_case(answer.trim());
        let chosen = self.named(answer).or_else(|| self.options.iter().position(same));
        match chosen {
            Some(option) if option == self.answer => Verdict::Correct,
            Some(option) => Verdict::Wrong(format!("option {}", name(option))),
            None => Verdict::Unparsed,
        }
    }

    /// What is in the last `<answer>` or box, else the letter behind the last `answer`, else the
    /// last letter in brackets or stars, else the letter that the response begins with.
    fn find<'a>(&self, response: &'a str) -> Option<&'a str> {
        let text = concluded(response);
        let part = math::tagged(text);
        let text = part.unwrap_or(text);
        if text.contains("\\boxed") {
            return math::extract(text);
        }
        if part.is_some() {
            return part.map(str::trim).filter(|answer| !answer.is_empty());
        }
        let lower = text.to_ascii_lowercase();
        let count = self.options.len();
        let stated = lower.rmatch_indices("answer").find_map(|(at, word)| {
            let rest = &text[at + word.len()..];
            letter(rest, count).map(|at| &rest[at..=at])
        });
        let marked = || {
            let bytes = text.as_bytes();
            let at = (1..bytes.len().saturating_sub(1)).rev().find(|&at| {
                let around = [bytes[at - 1], bytes[at + 1]];
                matches!(around, [b'(', b')'] | [b'*', b'*'])
                    && bytes[at].is_ascii_uppercase()
                    && usize::from(bytes[at] - b'A') < count
            });
            at.map(|at| &text[at..=at])
        };
        let first = || letter(text, count).map(|at| &text[at..=at]);
        stated.or_else(marked).or_else(first)
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        out.extend(b"choice\0");
        words(&self.question, out);
        let mut options: Vec<&str> = self.options.iter().map(|option| option.trim()).collect();
        options.sort_unstable();
        for option in options {
            out.push(0);
            out.extend(option.bytes());
        }
    }
}

pub(super) fn named(text: &str, what: &str) -> Result<(), Fault> {
    match text.trim() {
        "" => Err(Fault::new(FaultKind::Malformed, format!("the {what} is empty"))),
        _ => Ok(()),
    }
}

pub(super) fn reference(text: &str, compared: &str) -> Certificate {
    let size = u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
    let proof = json!({"answer": "published", "compared": compared});
    Certificate { kind: "reference", size, depth: 0, nodes: 0, proof }
}

/// In the paper's style the instruction stands before the text, as the system's message.
pub(super) fn asked(text: &str, instruction: &str, style: Style) -> String {
    match style {
        Style::Compact => format!("{}\n{instruction}", text.trim()),
        Style::Paper => text.trim().into(),
    }
}

/// What comes after the reasoning.
pub(super) fn concluded(response: &str) -> &str {
    response.rsplit_once("</think>").map_or(response, |(_, conclusion)| conclusion)
}

/// The text with one space between words.
pub(super) fn words(text: &str, out: &mut Vec<u8>) {
    for word in text.split_whitespace() {
        out.extend(word.bytes());
        out.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{AnyPuzzle, Family, Form, demonstrate};

    fn choice() -> Choice {
        let options = ["5 m/s", "6 m/s", "7 m/s", "8 m/s"].map(String::from).into();
        Choice::shuffled("How fast?".into(), options, &mut Stream::new(3, "options", 0))
    }

    #[test]
    fn a_problem_is_judged_by_its_answer() {
        let problem = Problem { problem: "What is 1/2 + 1/4?".into(), answer: "3/4".into() };
        let judged = |response: &str| problem.find(response).map(|found| problem.check(found));
        assert_eq!(judged("so \\boxed{\\frac34}"), Some(Verdict::Correct));
        assert_eq!(judged("<think>\\boxed{1}</think> It is 0.75."), Some(Verdict::Correct));
        assert_eq!(judged("x</think><answer>0.75</answer>"), Some(Verdict::Correct));
        assert_eq!(judged("\\boxed{1/2}"), Some(Verdict::Wrong("answer".into())));
        let unknown = judged("\\boxed{\\frac{3}}").unwrap();
        assert_eq!(unknown.as_str(), "unparsed");
        assert!(matches!(unknown, Verdict::Unknown(reason) if reason == "it ends too early"));
        assert_eq!(judged("I do not know"), None);
    }

    #[test]
    fn an_option_is_named_by_its_letter() {
        let choice = choice();
        assert_eq!(choice.options[choice.answer], "5 m/s");
        let right = name(choice.answer);
        let wrong = name((choice.answer + 1) % 4);
        for text in [
            format!("\\boxed{{{right}}}"),
            format!("\\boxed{{\\text{{({right})}}}}"),
            format!("<answer>{right}) 5 m/s</answer>"),
            format!("{wrong}</think>The answer is ({right})."),
            format!("Answer: {right}"),
            format!("**Answer:** {right}) 5 m/s"),
            format!("it must be ({right}), clearly"),
            format!("{right}. Because {wrong} is not it"),
            "\\boxed{5 m/s}".into(),
        ] {
            let found = choice.find(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(choice.check(found), Verdict::Correct, "{text}: {found}");
        }
        let found = format!("\\boxed{{{wrong}}}");
        let verdict = choice.check(choice.find(&found).unwrap());
        assert_eq!(verdict, Verdict::Wrong(format!("option {wrong}")));
        assert_eq!(choice.check("all of them"), Verdict::Unparsed);
        assert_eq!(choice.check("Z"), Verdict::Unparsed);
        assert_eq!(choice.find("no idea"), None);
    }

    #[test]
    fn options_in_another_order_are_the_same_question() {
        let orders: Vec<Choice> = (0..20)
            .map(|seed| {
                let options = choice().options;
                Choice::shuffled("How fast?".into(), options, &mut Stream::new(seed, "options", 0))
            })
            .collect();
        let canonical = |choice: &Choice| {
            let mut bytes = Vec::new();
            choice.canonical(&mut bytes);
            bytes
        };
        assert!(orders.iter().all(|other| canonical(other) == canonical(&choice())));
        assert!(orders.iter().any(|other| other.answer != orders[0].answer));
    }

    #[test]
    fn rows_say_what_is_asked_and_nothing_is_demonstrated() {
        let json = serde_json::to_string(&choice()).unwrap();
        let puzzle = AnyPuzzle::from_json(Family::Choice, &json).unwrap();
        let certificate = puzzle.certify().unwrap();
        let row = |chat, style| puzzle.row(1, Form { style, chat }, certificate.clone()).unwrap();
        let plain = row(false, Style::Compact);
        assert_eq!(plain.kind, "reference");
        assert!(plain.prompt.starts_with("How fast?\n\nA) "), "{}", plain.prompt);
        assert!(plain.prompt.ends_with("within \\boxed{}.\n"), "{}", plain.prompt);
        let chat = row(true, Style::Paper);
        assert!(chat.prompt.ends_with("<|im_start|>assistant\n"), "{}", chat.prompt);
        assert!(chat.messages.contains("\"system\""), "{}", chat.messages);
        let refused = demonstrate(&plain).unwrap_err().to_string();
        assert!(refused.contains("no solver"), "{refused}");
    }

    #[test]
    fn what_cannot_be_asked_is_malformed() {
        let fault = |choice: Choice| choice.certify().unwrap_err().kind;
        let with = |options: &[&str], answer| Choice {
            question: "q".into(),
            options: options.iter().map(|option| option.to_string()).collect(),
            answer,
        };
        assert_eq!(fault(with(&["a"], 0)), FaultKind::Malformed);
        assert_eq!(fault(with(&["a", "b"], 2)), FaultKind::Malformed);
        assert_eq!(fault(with(&["a", " a"], 0)), FaultKind::Ambiguous);
        let empty = Problem { problem: "p".into(), answer: " ".into() };
        assert_eq!(empty.certify().unwrap_err().detail, "the answer is empty");
    }
}
