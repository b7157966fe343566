//! The result's files besides the weights.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::plan::{Models, Planned, layers};
use super::recipe::{Recipe, Slice};
use super::vocabulary::Alignment;
use crate::checkpoint::{
    CHAT_TEMPLATE, CONFIG, LazyCheckpoint, TOKENIZER, TOKENIZER_SETTINGS, config_json,
};
use crate::{Error, Result};

/// Keys of a config that name tokens.
const TOKEN_KEYS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

fn model<'a>(models: &'a Models, name: &str) -> Result<&'a LazyCheckpoint> {
    models.get(name).ok_or_else(|| Error::usage(format!("no model `{name}`")))
}

/// The files of the base model, or else the first, with what the merge changes in them.
pub(super) fn files(
    recipe: &Recipe,
    models: &Models,
    slices: &[Slice],
    alignment: Option<Alignment>,
    tensors: &[Planned],
) -> Result<BTreeMap<String, Bytes>> {
    let names = recipe.model_names();
    let donor = recipe.base_model.as_deref().or(names.first().copied()).unwrap_or_default();
    let shape = model(models, donor)?;
    let mut config = shape.config.clone();
    cut_layers(&mut config, models, slices)?;
    let mut files = shape.files.clone();
    if let Some(alignment) = alignment {
        config.insert("vocab_size".into(), alignment.size.into());
        if alignment.donor != donor {
            let of = model(models, &alignment.donor)?;
            files = of.files.clone();
            for key in TOKEN_KEYS {
                match of.config.get(key) {
                    Some(value) => config.insert(key.into(), value.clone()),
                    None => config.remove(key),
                };
            }
        }
        if let Some(tokenizer) = alignment.tokenizer {
            files.insert(TOKENIZER.into(), tokenizer);
        }
    }
    if let Some(template) = &recipe.chat_template {
        set_template(&mut files, template, recipe, models)?;
    }
    let dtype = tensors.first().map(|tensor| tensor.outline.dtype).unwrap_or_default();
    files.insert(CONFIG.into(), config_json(&config, dtype)?.into());
    Ok(files)
}

/// Counts the layers of the result, and takes what a config says of each along.
fn cut_layers(config: &mut Map<String, Value>, models: &Models, slices: &[Slice]) -> Result<()> {
    let mut types = Vec::new();
    let mut count = 0;
    for slice in slices {
        let source = &slice.sources[0];
        let (from, to) = source.layer_range;
        count += to - from;
        let of = model(models, &source.model)?;
        if let Some(all) = of.config.get("layer_types").and_then(Value::as_array)
            && all.len() == layers(of)
        {
            types.extend_from_slice(&all[from..to]);
        }
    }
    for key in ["num_hidden_layers", "n_layer", "num_layers"] {
        if config.contains_key(key) {
            config.insert(key.into(), count.into());
        }
    }
    if config.get("layer_types").is_some_and(Value::is_array) && types.len() == count {
        config.insert("layer_types".into(), types.into());
    }
    Ok(())
}

/// The chat template of a folder, from its own file or the tokenizer's settings.
fn template_of(files: &BTreeMap<String, Bytes>) -> Option<String> {
    if let Some(file) = files.get(CHAT_TEMPLATE) {
        return String::from_utf8(file.to_vec()).ok();
    }
    let settings: Value = serde_json::from_slice(files.get(TOKENIZER_SETTINGS)?).ok()?;
    settings["chat_template"].as_str().map(Into::into)
}

/// `auto` takes the template that most models have, the first of several.
fn set_template(
    files: &mut BTreeMap<String, Bytes>,
    template: &str,
    recipe: &Recipe,
    models: &Models,
) -> Result<()> {
    let text = if template == "auto" {
        let found: Vec<String> = recipe
            .model_names()
            .iter()
            .filter_map(|name| template_of(&models.get(*name)?.files))
            .collect();
        let votes =
            |text: &String| found.iter().filter(|other| other.trim() == text.trim()).count();
        let most = found.iter().map(votes).max().unwrap_or(0);
        let Some(text) = found.iter().find(|text| votes(text) == most) else { return Ok(()) };
        text.clone()
    } else if template.contains('{') {
        template.to_string()
    } else {
        return Err(Error::usage(format!(
            "chat_template `{template}` is neither `auto` nor a template's text"
        )));
    };
    files.insert(CHAT_TEMPLATE.into(), text.into());
    if let Some(settings) = files.get_mut(TOKENIZER_SETTINGS) {
        let mut keys: Map<String, Value> = serde_json::from_slice(settings)
            .map_err(|e| Error::data(format!("{TOKENIZER_SETTINGS}: {e}")))?;
        if keys.remove("chat_template").is_some() {
            let mut bytes = serde_json::to_vec_pretty(&keys).map_err(Error::defect)?;
            bytes.push(b'\n');
            *settings = bytes.into();
        }
    }
    Ok(())
}
