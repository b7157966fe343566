//! A job kind for tests: rows drawn from named streams, in parts or step by step.

use std::sync::{Arc, Barrier};

use bytes::Bytes;
use serde_json::{Value, json};
use triad::dataset::Metric;
use triad::entropy::Stream;
use triad::job::{
    Context, Inputs, Job, Outcome, Port, Progress, ProgressSink, Run, Shard, StopFlag,
};
use triad::store::{Manifest, Store};
use triad::{Error, Result};

const PARTS: usize = 6;
const ROWS: usize = 10;

/// The job: `PARTS` parts of `ROWS` rows, the same ones whoever makes them.
#[derive(Clone, Copy)]
pub struct Toy {
    seed: &'static str,
    /// Changes the artifact's id and nothing else.
    salt: u32,
    stepwise: bool,
    stop_after: Option<u32>,
    meeting: Option<&'static Barrier>,
}

impl Toy {
    pub fn new(seed: &'static str) -> Self {
        Self { seed, salt: 0, stepwise: false, stop_after: None, meeting: None }
    }

    pub fn salted(self, salt: u32) -> Self {
        Self { salt, ..self }
    }

    /// One checkpoint after each part, with the running sum of all values as its state.
    pub fn stepwise(self) -> Self {
        Self { stepwise: true, ..self }
    }

    /// Stopped after that many steps.
    pub fn stopping_after(self, step: u32) -> Self {
        Self { stop_after: Some(step), ..self }
    }

    /// Waits until `n` runs of this value are under way.
    pub fn meeting(self, n: usize) -> Self {
        Self { meeting: Some(Box::leak(Box::new(Barrier::new(n)))), ..self }
    }

    fn rows(&self, part: usize) -> Vec<Metric> {
        let row = |i: usize| {
            let value = Stream::new(1, self.seed, i as u64).uniform();
            Metric { step: i as u32, level: 0, name: "x".into(), value }
        };
        (part * ROWS..(part + 1) * ROWS).map(row).collect()
    }

    fn run_steps(&self, context: &mut Context) -> Result<()> {
        let (first, mut sum) = match context.resume()? {
            None => (0, 0.0),
            Some((step, state)) => {
                let text = String::from_utf8_lossy(&state[0].1).into_owned();
                (step as usize, text.parse::<f64>().map_err(Error::data)?)
            }
        };
        for part in first..PARTS {
            let rows = self.rows(part);
            sum += rows.iter().map(|row| row.value).sum::<f64>();
            // Only the first parts hold rows of the dataset: a run that continues after them
            // writes none itself.
            if part < 3 {
                context.write(part, &rows)?;
                context.summarize("rows", (part + 1) as u64);
            }
            let step = part as u32 + 1;
            let state = vec![("sum".to_string(), Bytes::from(sum.to_string()))];
            context.commit_step(u64::from(step), state)?;
            if self.stop_after == Some(step) {
                context.stop.request();
            }
            context.check_stop()?;
        }
        context.write_object("sum", Bytes::from(sum.to_string()))
    }
}

impl Job for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        "metrics"
    }
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        Ok(raw.clone())
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        if let Some(barrier) = self.meeting {
            barrier.wait();
        }
        if self.stepwise {
            return self.run_steps(context);
        }
        let mut count = 0;
        let shard = context.shard;
        for part in (0..PARTS).filter(|&part| shard.owns(part)) {
            let rows = self.rows(part);
            count += rows.len() as u64;
            context.write(part, &rows)?;
        }
        context.summarize("rows", count);
        Ok(())
    }
}

struct Silent;

impl ProgressSink for Silent {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

/// Runs `toy` as shard `index` of `of`.
pub async fn run(store: &Store, toy: Toy, index: u32, of: u32) -> Result<Outcome> {
    let params = json!({"seed": toy.seed, "salt": toy.salt, "stepwise": toy.stepwise});
    let run = Run {
        job: Box::leak(Box::new(toy)),
        params,
        inputs: Inputs::new(),
        shard: Shard { index, of },
        device: "cpu".into(),
        server: None,
        stop: StopFlag::default(),
        progress: Progress { stage: "toy".into(), sink: Arc::new(Silent) },
    };
    triad::job::run(store, run).await
}

/// The same where this run must commit the artifact.
pub async fn committed(store: &Store, toy: Toy, index: u32, of: u32) -> Manifest {
    match run(store, toy, index, of).await.unwrap() {
        Outcome::Committed(manifest) => *manifest,
        other => panic!("not committed by this run: {other:?}"),
    }
}

/// What a manifest lists, without who wrote it.
pub fn contents(manifest: &Manifest) -> Vec<(&str, &str, Option<u64>)> {
    manifest
        .objects
        .iter()
        .map(|object| (object.path.as_str(), object.digest.as_str(), object.rows))
        .collect()
}
