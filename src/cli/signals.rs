//! SIGTERM and Ctrl-C ask running stages to commit a checkpoint and leave; a second Ctrl-C ends the
//! process at once. Nothing committed is lost either way. A second SIGTERM changes nothing, since
//! `timeout` and some schedulers send it to the process and to its group.

use tokio::signal::unix::{SignalKind, signal};

use crate::job::StopFlag;
use crate::{Error, Result};

unsafe extern "C" {
    fn _exit(code: std::ffi::c_int) -> !;
}

/// A flag that the first signal sets. Call within a runtime.
pub(super) fn stop_flag() -> Result<StopFlag> {
    let refused = |e: std::io::Error| Error::defect(format!("signal handler: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let stop = StopFlag::default();
    let flag = stop.clone();
    tokio::spawn(async move {
        let mut interrupts = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => interrupts += 1,
                _ = terminate.recv() => {}
            }
            if interrupts > 1 {
                // SAFETY: ends the process, whatever its other threads are doing. `exit` would
                // run libtorch's destructors under their feet first.
                unsafe { _exit(Error::try_again("").exit_code().into()) };
            }
            if !flag.requested() {
                flag.request();
                tracing::warn!("stopping at the next checkpoint; Ctrl-C twice stops at once");
            }
        }
    });
    Ok(stop)
}
