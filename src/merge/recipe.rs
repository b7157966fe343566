//! A merge as it is asked for: mergekit's YAML.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::method::Method;
use super::setting;
use crate::checkpoint::Dtype;
use crate::{Error, Result};

/// Parameters by name: a number, a list of numbers over the layers, or either behind a filter on the
/// tensor's name.
pub type Parameters = BTreeMap<String, Value>;

/// What mergekit reads, and two keys of ours: `seed` and `allow_non_finite`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub merge_method: Method,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    /// Layers of the result, first to last. Instead of `models`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Parameters::is_empty"
    )]
    pub parameters: Parameters,
    /// Type of the result, unless `out_dtype` says another; that of the inputs if neither does.
    #[serde(default, with = "torch_name", skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    #[serde(default, with = "torch_name", skip_serializing_if = "Option::is_none")]
    pub out_dtype: Option<Dtype>,
    /// `base`, `union` or a model: the short form of `tokenizer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Tokenizer>,
    /// `auto`, or the text of a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Of the random masks of DARE and DELLA.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seed: u64,
    /// Merge NaN and infinities instead of refusing them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_non_finite: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub model: String,
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Parameters::is_empty"
    )]
    pub parameters: Parameters,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    pub sources: Vec<SliceSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Parameters::is_empty"
    )]
    pub parameters: Parameters,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceSource {
    pub model: String,
    /// The first layer, and the one behind the last.
    pub layer_range: (usize, usize),
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Parameters::is_empty"
    )]
    pub parameters: Parameters,
}

/// The result's vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// `base`, `union` or a model.
    #[serde(default = "union")]
    pub source: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_to_multiple_of: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Where the embedding comes from in models that lack the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Embedding>,
    /// In all models, also those that have the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Embedding {
    /// The same token of this model.
    Model(String),
    Kind(EmbeddingKind),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EmbeddingKind {
    Zero,
    /// Another token of a model, by its text or number.
    ModelToken {
        model: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_id: Option<u32>,
    },
}

fn union() -> String {
    "union".into()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `parameters:` with nothing behind it.
fn or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Types under torch's names.
mod torch_name {
    use super::*;

    pub fn serialize<S: Serializer>(dtype: &Option<Dtype>, to: S) -> Result<S::Ok, S::Error> {
        dtype.map(Dtype::torch_name).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Dtype>, D::Error> {
        let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let known = || {
            let message = format!("no type `{name}`; there are float32, bfloat16, float16");
            serde::de::Error::custom(message)
        };
        Dtype::of_torch(&name).map(Some).ok_or_else(known)
    }
}

impl Recipe {
    /// Reads a recipe's YAML and checks what can be checked without its models.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let options = serde_saphyr::options! { with_snippet: false };
        let recipe: Self = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
            let message = e.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            let message = message.split(" at line ").next().unwrap_or(message);
            match e.location() {
                Some(location) => Error::usage(format!("line {}: {message}", location.line())),
                None => Error::usage(message),
            }
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks what can be checked without the models.
    pub fn check(&self) -> Result<()> {
        if self.models.is_empty() == self.slices.is_empty() {
            return Err(Error::usage("a recipe has either `models` or `slices`; give one of them"));
        }
        if self.tokenizer.is_some() && self.tokenizer_source.is_some() {
            return Err(Error::usage("tokenizer and tokenizer_source say the same; remove one"));
        }
        let check = |place: String, parameters: &Parameters| {
            parameters.iter().try_for_each(|(name, value)| {
                let known = self.method_parameter(name).map_err(|e| e.at(&place))?;
                setting::check(value, known.kind)
                    .map_err(|e| Error::usage(format!("{place}.{name}: {e}")))
            })
        };
        check("parameters".into(), &self.parameters)?;
        for (number, model) in self.models.iter().enumerate() {
            check(format!("models.{number}.parameters"), &model.parameters)?;
        }
        for (number, slice) in self.slices.iter().enumerate() {
            check(format!("slices.{number}.parameters"), &slice.parameters)?;
            if slice.sources.is_empty() {
                return Err(Error::usage(format!("slices.{number}: no sources")));
            }
            let mut length = None;
            for (place, source) in slice.sources.iter().enumerate() {
                let at = format!("slices.{number}.sources.{place}");
                check(format!("{at}.parameters"), &source.parameters)?;
                let (from, to) = source.layer_range;
                if from >= to {
                    return Err(Error::usage(format!(
                        "{at}.layer_range: [{from}, {to}] has no layer"
                    )));
                }
                if *length.get_or_insert(to - from) != to - from {
                    return Err(Error::usage(format!(
                        "{at}.layer_range: [{from}, {to}] has another number of layers than the \
                         slice's first source"
                    )));
                }
            }
        }
        Ok(())
    }

    fn method_parameter(&self, name: &str) -> Result<super::method::Parameter> {
        let known = self.merge_method.parameters();
        known.iter().find(|parameter| parameter.name == name).copied().ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
            let method = self.merge_method.name();
            Error::usage(match names[..] {
                [] => format!("unknown parameter `{name}`; method {method} has none"),
                _ => format!("unknown parameter `{name}`; {method} has {}", names.join(", ")),
            })
        })
    }

    /// Every model that it names, in order, once. The first is where the result's config and
    /// tokenizer come from, unless there is a base model.
    pub fn model_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let listed = self.models.iter().map(|model| &model.model);
        let sliced = self.slices.iter().flat_map(|slice| {
            slice.sources.iter().map(|source| &source.model).chain(&slice.base_model)
        });
        for name in listed.chain(sliced).chain(&self.base_model) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}
