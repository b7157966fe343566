//! The half of `benches/sampling.py` that is triad: reads lines `PROMPTS SAMPLES LENGTH NEW` and
//! answers each with the seconds that sampling took.

use std::io::BufRead;
use std::time::Instant;

use tch::Device;
use triad::checkpoint::Checkpoint;
use triad::model::{Precision, SampleRequest, Sampling, Stops, Transformer, sample, set_threads};
use triad::{Error, Result};

fn main() -> Result<()> {
    let usage = || Error::usage("usage: sampling FOLDER float32|bfloat16 THREADS");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [folder, dtype, threads] = &arguments[..] else { return Err(usage()) };
    set_threads(threads.parse().map_err(|_| usage())?);
    let Checkpoint { config, weights, .. } = Checkpoint::from_folder(folder.as_ref())?;
    let precision = match dtype.as_str() {
        "float32" => Precision::F32,
        "bfloat16" => Precision::Bf16,
        _ => return Err(usage()),
    };
    let model = Transformer::load(&config, &weights, Device::Cpu, precision, false)?;
    drop(weights);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::defect)?;
        let numbers: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [prompts, samples, length, new] = numbers[..] else { return Err(usage()) };
        let request = |row: u32| SampleRequest {
            prompt: (0..length).map(|t| (1000 + 7 * t + 31 * (row / samples)) % 40_000).collect(),
            item: u64::from(row / samples),
            sample: row % samples,
        };
        let requests: Vec<SampleRequest> = (0..prompts * samples).map(request).collect();
        let sampling = Sampling { max_new_tokens: new as usize, seed: 1, ..Sampling::default() };
        let clock = Instant::now();
        let responses = sample(&model, &Stops::at(&[]), &requests, &sampling)?;
        let seconds = clock.elapsed().as_secs_f64();
        let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
        println!("{seconds} {tokens}");
    }
    Ok(())
}
