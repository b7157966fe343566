//! `merge`: several checkpoints become one in parameter space.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Arity, Context, Job, Port, resolve_as};
use crate::checkpoint::{Checkpoint, Dtype};
use crate::{Error, Result, merge};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    method: Method,
    /// Weight of each model, by its name in the port.
    weights: BTreeMap<String, f64>,
    /// Divide by the sum of the weights, as mergekit does by default.
    #[serde(default = "yes")]
    normalize: bool,
    #[serde(default)]
    dtype: Dtype,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    #[default]
    Linear,
}

fn yes() -> bool {
    true
}

pub struct Merge;

impl Job for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many }]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let Method::Linear = spec.method;
        let names: Vec<_> = context.inputs("models").iter().map(|i| i.name.clone()).collect();
        if let Some(name) = spec.weights.keys().find(|name| !names.contains(name)) {
            return Err(Error::usage(format!(
                "weights names `{name}`, the port `models` has {}",
                names.join(", ")
            )));
        }
        let mut models: Vec<(Checkpoint, f64)> = Vec::new();
        for input in context.inputs("models") {
            let weight = *spec.weights.get(&input.name).ok_or_else(|| {
                Error::usage(format!("weights gives no number for model `{}`", input.name))
            })?;
            models.push((context.checkpoint(&input.artifact)?, weight));
        }
        let parts: Vec<_> = models.iter().map(|(model, w)| (&model.weights, *w)).collect();
        let weights = merge::linear(&parts, spec.normalize, spec.dtype)
            .map_err(|e| e.at(format!("merge of {}", names.join(", "))))?;
        let sum: f64 = if spec.normalize { spec.weights.values().sum() } else { 1.0 };
        let effective: BTreeMap<_, _> =
            spec.weights.iter().map(|(name, weight)| (name, weight / sum)).collect();
        context.summarize("effective_weights", json!(effective));
        let Some((first, _)) = models.into_iter().next() else {
            return Err(Error::defect("port `models` has no input"));
        };
        context.write_checkpoint(&Checkpoint { weights, ..first })
    }
}
