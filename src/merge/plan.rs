//! What a merge will do, tensor by tensor, from the models' headers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::method::{Base, Method, Scope};
use super::operation::{Numbers, Operation};
use super::recipe::{Parameters, Recipe, Slice, SliceSource};
use super::setting;
use super::vocabulary::{Alignment, Rows};
use crate::checkpoint::{Dtype, LazyCheckpoint, LazyTensor, Outline};
use crate::{Error, Result};

/// The models of a recipe by the names that it gives them.
pub type Models = BTreeMap<String, LazyCheckpoint>;

/// A merge that can run.
pub struct Plan {
    pub recipe: Recipe,
    pub models: Models,
    /// In order of their names, as they lie in the files.
    pub tensors: Vec<Planned>,
    /// Every file of the result but the weights.
    pub files: BTreeMap<String, bytes::Bytes>,
    /// What may surprise, one line each.
    pub warnings: Vec<String>,
}

/// One tensor of the result.
pub struct Planned {
    pub outline: Outline,
    pub inputs: Vec<Input>,
    /// Which input is the base, for methods that know one.
    pub base: Option<usize>,
    pub operation: Operation,
}

/// A tensor that goes into another.
pub struct Input {
    pub model: String,
    /// Position of the model in the recipe: what names its random masks.
    pub number: usize,
    pub name: String,
    pub tensor: LazyTensor,
    /// Where its rows come from, if not from the tensor as it is.
    pub rows: Option<Arc<Rows>>,
}

/// A tensor's layer, and its name without the layer's number.
fn layer_of(name: &str) -> Option<(usize, String)> {
    let parts: Vec<&str> = name.split('.').collect();
    let (at, layer) =
        parts.iter().enumerate().find_map(|(at, part)| Some((at, part.parse().ok()?)))?;
    let mut parts = parts;
    parts[at] = "*";
    Some((layer, parts.join(".")))
}

/// How many layers a model has.
pub(super) fn layers(model: &LazyCheckpoint) -> usize {
    let layers = model.tensors.keys().filter_map(|name| layer_of(name)).map(|(layer, _)| layer + 1);
    layers.max().unwrap_or(0)
}

/// A config's key, or `None` for null.
fn get<'a>(model: &'a LazyCheckpoint, key: &str) -> Option<&'a Value> {
    model.config.get(key).filter(|value| !value.is_null())
}

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

fn is_tied(model: &LazyCheckpoint) -> bool {
    get(model, "tie_word_embeddings").is_some_and(|tied| *tied == true)
}

/// The larger of two types: where neither holds the other's numbers, f32.
fn promoted(a: Dtype, b: Dtype) -> Dtype {
    if a == b { a } else { Dtype::F32 }
}

impl Plan {
    /// Resolves `recipe` against its models. Nothing but headers has been read.
    ///
    /// # Errors
    /// [`Error::Usage`] for a recipe that these models do not fit, [`Error::Data`] for models that
    /// do not fit each other, by the tensor's name.
    pub fn new(recipe: Recipe, models: Models) -> Result<Self> {
        recipe.check()?;
        for name in recipe.model_names() {
            let Some(model) = models.get(name) else {
                return Err(Error::usage(format!("no model `{name}`")));
            };
            let (layers, tensors) = (layers(model), model.tensors.len());
            if layers > tensors {
                return Err(Error::data(format!(
                    "model `{name}`: {layers} layers by their numbers, in {tensors} tensors"
                )));
            }
        }
        let mut warnings = Vec::new();
        super::preflight::compare(&recipe, &models, &mut warnings)?;
        let alignment = Alignment::of(&recipe, &models)?;
        let slices = slices(&recipe, &models)?;
        let planner = Planner { recipe: &recipe, models: &models, alignment: alignment.as_ref() };
        let mut tensors = planner.plan(&slices)?;
        tensors.sort_by(|a, b| a.outline.name.cmp(&b.outline.name));
        let files = super::files::files(&recipe, &models, &slices, alignment, &tensors)?;
        Ok(Self { recipe, models, tensors, files, warnings })
    }

