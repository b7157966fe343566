//! `import-tasks`: tasks from other people's files, certified as they come in, and problems from
//! benchmarks, with the answers that their publishers give.

mod layout;
mod source;

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Context, Job, PART_ROWS, Port, resolve_as};
use crate::dataset::Task;
use crate::sandbox::Limits;
use crate::task::{AnyPuzzle, Certificate, Form, Record};
use crate::{Error, Result};
use layout::{Layout, Mapping, Reader};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Parquet, JSON lines or CSV: relative to the current directory, or URLs of https, http, s3.
    paths: Vec<String>,
    /// blake3 over the files, so that other rows are another artifact. Computed when absent.
    #[serde(default)]
    digest: Option<String>,
    /// Of rows that do not say it.
    #[serde(default = "first")]
    level: u32,
    #[serde(default)]
    on_fault: OnFault,
    /// The benchmark that the files are of; without it and `mapping`, puzzles of the families that
    /// triad certifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    /// Columns other than the layout's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapping: Option<Mapping>,
    /// Of programs: of each test, or each call of a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    /// Decides, with a row's id, in which order its options are put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
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

/// Of puzzles in one part.
const PART_BYTES: usize = 64 << 20;

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
        let spec: Spec = super::parse(&params)?;
        spec.check()?;
        if params["digest"].is_null() {
            params["digest"] = digest(&read(&spec.paths)?).into();
        }
        Ok(params)
    }

    fn files(&self, params: &Value) -> Vec<String> {
        let paths = params["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
        paths.filter(|path| !path.contains("://")).map(String::from).collect()
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let files = read(&spec.paths)?;
        let found = digest(&files);
        if spec.digest.as_ref() != Some(&found) {
            return Err(Error::data(format!(
                "the files have digest {found}, the pipeline asks for {}",
                spec.digest.unwrap_or_default()
            )));
        }
        let mut import = Import { spec: &spec, seen: HashSet::new(), counts: Map::new() };
        let mut tasks = Vec::new();
        let published = (spec.layout.is_some() || spec.mapping.is_some()).then(|| {
            let mapping = spec.mapping.clone().unwrap_or_default();
            let seed = spec.seed.unwrap_or(0);
            let mut reader = Reader::new(spec.layout, &mapping, spec.level, seed);
            reader.limits = spec.limits;
            reader
        });
        for (path, bytes) in spec.paths.iter().zip(files) {
            let set = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
            for (number, row) in source::rows(path, bytes)?.iter().enumerate() {
                let place = || format!("{path}: row {}", number + 1);
                let fail = |e: String| Error::data(e).at(place());
                let (record, origin) = match &published {
                    Some(reader) => reader.read(row, number + 1, &set).map_err(fail)?,
                    None => (Record::read(row, &set, spec.level).map_err(fail)?, Map::new()),
                };
                tasks.extend(import.task(&record, origin).map_err(|e| e.at(place()))?);
            }
        }
        for (part, rows) in parts(&tasks).enumerate() {
            context.write(part, rows)?;
        }
        for (name, count) in import.counts {
            context.summarize(&name, count);
        }
        Ok(())
    }
}

impl Spec {
    fn check(&self) -> Result<()> {
        let runs = self.layout.is_some_and(Layout::runs);
        if runs && self.mapping.is_some() {
            return Err(Error::usage("mapping: a layout with tests has its own columns"));
        }
        if !runs && self.limits.is_some() {
            return Err(Error::usage("limits: they are those of layouts with tests"));
        }
        let limits = self.limits.unwrap_or_default();
        if [limits.cpu_seconds, limits.wall_seconds, limits.output_kib].contains(&0) {
            return Err(Error::usage("limits: 0 leaves no time or no output; leave it out"));
        }
        if limits.memory_mib < 128 {
            return Err(Error::usage(format!(
                "limits: memory_mib {}: Python alone needs 128",
                limits.memory_mib
            )));
        }
        Ok(())
    }
}

/// As many rows as a part has, fewer where they are large: a problem's tests may be megabytes.
fn parts(mut tasks: &[Task]) -> impl Iterator<Item = &[Task]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = tasks.iter().take(PART_ROWS).position(|task| {
            bytes += task.puzzle.len();
            bytes > PART_BYTES
        });
        let rows = full.unwrap_or(PART_ROWS).clamp(1, tasks.len().max(1));
        let (part, rest) = tasks.split_at_checked(rows)?;
        tasks = rest;
        Some(part)
    })
}

struct Import<'a> {
    spec: &'a Spec,
    seen: HashSet<String>,
    /// Rows by what became of them.
    counts: Map<String, Value>,
}

impl Import<'_> {
    /// `origin` goes into the certificate.
    fn task(&mut self, record: &Record, origin: Map<String, Value>) -> Result<Option<Task>> {
        let form = self.spec.form;
        let puzzle = match &record.puzzle {
            Ok(puzzle) => puzzle,
            Err(reason) => return self.fault("unparseable", reason).map(|()| None),
        };
        let (kind, detail) = match self.certify(puzzle, record) {
            Ok(mut certificate) => {
                let published = certificate.kind == "reference";
                self.count(if published { "published" } else { "certified" });
                if let Value::Object(proof) = &mut certificate.proof {
                    proof.extend(origin);
                }
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
        if !puzzle.accepts(&record.answer) {
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

fn read(paths: &[String]) -> Result<Vec<Bytes>> {
    if paths.is_empty() {
        return Err(Error::usage("paths: no file is named"));
    }
    paths.iter().map(|path| source::read(path)).collect()
}

/// blake3 over the files' contents, in the order of the list.
fn digest(files: &[Bytes]) -> String {
    let mut hasher = blake3::Hasher::new();
    for bytes in files {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}
