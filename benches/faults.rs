//! A soak: the tiny pipeline on S3 that fails, 2,000 seeds, each of which must end with the digests
//! of an undisturbed run. `cargo bench --bench faults [SEEDS [FIRST]]`.

#[path = "../tests/hooked.rs"]
#[allow(dead_code, unused_imports)]
mod hooked;
#[path = "../tests/s3_faults.rs"]
#[allow(dead_code, unused_imports)]
mod s3_faults;
#[path = "../tests/s3_server.rs"]
#[allow(dead_code, unused_imports)]
mod s3_server;
#[path = "../tests/store.rs"]
#[allow(dead_code, unused_imports)]
mod store;
#[path = "../tests/toy.rs"]
#[allow(dead_code, unused_imports)]
mod toy;

use std::time::Instant;

use futures::{StreamExt, stream};

fn main() {
    let mut numbers = std::env::args().filter_map(|text| text.parse::<u64>().ok());
    let (seeds, first) = (numbers.next().unwrap_or(2000), numbers.next().unwrap_or(0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = Instant::now();
    let turns: Vec<usize> = runtime.block_on(async {
        let expected = &s3_faults::undisturbed().await;
        stream::iter(first..first + seeds)
            .map(|seed| s3_faults::survive(seed, expected))
            .buffer_unordered(4)
            .collect()
            .await
    });
    let seconds = started.elapsed().as_secs_f64();
    let resumed = turns.iter().filter(|&&turns| turns > 1).count();
    println!(
        "{seeds} seeds: all ended with the right digests; {resumed} of them in more than one run \
         ({} at most); {:.0} ms a seed",
        turns.iter().max().unwrap_or(&0),
        seconds * 1000.0 / seeds as f64
    );
}
