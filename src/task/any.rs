//! A puzzle of any family, and the row it makes.

use serde_json::{Value, json};

use super::code::Code;
use super::{
    Certificate, Choice, Family, Fault, Form, Probe, Problem, Puzzle, Split, Style, Verdict,
};
use crate::dataset::Task;
use crate::entropy::Stream;
use crate::{Error, Result};

/// A puzzle of a family that is known only at run time.
pub struct AnyPuzzle {
    pub family: Family,
    puzzle: Box<dyn Object>,
}

/// [`Puzzle`] as far as it makes an object.
trait Object: Send {
    fn certify(&self) -> Result<Certificate, Fault>;
    fn check(&self, answer: &str) -> Verdict;
    fn find<'a>(&self, response: &'a str) -> Option<&'a str>;
    fn code(&self) -> Option<&Code>;
    fn trace(&self, style: Style) -> String;
    fn answer(&self) -> String;
    fn canonical(&self) -> String;
    fn probes(&self) -> [Vec<Probe>; 2];
    fn renamed(&self, stream: &mut Stream) -> Option<Box<dyn Object>>;
    fn row(&self, family: Family, level: u32, form: Form, certificate: Certificate)
    -> Result<Task>;
}

impl<P: Puzzle + 'static> Object for P {
    fn certify(&self) -> Result<Certificate, Fault> {
        Puzzle::certify(self)
    }
    fn check(&self, answer: &str) -> Verdict {
        Puzzle::check(self, answer)
    }
    fn find<'a>(&self, response: &'a str) -> Option<&'a str> {
        Puzzle::find(self, response)
    }
    fn code(&self) -> Option<&Code> {
        Puzzle::code(self)
    }
    fn trace(&self, style: Style) -> String {
        Puzzle::trace(self, style)
    }
    fn answer(&self) -> String {
        Puzzle::answer(self, Style::Compact)
    }
    fn canonical(&self) -> String {
        canonical(self, &mut Vec::new())
    }
    fn probes(&self) -> [Vec<Probe>; 2] {
        [self.blind(), self.shortcuts()]
    }
    fn renamed(&self, stream: &mut Stream) -> Option<Box<dyn Object>> {
        Some(Box::new(Puzzle::renamed(self, stream)?))
    }
    fn row(
        &self,
        family: Family,
        level: u32,
        form: Form,
        certificate: Certificate,
    ) -> Result<Task> {
        row(self, family, level, form, certificate, Object::canonical(self))
    }
}

impl From<Problem> for AnyPuzzle {
    fn from(problem: Problem) -> Self {
        Self::new(Family::Math, problem)
    }
}

impl From<Choice> for AnyPuzzle {
    fn from(choice: Choice) -> Self {
        Self::new(Family::Choice, choice)
    }
}

impl From<Code> for AnyPuzzle {
    fn from(code: Code) -> Self {
        Self::new(Family::Code, code)
    }
}

