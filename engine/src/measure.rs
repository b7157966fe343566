//! `triad-torch measure`: what `benches/engine.py` asks about the engine, as JSON lines. Not for users.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use triad::checkpoint::{Checkpoint, Dtype, ModelConfig};
use triad_torch::model::{
    AdamW, AdamWSettings, Gradients, MicroBatch, Precision, SampleRequest, Sampled, Sampling,
    Sequence, Stops, Transformer, device, loss, memory, micro_batches, reset_peak, sample,
    set_threads,
};
use triad_torch::{Error, Result};

#[derive(Parser)]
#[command(name = "triad-torch measure")]
struct Measure {
    /// A Hugging Face folder; where it holds no weights, random ones are drawn
    folder: PathBuf,
    /// f32 or bf16
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Train adapters of this rank
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

pub fn main() -> ! {
    let given = Measure::parse_from(std::env::args_os().skip(1));
    set_threads(given.threads);
    let code = given.answer().map_or_else(
        |Error(e)| {
            eprintln!("error: {e}");
            e.exit_code()
        },
        |()| 0,
    );
    std::process::exit(code.into())
}

fn precision(text: &str) -> std::result::Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err("f32 or bf16".into()),
    }
}

/// A line of stdin. Each answer is a line of stdout.
#[derive(Deserialize)]
#[serde(tag = "work", rename_all = "lowercase", deny_unknown_fields)]
enum Work {
    /// `samples` responses of `new` tokens to each of `prompts` prompts of `length` tokens.
    Sample { prompts: u32, samples: u32, length: u32, new: usize },
    /// One step on `sequences` sequences of `shortest` to `longest` tokens.
    Train {
        sequences: usize,
        shortest: usize,
        longest: usize,
        #[serde(default)]
        recompute: bool,
        #[serde(default = "micro_batch_tokens")]
        micro_batch_tokens: usize,
    },
    /// How far logits, gradients, an update and samples are from those of the CPU in f32, on
    /// sequences of up to `length` tokens.
    Parity { length: usize },
}

/// As the jobs have it unless told otherwise.
fn micro_batch_tokens() -> usize {
    4096
}

impl Measure {
    fn answer(&self) -> Result<()> {
        let device = device(&self.device)?;
        let config = std::fs::read(self.folder.join("config.json"))
            .map_err(|e| triad::Error::data(format!("cannot read config.json: {e}")))
            .and_then(|bytes| ModelConfig::from_json(&bytes))
            .map_err(|e| e.at(self.folder.display()))?;
        let holds = |name: &str| self.folder.join(name).exists();
        let mut policy = match holds("model.safetensors") || holds("model.safetensors.index.json") {
            true => {
                let weights = Checkpoint::from_folder(&self.folder)?.weights;
                Transformer::load(&config, &weights, device, self.precision, true)?
            }
            false => Transformer::random(&config, device, self.precision, true)?,
        };
        if let Some(rank) = self.lora {
            policy.adapt(rank, 2.0 * rank as f64, 1)?;
        }
        let sizes = policy.parameters();
        let parameters: usize = sizes.iter().map(|(_, tensor)| tensor.numel()).sum();
        let mut bench = Bench { policy, device, optimizer: None };
        let available = memory(device)?.map(|memory| memory.available);
        line(
            &json!({"device": self.device, "parameters": parameters, "available_bytes": available}),
        )?;
        for text in std::io::stdin().lock().lines() {
            let text = text.map_err(|e| Error::usage(format!("stdin: {e}")))?;
            let work = serde_json::from_str(&text)
                .map_err(|e| Error::usage(format!("`{text}` is no work: {e}")))?;
            reset_peak(device)?;
            let mut answer = bench.run(work)?;
            answer["peak_bytes"] = match memory(device)? {
                Some(memory) => memory.peak.into(),
                None => resident().into(),
            };
            line(&answer)?;
        }
        Ok(())
    }
}

fn line(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")
        .and_then(|()| out.flush())
        .map_err(|e| Error::defect(format!("stdout: {e}")))
}

/// Most bytes of memory that this process has had, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

struct Bench {
    policy: Transformer,
    device: Device,
    optimizer: Option<AdamW>,
}

