//! `deltas`: how far models have gone from their base, tensor by tensor, and how much they agree:
//! what a merge of them has to reconcile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::merge::models;
use super::{Arity, Context, Job, Port, StopFlag, resolve_as};
use crate::checkpoint::{Folder, LazyCheckpoint, LazyTensor};
use crate::dataset::{Delta, Row};
use crate::{Error, Result};

/// Numbers of a tensor that are looked at together.
const PIECE: usize = 1 << 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {}

pub struct Deltas;

impl Job for Deltas {
    fn name(&self) -> &'static str {
        "deltas"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "base", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        Delta::NAME
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let base = Box::new(context.input("base")?.clone());
        let base = LazyCheckpoint::open(&Folder::Artifact(base, context.runtime.clone()))?;
        let models = models(context)?;
        if models.len() < 2 {
            return Err(Error::usage("port `models`: two models at least are compared"));
        }
        let stop = context.stop.clone();
        let rows = compare(&base, &models, &stop)?;
        let mean = |pair: &[&Delta], of: &dyn Fn(&Delta) -> f64| {
            let numbers: f64 = pair.iter().map(|row| row.numbers as f64).sum();
            let sum: f64 = pair.iter().map(|row| of(row) * row.numbers as f64).sum();
            (sum / numbers * 1e4).round() / 1e4
        };
        let mut pairs: BTreeMap<String, Vec<&Delta>> = BTreeMap::new();
        for row in &rows {
            pairs.entry(format!("{}, {}", row.model, row.other)).or_default().push(row);
        }
        for (name, pair) in pairs {
            context.summarize(&format!("{name} cosine"), mean(&pair, &|row| row.cosine));
            context.summarize(&format!("{name} conflict"), mean(&pair, &|row| row.sign_conflict));
        }
        context.write(0, &rows)
    }
}

/// A row for each tensor and pair of models, in order of their names.
fn compare(
    base: &LazyCheckpoint,
    models: &BTreeMap<String, LazyCheckpoint>,
    stop: &StopFlag,
) -> Result<Vec<Delta>> {
    let mut work = Vec::new();
    for (name, tensor) in &base.tensors {
        let mut others = Vec::new();
        for (model, checkpoint) in models {
            let other = checkpoint.tensors.get(name).ok_or_else(|| {
                Error::data(format!("model `{model}` lacks the base's tensor `{name}`"))
            })?;
            if other.shape != tensor.shape {
                return Err(Error::data(format!(
                    "tensor `{name}`: shape {:?} in the base, {:?} in `{model}`",
                    tensor.shape, other.shape
                )));
            }
            others.push((&model[..], other));
        }
        work.push((&name[..], tensor, others));
    }
    for (model, checkpoint) in models {
        if let Some(name) = checkpoint.tensors.keys().find(|name| !base.tensors.contains_key(*name))
        {
            return Err(Error::data(format!(
                "model `{model}` has the tensor `{name}`, which the base lacks"
            )));
        }
    }
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Vec<Delta>)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, tensor, others)) = work.get(at) else { return Ok::<_, Error>(()) };
                stop.check()?;
                let rows = of_tensor(name, tensor, others)?;
                found.lock().unwrap_or_else(PoisonError::into_inner).push((at, rows));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| Error::defect("a comparing thread died"))?
        })
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().flat_map(|(_, rows)| rows).collect())
}

/// Sums over the numbers of a tensor, for a pair of models.
#[derive(Default, Clone)]
struct Sums {
    dot: f64,
    both: u64,
    opposed: u64,
}

