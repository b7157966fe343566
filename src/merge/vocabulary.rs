//! Bringing vocabularies together: for each token of the result, where each model's row comes from.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::lanes::{Block, widen};
use super::plan::Models;
use super::recipe::{Embedding, EmbeddingKind, Recipe, Token};
use crate::checkpoint::{LazyTensor, Vocabulary};
use crate::{Error, Result};

/// Rows of each model by their tokens.
pub struct Alignment {
    /// Rows of the result.
    pub size: usize,
    /// The model whose tokenizer files the result has.
    pub donor: String,
    /// A `tokenizer.json` in place of the donor's.
    pub tokenizer: Option<Bytes>,
    /// By model: where each row comes from.
    rows: BTreeMap<String, Arc<Vec<Source>>>,
    /// Models in the order of `Source`'s numbers.
    order: Vec<String>,
}

/// Where a row comes from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Own(usize),
    /// A row of another model.
    Other(usize, usize),
    /// The mean of rows of several.
    Mean(Vec<(usize, usize)>),
    Zero,
    /// The mean of all rows that have a token.
    Padding,
}

/// The rows of one model's tensor in the result's order, as f32.
#[derive(Debug)]
pub struct Rows {
    sources: Arc<Vec<Source>>,
    /// The same tensor of each model.
    tensors: Vec<LazyTensor>,
    padding: OnceLock<Vec<f32>>,
}

struct Known {
    name: String,
    ids: BTreeMap<String, u32>,
    vocabulary: Vocabulary,
    size: usize,
}

impl Known {
    /// The row of a token; `None` where the model has none.
    fn row(&self, token: &str) -> Option<usize> {
        self.ids.get(token).map(|id| *id as usize).filter(|id| *id < self.size)
    }
}

impl Alignment {
    /// `None` where the recipe does not ask for a tokenizer.
    pub fn of(recipe: &Recipe, models: &Models) -> Result<Option<Self>> {
        let source = match (&recipe.tokenizer, &recipe.tokenizer_source) {
            (Some(tokenizer), _) => &tokenizer.source,
            (None, Some(source)) => source,
            (None, None) => return Ok(None),
        };
        let no_tokens = BTreeMap::new();
        let tokens = recipe.tokenizer.as_ref().map_or(&no_tokens, |tokenizer| &tokenizer.tokens);
        let pad = recipe.tokenizer.as_ref().and_then(|tokenizer| tokenizer.pad_to_multiple_of);
        let known = recipe
            .model_names()
            .into_iter()
            .map(|name| {
                let model =
                    models.get(name).ok_or_else(|| Error::usage(format!("no model `{name}`")))?;
                let at = |e: Error| e.at(format!("model `{name}`"));
                let vocabulary = Vocabulary::from_files(&model.files).map_err(at)?;
                let ids = vocabulary.ids();
                let size = model.config.get("vocab_size").and_then(Value::as_u64);
                let size = size.map_or(ids.len(), |size| size as usize);
                Ok(Known { name: name.into(), ids, vocabulary, size })
            })
            .collect::<Result<Vec<_>>>()?;
        let base = recipe.base_model.as_deref().unwrap_or(&known[0].name);
        let donor = if ["base", "union"].contains(&&source[..]) { base } else { source };
        let find = |name: &str| known.iter().position(|known| known.name == name);
        let Some(first) = find(donor) else {
            return Err(Error::usage(format!(
                "tokenizer source `{source}` is none of base, union and the recipe's models"
            )));
        };
        let mut vocabulary = known[first].vocabulary.clone();
        let before = known[first].ids.len();
        if source == "union" {
            for model in &known {
                vocabulary.extend(&model.vocabulary, model.size);
            }
        }
        tokens.keys().for_each(|token| vocabulary.add(token));
        let out = vocabulary.ids();
        let tokenizer = if out.len() == before { None } else { Some(vocabulary.to_bytes()?) };
        let end = out.values().max().map_or(0, |id| *id as usize + 1);
        let size = pad.filter(|pad| *pad > 0).map_or(end, |pad| end.next_multiple_of(pad));
        // Only a base that the recipe names lends its rows.
        let chosen = recipe.base_model.as_deref().and_then(find);
        let mut rows = vec![vec![Source::Padding; size]; known.len()];
        for (token, id) in &out {
            let token_rows = token_rows(token, tokens.get(token), &known, chosen)?;
            for (rows, source) in rows.iter_mut().zip(token_rows) {
                rows[*id as usize] = source;
            }
        }
        let order: Vec<String> = known.iter().map(|known| known.name.clone()).collect();
        let rows = order.iter().cloned().zip(rows.into_iter().map(Arc::new)).collect();
        let donor = donor.to_string();
        Ok(Some(Self { size, donor, tokenizer, rows, order }))
    }

    /// The rows of the tensor of `model`, given that of each model; None where they are as they were.
    pub fn rows(
        &self,
        model: &str,
        tensors: &BTreeMap<String, LazyTensor>,
    ) -> Result<Option<Rows>> {
        let (Some(sources), Some(own)) = (self.rows.get(model), tensors.get(model)) else {
            return Err(Error::defect(format!("no rows of model `{model}`")));
        };
        let mut same = sources.iter().enumerate();
        if own.shape.first() == Some(&sources.len())
            && same.all(|(row, source)| *source == Source::Own(row))
        {
            return Ok(None);
        }
        // A model whose tensor does not take part gives no rows either.
        let tensors = self.order.iter().map(|name| tensors.get(name).unwrap_or(own).clone());
        let (sources, tensors) = (sources.clone(), tensors.collect());
        Ok(Some(Rows { sources, tensors, padding: OnceLock::new() }))
    }
}