impl Bench {
    fn run(&mut self, work: Work) -> Result<Value> {
        match work {
            Work::Sample { prompts, samples, length, new } => {
                let requests = self.requests(prompts, samples, length);
                let mut sampling = Sampling { max_new_tokens: new, seed: 1, ..Sampling::default() };
                if let Some(memory) = memory(self.device)? {
                    sampling.cache_bytes = memory.available / 4 * 3;
                }
                let clock = Instant::now();
                let responses = sample(&self.policy, &Stops::at(&[]), &requests, &sampling)?;
                let seconds = clock.elapsed().as_secs_f64();
                let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
                Ok(json!({"seconds": seconds, "tokens": tokens}))
            }
            Work::Train { sequences, shortest, longest, recompute, micro_batch_tokens } => {
                let length =
                    |row: usize| shortest + (longest - shortest) * row / (sequences - 1).max(1);
                let sequences: Vec<Sequence> =
                    (0..sequences).map(|row| self.sequence(row, 1, length(row))).collect();
                let mut optimizer = match self.optimizer.take() {
                    Some(optimizer) => optimizer,
                    None => AdamW::new(self.policy.trainable(), AdamWSettings::default())?,
                };
                let clock = Instant::now();
                let pass = Pass { budget: micro_batch_tokens, recompute, keep_logits: false };
                let (loss, _) = pass.run(&self.policy, optimizer.gradients(), &sequences)?;
                optimizer.step(1e-5, 1.0)?;
                if let Device::Cuda(index) = self.device {
                    tch::Cuda::synchronize(index as i64);
                }
                let seconds = clock.elapsed().as_secs_f64();
                self.optimizer = Some(optimizer);
                let tokens: usize = sequences.iter().map(|one| one.response.len()).sum();
                Ok(json!({"seconds": seconds, "tokens": tokens, "loss": loss}))
            }
            Work::Parity { length } => self.parity(length),
        }
    }

    /// Tokens of a text that means nothing.
    fn tokens(&self, row: usize, length: usize) -> impl Iterator<Item = u32> {
        let vocabulary = self.policy.config.vocab_size;
        (0..length).map(move |t| ((1000 + 7 * t + 31 * row) % vocabulary) as u32)
    }

    /// `prompt` tokens and `response` more.
    fn sequence(&self, row: usize, prompt: usize, response: usize) -> Sequence {
        let mut tokens = self.tokens(row, prompt + response);
        Sequence { prompt: tokens.by_ref().take(prompt).collect(), response: tokens.collect() }
    }

    fn requests(&self, prompts: u32, samples: u32, length: u32) -> Vec<SampleRequest> {
        let request = |row: u32| SampleRequest {
            prompt: self.tokens((row / samples) as usize, length as usize).collect(),
            item: u64::from(row / samples),
            sample: row % samples,
        };
        (0..prompts * samples).map(request).collect()
    }

    fn parity(&self, length: usize) -> Result<Value> {
        let weights = self.policy.weights(Dtype::F32)?;
        let config = &self.policy.config;
        let reference = Transformer::load(config, &weights, Device::Cpu, Precision::F32, true)?;
        drop(weights);
        let sequences: Vec<Sequence> = (0..)
            .zip([length, length, length / 2, length / 3])
            .map(|(row, length)| self.sequence(row, length / 4, length - length / 4))
            .collect();
        let learn = |model: &Transformer, recompute: bool| {
            let optimizer = AdamW::new(model.trainable(), AdamWSettings::default())?;
            let pass = Pass { budget: 2 * length, recompute, keep_logits: true };
            let (loss, logits) = pass.run(model, optimizer.gradients(), &sequences)?;
            Ok::<_, Error>((optimizer, loss, logits))
        };
        let (mut there, loss, logits) = learn(&self.policy, false)?;
        let (mut here, expected_loss, expected) = learn(&reference, false)?;
        let names: Vec<String> =
            self.policy.trainable().into_iter().map(|(name, _)| name).collect();
        let compare = |a: &Gradients, b: &Gradients| {
            let mut all = Distance::default();
            let mut worst = (0.0, "");
            for name in &names {
                let (Some(a), Some(b)) = (a.of(name), b.of(name)) else { continue };
                let own = Distance::between(&a, &b)?;
                if own.most() > worst.0 || !own.most().is_finite() {
                    worst = (own.most(), name);
                }
                all.add(&own);
            }
            Ok::<_, Error>(json!({"mean": all.mean(), "most": worst.0, "at": worst.1}))
        };
        let mut answer = json!({
            "loss": (loss - expected_loss).abs() / expected_loss.abs(),
            "logits": Distance::between(&logits, &expected)?.json(),
            "gradients": compare(there.gradients(), here.gradients())?,
        });
        let again = learn(&self.policy, true)?.0;
        answer["recomputed"] = compare(again.gradients(), there.gradients())?;
        drop(again);
        let requests = self.requests(4, 2, (length / 2) as u32);
        let plain = Sampling { max_new_tokens: 32, seed: 3, ..Sampling::default() };
        for (name, sampling) in [
            ("greedy", Sampling { temperature: 0.0, ..plain }),
            ("drawn", plain),
            ("cut", Sampling { top_k: 40, top_p: 0.9, min_p: 0.01, ..plain }),
        ] {
            let ours = sample(&self.policy, &Stops::at(&[]), &requests, &sampling)?;
            let theirs = sample(&reference, &Stops::at(&[]), &requests, &sampling)?;
            answer[name] = self.same(&requests, &ours, &theirs)?;
        }
        let before: Vec<Tensor> = here.masters()?.iter().map(|(_, master)| master.copy()).collect();
        there.step(1e-3, 1.0)?;
        here.step(1e-3, 1.0)?;
        let mut update = Distance::default();
        for ((before, (_, a)), (_, b)) in before.iter().zip(there.masters()?).zip(here.masters()?) {
            let a = a.f_to_device(Device::Cpu)?;
            update.add(&Distance::between(&a.f_sub(before)?, &b.f_sub(before)?)?);
        }
        answer["update"] = update.json();
        Ok(answer)
    }

