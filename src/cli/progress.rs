//! Progress of running stages: a bar each on a terminal, a log line now and then elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::logging::Terminal;
use super::output;
use crate::entropy;
use crate::job::ProgressSink;
use crate::pipeline::{Ending, Observer};

/// Seconds between two progress lines of a stage.
const EVERY: i64 = 10;

/// Bars on a terminal, log lines elsewhere.
pub(super) fn observer(terminal: Terminal) -> Arc<dyn Observer> {
    match terminal {
        Some(bars) => Arc::new(Bars { bars, stages: Mutex::default() }),
        None => Arc::new(Lines::default()),
    }
}

fn log_start(stage: &str, job: &str) {
    tracing::info!(stage, job, "started");
}

fn log_end(stage: &str, ending: &Ending) {
    match ending {
        Ending::Committed(manifest) => {
            let seconds = (manifest.producer.seconds * 10.0).round() / 10.0;
            let summary = output::summary(manifest);
            tracing::info!(stage, id = manifest.id.short(), seconds, summary, "committed");
        }
        Ending::Found(manifest) => {
            tracing::info!(stage, id = manifest.id.short(), "found committed");
        }
        Ending::ShardCommitted => tracing::info!(stage, "shard committed"),
        Ending::Failed(error) => tracing::error!(stage, "{error}"),
        Ending::NotStarted => tracing::info!(stage, "not started"),
        Ending::Left => tracing::info!(stage, "left with the scheduler"),
    }
}

/// A panic in another thread spoils nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Bars {
    bars: MultiProgress,
    stages: Mutex<BTreeMap<String, (String, ProgressBar)>>,
}

impl ProgressSink for Bars {
    fn update(&self, stage: &str, unit: &str, done: u64, total: u64, note: &str) {
        let mut stages = lock(&self.stages);
        let Some((now, bar)) = stages.get_mut(stage) else { return };
        if now != unit || bar.length() != Some(total) {
            // Another part of the job, or a resumed one: what is done by now sets no rate.
            *now = unit.into();
            bar.set_style(style(unit));
            bar.set_length(total);
            bar.set_position(done);
            bar.reset_eta();
        }
        bar.set_position(done);
        bar.set_message(note.to_string());
    }
}

/// `stage [===>   ] 12/40 steps 3.1/s, 9s left  note`. Without a unit only the elapsed time.
fn style(unit: &str) -> ProgressStyle {
    let template = match unit {
        "" => "{prefix:24} {spinner} {elapsed}".to_string(),
        unit => format!(
            "{{prefix:24}} [{{bar:20}}] {{pos}}/{{len}} {} {{rate}}  {{wide_msg}}",
            unit.replace(['{', '}'], "")
        ),
    };
    let style = ProgressStyle::with_template(&template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ").with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Writing into a string does not fail.
            let _ = match state.per_sec() {
                rate if rate > 0.0 => {
                    let left = HumanDuration(state.eta());
                    write!(out, "{}/s, {left:#} left", output::text(&rate.into()))
                }
                _ => Ok(()),
            };
        },
    )
}

impl Observer for Bars {
    fn started(&self, stage: &str, job: &str) {
        log_start(stage, job);
        let bar = self.bars.add(ProgressBar::new(0).with_prefix(stage.to_string()));
        bar.set_style(style(""));
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        lock(&self.stages).insert(stage.into(), (String::new(), bar));
    }

    fn ended(&self, stage: &str, ending: &Ending) {
        if let Some((_, bar)) = lock(&self.stages).remove(stage) {
            bar.finish_and_clear();
        }
        log_end(stage, ending);
    }
}

#[derive(Default)]
struct Lines {
    stages: Mutex<BTreeMap<String, Phase>>,
}

/// A stretch of a job that counts one thing.
struct Phase {
    unit: String,
    total: u64,
    /// Where counting began: a resumed job does not begin at 0.
    from: (DateTime<Utc>, u64),
    shown: DateTime<Utc>,
}

impl ProgressSink for Lines {
    fn update(&self, stage: &str, unit: &str, done: u64, total: u64, note: &str) {
        let now = entropy::now();
        let mut stages = lock(&self.stages);
        let phase = stages
            .entry(stage.into())
            .and_modify(|phase| {
                if phase.unit != unit || phase.total != total {
                    *phase =
                        Phase { from: (now, done), unit: unit.into(), total, shown: phase.shown };
                }
            })
            .or_insert_with(|| Phase { unit: unit.into(), total, from: (now, done), shown: now });
        if now - phase.shown < TimeDelta::seconds(EVERY) {
            return;
        }
        phase.shown = now;
        let seconds = (now - phase.from.0).as_seconds_f64();
        let rate = done.saturating_sub(phase.from.1) as f64 / seconds.max(1e-3);
        let left = (rate > 0.0).then(|| (total.saturating_sub(done) as f64 / rate).ceil() as u64);
        let rate = output::text(&rate.into());
        tracing::info!(
            stage,
            done,
            total,
            unit,
            per_second = rate,
            seconds_left = left,
            note,
            "progress"
        );
    }
}

impl Observer for Lines {
    fn started(&self, stage: &str, job: &str) {
        log_start(stage, job);
    }

    fn ended(&self, stage: &str, ending: &Ending) {
        lock(&self.stages).remove(stage);
        log_end(stage, ending);
    }
}
