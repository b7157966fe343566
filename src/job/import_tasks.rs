//! `import-tasks`: tasks from other people's files, certified as they come in.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Context, Job, PART_ROWS, Port, resolve_as};
use crate::dataset::{Task, read_objects};
use crate::task::{AnyPuzzle, Certificate, Form, Record};
use crate::{Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Parquet in verl's layout or JSON lines, relative to the current directory.
    paths: Vec<String>,
    /// blake3 over the files, so that other rows are another artifact. Computed when absent.
    #[serde(default)]
    digest: Option<String>,
    /// Of rows that do not say it.
    #[serde(default = "first")]
    level: u32,
    #[serde(default)]
    on_fault: OnFault,
    /// How prompts are written; the imported text is not kept.
    #[serde(default)]
    form: Form,
}

fn first() -> u32 {
    1
}

/// What becomes of a row that cannot be certified, has a wrong answer, or repeats another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFault {
    #[default]
    Drop,
    /// Kept with kind `uncertified` and the fault in its certificate; an unreadable row is dropped.
    Keep,
    Fail,
}

pub struct ImportTasks;

impl Job for ImportTasks {
    fn name(&self) -> &'static str {
        "import-tasks"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        "tasks"
    }

    fn resolve(&self, raw: &Value) -> Result<Value> {
        let mut params = resolve_as::<Spec>(raw)?;
        if params["digest"].is_null() {
            let spec: Spec = super::parse(&params)?;
            params["digest"] = digest(&spec.paths)?.into();
        }
        Ok(params)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let found = digest(&spec.paths)?;
        if spec.digest.as_ref() != Some(&found) {
            return Err(Error::data(format!(
                "the files have digest {found}, the pipeline asks for {}",
                spec.digest.unwrap_or_default()
            )));
        }
        let mut import = Import { spec: &spec, seen: HashSet::new(), counts: Map::new() };
        let mut tasks = Vec::new();
        for path in &spec.paths {
            let bytes = std::fs::read(path).map_err(|e| Error::usage(format!("{path}: {e}")))?;
            let rows = read_objects(bytes.into()).map_err(|e| e.at(path))?;
            let set = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
            for (number, row) in rows.iter().enumerate() {
                let place = || format!("{path}: row {}", number + 1);
                let record =
                    Record::read(row, &set, spec.level).map_err(|e| Error::data(e).at(place()))?;
                tasks.extend(import.task(&record).map_err(|e| e.at(place()))?);
            }
        }
        for (part, rows) in tasks.chunks(PART_ROWS).enumerate() {
            context.write(part, rows)?;
        }
        for (name, count) in import.counts {
            context.summarize(&name, count);
        }
        Ok(())
    }
}

struct Import<'a> {
    spec: &'a Spec,
    seen: HashSet<String>,
    /// Rows by what became of them.
    counts: Map<String, Value>,
}

impl Import<'_> {
    fn task(&mut self, record: &Record) -> Result<Option<Task>> {
        let form = self.spec.form;
        let puzzle = match &record.puzzle {
            Ok(puzzle) => puzzle,
            Err(reason) => return self.fault("unparseable", reason).map(|()| None),
        };
        let (kind, detail) = match self.certify(puzzle, record) {
            Ok(certificate) => {
                self.count("certified");
                return puzzle.row(record.level, form, certificate).map(Some);
            }
            Err(fault) => fault,
        };
        self.fault(kind, &detail)?;
        if self.spec.on_fault == OnFault::Drop {
            return Ok(None);
        }
        let proof = json!({"fault": kind, "detail": detail});
        let certificate = Certificate { kind: "uncertified", size: 0, depth: 0, nodes: 0, proof };
        let task = puzzle.row(record.level, form, certificate)?;
        Ok(Some(Task { answer: record.answer.clone(), ..task }))
    }

    /// The certificate of a new puzzle whose stored answer is right, or the fault.
    fn certify(
        &mut self,
        puzzle: &AnyPuzzle,
        record: &Record,
    ) -> Result<Certificate, (&'static str, String)> {
        let certificate = puzzle.certify().map_err(|fault| (fault.kind.as_str(), fault.detail))?;
        if !puzzle.check(&record.answer).is_correct() {
            return Err(("wrong", format!("the stored answer `{}` is not right", record.answer)));
        }
        if !self.seen.insert(puzzle.canonical()) {
            return Err(("duplicate", "the same puzzle came before".into()));
        }
        Ok(certificate)
    }

    fn fault(&mut self, kind: &str, detail: &str) -> Result<()> {
        self.count(kind);
        if self.spec.on_fault == OnFault::Fail {
            return Err(Error::data(format!(
                "{kind}: {detail}; `on_fault: drop` leaves such rows out"
            )));
        }
        Ok(())
    }

    fn count(&mut self, name: &str) {
        let count = self.counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.counts.insert(name.into(), (count + 1).into());
    }
}

/// blake3 over the files' contents, in the order of the list.
fn digest(paths: &[String]) -> Result<String> {
    if paths.is_empty() {
        return Err(Error::usage("paths: no file is named"));
    }
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        let fail = |e: std::io::Error| {
            Error::usage(format!("{path}: {e}; `paths` are relative to the current directory"))
        };
        let file = std::fs::File::open(path).map_err(fail)?;
        hasher.update(&file.metadata().map_err(fail)?.len().to_le_bytes());
        hasher.update_reader(file).map_err(fail)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
