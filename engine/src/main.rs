//! The program with libtorch: the same commands as `triad`, which goes on as this one where a stage
//! has to compute.

mod measure;

use triad::job::engine::ENGINE;
use triad_torch::Torch;

/// As in `triad`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    ENGINE.install(&Torch);
    if std::env::args_os().nth(1).is_some_and(|command| command == "measure") {
        measure::main();
    }
    triad::cli::main()
}
