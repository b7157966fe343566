//! Tokens per second of sampling and training, on one thread and on two, for a model of the
//! quickstart's shape. `cargo bench --bench model`

use std::time::Instant;

use tch::Device;
use triad::checkpoint::{ModelConfig, init_weights};
use triad_torch::model::{
    AdamW, AdamWSettings, Precision, SampleRequest, Sampling, Sequence, Stops, Transformer, loss,
    micro_batches, sample, set_threads,
};

fn main() -> triad::Result<()> {
    let config = ModelConfig::from_json(include_bytes!("../models/seedling/config.json"))?;
    let weights = init_weights(&config, 1, 0.02)?;
    let model = Transformer::load(&config, &weights, Device::Cpu, Precision::F32, true)?;
    println!("parameters: {}", weights.values().map(|tensor| tensor.len()).sum::<usize>());
    for threads in [1, 2] {
        set_threads(threads);
        println!("threads: {threads}");
        for (rows, spread) in [(512, 1), (512, 8), (64, 8)] {
            sampling(&model, rows, spread)?;
        }
        training(&model)?;
    }
    Ok(())
}

/// 80 tokens after prompts of 30 up to 30 + `spread` - 1, eight samples of each.
fn sampling(model: &Transformer, rows: u32, spread: u32) -> triad::Result<()> {
    let request = |row: u32| SampleRequest {
        prompt: (0..30 + row / 8 % spread).map(|t| (7 * t + row / 8) % 250).collect(),
        item: u64::from(row / 8),
        sample: row % 8,
    };
    let requests: Vec<SampleRequest> = (0..rows).map(request).collect();
    let sampling = Sampling { max_new_tokens: 80, seed: 1, ..Sampling::default() };
    let start = Instant::now();
    let responses = sample(model, &Stops::at(&[]), &requests, &sampling)?;
    let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
    let rate = tokens as f64 / start.elapsed().as_secs_f64();
    println!("sampling, {rows} rows, {spread} prompt lengths: {rate:.0} tokens/s");
    Ok(())
}

fn training(model: &Transformer) -> triad::Result<()> {
    let (batch, length, steps) = (64, 96, 16);
    let id = |row: usize, t: usize| ((7 * t + 31 * row) % 250) as u32;
    let sequences: Vec<Sequence> = (0..batch)
        .map(|row| Sequence {
            prompt: vec![id(row, 0)],
            response: (1..length + 1).map(|t| id(row, t)).collect(),
        })
        .collect();
    let rows: Vec<usize> = (0..batch).collect();
    let mut adamw = AdamW::new(model.parameters(), AdamWSettings::default())?;
    let start = Instant::now();
    for _ in 0..steps {
        for micro in micro_batches(&sequences, &rows, 4096, Device::Cpu)? {
            micro.backward(model, adamw.gradients(), false, |rows, logits| {
                let targets = micro.targets.f_narrow(0, rows.start as i64, rows.len() as i64)?;
                Ok(loss::token_logprobs(logits, &targets, 1.0)?.f_neg()?.f_mean(None)?)
            })?;
        }
        adamw.step(1e-3, 1.0)?;
    }
    let rate = (steps * batch * length) as f64 / start.elapsed().as_secs_f64();
    println!("training, {batch} sequences of {length}: {rate:.0} tokens/s");
    Ok(())
}
