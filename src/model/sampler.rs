//! Sampling from a transformer: one batch, a preallocated key-value cache, draws named by request.

use tch::{Kind, Tensor};

use super::cache::Cache;
use super::transformer::{Transformer, to_host};
use crate::entropy::Stream;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: greedy.
    pub temperature: f64,
    pub max_new_tokens: usize,
    pub seed: u64,
    /// Draw from the fewest tokens that hold this much probability. 1: from all.
    pub top_p: f64,
}

/// One response to draw. `item` and `sample` name its randomness: the draws do not depend on what
/// else is in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    pub prompt: Vec<u32>,
    pub item: u64,
    pub sample: u32,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    End,
    /// It reached `max_new_tokens`, or the model's last position.
    Length,
}

/// A drawn response.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// With the end-of-text token, if it was drawn.
    pub tokens: Vec<u32>,
    /// Of each token under softmax(logits / temperature), before the cut of `top_p`, so that they
    /// compare with the trainer's. Greedy: at temperature 1.
    pub logprobs: Vec<f32>,
    pub stop: Stop,
}

/// Draws a response to each request; the slice is one batch. Consecutive requests with the same
/// prompt share its computation. Equal slices give bitwise equal responses on the CPU.
pub fn sample(
    model: &Transformer,
    eos: u32,
    requests: &[SampleRequest],
    sampling: &Sampling,
) -> Result<Vec<Sampled>> {
    check(model, requests, sampling)?;
    if requests.is_empty() || sampling.max_new_tokens == 0 {
        let empty = |_| Sampled { tokens: vec![], logprobs: vec![], stop: Stop::Length };
        return Ok(requests.iter().map(empty).collect());
    }
    let _guard = tch::no_grad_guard();
    run(model, eos, requests, sampling)
}

/// A row of the batch.
struct Row {
    /// Index of its request.
    request: usize,
    stream: Stream,
    /// Most tokens it may have.
    limit: usize,
    done: bool,
}

fn run(
    model: &Transformer,
    eos: u32,
    requests: &[SampleRequest],
    sampling: &Sampling,
) -> Result<Vec<Sampled>> {
    let positions = model.config.max_position_embeddings;
    let mut rows: Vec<Row> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| Row {
            request: index,
            stream: stream(sampling.seed, request),
            limit: sampling.max_new_tokens.min(positions - request.prompt.len()),
            done: false,
        })
        .collect();
    let longest = rows.iter().map(|row| row.limit).max().unwrap_or(0);
    let mut responses: Vec<Sampled> = rows
        .iter()
        .map(|row| Sampled {
            tokens: Vec::with_capacity(row.limit.min(1024)),
            logprobs: Vec::with_capacity(row.limit.min(1024)),
            stop: Stop::Length,
        })
        .collect();

    let (mut cache, mut hidden) = Cache::prefill(model, requests, longest)?; // hidden: (R, C)
    loop {
        let logits = model.logits(&hidden)?; // (R, V)
        let (mut ids, logprobs) = draw(&logits, &mut rows, sampling)?; // (R), (R)
        let drawn = Vec::<i64>::try_from(&ids).map_err(Error::from)?;
        for ((row, id), logprob) in rows.iter_mut().zip(drawn).zip(to_host(&logprobs)?) {
            if row.done {
                continue;
            }
            if !logprob.is_finite() {
                return Err(Error::data(
                    "the model's logits are not finite: its weights hold NaN or infinity",
                ));
            }
            let response = &mut responses[row.request];
            response.tokens.push(id as u32);
            response.logprobs.push(logprob);
            if id as u32 == eos {
                response.stop = Stop::End;
                row.done = true;
            } else if response.tokens.len() >= row.limit {
                row.done = true;
            }
        }
        let done = rows.iter().filter(|row| row.done).count();
        if done == rows.len() {
            return Ok(responses);
        }
        // Compacting copies the cache: worth it once a quarter of the rows is idle.
        if done * 4 >= rows.len() {
            let live: Vec<i64> =
                (0..rows.len()).filter(|&r| !rows[r].done).map(|r| r as i64).collect();
            let live = Tensor::f_from_slice(&live)?.f_to_device(model.device())?;
            cache.select(&live)?;
            ids = ids.f_index_select(0, &live)?;
            rows.retain(|row| !row.done);
        }
        hidden = cache.step(model, &ids)?;
    }
}

