//! What is known before a byte of the weights is read.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::method::Method;
use super::operation::Operation;
use super::plan::{Models, Plan, layers};
use super::recipe::Recipe;
use super::run::Limits;
use crate::checkpoint::{Dtype, LazyCheckpoint, TOKENIZER};
use crate::{Error, Result};

/// A merge before it begins.
#[derive(Debug, Clone, Serialize)]
pub struct Preflight {
    pub method: Method,
    pub models: Vec<ModelFacts>,
    pub tensors: usize,
    pub parameters: u64,
    /// Bytes of the result's weights by type.
    pub types: BTreeMap<&'static str, u64>,
    /// Of all inputs, as often as they are read.
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// To stores, for reading tensors.
    pub requests: u64,
    /// Bytes that the merge allocates at most.
    pub memory: u64,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ModelFacts {
    pub name: String,
    pub architecture: String,
    pub layers: usize,
    pub vocabulary: u64,
    pub tied_head: bool,
    pub types: Vec<&'static str>,
    pub bytes: u64,
    /// Its weight over all tensors, least and most, after normalisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<(f64, f64)>,
    pub is_base: bool,
}

fn architecture(model: &LazyCheckpoint) -> String {
    let named = model.config.get("architectures").and_then(|names| names.get(0));
    let named = named.or_else(|| model.config.get("model_type")).and_then(Value::as_str);
    named.unwrap_or("unknown").into()
}

/// Keys of a config that say how the weights are computed with.
const MEANING: [&str; 6] = [
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rms_norm_eps",
    "hidden_act",
    "tie_word_embeddings",
];

/// Refuses models that are not of one architecture, and says what else differs.
pub(super) fn compare(recipe: &Recipe, models: &Models, warnings: &mut Vec<String>) -> Result<()> {
    let names = recipe.model_names();
    let first = recipe.base_model.as_deref().or(names.first().copied());
    let Some((first, model)) = first.and_then(|name| Some((name, models.get(name)?))) else {
        return Ok(());
    };
    let is_tied = |model: &LazyCheckpoint| {
        model.config.get("tie_word_embeddings").is_some_and(|tied| *tied == true)
    };
    for name in names {
        let Some(other) = models.get(name) else { continue };
        if architecture(other) != architecture(model) {
            return Err(Error::data(format!(
                "model `{first}` is a {}, `{name}` a {}",
                architecture(model),
                architecture(other)
            )));
        }
        if is_tied(model) && !is_tied(other) {
            return Err(Error::data(format!(
                "tensor `lm_head.weight`: `{name}` has a head of its own, `{first}`, after which \
                 the result is made, has that of its embedding; name `{name}` as base_model"
            )));
        }
        for key in MEANING {
            let get = |model: &LazyCheckpoint| model.config.get(key).cloned().unwrap_or_default();
            let (ours, theirs) = (get(model), get(other));
            if ours != theirs {
                warnings.push(format!("config {key}: {ours} in `{first}`, {theirs} in `{name}`"));
            }
        }
        let aligned = recipe.tokenizer.is_some() || recipe.tokenizer_source.is_some();
        if !aligned && model.files.get(TOKENIZER) != other.files.get(TOKENIZER) {
            warnings.push(format!(
                "`{first}` and `{name}` have different tokenizers; rows of the same number are merged"
            ));
        }
    }
    Ok(())
}

impl Plan {
    pub fn preflight(&self, limits: Limits) -> Preflight {
        let mut types = BTreeMap::new();
        let (mut bytes_read, mut requests, mut parameters) = (0, 0, 0);
        let (mut most, mut work, mut before) = (0, 0, 0);
        for tensor in &self.tensors {
            *types.entry(tensor.outline.dtype.torch_name()).or_default() += tensor.outline.bytes();
            parameters += tensor.outline.len() as u64;
            let held = limits.holds(tensor);
            let times = if held { 1 } else { tensor.operation.passes() as u64 };
            for input in &tensor.inputs {
                bytes_read += times * input.tensor.bytes();
                requests += times * input.tensor.file.requests(input.tensor.bytes());
            }
            // What is computed, and what is loaded meanwhile.
            let now = if held {
                tensor.bytes()
            } else if limits.is_remote {
                tensor.bytes().min(limits.memory / 2)
            } else {
                0
            };
            most = most.max(before + now);
            before = now;
            work = work.max(tensor.work());
        }
        let bytes_written = self.tensors.iter().map(|tensor| tensor.outline.bytes()).sum();
        let memory = most + limits.threads as u64 * work;
        let models = self.models_in_order().map(|(name, model)| self.facts(name, model));
        Preflight {
            method: self.recipe.merge_method,
            models: models.collect(),
            tensors: self.tensors.len(),
            parameters,
            types,
            bytes_read,
            bytes_written,
            requests,
            memory,
            warnings: self.warnings.clone(),
        }
    }

    fn models_in_order(&self) -> impl Iterator<Item = (&str, &LazyCheckpoint)> {
        let names = self.recipe.model_names().into_iter();
        names.filter_map(|name| Some((name, self.models.get(name)?)))
    }

    fn facts(&self, name: &str, model: &LazyCheckpoint) -> ModelFacts {
        let mut types: Vec<Dtype> = model.tensors.values().map(|tensor| tensor.dtype).collect();
        types.dedup();
        types.sort_by_key(|dtype| dtype.torch_name());
        types.dedup();
        ModelFacts {
            name: name.into(),
            architecture: architecture(model),
            layers: layers(model),
            vocabulary: model.config.get("vocab_size").and_then(Value::as_u64).unwrap_or(0),
            tied_head: model.config.get("tie_word_embeddings").is_some_and(|tied| *tied == true),
            types: types.into_iter().map(Dtype::torch_name).collect(),
            bytes: model.tensors.values().map(|tensor| tensor.bytes()).sum(),
            weight: self.weight(name),
            is_base: self.recipe.base_model.as_deref() == Some(name),
        }
    }

    /// The least and the greatest weight of a model, after normalisation.
    pub fn weight(&self, model: &str) -> Option<(f64, f64)> {
        let of_tensor = |tensor: &super::plan::Planned| {
            let at = tensor.inputs.iter().position(|input| input.model == model)?;
            match &tensor.operation {
                Operation::Linear { weights, divisor } => {
                    Some(f64::from(weights[at]) / f64::from(divisor.unwrap_or(1.0)))
                }
                Operation::Arithmetic(arithmetic) => {
                    let share = arithmetic.shares.iter().find(|share| share.input == at)?;
                    let sum: f32 = arithmetic.shares.iter().map(|share| share.weight).sum();
                    let divides = arithmetic.normalize && sum.abs() >= 1e-8;
                    let divisor = if divides { f64::from(sum) } else { 1.0 };
                    Some(f64::from(share.weight) / divisor * f64::from(arithmetic.lambda))
                }
                Operation::Pass { .. } | Operation::Blend(_) => None,
            }
        };
        let weights = self.tensors.iter().filter_map(of_tensor);
        weights.map(|weight| (weight, weight)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}
