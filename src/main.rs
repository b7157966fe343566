//! The program without libtorch: it starts in a tenth of the time, and goes on as `triad-torch` where
//! a stage has to compute.

use std::os::unix::process::CommandExt;
use std::process::Command;

use triad::{Error, job::engine};

/// Rows are made on one thread and freed on another, which the system's allocator pays for with
/// locks: generating is a tenth faster with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    engine::install_elsewhere(become_torch);
    triad::cli::main()
}

/// Runs the same command line in the program beside this one, in this process.
fn become_torch() -> Error {
    let program = match std::env::current_exe() {
        Ok(this) => this.with_file_name("triad-torch"),
        Err(e) => return Error::defect(format!("where is this program? {e}")),
    };
    let why = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Error::usage(format!(
        "{}: {why}; this needs libtorch: install triad-torch beside triad",
        program.display()
    ))
}
