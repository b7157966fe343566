//! The prompt: SQL and a few commands, with history and completion.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::complete::{COMMANDS, Words};
use super::target::Target;
use super::{format_for, rows_of, took, write_rows};
use crate::cli::output::{Table, line};
use crate::cli::{environment, signals};
use crate::nearest::hint;
use crate::query::{Format, Outcome, Session, is_complete, pointed, statements};
use crate::{Error, Result};

const HELP: &str = "\
SQL ends with `;` and may span lines. TAB completes, arrows bring back what was typed before,
Ctrl-C drops a line or stops a query, Ctrl-D leaves.
  \\d            tables and their rows
  \\d TABLE      its columns
  \\format F     table, csv, json, ndjson, markdown (or say which there is)
  \\o FILE       the next rows go to FILE, in the format of its ending
  \\timing       say how long each statement took, or no longer
  \\r            read the names again (a name that moves is noticed anyway)
  \\q            leave";

/// Whether somebody types and reads.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The editor's side of it.
#[derive(Default)]
struct Hand(Words);

impl Completer for Hand {
    type Candidate = String;

    fn complete(
        &self,
        text: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.0.complete(text, at))
    }
}

impl Validator for Hand {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(typed.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Hand {
    type Hint = String;
}
impl Highlighter for Hand {}
impl Helper for Hand {}

struct Prompt {
    session: Arc<Session>,
    editor: Editor<Hand, DefaultHistory>,
    history: Option<PathBuf>,
    format: Format,
    /// Where the next rows go, if not to the terminal.
    output: Option<PathBuf>,
    timing: bool,
    stats: bool,
}

/// Reads and runs until the user leaves.
pub(super) async fn run(session: Session, format: Format, stats: bool) -> Result<()> {
    let config = Config::builder()
        .history_ignore_space(true)
        .max_history_size(10_000)
        .map_err(|e| failed(&e))?
        .completion_type(rustyline::CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config).map_err(|e| failed(&e))?;
    let history = history();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    editor.set_helper(Some(Hand::default()));
    session.follow().await?;
    let session = Arc::new(session);
    let (output, timing) = (None, false);
    Prompt { session, editor, history, format, output, timing, stats }.read().await
}

fn failed(error: &ReadlineError) -> Error {
    Error::try_again(format!("the terminal: {error}"))
}

/// Where the history is kept; its folder is made.
fn history() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set(environment::STATE_HOME)
        .or_else(|| Some(set(environment::HOME)?.join(".local/state")))?;
    let folder = state.join("triad");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("query_history"))
}

impl Prompt {
    async fn read(mut self) -> Result<()> {
        self.learn().await?;
        line("`\\?` says what there is besides SQL")?;
        loop {
            let typed = match tokio::task::block_in_place(|| self.editor.readline("triad> ")) {
                Ok(typed) => typed,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(failed(&e)),
            };
            if typed.trim().is_empty() {
                continue;
            }
            let new = self.editor.add_history_entry(typed.trim_end()).unwrap_or(false);
            if let Some(path) = self.history.as_ref().filter(|_| new) {
                // A history that cannot be kept is no reason to stop.
                let _ = self.editor.append_history(path);
            }
            if matches!(typed.trim(), "\\q" | "quit" | "exit" | "quit;" | "exit;") {
                return Ok(());
            }
            if let Err(error) = self.answer(&typed).await {
                if let Some(place) = pointed(&typed, &error) {
                    eprintln!("{place}");
                }
                eprintln!("error: {error}");
            }
        }
    }

    /// Takes the catalog's words over into completion.
    async fn learn(&mut self) -> Result<()> {
        let words = Words::of(&self.session).await?;
        self.editor.set_helper(Some(Hand(words)));
        Ok(())
    }

    async fn answer(&mut self, typed: &str) -> Result<()> {
        if self.session.follow().await? {
            line("a name has moved: the catalog is read again")?;
            self.learn().await?;
        }
        if let Some(command) = typed.trim().strip_prefix('\\') {
            return self.command(command).await;
        }
        for sql in statements(typed) {
            if !self.statement(sql).await? {
                break;
            }
        }
        Ok(())
    }

    /// `false` when Ctrl-C stopped it.
    async fn statement(&mut self, sql: String) -> Result<bool> {
        let (clock, before) = (Instant::now(), self.session.traffic());
        let output = self.output.take();
        let target = Target::new(output.as_deref())?;
        let format = if output.is_some() { format_for(output.as_deref()) } else { self.format };
        let (session, out) = (self.session.clone(), target.clone());
        let mut interrupts = signals::interrupts()?;
        // A task of its own, so that Ctrl-C is heard while it computes.
        let mut work = tokio::spawn(async move {
            match session.run(&sql).await? {
                Outcome::Rows(rows) => Ok((write_rows(rows, format, &out).await?, false)),
                Outcome::Written(count) => {
                    line(format!("{} written", rows_of(count)))?;
                    Ok((count, false))
                }
                Outcome::Done => Ok((0, true)),
            }
        });
        let done: Result<(u64, bool)> = tokio::select! {
            done = &mut work => done.map_err(Error::defect)?,
            _ = interrupts.recv() => {
                work.abort();
                // What it is printing comes before the prompt; what it computes is not waited for.
                let _ = tokio::time::timeout(Duration::from_millis(500), work).await;
                target.discard();
                line("\nstopped")?;
                return Ok(false);
            }
        };
        let (count, changed) = match done {
            Ok(done) => done,
            Err(error) => {
                target.discard();
                return Err(error);
            }
        };
        target.keep()?;
        if let Some(path) = output {
            line(format!("{} in {}", rows_of(count), path.display()))?;
        }
        if changed {
            self.learn().await?;
        }
        if self.stats {
            line(took(count, self.session.traffic(), before, clock))?;
        } else if self.timing {
            line(format!("{:.3} s", clock.elapsed().as_secs_f64()))?;
        }
        Ok(true)
    }

    async fn command(&mut self, command: &str) -> Result<()> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("?", _) => line(HELP),
            ("d", "") => {
                let sql = "SELECT name, rows, bytes FROM triad.tables ORDER BY name";
                self.statement(sql.into()).await?;
                let made = self.session.made();
                if made.is_empty() { Ok(()) } else { line(format!("here: {}", made.join(", "))) }
            }
            ("d", table) => {
                let schema = self.session.columns(table.trim_end_matches(';')).await?;
                let mut columns = Table::new(&["column", "type", "null"]);
                for field in schema.fields() {
                    let null = if field.is_nullable() { "yes" } else { "no" };
                    let kind = field.data_type().to_string();
                    columns.push(vec![field.name().as_str().into(), kind.into(), null.into()]);
                }
                columns.print(false)
            }
            ("timing", "") => {
                self.timing = !self.timing;
                line(if self.timing { "timing is on" } else { "timing is off" })
            }
            ("timing", state @ ("on" | "off")) => {
                self.timing = state == "on";
                Ok(())
            }
            ("format", "") => line(format!("{:?}", self.format).to_lowercase()),
            ("format", "parquet") => Err(Error::usage("parquet is for files: \\o FILE.parquet")),
            ("format", name) => {
                self.format = name.parse().map_err(Error::Usage)?;
                Ok(())
            }
            ("o", "") => {
                self.output = None;
                Ok(())
            }
            ("o", path) => {
                self.output = Some(path.into());
                Ok(())
            }
            ("r", "") => {
                self.session.refresh().await?;
                self.learn().await
            }
            (name, _) => {
                let name = format!("\\{name}");
                Err(Error::usage(format!("no command `{name}`{}", hint(&name, COMMANDS))))
            }
        }
    }
}