    pub fn outlines(&self) -> Vec<Outline> {
        self.tensors.iter().map(|tensor| tensor.outline.clone()).collect()
    }
}

/// The recipe's slices; `models` are one of all layers.
fn slices(recipe: &Recipe, models: &Models) -> Result<Vec<Slice>> {
    let whole = |name: &String, parameters: &Parameters| SliceSource {
        model: name.clone(),
        layer_range: (0, models.get(name).map_or(0, layers)),
        parameters: parameters.clone(),
    };
    if recipe.slices.is_empty() {
        let mut sources: Vec<_> =
            recipe.models.iter().map(|model| whole(&model.model, &model.parameters)).collect();
        if let Some(base) = &recipe.base_model
            && sources.iter().all(|source| source.model != *base)
        {
            sources.push(whole(base, &Parameters::new()));
        }
        for source in &sources[1..] {
            if source.layer_range != sources[0].layer_range {
                return Err(Error::data(format!(
                    "model `{}` has {} layers, `{}` has {}; `slices` say which go together",
                    sources[0].model, sources[0].layer_range.1, source.model, source.layer_range.1
                )));
            }
        }
        let parameters = Parameters::new();
        return Ok(vec![Slice { sources, base_model: None, parameters }]);
    }
    for (number, slice) in recipe.slices.iter().enumerate() {
        for source in &slice.sources {
            let has = models.get(&source.model).map_or(0, layers);
            if source.layer_range.1 > has {
                return Err(Error::usage(format!(
                    "slices.{number}: layers {} to {} of `{}`, which has {has}",
                    source.layer_range.0, source.layer_range.1, source.model
                )));
            }
        }
    }
    Ok(recipe.slices.clone())
}

/// Checks that the method takes these sources.
fn check_sources(method: Method, sources: &[SliceSource], base: Option<&str>) -> Result<()> {
    let name = method.name();
    let mut seen = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !seen.insert(&source.model)) {
        return Err(Error::usage(format!("model `{}` is a source twice", twice.model)));
    }
    let has_base = base.is_some_and(|base| sources.iter().any(|source| source.model == base));
    if method.base() == Base::Required && !has_base {
        return Err(Error::usage(match base {
            None => format!("method {name} needs a `base_model`"),
            Some(base) => format!("base model `{base}` is not among the sources"),
        }));
    }
    let apart = usize::from(method.base() == Base::Optional && has_base);
    let (least, most) = method.inputs();
    let count = sources.len() - apart;
    if !(least..=most).contains(&count) {
        let wanted = match (least, most) {
            (a, b) if a == b => format!("{a}"),
            (a, _) => format!("at least {a}"),
        };
        return Err(Error::usage(format!("method {name} takes {wanted} models, not {count}")));
    }
    Ok(())
}

struct Planner<'a> {
    recipe: &'a Recipe,
    models: &'a Models,
    alignment: Option<&'a Alignment>,
}

