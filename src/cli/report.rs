//! `triad report`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Globals, output};
use crate::report::{self, Again, Format, Prices, Request};
use crate::store::{Artifact, Store};
use crate::{Error, Result, pipeline};

#[derive(Args)]
pub(super) struct Report {
    /// The pipeline's name
    #[arg(value_name = "RUN")]
    pipeline: String,
    /// Where it goes [default: triad-report/RUN.html; Markdown and LaTeX go to stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The page, or its tables alone
    #[arg(long, value_name = "FORMAT", default_value = "html")]
    format: Kind,
    /// Another run, to be set beside this one
    #[arg(long, value_name = "RUN")]
    compare: Option<String>,
    /// Money per hour of work, for the costs: a number, or one for devices of a name such as cuda=2.5
    #[arg(long, value_name = "[DEVICE=]PRICE", value_parser = price)]
    price: Vec<(String, f64)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Html,
    Markdown,
    Latex,
}

fn price(text: &str) -> Result<(String, f64), String> {
    let (device, price) = text.split_once('=').unwrap_or(("", text));
    match price.parse::<f64>() {
        Ok(price) if price >= 0.0 && price.is_finite() => Ok((device.into(), price)),
        _ => Err("give a number, or DEVICE=NUMBER".into()),
    }
}

impl Report {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let format = match self.format {
            Kind::Html => Format::Html,
            Kind::Markdown => Format::Markdown,
            Kind::Latex => Format::Latex,
        };
        let out = match format {
            Format::Html => Some(self.out.unwrap_or_else(|| page(&self.pipeline))),
            _ => self.out,
        };
        let request = Request {
            run: self.pipeline,
            format,
            compare: self.compare,
            prices: Prices(self.price),
        };
        write(&store, request, out.as_deref()).await
    }
}

/// Where the page of a run goes unless something else is said.
pub(super) fn page(pipeline: &str) -> PathBuf {
    Path::new("triad-report").join(format!("{pipeline}.html"))
}

/// Writes a report to `out` and prints its result tables, or prints it.
pub(super) async fn write(store: &Store, request: Request, out: Option<&Path>) -> Result<()> {
    let name = request.run.clone();
    let written = report::write(store, request, |stages| again(&name, stages)).await?;
    let Some(out) = out else { return output::write(written.content.as_bytes()) };
    let failed = |e| Error::try_again(format!("{}: {e}", out.display()));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(out, &written.content).map_err(failed)?;
    output::line(format!("{}\nReport: {}", written.text, out.display()))
}

/// The run's pipeline file and the commands; none where an artifact is of a job that is gone.
fn again(run: &str, stages: &[(String, Artifact)]) -> Option<Again> {
    let named: Vec<_> =
        stages.iter().map(|(stage, found)| (stage.clone(), found.manifest.clone())).collect();
    let mut commits: Vec<&str> =
        named.iter().filter_map(|(_, manifest)| manifest.producer.commit.as_deref()).collect();
    commits.sort_unstable();
    commits.dedup();
    let mut commands: Vec<String> = commits
        .iter()
        .map(|commit| format!("git checkout {commit}  # what triad was built from"))
        .collect();
    commands.push(format!(
        "triad plan {run}.yaml    # every stage is committed in a store that has it"
    ));
    commands.push(format!("triad run {run}.yaml"));
    commands.push(format!("triad report {run}"));
    let pipeline = pipeline::write(run, &named).ok()?;
    Some(Again { pipeline, commands: commands.join("\n") })
}