    /// How much of the samples agrees up to the first difference, and how far the sampler's
    /// log-probabilities are from the trainer's.
    fn same(
        &self,
        requests: &[SampleRequest],
        ours: &[Sampled],
        theirs: &[Sampled],
    ) -> Result<Value> {
        let (mut agree, mut tokens) = (0, 0);
        for (a, b) in ours.iter().zip(theirs) {
            agree += a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b).count();
            tokens += a.tokens.len();
        }
        let sequence = |(request, sampled): (&SampleRequest, &Sampled)| Sequence {
            prompt: request.prompt.clone(),
            response: sampled.tokens.clone(),
        };
        let sequences: Vec<Sequence> = requests.iter().zip(ours).map(sequence).collect();
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let mut gap = (0.0, 0.0f64);
        for micro in micro_batches(&sequences, &rows, 4096, self.device)? {
            let mut trained = vec![Vec::new(); sequences.len()];
            micro.scatter(&micro.logprobs(&self.policy, 1.0)?, &mut trained)?;
            for (trained, sampled) in trained.iter().zip(ours) {
                for (a, b) in trained.iter().zip(&sampled.model_logprobs) {
                    let far = f64::from((a - b).abs());
                    gap = (gap.0 + far / tokens as f64, gap.1.max(far));
                }
            }
        }
        Ok(json!({"agree": agree as f64 / tokens as f64, "gap": gap.0, "most_gap": gap.1}))
    }
}

/// A forward and a backward pass.
struct Pass {
    /// Tokens of a micro-batch.
    budget: usize,
    recompute: bool,
    keep_logits: bool,
}

impl Pass {
    /// The mean loss of the response tokens, and their logits.
    fn run(
        &self,
        model: &Transformer,
        gradients: &Gradients,
        sequences: &[Sequence],
    ) -> Result<(f64, Tensor)> {
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let tokens: usize = sequences.iter().map(|one| one.response.len()).sum();
        let (mut losses, mut kept) = (Vec::new(), Vec::new());
        for micro in micro_batches(sequences, &rows, self.budget, model.device())? {
            self.micro(&micro, model, gradients, tokens, &mut losses, &mut kept)?;
        }
        let loss = Tensor::f_stack(&losses, 0)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        if !self.keep_logits {
            kept.push(Tensor::f_empty([0], (Kind::Float, Device::Cpu))?);
        }
        Ok((loss, Tensor::f_cat(&kept, 0)?))
    }

    fn micro(
        &self,
        micro: &MicroBatch,
        model: &Transformer,
        gradients: &Gradients,
        tokens: usize,
        losses: &mut Vec<Tensor>,
        kept: &mut Vec<Tensor>,
    ) -> Result<()> {
        micro.backward(model, gradients, self.recompute, |rows, logits| {
            let targets = micro.targets.f_narrow(0, rows.start as i64, rows.len() as i64)?;
            let logp = loss::token_logprobs(logits, &targets, 1.0)?;
            let loss = logp.f_sum(Kind::Float)?.f_div_scalar(-(tokens as f64))?;
            losses.push(loss.f_detach()?);
            if self.keep_logits {
                kept.push(logits.f_detach()?.f_to_device(Device::Cpu)?);
            }
            Ok(loss)
        })
    }
}

/// How far numbers are from what they should be.
#[derive(Default)]
struct Distance {
    /// Sums of squares, of the differences and of what they should be.
    squares: [f64; 2],
    /// Largest magnitudes, likewise.
    most: [f64; 2],
}

impl Distance {
    fn between(a: &Tensor, expected: &Tensor) -> Result<Self> {
        let wide = |x: &Tensor| x.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
        let (a, expected) = (wide(a)?, wide(expected)?);
        let measure = |x: &Tensor| -> Result<(f64, f64)> {
            let square = x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
            Ok((square, x.f_abs()?.f_max()?.f_double_value(&[])?))
        };
        let (far, own) = (measure(&a.f_sub(&expected)?)?, measure(&expected)?);
        Ok(Self { squares: [far.0, own.0], most: [far.1, own.1] })
    }

    fn add(&mut self, other: &Self) {
        for i in 0..2 {
            self.squares[i] += other.squares[i];
            self.most[i] = self.most[i].max(other.most[i]);
        }
    }

    /// Root of the squares' ratio.
    fn mean(&self) -> f64 {
        (self.squares[0] / self.squares[1]).sqrt()
    }

    /// Largest difference by the largest value.
    fn most(&self) -> f64 {
        self.most[0] / self.most[1]
    }

    fn json(&self) -> Value {
        json!({"mean": self.mean(), "most": self.most()})
    }
}
