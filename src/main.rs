//! The program without libtorch and Ballista: it starts in a tenth of the time, and goes on as
//! `triad-torch` where a stage has to compute, as `triad-cluster` where a query runs on a cluster.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use triad::Error;
use triad::job::engine::ENGINE;
use triad::query::CLUSTER;

/// Rows are made on one thread and freed on another, which the system's allocator pays for with
/// locks: generating is a tenth faster with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    ENGINE.install_elsewhere(|| go_on_as("triad-torch"));
    CLUSTER.install_elsewhere(|| go_on_as("triad-cluster"));
    triad::cli::main()
}

/// Runs the same command line in the program called `name` beside this one, in this process.
fn go_on_as(name: &str) -> Error {
    let program = match std::env::current_exe() {
        Ok(this) => this.with_file_name(name),
        Err(e) => return Error::defect(format!("where is this program? {e}")),
    };
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    // SAFETY: sets this thread's signal mask, which may be done anywhere.
    let why = unsafe { command.pre_exec(hold_terminations) }.exec();
    Error::usage(format!(
        "{}: {why}; this needs it: install {name} beside triad",
        program.display()
    ))
}

/// A scheduler says SIGTERM once: it waits until the other program is loaded, whose `main` lets it in.
fn hold_terminations() -> io::Result<()> {
    triad::cli::mask_terminations(libc::SIG_BLOCK)
}
