//! `triad query`: statements from the command line or stdin, or a prompt.

mod complete;
mod prompt;
mod target;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use self::target::Target;
use super::{Globals, cluster, logging, signals};
use crate::query::{
    CLUSTER, Format, Outcome, ResultWriter, Rows, Scheduler, Session, pointed, statements,
};
use crate::store::{Store, Traffic};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Query {
    /// The SQL: statements, `;` between them. Without it, or for `-`, they come from stdin; on a
    /// terminal there is a prompt. Tables are called `pipeline.stage.dataset`;
    /// `SELECT * FROM triad.tables` lists them
    sql: Option<String>,
    /// table, csv, json, ndjson, markdown or parquet [default: by the output file's name, or table]
    #[arg(long)]
    format: Option<Format>,
    /// Write the rows to this file; it is replaced when all are there
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say on stderr how many rows came, what was asked of the store, and how long it took
    #[arg(long)]
    stats: bool,
    /// Compute on a cluster: the scheduler of `triad scheduler`, which reads the same store
    #[arg(long, value_name = "ballista://HOST:PORT")]
    on: Option<Scheduler>,
}

impl Query {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        if self.on.is_some() {
            cluster::shared(globals)?;
            CLUSTER.get()?;
        }
        let format = match self.format {
            Some(format) => format,
            None => format_for(self.output.as_deref()),
        };
        if format == Format::Parquet && self.output.is_none() && std::io::stdout().is_terminal() {
            return Err(Error::usage("parquet is for files: add --output FILE.parquet"));
        }
        let sql = match self.sql.as_deref() {
            None if prompt::is_possible() => {
                if let Some(path) = &self.output {
                    let said = format!("--output {}: at the prompt it is \\o", path.display());
                    return Err(Error::usage(said));
                }
                let store = globals.open_store()?.metered();
                let session = open(&store, self.on.as_ref()).await?;
                return prompt::run(session, format, self.stats).await;
            }
            None | Some("-") => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|e| Error::usage(format!("SQL on stdin: {e}")))?;
                text
            }
            Some(sql) => sql.to_string(),
        };
        let statements = statements(&sql);
        if statements.is_empty() {
            return Err(Error::usage("no SQL: give it as an argument or on stdin"));
        }
        let store = globals.open_store()?.metered();
        let stopped = signals::first()?;
        let target = Target::new(self.output.as_deref())?;
        let out = target.clone();
        let (stats, on, clock) = (self.stats, self.on, Instant::now());
        // A task of its own, so that a signal is heard while it computes.
        let work = tokio::spawn(async move {
            let session = open(&store, on.as_ref()).await?;
            script(&session, &statements, format, &out, stats.then_some(clock)).await
        });
        let done = tokio::select! {
            done = work => done.unwrap_or_else(|e| Err(Error::defect(e))),
            () = stopped => {
                target.discard();
                if let Some(cluster) = CLUSTER.installed() {
                    cluster.cancel().await;
                }
                let error = Error::try_again("stopped by a signal");
                logging::failure(globals.log_format, &error);
                signals::leave(&error)
            }
        };
        if let Err(error) = &done {
            target.discard();
            if std::io::stderr().is_terminal()
                && let Some(place) = pointed(&sql, error)
            {
                eprintln!("{place}");
            }
        }
        done.and_then(|()| target.keep())
    }
}

async fn open(store: &Store, on: Option<&Scheduler>) -> Result<Session> {
    match on {
        Some(scheduler) => Session::on(store, scheduler).await,
        None => Session::open(store).await,
    }
}

/// The format that a file's ending asks for.
fn format_for(path: Option<&Path>) -> Format {
    match path.and_then(|path| path.extension()?.to_str()) {
        Some("csv") => Format::Csv,
        Some("json") => Format::Json,
        Some("ndjson" | "jsonl") => Format::Ndjson,
        Some("md") => Format::Markdown,
        Some("parquet") => Format::Parquet,
        _ => Format::Table,
    }
}

async fn script(
    session: &Session,
    statements: &[String],
    format: Format,
    out: &Target,
    mut stats: Option<Instant>,
) -> Result<()> {
    let (mut results, mut before) = (0, Traffic::default());
    for sql in statements {
        let count = match session.run(sql).await? {
            Outcome::Rows(rows) => {
                results += 1;
                if results > 1 && (out.is_file() || format == Format::Parquet) {
                    return Err(Error::usage(
                        "two statements give rows, and a file holds those of one; \
                         COPY (…) TO '…' writes each to its own",
                    ));
                }
                write_rows(rows, format, out).await?
            }
            Outcome::Written(rows) => {
                eprintln!("{} written", rows_of(rows));
                rows
            }
            Outcome::Done => 0,
        };
        // The first statement's share includes reading the names.
        if let Some(clock) = &mut stats {
            let now = session.traffic();
            eprintln!("{}", took(count, now, before, *clock));
            (*clock, before) = (Instant::now(), now);
        }
        if out.is_gone() {
            break;
        }
    }
    Ok(())
}

/// Writes rows as they come; how many there were.
async fn write_rows(mut rows: Rows, format: Format, out: &Target) -> Result<u64> {
    let mut writer = ResultWriter::new(format, &rows.schema(), out.clone())?;
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        writer.write(&batch)?;
        count += batch.num_rows() as u64;
        if out.is_gone() {
            return Ok(count);
        }
        // Rows that are there at once would leave no moment to be stopped in.
        tokio::task::yield_now().await;
    }
    writer.finish()?;
    Ok(count)
}

fn rows_of(count: u64) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}

/// The line of `--stats`.
fn took(count: u64, now: Traffic, before: Traffic, clock: Instant) -> String {
    format!(
        "{}, {} requests ({} repeated), {} bytes read, {:.3} s",
        rows_of(count),
        now.requests - before.requests,
        now.retries - before.retries,
        now.bytes_read - before.bytes_read,
        clock.elapsed().as_secs_f64()
    )
}