impl AnyPuzzle {
    fn new<P: Puzzle + 'static>(family: Family, puzzle: P) -> Self {
        Self { family, puzzle: Box::new(puzzle) }
    }

    /// The puzzle of a stored task.
    ///
    /// # Errors
    /// [`Error::Data`] names the task whose family or puzzle cannot be read.
    pub fn of(task: &Task) -> Result<Self> {
        let place = || format!("task `{}`", task.task_id);
        let family = task.family.parse().map_err(|e: Error| e.at(place()))?;
        Self::from_json(family, &task.puzzle).map_err(|e| Error::data(e).at(place()))
    }

    /// Reads the column `puzzle` of a task. The error says what is wrong.
    pub fn from_json(family: Family, puzzle: &str) -> Result<Self, String> {
        fn read<P: Puzzle + 'static>(family: Family, puzzle: &str) -> Result<AnyPuzzle, String> {
            let puzzle: P =
                serde_json::from_str(puzzle).map_err(|e| format!("column puzzle: {e}"))?;
            Ok(AnyPuzzle::new(family, puzzle))
        }
        for_family!(family, read(family, puzzle))
    }

    /// Reads a puzzle as the paper's released data write it.
    pub fn from_text(family: Family, text: &str) -> Result<Self, String> {
        fn read<P: Puzzle + 'static>(family: Family, text: &str) -> Result<AnyPuzzle, String> {
            Ok(AnyPuzzle::new(family, P::read(text)?))
        }
        for_family!(family, read(family, text))
    }

    pub fn certify(&self) -> Result<Certificate, Fault> {
        self.puzzle.certify()
    }

    /// Whether `answer` solves the puzzle. Decided from the puzzle, not from a stored answer.
    pub fn check(&self, answer: &str) -> Verdict {
        self.puzzle.check(answer.trim())
    }

    /// Whether the answer stored with the puzzle is right, as far as that can be said without
    /// running a program.
    pub fn accepts(&self, stored: &str) -> bool {
        self.code().is_some() || self.check(stored).is_correct()
    }

    /// [`Puzzle::code`].
    pub fn code(&self) -> Option<&Code> {
        self.puzzle.code()
    }

    /// [`Puzzle::find`].
    pub fn find<'a>(&self, response: &'a str) -> Option<&'a str> {
        self.puzzle.find(response)
    }

    pub fn trace(&self, style: Style) -> String {
        self.puzzle.trace(style)
    }

    /// A right answer, written briefly.
    pub fn answer(&self) -> String {
        self.puzzle.answer()
    }

    /// Hash of the puzzle up to renaming and reordering, 64 hex digits.
    pub fn canonical(&self) -> String {
        self.puzzle.canonical()
    }

    /// [`Puzzle::blind`] and [`Puzzle::shortcuts`].
    pub fn probes(&self) -> [Vec<Probe>; 2] {
        self.puzzle.probes()
    }

    /// [`Puzzle::renamed`].
    pub fn renamed(&self, stream: &mut Stream) -> Option<Self> {
        Some(Self { family: self.family, puzzle: self.puzzle.renamed(stream)? })
    }

    /// The row of a certified puzzle.
    pub fn row(&self, level: u32, form: Form, certificate: Certificate) -> Result<Task> {
        self.puzzle.row(self.family, level, form, certificate)
    }
}

/// Hash of the puzzle up to renaming and reordering. `bytes` is room to work in.
pub(super) fn canonical<P: Puzzle>(puzzle: &P, bytes: &mut Vec<u8>) -> String {
    bytes.clear();
    puzzle.canonical(bytes);
    blake3::hash(bytes).to_hex().to_string()
}

/// The row of a certified puzzle.
pub(super) fn row<P: Puzzle>(
    puzzle: &P,
    family: Family,
    level: u32,
    form: Form,
    certificate: Certificate,
    canonical: String,
) -> Result<Task> {
    let Certificate { kind, size, depth, nodes, proof } = certificate;
    let (prompt, messages) = prompt(puzzle, form);
    Ok(Task {
        task_id: [family.as_str(), "-", &canonical[..16]].concat(),
        family: family.as_str().into(),
        level,
        split: Split::of(&canonical).as_str().into(),
        kind: kind.into(),
        size,
        depth,
        nodes,
        style: form.style.as_str().into(),
        prompt,
        messages,
        answer: puzzle.answer(form.style),
        puzzle: serde_json::to_string(puzzle).map_err(Error::defect)?,
        certificate: proof.to_string(),
        canonical,
    })
}

/// The prompt, up to the open `<think>` where there is one, and in chat form its messages as JSON.
fn prompt<P: Puzzle>(puzzle: &P, form: Form) -> (String, String) {
    let text = puzzle.text(form.style);
    let system = match form.style {
        Style::Compact => "",
        Style::Paper => puzzle.instruction(),
    };
    if !form.chat {
        let gap = if system.is_empty() { "" } else { "\n\n" };
        return (format!("{system}{gap}{text}\n{}", P::THINK), String::new());
    }
    let turns = [("system", system), ("user", text.as_str())];
    let turns = turns.into_iter().filter(|(_, content)| !content.is_empty());
    let marked: String = turns
        .clone()
        .map(|(role, content)| format!("<|im_start|>{role}\n{content}<|im_end|>\n"))
        .collect();
    let messages: Value =
        turns.map(|(role, content)| json!({"role": role, "content": content})).collect();
    (format!("{marked}<|im_start|>assistant\n{}", P::THINK), messages.to_string())
}