/// Where the row of `token` comes from in each model.
fn token_rows(
    token: &str,
    asked: Option<&Token>,
    known: &[Known],
    base: Option<usize>,
) -> Result<Vec<Source>> {
    let rows: Vec<Option<usize>> = known.iter().map(|model| model.row(token)).collect();
    let having: Vec<(usize, usize)> =
        rows.iter().enumerate().filter_map(|(model, row)| Some((model, (*row)?))).collect();
    let force = asked.is_some_and(|asked| asked.force);
    let instead = || -> Result<Source> {
        if let Some(asked) = asked {
            return asked_source(token, asked, known);
        }
        let of_base = base.and_then(|base| Some(Source::Other(base, rows[base]?)));
        Ok(match &having[..] {
            [] => Source::Zero,
            [(model, row)] => Source::Other(*model, *row),
            _ => of_base.unwrap_or_else(|| Source::Mean(having.clone())),
        })
    };
    let each = rows.iter().map(|row| match row {
        Some(row) if !force => Ok(Source::Own(*row)),
        _ => instead(),
    });
    each.collect()
}

/// What the recipe says of a token.
fn asked_source(token: &str, asked: &Token, known: &[Known]) -> Result<Source> {
    let at = format!("tokenizer.tokens: `{token}`");
    let find = |name: &str| {
        let found = known.iter().position(|model| model.name == name);
        found.ok_or_else(|| Error::usage(format!("{at}: no model `{name}` in the recipe")))
    };
    match &asked.source {
        None => Err(Error::usage(format!("{at}: not in every model; give its `source`"))),
        Some(Embedding::Kind(EmbeddingKind::Zero)) => Ok(Source::Zero),
        Some(Embedding::Model(name)) => {
            let model = find(name)?;
            let row = known[model].row(token);
            let row = row.ok_or_else(|| Error::usage(format!("{at}: model `{name}` lacks it")))?;
            Ok(Source::Other(model, row))
        }
        Some(Embedding::Kind(EmbeddingKind::ModelToken { model: name, token, token_id })) => {
            let model = find(name)?;
            let row = match (token, token_id) {
                (Some(token), None) => known[model].row(token),
                (None, Some(id)) => Some(*id as usize).filter(|id| *id < known[model].size),
                _ => return Err(Error::usage(format!("{at}: give `token` or `token_id`"))),
            };
            let row =
                row.ok_or_else(|| Error::usage(format!("{at}: model `{name}` has no such token")))?;
            Ok(Source::Other(model, row))
        }
    }
}

impl Rows {
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    fn columns(&self) -> usize {
        self.tensors.first().map_or(1, |tensor| tensor.shape[1..].iter().product())
    }

    /// Reads whole rows from number `first` of the tensor on into `buffer`, as f32. `own` is the
    /// model's own tensor.
    pub fn read(&self, own: &LazyTensor, buffer: &mut [u8], first: usize) -> Result<()> {
        let columns = self.columns();
        let mut numbers = vec![0.0; columns];
        for (at, out) in buffer.chunks_exact_mut(4 * columns).enumerate() {
            match self.sources.get(first / columns + at) {
                Some(Source::Padding) => numbers.copy_from_slice(self.padding(own)?),
                Some(source) => self.row(own, source, &mut numbers)?,
                None => return Err(Error::defect("a row behind the last")),
            }
            for (number, four) in numbers.iter().zip(out.chunks_exact_mut(4)) {
                four.copy_from_slice(&number.to_le_bytes());
            }
        }
        Ok(())
    }

    fn row(&self, own: &LazyTensor, source: &Source, out: &mut [f32]) -> Result<()> {
        match source {
            Source::Own(row) => read_row(own, *row, out),
            Source::Other(model, row) => read_row(&self.tensors[*model], *row, out),
            Source::Mean(rows) => {
                out.fill(0.0);
                let mut one = vec![0.0; out.len()];
                for (model, row) in rows {
                    read_row(&self.tensors[*model], *row, &mut one)?;
                    out.iter_mut().zip(&one).for_each(|(sum, number)| *sum += number);
                }
                out.iter_mut().for_each(|sum| *sum /= rows.len() as f32);
                Ok(())
            }
            Source::Zero | Source::Padding => {
                out.fill(0.0);
                Ok(())
            }
        }
    }

    /// The mean of all rows that have a token.
    fn padding(&self, own: &LazyTensor) -> Result<&[f32]> {
        if let Some(padding) = self.padding.get() {
            return Ok(padding);
        }
        let mut sums = vec![0f64; self.columns()];
        let mut row = vec![0.0; sums.len()];
        let mut count = 0;
        for source in self.sources.iter().filter(|source| **source != Source::Padding) {
            self.row(own, source, &mut row)?;
            sums.iter_mut().zip(&row).for_each(|(sum, number)| *sum += f64::from(*number));
            count += 1;
        }
        let mean = sums.into_iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect();
        Ok(self.padding.get_or_init(|| mean))
    }
}

fn read_row(tensor: &LazyTensor, row: usize, out: &mut [f32]) -> Result<()> {
    let mut bytes = vec![0; out.len() * tensor.dtype.size()];
    if row >= tensor.shape[0] {
        return Err(Error::data(format!("row {row} of {}", tensor.shape[0])));
    }
    tensor.read(&mut bytes, row * out.len())?;
    widen(Block { dtype: tensor.dtype, bytes: &bytes }, out);
    Ok(())
}
