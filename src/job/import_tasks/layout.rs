//! Benchmarks as their publishers lay them out: which column says what.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::entropy::Stream;
use crate::sandbox::Limits;
use crate::task::{AnyPuzzle, Choice, Problem, Record, code, math};

/// A benchmark whose columns are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Math500,
    Aime,
    Amc,
    Omnimath,
    Olympiadbench,
    Gpqa,
    Gsm8k,
    Humaneval,
    Livecodebench,
    Simplerl,
}

/// The columns that may hold something, of which the first that a row has counts. A path with `/`
/// leads into nested columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Columns(Vec<String>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a column's name or a list of names")]
        enum Names {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Names::deserialize(deserializer)? {
            Names::One(name) => Self(vec![name]),
            Names::Many(names) => Self(names),
        })
    }
}

impl Columns {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find<'a>(&self, row: &'a Map<String, Value>) -> Option<&'a Value> {
        self.0.iter().find_map(|path| {
            let mut keys = path.split('/');
            // A name may have a slash of its own.
            let whole = row.get(path);
            whole.or_else(|| {
                let first = row.get(keys.next()?)?;
                keys.try_fold(first, |value, key| value.get(key))
            })
        })
    }
}

/// Which columns hold what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// The problem or question.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    problem: Columns,
    /// What is put before it.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    context: Columns,
    /// The right answer; of a question with `options`, its letter, position from 0 or words.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    answer: Columns,
    /// A list of options.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    options: Columns,
    /// Columns with a wrong option each, all of which count.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    wrong: Columns,
    /// A number, or text with one.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    level: Columns,
    /// What the row is called; its number where it has no name.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    id: Columns,
}

