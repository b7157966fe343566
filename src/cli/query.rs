//! `triad query`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use datafusion::arrow::array::RecordBatch;

use super::{Globals, output};
use crate::query::{Format, query, write_results};
use crate::store::Traffic;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Query {
    /// The SQL; `-` reads it from stdin. Tables are called `pipeline.stage.dataset`;
    /// `SELECT * FROM triad.tables` lists them
    sql: String,
    /// table, csv, json, ndjson, markdown or parquet [default: by the output file's name, or table]
    #[arg(long)]
    format: Option<Format>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say on stderr how many rows came, what was asked of the store, and how long it took
    #[arg(long)]
    stats: bool,
}

impl Query {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let sql = match self.sql.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|e| Error::usage(format!("SQL on stdin: {e}")))?;
                text
            }
            sql => sql.to_string(),
        };
        let extension = self.output.as_ref().and_then(|path| path.extension()?.to_str());
        let format = self.format.unwrap_or(match extension {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("ndjson" | "jsonl") => Format::Ndjson,
            Some("md") => Format::Markdown,
            Some("parquet") => Format::Parquet,
            _ => Format::Table,
        });
        let to_terminal = self.output.is_none() && std::io::stdout().is_terminal();
        if format == Format::Parquet && to_terminal {
            return Err(Error::usage("parquet is for files: add --output FILE.parquet"));
        }
        let clock = Instant::now();
        let store = globals.open_store()?.metered();
        let (schema, batches) = query(&store, &sql).await?;
        let mut text = Vec::new();
        write_results(format, &schema, &batches, &mut text)?;
        match &self.output {
            None => output::write(&text)?,
            Some(path) => std::fs::write(path, text)
                .map_err(|e| Error::try_again(format!("{}: {e}", path.display())))?,
        }
        if self.stats {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let Traffic { requests, retries, bytes_read, .. } = store.traffic();
            let seconds = clock.elapsed().as_secs_f64();
            let s = if rows == 1 { "" } else { "s" };
            eprintln!(
                "{rows} row{s}, {requests} requests ({retries} repeated), {bytes_read} bytes read, \
                 {seconds:.3} s"
            );
        }
        Ok(())
    }
}
