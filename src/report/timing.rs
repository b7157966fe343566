//! How long each stage took, from the manifests' producer records.

use std::collections::BTreeMap;

use crate::store::Manifest;

/// One stage's time and rates.
#[derive(Debug, Clone)]
pub struct StageTiming {
    pub stage: String,
    pub job: String,
    pub device: String,
    pub seconds: f64,
    pub rates: BTreeMap<String, f64>,
}

impl StageTiming {
    pub fn new(stage: &str, manifest: &Manifest) -> Self {
        Self {
            stage: stage.into(),
            job: manifest.job().into(),
            device: manifest.producer.device.clone(),
            seconds: manifest.producer.seconds,
            rates: manifest.producer.timings.clone(),
        }
    }
}

/// `4.2 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
