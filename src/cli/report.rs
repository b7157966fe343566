//! `triad report`.

use std::path::PathBuf;

use clap::Args;

use super::{Globals, output, run};
use crate::Result;

#[derive(Args)]
pub(super) struct Report {
    /// The pipeline's name
    #[arg(value_name = "RUN")]
    pipeline: String,
    /// Where the page goes
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

impl Report {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let text = run::report_to(&store, &self.pipeline, &self.out).await?;
        output::line(format!("{text}\nReport: {}", self.out.display()))
    }
}
