//! `triad query`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::{Globals, output};
use crate::query::{Format, query, write_results};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Query {
    /// The SQL; `-` reads it from stdin. Tables are called `pipeline.stage.dataset`;
    /// `SELECT * FROM triad.tables` lists them
    sql: String,
    /// table, csv, json, ndjson or markdown [default: by the output file's name, or table]
    #[arg(long)]
    format: Option<Format>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
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
            _ => Format::Table,
        });
        let (schema, batches) = query(&globals.open_store()?, &sql).await?;
        let mut text = Vec::new();
        write_results(format, &schema, &batches, &mut text)?;
        match &self.output {
            None => output::write(&text),
            Some(path) => std::fs::write(path, text)
                .map_err(|e| Error::try_again(format!("{}: {e}", path.display()))),
        }
    }
}