impl Planner<'_> {
    fn plan(&self, slices: &[Slice]) -> Result<Vec<Planned>> {
        let donor = self.donor()?;
        let (Some(first), Some(last)) = (slices.first(), slices.last()) else {
            return Err(Error::usage("no slices"));
        };
        for (number, slice) in slices.iter().enumerate() {
            self.check_slice(slice).map_err(|e| match self.recipe.slices.is_empty() {
                true => e,
                false => e.at(format!("slices.{number}")),
            })?;
        }
        let mut planned = Vec::new();
        for name in donor.tensors.keys().filter(|name| layer_of(name).is_none()) {
            if name == HEAD && is_tied(donor) {
                continue;
            }
            let before = ["embed", "wte", "wpe"].iter().any(|part| name.contains(part));
            let slice = if before { first } else { last };
            planned.push(self.tensor(
                name.clone(),
                vec![name.clone(); slice.sources.len()],
                slice,
                0.0,
            )?);
        }
        let mut out = 0;
        for slice in slices {
            let (from, to) = slice.sources[0].layer_range;
            for index in 0..to - from {
                // As mergekit: a single layer is the last.
                let t = if to - from > 1 { index as f64 / (to - from - 1) as f64 } else { 1.0 };
                for template in self.templates(slice, index)? {
                    let at = |layer: usize| template.replace('*', &layer.to_string());
                    let names = slice.sources.iter().map(|source| at(source.layer_range.0 + index));
                    planned.push(self.tensor(at(out), names.collect(), slice, t)?);
                }
                out += 1;
            }
        }
        Ok(planned)
    }

    /// Whose config, tokenizer and names the result has.
    fn donor(&self) -> Result<&LazyCheckpoint> {
        let name = self.recipe.base_model.as_deref();
        let name = name.or_else(|| self.recipe.model_names().first().copied());
        name.and_then(|name| self.models.get(name)).ok_or_else(|| Error::usage("no models"))
    }

    fn base<'s>(&'s self, slice: &'s Slice) -> Option<&'s str> {
        slice.base_model.as_deref().or(self.recipe.base_model.as_deref())
    }

    fn check_slice(&self, slice: &Slice) -> Result<()> {
        check_sources(self.recipe.merge_method, &slice.sources, self.base(slice))
    }

    /// The names of a layer's tensors, with `*` for its number: the same in all sources.
    fn templates(&self, slice: &Slice, index: usize) -> Result<BTreeSet<String>> {
        let mut all: Option<(BTreeSet<String>, &str)> = None;
        for source in &slice.sources {
            let layer = source.layer_range.0 + index;
            let names = self.models.get(&source.model).into_iter().flat_map(|m| m.tensors.keys());
            let found: BTreeSet<String> = names
                .filter_map(|name| layer_of(name))
                .filter(|(found, _)| *found == layer)
                .map(|(_, template)| template)
                .collect();
            let Some((before, of)) = &all else {
                all = Some((found, &source.model));
                continue;
            };
            if let Some(template) = before.symmetric_difference(&found).next() {
                let (has, lacks) = match found.contains(template) {
                    true => (&source.model[..], *of),
                    false => (*of, &source.model[..]),
                };
                return Err(Error::data(format!(
                    "tensor `{}` of `{has}` has no counterpart in `{lacks}`",
                    template.replace('*', &layer.to_string())
                )));
            }
        }
        Ok(all.map(|(names, _)| names).unwrap_or_default())
    }

    /// The tensor `name` of the result from those called `names` in the slice's sources.
    fn tensor(&self, name: String, names: Vec<String>, slice: &Slice, t: f64) -> Result<Planned> {
        let recipe = self.recipe;
        let base = self.base(slice).filter(|_| recipe.merge_method.base() != Base::Ignored);
        let known = recipe.model_names();
        let mut inputs = Vec::new();
        for (source, name) in slice.sources.iter().zip(names) {
            let model = self.models.get(&source.model);
            let find = |name: &str| model?.tensors.get(name);
            // A tied head is the embedding.
            let tensor = find(&name).or_else(|| if name == HEAD { find(EMBEDDING) } else { None });
            let Some(tensor) = tensor.cloned() else {
                return Err(Error::data(format!("model `{}` lacks tensor `{name}`", source.model)));
            };
            let number = known.iter().position(|name| *name == source.model).unwrap_or(0);
            inputs.push(Input { model: source.model.clone(), number, name, tensor, rows: None });
        }
        if let Some(alignment) = self.alignment
            && inputs[0].is_vocabulary(self.models)
        {
            let tensors = inputs.iter().map(|input| (input.model.clone(), input.tensor.clone()));
            let tensors: BTreeMap<String, LazyTensor> = tensors.collect();
            for input in &mut inputs {
                input.rows = alignment.rows(&input.model, &tensors)?.map(Arc::new);
            }
        }
        let shape = inputs[0].shape();
        if let Some(other) = inputs.iter().find(|input| input.shape() != shape) {
            let hint = match inputs[0].is_vocabulary(self.models) && self.alignment.is_none() {
                true => "; `tokenizer: {source: base}` brings vocabularies together",
                false => "",
            };
            return Err(Error::data(format!(
                "tensor `{name}`: shape {shape:?} in `{}`, {:?} in `{}`{hint}",
                inputs[0].model,
                other.shape(),
                other.model
            )));
        }
        let types = inputs.iter().map(|input| input.tensor.dtype);
        let dtype = recipe.out_dtype.or(recipe.dtype);
        let dtype = dtype.or_else(|| types.reduce(promoted)).unwrap_or_default();
        let base = base.and_then(|base| inputs.iter().position(|input| input.model == base));
        let numbers = self.numbers(&name, &inputs, base, slice, t)?;
        let method = recipe.merge_method;
        let operation = Operation::new(method, &numbers, &inputs, base, &shape)
            .map_err(|e| e.at(format!("tensor `{name}`")))?;
        Ok(Planned { outline: Outline { name, dtype, shape }, inputs, base, operation })
    }

    /// The values of all the method's parameters.
    fn numbers(
        &self,
        name: &str,
        inputs: &[Input],
        base: Option<usize>,
        slice: &Slice,
        t: f64,
    ) -> Result<Numbers> {
        let mut numbers = Numbers::default();
        for parameter in self.recipe.merge_method.parameters() {
            let value = |tensor: &str, model: Option<&str>| -> Result<Option<f64>> {
                let own = slice.sources.iter().filter(|source| Some(&source.model[..]) == model);
                let scopes = own.map(|source| &source.parameters);
                for scope in scopes.chain([&slice.parameters, &self.recipe.parameters]) {
                    let Some(setting) = scope.get(parameter.name) else { continue };
                    let found = setting::evaluate(setting, tensor, t, parameter.kind);
                    let found = found
                        .map_err(|e| Error::usage(format!("parameter {}: {e}", parameter.name)))?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                if parameter.required {
                    let of = model.map(|m| format!(" of model `{m}`")).unwrap_or_default();
                    let what = parameter.name;
                    return Err(Error::usage(format!(
                        "no value of parameter `{what}`{of} for tensor `{tensor}`"
                    )));
                }
                Ok(parameter.default)
            };
            if parameter.scope == Scope::Tensor {
                numbers.shared.insert(parameter.name, value(name, None)?);
                continue;
            }
            for (number, input) in inputs.iter().enumerate() {
                if parameter.scope == Scope::Model || base != Some(number) {
                    let found = value(&input.name, Some(&input.model))?;
                    numbers.each.insert((parameter.name, number), found);
                }
            }
        }
        Ok(numbers)
    }
}