impl Layout {
    /// Whether answers are programs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Humaneval | Self::Livecodebench)
    }

    fn mapping(self) -> Mapping {
        let columns = |names: &[&str]| Columns(names.iter().map(|name| name.to_string()).collect());
        let plain = |problem: &[&str], answer: &[&str]| Mapping {
            problem: columns(problem),
            answer: columns(answer),
            ..Mapping::default()
        };
        match self {
            Self::Math500 => Mapping {
                level: columns(&["level"]),
                id: columns(&["unique_id"]),
                ..plain(&["problem"], &["answer", "solution"])
            },
            // The collections of 1983 to 2024 and of single years name them differently.
            Self::Aime => Mapping {
                id: columns(&["ID", "id", "url"]),
                ..plain(&["Question", "problem", "Problem", "question"], &["Answer", "answer"])
            },
            Self::Amc => Mapping {
                id: columns(&["id", "url"]),
                ..plain(&["problem", "question"], &["answer"])
            },
            Self::Omnimath => {
                Mapping { level: columns(&["difficulty"]), ..plain(&["problem"], &["answer"]) }
            }
            Self::Olympiadbench => Mapping {
                context: columns(&["context"]),
                id: columns(&["id"]),
                ..plain(&["question"], &["final_answer"])
            },
            Self::Gpqa => Mapping {
                wrong: columns(&["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]),
                id: columns(&["Record ID"]),
                ..plain(&["Question"], &["Correct Answer"])
            },
            Self::Gsm8k => plain(&["question"], &["answer"]),
            // Rows with tests, which are read whole.
            Self::Humaneval | Self::Livecodebench => Mapping::default(),
            Self::Simplerl => Mapping {
                level: columns(&["level", "extra_info/level"]),
                ..plain(
                    &["question", "extra_info/question", "problem"],
                    &["gt_answer", "reward_model/ground_truth", "answer"],
                )
            },
        }
    }
}

/// Reads rows of one layout.
pub struct Reader {
    layout: Option<Layout>,
    mapping: Mapping,
    /// Of programs, where they are not the usual ones.
    pub limits: Option<Limits>,
    /// What the rows are called in certificates.
    source: Value,
    level: u32,
    seed: u64,
}

impl Reader {
    /// `given` stands in for what the layout says. `level` is that of rows without one; `seed`
    /// decides with a row's id in which order its options are put.
    pub fn new(layout: Option<Layout>, given: &Mapping, level: u32, seed: u64) -> Self {
        let known = layout.map(Layout::mapping).unwrap_or_default();
        let either = |given: &Columns, known: Columns| {
            if given.is_empty() { known } else { given.clone() }
        };
        let mapping = Mapping {
            problem: either(&given.problem, known.problem),
            context: either(&given.context, known.context),
            answer: either(&given.answer, known.answer),
            options: either(&given.options, known.options),
            wrong: either(&given.wrong, known.wrong),
            level: either(&given.level, known.level),
            id: either(&given.id, known.id),
        };
        Self { layout, mapping, limits: None, source: json!(layout), level, seed }
    }

    /// The row's task, and where it is from.
    ///
    /// # Errors
    /// Which column is missing.
    pub fn read(
        &self,
        row: &Map<String, Value>,
        number: usize,
        set: &str,
    ) -> Result<(Record, Map<String, Value>), String> {
        let coded = match self.layout {
            Some(Layout::Humaneval) => Some(code::Row::humaneval(row)?),
            Some(Layout::Livecodebench) => Some(code::Row::livecodebench(row)?),
            _ => None,
        };
        if let Some(coded) = coded {
            return Ok(self.program(coded, set));
        }
        let mapping = &self.mapping;
        let need = |columns: &Columns, what: &str| {
            columns.find(row).ok_or_else(|| {
                let names = columns.0.join("`, `");
                format!("no {what}: the row has none of `{names}`; `mapping: {{{what}: COLUMN}}` names another")
            })
        };
        let mut problem = text(need(&mapping.problem, "problem")?);
        if let Some(context) = mapping.context.find(row).map(text).filter(|text| !text.is_empty()) {
            problem = format!("{context}\n\n{problem}");
        }
        let answer = text(need(&mapping.answer, "answer")?);
        let id = mapping.id.find(row).map(text).filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| number.to_string());
        let level = mapping.level.find(row).and_then(level).unwrap_or(self.level);
        let mut origin = Map::from_iter([("id".to_string(), json!(id))]);
        if !self.source.is_null() {
            origin.insert("layout".into(), self.source.clone());
        }
        let puzzle = if mapping.options.is_empty() && mapping.wrong.is_empty() {
            let answer = published(&answer).to_string();
            AnyPuzzle::from(Problem { problem: problem.clone(), answer })
        } else {
            origin.insert("seed".into(), json!(self.seed));
            let options = self.options(row, &answer)?;
            let mut stream = Stream::new(self.seed, &format!("options {id}"), 0);
            AnyPuzzle::from(Choice::shuffled(problem.clone(), options, &mut stream))
        };
        let answer = puzzle.answer();
        let record = Record { set: set.into(), level, text: problem, answer, puzzle: Ok(puzzle) };
        Ok((record, origin))
    }

    fn program(&self, row: code::Row, set: &str) -> (Record, Map<String, Value>) {
        let code::Row { id, level, mut code } = row;
        code.limits = self.limits.unwrap_or(code.limits);
        let (text, answer) = (code.problem.clone(), code.solution.clone());
        let puzzle = Ok(AnyPuzzle::from(code));
        let level = level.unwrap_or(self.level);
        let origin = [("id".to_string(), json!(id)), ("layout".to_string(), self.source.clone())];
        (Record { set: set.into(), level, text, answer, puzzle }, Map::from_iter(origin))
    }

    /// The options, the right one first.
    fn options(&self, row: &Map<String, Value>, answer: &str) -> Result<Vec<String>, String> {
        if !self.mapping.wrong.is_empty() {
            let wrong = self.mapping.wrong.0.iter().map(|column| {
                row.get(column)
                    .map(text)
                    .ok_or_else(|| format!("no column `{column}` for a wrong option"))
            });
            return std::iter::once(Ok(answer.to_string())).chain(wrong).collect();
        }
        let names = self.mapping.options.0.join("`, `");
        let list = self.mapping.options.find(row).and_then(Value::as_array);
        let list = list.ok_or_else(|| format!("no list of options in `{names}`"))?;
        let mut options: Vec<String> = list.iter().map(text).collect();
        let letter = match answer.trim().as_bytes() {
            [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
            _ => answer.trim().parse().ok(),
        };
        let right = options.iter().position(|option| option.trim() == answer.trim()).or(letter);
        let right = right.filter(|right| *right < options.len()).ok_or_else(|| {
            format!(
                "answer `{answer}` is none of the {} options, nor the letter of one",
                options.len()
            )
        })?;
        let first = options.remove(right);
        options.insert(0, first);
        Ok(options)
    }
}

/// A string as it is, a number as an integer where it is one, a list with commas.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Object(_) => String::new(),
    }
}

/// The answer in a solution that marks it, else the text.
fn published(answer: &str) -> &str {
    if answer.contains("####") || answer.contains("\\boxed") || answer.contains("\\fbox") {
        return math::extract(answer).unwrap_or(answer);
    }
    answer
}

/// `5`, `6.5`, `Level 5`
fn level(value: &Value) -> Option<u32> {
    let text = text(value);
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
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
            let row = json!({"task": {"text": "Which?"}, "gold": gold, "choices": ["a", "b", "c"], "n": 5});
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
}
