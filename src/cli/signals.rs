//! SIGTERM and Ctrl-C ask running stages to commit a checkpoint and leave; a second Ctrl-C ends the
//! process at once. Nothing committed is lost either way. A second SIGTERM changes nothing, since
//! `timeout` and some schedulers send it to the process and to its group.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::job::StopFlag;
use crate::{Error, Result};

unsafe extern "C" {
    fn _exit(code: std::ffi::c_int) -> !;
}

/// A flag that the first signal sets. Call within a runtime.
pub(super) fn stop_flag() -> Result<StopFlag> {
    let (mut interrupt, mut terminate) = (interrupts()?, listen(SignalKind::terminate())?);
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
                leave(&Error::try_again(""));
            }
            if !flag.requested() {
                flag.request();
                tracing::warn!("stopping at the next checkpoint; Ctrl-C twice stops at once");
            }
        }
    });
    Ok(stop)
}

/// Ends the process, whatever its other threads are doing.
pub(super) fn leave(error: &Error) -> ! {
    // SAFETY: `exit` would run libtorch's destructors under their feet first.
    unsafe { _exit(error.exit_code().into()) }
}

/// Ctrl-C from now on.
pub(super) fn interrupts() -> Result<Signal> {
    listen(SignalKind::interrupt())
}

/// The first Ctrl-C or SIGTERM from now on, for a command with nothing to commit.
pub(super) fn first() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (interrupts()?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Blocks SIGTERM in this thread and those that it starts, or lets it in again.
pub fn mask_terminations(how: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the set is initialized before it is read.
    let done = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(how, &set, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(done)) }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| Error::defect(format!("signal handler: {e}")))
}