/// Draws one token for each row of `logits` (R, V) -> ids (R), i64, and log-probabilities (R).
fn draw(logits: &Tensor, rows: &mut [Row], sampling: &Sampling) -> Result<(Tensor, Tensor)> {
    if sampling.temperature == 0.0 {
        let logp = logits.f_log_softmax(-1, None)?;
        let (best, ids) = logp.f_max_dim(-1, false)?;
        return Ok((ids, best));
    }
    let logp = if sampling.temperature == 1.0 {
        logits.f_log_softmax(-1, None)?
    } else {
        logits.f_div_scalar(sampling.temperature)?.f_log_softmax(-1, None)?
    };
    let uniforms: Vec<f64> =
        rows.iter_mut().map(|row| if row.done { 0.0 } else { row.stream.uniform() }).collect();
    let uniforms = Tensor::f_from_slice(&uniforms)?.f_to_device(logits.device())?.f_unsqueeze(1)?; // (R, 1)
    let ids = if sampling.top_p < 1.0 {
        let (sorted, order) = logp.f_exp()?.f_sort(-1, true)?;
        let before = sorted.f_cumsum(-1, Kind::Double)?.f_sub(&sorted)?;
        let kept = sorted.f_mul(&before.f_lt(sampling.top_p)?.f_to_kind(Kind::Float)?)?;
        order.f_gather(-1, &invert(&kept, &uniforms)?, false)?
    } else {
        invert(&logp.f_exp()?, &uniforms)?
    };
    let logprobs = logp.f_gather(-1, &ids, false)?.f_squeeze_dim(-1)?;
    Ok((ids.f_squeeze_dim(-1)?, logprobs))
}

/// The inverse of the cumulative distribution of `weights` (R, V), not normalised, at `uniforms`
/// (R, 1) -> (R, 1): the first index whose cumulative sum is above. Sums in f64: with f32 the last
/// of 150,000 entries would be rounded away.
fn invert(weights: &Tensor, uniforms: &Tensor) -> Result<Tensor> {
    let last = weights.size2()?.1 - 1;
    let sums = weights.f_cumsum(-1, Kind::Double)?;
    let targets = uniforms.f_mul(&sums.f_narrow(-1, last, 1)?)?;
    let found = targets.f_searchsorted(&sums, false, true, "right", None::<&Tensor>)?;
    Ok(found.f_clamp_max(last)?)
}

/// The stream that a request's tokens are drawn from, one number a token.
fn stream(seed: u64, request: &SampleRequest) -> Stream {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&request.item.to_le_bytes());
    hasher.update(&request.sample.to_le_bytes());
    let mut index = [0; 8];
    index.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Stream::new(seed, "sample", u64::from_le_bytes(index))
}

fn check(model: &Transformer, requests: &[SampleRequest], sampling: &Sampling) -> Result<()> {
    if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
        return Err(Error::usage(format!("temperature {} is below 0", sampling.temperature)));
    }
    if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        return Err(Error::usage(format!("top_p {} is not in (0, 1]", sampling.top_p)));
    }
    let (rows, limit) = (model.config.vocab_size, model.config.max_position_embeddings);
    for SampleRequest { prompt, item, .. } in requests {
        if prompt.is_empty() {
            return Err(Error::data(format!("item {item}: the prompt has no tokens")));
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= rows) {
            return Err(Error::data(format!(
                "item {item}: token id {id} in the prompt; the model has {rows}"
            )));
        }
        if prompt.len() >= limit {
            return Err(Error::data(format!(
                "item {item}: prompt of {} tokens; the model's max_position_embeddings is {limit}",
                prompt.len()
            )));
        }
    }
    Ok(())
}
