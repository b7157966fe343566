//! The command line: one file per command. stdout is data, stderr is logs and progress.

mod audit;
mod bucket;
mod cancel;
mod chaos;
mod cluster;
mod completions;
mod environment;
mod fsck;
mod gc;
mod get;
mod job;
mod launch;
mod logging;
mod ls;
mod merge;
mod name;
mod output;
mod pin;
mod place;
mod plan;
mod progress;
mod query;
mod render;
mod report;
mod run;
mod serve;
mod server;
mod sample;
mod show;
mod signals;
mod status;
mod tensorboard;
mod watch;

use std::io::Write;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::job::engine::ENGINE;
use crate::store::Store;
use crate::{Error, Result};

/// Aligns the meta-abilities of a reasoning model as stateless batch jobs on object storage.
#[derive(Parser)]
#[command(name = "triad", version, after_help = environment::HELP, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Where artifacts live: a path, file:///…, s3://bucket/prefix, memory://
    #[arg(long, global = true, env = environment::STORE, default_value = "./triad-store")]
    #[arg(value_name = "URL")]
    store: String,
    /// What stages compute on: cpu, cuda, cuda:N or auto
    #[arg(long, global = true, env = environment::DEVICE, default_value = "cpu")]
    #[arg(value_parser = device)]
    device: String,
    /// Base URL of the OpenAI-compatible server that samples for stages with `server:`
    #[arg(long, global = true, env = environment::SERVER_URL, hide_env_values = true)]
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// libtorch threads for each running stage; results on the CPU may depend on it
    #[arg(long, global = true, env = environment::THREADS, default_value_t = 1)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// What queries and filters may hold in memory before they go on on disk, as 512MiB or 8GB
    /// [default: half of the machine's, or of the control group's]
    #[arg(long, global = true, env = environment::MEMORY, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// How logs are written to stderr; progress bars only with `text` on a terminal
    #[arg(long, global = true, env = environment::LOG_FORMAT, default_value = "text")]
    log_format: logging::LogFormat,
    /// Die after that many writes to the store: how `triad chaos` kills
    #[arg(long, global = true, hide = true, value_name = "N")]
    die_after_writes: Option<u64>,
    /// More logs; twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run what is not committed yet of a pipeline
    Run(run::Run),
    /// Cancel a pipeline's jobs at a scheduler
    Cancel(cancel::Cancel),
    /// Write a pipeline's jobs as files for a scheduler's own tools
    Render(render::Render),
    /// Say what is committed, what would run, and why
    Plan(plan::Plan),
    /// Run one stage alone, or one shard of it: what containers call
    Job(job::Job),
    /// Show the stages of a pipeline, or of all: state, id, numbers, seconds
    Status(status::Status),
    /// List all artifacts
    Ls(ls::Ls),
    /// Show one artifact: identity, schemas, first rows
    Show(show::Show),
    /// Download one artifact's objects, verified
    Get(get::Get),
    /// Check everything in the store: records, objects, digests, names, inputs
    Fsck(fsck::Fsck),
    /// Say what no name, pin or running pipeline needs, or delete it
    Gc(gc::Gc),
    /// Create an S3 bucket for a store, or prove that one does what triad needs
    Bucket(bucket::Bucket),
    /// Kill a pipeline after every write in turn, resume it, and compare what is made
    Chaos(chaos::Chaos),
    /// Keep artifacts from `triad gc`, named or not
    Pin(pin::Pin),
    /// Certify tasks: validity, uniqueness, duplicates, leakage, shortcuts
    Audit(audit::Audit),
    /// Merge models by a mergekit recipe
    Merge(merge::Merge),
    /// Query datasets with SQL
    Query(query::Query),
    /// Plan and share out what `triad query --on` asks
    Scheduler(cluster::Scheduler),
    /// Compute what a scheduler shares out
    Executor(cluster::Executor),
    /// Serve the tables of `triad query` over Arrow Flight SQL
    Serve(serve::Serve),
    /// Try a model: continue a prompt
    Sample(sample::Sample),
    /// Write a run's report as HTML and print its result table
    Report(report::Report),
    /// Write a pipeline's training metrics as TensorBoard event files
    Tensorboard(tensorboard::Tensorboard),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// A device's name, checked without touching a device.
fn device(text: &str) -> Result<String, String> {
    match text {
        "cpu" | "auto" => Ok(text.into()),
        "cuda" => Ok("cuda:0".into()),
        _ => match text.strip_prefix("cuda:").map(str::parse::<u16>) {
            Some(Ok(number)) => Ok(format!("cuda:{number}")),
            _ => Err("cpu, cuda, cuda:N or auto".into()),
        },
    }
}

impl Globals {
    fn open_store(&self) -> Result<Store> {
        let store = Store::open(&self.store)?;
        Ok(match self.die_after_writes {
            Some(writes) => store.dying_after(writes),
            None => store,
        })
    }

    /// The device to compute on: `auto` is the first GPU where there is one.
    fn device(&self) -> String {
        let found = self.device == "auto" && ENGINE.installed().is_some_and(|e| e.has_gpu());
        match &self.device[..] {
            "auto" => if found { "cuda:0" } else { "cpu" }.into(),
            name => name.into(),
        }
    }
}

/// The program: parses the arguments, runs the command and ends the process with its exit code.
pub fn main() -> ! {
    let code = command();
    // Nothing is left to do if stdout is closed.
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process. Its destructors are not run: libtorch's take thousands of
    // operators out of a table, a quarter of the time of a command that computes nothing.
    unsafe { libc::_exit(code.into()) }
}

fn command() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell the user when stderr is closed.
            let _ = error.print();
            let usage = Error::usage("").exit_code();
            return if error.use_stderr() { usage } else { 0 };
        }
    };
    let format = cli.globals.log_format;
    match execute(cli) {
        Ok(()) => 0,
        Err(error) => {
            logging::failure(format, &error);
            error.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    let terminal = logging::start(&cli.globals)?;
    if let Some(memory) = cli.globals.memory {
        crate::query::allow(memory.as_u64() as usize);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::try_again(format!("no threads: {e}")))?;
    let globals = &cli.globals;
    runtime.block_on(async {
        match cli.command {
            Command::Run(command) => command.execute(globals, terminal).await,
            Command::Cancel(command) => command.execute(globals).await,
            Command::Render(command) => command.execute(globals).await,
            Command::Plan(command) => command.execute(globals).await,
            Command::Job(command) => command.execute(globals, terminal).await,
            Command::Status(command) => command.execute(globals).await,
            Command::Ls(command) => command.execute(globals).await,
            Command::Show(command) => command.execute(globals).await,
            Command::Get(command) => command.execute(globals).await,
            Command::Fsck(command) => command.execute(globals, terminal).await,
            Command::Gc(command) => command.execute(globals).await,
            Command::Bucket(command) => command.execute(globals).await,
            Command::Chaos(command) => command.execute(globals).await,
            Command::Pin(command) => command.execute(globals).await,
            Command::Audit(command) => command.execute(globals).await,
            Command::Merge(command) => command.execute(globals, terminal).await,
            Command::Query(command) => command.execute(globals).await,
            Command::Scheduler(command) => command.execute(globals).await,
            Command::Executor(command) => command.execute(globals).await,
            Command::Serve(command) => command.execute(globals).await,
            Command::Sample(command) => command.execute(globals).await,
            Command::Report(command) => command.execute(globals).await,
            Command::Tensorboard(command) => command.execute(globals).await,
            Command::Completions(command) => command.execute(),
        }
    })
}