fn of_tensor(name: &str, base: &LazyTensor, models: &[(&str, &LazyTensor)]) -> Result<Vec<Delta>> {
    let pairs: Vec<(usize, usize)> =
        (0..models.len()).flat_map(|a| (a + 1..models.len()).map(move |b| (a, b))).collect();
    let mut sums = vec![Sums::default(); pairs.len()];
    let mut squares = vec![0.0; models.len()];
    let mut base_square = 0.0;
    let mut bytes = Vec::new();
    for first in (0..base.len()).step_by(PIECE) {
        let count = PIECE.min(base.len() - first);
        let mut read = |tensor: &LazyTensor| {
            bytes.resize(count * tensor.dtype.size(), 0);
            tensor.read(&mut bytes, first)?;
            Ok::<_, Error>(tensor.dtype.to_f32(&bytes))
        };
        let origin = read(base)?;
        base_square += origin.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let mut deltas = Vec::with_capacity(models.len());
        for (model, tensor) in models {
            let mut delta = read(tensor)?;
            delta.iter_mut().zip(&origin).for_each(|(x, base)| *x -= base);
            if delta.iter().any(|x| !x.is_finite()) {
                return Err(Error::data(format!(
                    "tensor `{name}` of `{model}` or of the base has numbers that are not finite"
                )));
            }
            deltas.push(delta);
        }
        for (square, delta) in squares.iter_mut().zip(&deltas) {
            *square += delta.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        }
        for (sums, &(a, b)) in sums.iter_mut().zip(&pairs) {
            for (&x, &y) in deltas[a].iter().zip(&deltas[b]) {
                sums.dot += f64::from(x) * f64::from(y);
                let both = x != 0.0 && y != 0.0;
                sums.both += u64::from(both);
                sums.opposed += u64::from(both && (x < 0.0) != (y < 0.0));
            }
        }
    }
    let layer = name.split('.').find_map(|part| part.parse().ok());
    let row = |(sums, &(a, b)): (&Sums, &(usize, usize))| {
        let (norm, other_norm) = (f64::sqrt(squares[a]), f64::sqrt(squares[b]));
        let moved = norm > 0.0 && other_norm > 0.0;
        Delta {
            tensor: name.into(),
            layer,
            numbers: base.len() as u64,
            model: models[a].0.into(),
            other: models[b].0.into(),
            base_norm: f64::sqrt(base_square),
            norm,
            other_norm,
            cosine: if moved { sums.dot / norm / other_norm } else { 0.0 },
            sign_conflict: sums.opposed as f64 / sums.both.max(1) as f64,
        }
    };
    Ok(sums.iter().zip(&pairs).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, HostTensor, Weights, encode_safetensors};

    fn model(folder: &std::path::Path, name: &str, layer: &[f32], other: &[f32]) -> LazyCheckpoint {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        let tensor = |values: &[f32]| HostTensor::from_f32([values.len()], values, Dtype::F32);
        let weights = Weights::from([
            ("model.layers.3.w".into(), tensor(layer)),
            ("norm".into(), tensor(other)),
        ]);
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(folder.join("model.safetensors"), encode_safetensors(&weights).unwrap())
            .unwrap();
        LazyCheckpoint::from_folder(&folder).unwrap()
    }

    #[test]
    fn angles_lengths_and_conflicts_of_known_deltas() {
        let dir = tempfile::tempdir().unwrap();
        let base = model(dir.path(), "base", &[1.0, 2.0, 2.0, 0.0], &[1.0]);
        // Deltas (3, 0, 4, 0) and (-3, 5, 4, 0): both move two numbers, one of them apart.
        let a = model(dir.path(), "a", &[4.0, 2.0, 6.0, 0.0], &[1.0]);
        let b = model(dir.path(), "b", &[-2.0, 7.0, 6.0, 0.0], &[2.0]);
        let models = BTreeMap::from([("a".into(), a), ("b".into(), b)]);
        let rows = compare(&base, &models, &StopFlag::default()).unwrap();
        assert_eq!(rows.len(), 2);
        let row = &rows[0];
        assert_eq!(
            (row.layer, row.numbers, &row.model[..], &row.other[..]),
            (Some(3), 4, "a", "b")
        );
        assert_eq!((row.base_norm, row.norm, row.other_norm), (3.0, 5.0, 50f64.sqrt()));
        assert!((row.cosine - 7.0 / (5.0 * 50f64.sqrt())).abs() < 1e-12);
        assert_eq!(row.sign_conflict, 0.5);
        // A model that has not moved has no direction.
        assert_eq!((rows[1].layer, rows[1].cosine, rows[1].sign_conflict), (None, 0.0, 0.0));

        let short = model(dir.path(), "short", &[1.0], &[1.0]);
        let models = BTreeMap::from([("short".into(), short)]);
        let error = compare(&base, &models, &StopFlag::default()).unwrap_err().to_string();
        assert!(error.contains("`model.layers.3.w`") && error.contains("`short`"), "{error}");
        let wild = model(dir.path(), "wild", &[1.0, f32::NAN, 0.0, 0.0], &[1.0]);
        let models = BTreeMap::from([("wild".into(), wild)]);
        let error = compare(&base, &models, &StopFlag::default()).unwrap_err().to_string();
        assert!(error.contains("not finite") && error.contains("`wild`"), "{error}");
    }
}
