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
mod tests;