/// Whether a tensor has a row for each token.
fn is_vocabulary(model: &LazyCheckpoint, name: &str, tensor: &LazyTensor) -> bool {
    let rows = get(model, "vocab_size").and_then(Value::as_u64);
    layer_of(name).is_none() && tensor.shape.len() == 2 && rows == Some(tensor.shape[0] as u64)
}

impl Input {
    /// Of what goes into the merge.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.tensor.shape.clone();
        if let Some(rows) = &self.rows {
            shape[0] = rows.len();
        }
        shape
    }

    fn is_vocabulary(&self, models: &Models) -> bool {
        models.get(&self.model).is_some_and(|m| is_vocabulary(m, &self.name, &self.tensor))
    }

    /// The type of the numbers that [`Self::read`] gives.
    pub fn dtype(&self) -> Dtype {
        if self.rows.is_some() { Dtype::F32 } else { self.tensor.dtype }
    }

    /// Reads the numbers from `first` on into `buffer`; whole rows where rows are mapped.
    pub fn read(&self, buffer: &mut [u8], first: usize) -> Result<()> {
        match &self.rows {
            None => self.tensor.read(buffer, first),
            Some(rows) => rows.read(&self.tensor, buffer, first),
        }
        .map_err(|e| e.at(format!("model `{}`: tensor `{}`", self.model, self.name)))
    }
}
