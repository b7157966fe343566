//! Logs on stderr, kept apart from progress bars.

use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::{Globals, environment};
use crate::{Error, Result, entropy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people.
    Text,
    /// One object a line.
    Json,
}

/// Where progress is drawn: bars on a terminal, `None` elsewhere.
pub(super) type Terminal = Option<MultiProgress>;

/// Starts logging.
pub(super) fn start(globals: &Globals) -> Result<Terminal> {
    let default = match globals.verbose {
        // What these warn of is said by the error that follows.
        0 => "warn,aws_config=error,ballista_core=off,kube_client=off,triad=info",
        1 => "info,triad=debug",
        _ => "debug,triad=trace",
    };
    let filter = match std::env::var(environment::LOG) {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|e| Error::usage(format!("{}=`{text}`: {e}", environment::LOG)))?,
        Err(_) => EnvFilter::new(default),
    };
    let bars = (globals.log_format == LogFormat::Text && std::io::stderr().is_terminal())
        .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    let writer = {
        let bars = bars.clone();
        move || Stderr { bars: bars.clone() }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match globals.log_format {
        LogFormat::Text => {
            let clock = Clock { seconds_of_day: bars.is_some() };
            let builder = builder.with_timer(clock).with_ansi(bars.is_some());
            builder.with_target(false).compact().init();
        }
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).init(),
    }
    Ok(bars)
}

/// UTC to the second; people at a terminal know the day.
struct Clock {
    seconds_of_day: bool,
}

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let format = if self.seconds_of_day { "%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%SZ" };
        write!(out, "{}", entropy::now().format(format))
    }
}

/// The last word on a failed command.
pub(super) fn failure(format: LogFormat, error: &Error) {
    match format {
        // With stderr closed there is nobody to tell.
        LogFormat::Text => drop(writeln!(std::io::stderr(), "error: {error}")),
        LogFormat::Json => tracing::error!(exit_code = error.exit_code(), "{error}"),
    }
}

/// stderr, with the bars out of the way while a line is written.
struct Stderr {
    bars: Terminal,
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match &self.bars {
            Some(bars) => bars.suspend(|| std::io::stderr().write(line)),
            None => std::io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
