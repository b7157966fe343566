//! The half of `benches/training.py` that is triad: reads lines `SEQUENCES SHORTEST LONGEST` and
//! answers each with the seconds of one step: forward, backward and AdamW over all their tokens.

use std::io::BufRead;
use std::time::Instant;

use tch::{Device, Kind};
use triad::checkpoint::Checkpoint;
use triad::model::{
    AdamW, AdamWSettings, Precision, Sequence, Transformer, loss, micro_batches, set_threads,
};
use triad::{Error, Result};

/// As the jobs have it unless told otherwise.
const MICRO_BATCH_TOKENS: usize = 4096;

fn main() -> Result<()> {
    let usage = || Error::usage("usage: training FOLDER float32|bfloat16 THREADS");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [folder, dtype, threads] = &arguments[..] else { return Err(usage()) };
    set_threads(threads.parse().map_err(|_| usage())?);
    let precision = match dtype.as_str() {
        "float32" => Precision::F32,
        "bfloat16" => Precision::Bf16,
        _ => return Err(usage()),
    };
    let Checkpoint { config, weights, .. } = Checkpoint::from_folder(folder.as_ref())?;
    let policy = Transformer::load(&config, &weights, Device::Cpu, precision, true)?;
    drop(weights);
    let mut optimizer = AdamW::new(policy.parameters(), AdamWSettings::default())?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::defect)?;
        let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [count, shortest, longest] = numbers[..] else { return Err(usage()) };
        let sequence = |row: usize| {
            let length = shortest + (longest - shortest) * row / (count - 1).max(1);
            let id = |t: usize| ((1000 + 7 * t + 31 * row) % config.vocab_size) as u32;
            Sequence { prompt: vec![id(0)], response: (1..length + 1).map(id).collect() }
        };
        let sequences: Vec<Sequence> = (0..count).map(sequence).collect();
        let rows: Vec<usize> = (0..count).collect();
        let tokens: usize = sequences.iter().map(|s| s.response.len()).sum();
        let clock = Instant::now();
        let mut total = 0.0;
        for micro in micro_batches(&sequences, &rows, MICRO_BATCH_TOKENS, Device::Cpu)? {
            micro.backward(&policy, optimizer.gradients(), false, |rows, logits| {
                let targets = micro.targets.f_narrow(0, rows.start as i64, rows.len() as i64)?;
                let logp = loss::token_logprobs(logits, &targets, 1.0)?;
                let loss = logp.f_sum(Kind::Float)?.f_div_scalar(-(tokens as f64))?;
                total += loss.f_double_value(&[])?;
                Ok(loss)
            })?;
        }
        optimizer.step(1e-5, 1.0)?;
        println!("{} {tokens} {total}", clock.elapsed().as_secs_f64());
    }
    Ok(())
}
