//! SIGTERM and Ctrl-C: the first asks running stages to commit a checkpoint and leave, the second
//! ends the process at once. Nothing committed is lost either way.

use tokio::signal::unix::{SignalKind, signal};

use crate::job::StopFlag;
use crate::{Error, Result};

/// A flag that the first signal sets. Call within a runtime.
pub(super) fn stop_flag() -> Result<StopFlag> {
    let refused = |e: std::io::Error| Error::defect(format!("signal handler: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let stop = StopFlag::default();
    let flag = stop.clone();
    tokio::spawn(async move {
        for code in [None, Some(Error::try_again("").exit_code())] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if let Some(code) = code {
                std::process::exit(code.into());
            }
            flag.request();
            tracing::warn!("stopping at the next checkpoint; once more to stop at once");
        }
    });
    Ok(stop)
}
