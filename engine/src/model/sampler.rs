//! Sampling from a transformer: rows enter and leave a batch whose cache fits a memory budget, and
//! draws are named by request.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use tch::{Kind, Tensor};

use super::cache::{Cache, Prompt, Size};
use super::draw::{Drawn, draw, draw_there, read};
use super::gpu::{Download, upload};
use super::transformer::Transformer;
use crate::{Error, Result};
use triad::entropy::Stream;

/// Bound of the memory for the logits of rows that are drawn together, in numbers.
const LOGITS: usize = 1 << 23;

/// How tokens are drawn. The cuts apply after the temperature, in the order top-k, top-p, min-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: greedy.
    pub temperature: f64,
    pub max_new_tokens: usize,
    pub seed: u64,
    /// Draw from so many of the likeliest tokens. 0: from all.
    pub top_k: usize,
    /// Draw from the fewest tokens that hold this much probability. 1: from all.
    pub top_p: f64,
    /// Draw from tokens that have this share of the likeliest one's probability. 0: from all.
    pub min_p: f64,
    /// Most memory for keys and values, in bytes. Requests wait until theirs fit.
    pub cache_bytes: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            max_new_tokens: 256,
            seed: 0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            cache_bytes: 2 << 30,
        }
    }
}

impl Sampling {
    /// Whether some tokens cannot be drawn.
    pub(super) fn cuts(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }
}

/// What ends a response.
#[derive(Clone, Copy)]
pub struct Stops<'a> {
    pub ids: &'a [u32],
    /// Texts, with the tokenizer's way from tokens to text.
    pub texts: &'a [String],
    pub decode: &'a dyn Fn(&[u32]) -> Result<String>,
}

impl<'a> Stops<'a> {
    pub fn at(ids: &'a [u32]) -> Self {
        Self { ids, texts: &[], decode: &|_| Ok(String::new()) }
    }

    /// Whether the last of `tokens` completes a stop text. Only so many of the last tokens are
    /// decoded as the longest text has bytes, and a few for a character that they cut: a token adds
    /// at least a byte, unless it is a control token, which decoding leaves out.
    fn end_of_text(&self, tokens: &[u32]) -> Result<bool> {
        let Some(longest) = self.texts.iter().map(String::len).max() else { return Ok(false) };
        let text = (self.decode)(&tokens[tokens.len().saturating_sub(longest + 8)..])?;
        Ok(self.texts.iter().any(|stop| text.contains(stop.as_str())))
    }
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
    /// The model ended it, by one of the stop ids.
    End,
    /// It holds a stop text.
    Text,
    /// It reached `max_new_tokens`, or the model's last position.
    Length,
}

/// A drawn response.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// With the stop id, or the token that completed a stop text.
    pub tokens: Vec<u32>,
    /// Of each token under the distribution it was drawn from: softmax(logits / temperature) after
    /// the cuts. Without cuts that is what the trainer computes. Greedy: 0.
    pub logprobs: Vec<f32>,
    /// Of each token under the model, softmax(logits).
    pub model_logprobs: Vec<f32>,
    pub stop: Stop,
}

const EMPTY: Sampled =
    Sampled { tokens: vec![], logprobs: vec![], model_logprobs: vec![], stop: Stop::Length };

/// Draws a response to each request, in the order of the requests. Consecutive requests with the
/// same prompt share its computation. Equal slices give bitwise equal responses on the CPU.
pub fn sample(
    model: &Transformer,
    stops: &Stops,
    requests: &[SampleRequest],
    sampling: &Sampling,
) -> Result<Vec<Sampled>> {
    check(model, stops, requests, sampling)?;
    if requests.is_empty() || sampling.max_new_tokens == 0 {
        return Ok(vec![EMPTY; requests.len()]);
    }
    let _guard = tch::no_grad_guard();
    let mut batch = Batch::new(model, requests, sampling, model.device().is_cuda())?;
    while batch.step(stops)? {}
    Ok(batch.responses)
}

/// Whether `cache_bytes` has room for a response to each of some prompts of so many tokens, one at a
/// time. With less, [`sample`] fails as soon as it meets the longest.
///
/// # Errors
/// `Usage` names the least that would do.
pub fn check_cache(model: &Transformer, prompts: &[usize], sampling: &Sampling) -> Result<()> {
    let (longest, limit) = bounds(model, prompts.iter().copied(), sampling);
    let on_device = model.device().is_cuda();
    Size::new(model, &[(longest, false)], limit, sampling.cache_bytes, on_device).map(drop)
}

/// The most tokens of a prompt, and of a response to one.
fn bounds(
    model: &Transformer,
    prompts: impl Iterator<Item = usize>,
    sampling: &Sampling,
) -> (usize, usize) {
    let last = model.config.max_position_embeddings;
    prompts.fold((0, 0), |(longest, limit), length| {
        let room = sampling.max_new_tokens.min(last.saturating_sub(length));
        (longest.max(length), limit.max(room))
    })
}

/// Requests on their way.
struct Batch<'a> {
    model: &'a Transformer,
    requests: &'a [SampleRequest],
    sampling: &'a Sampling,
    cache: Cache,
    /// Those that wait, longest prompt first.
    waiting: VecDeque<usize>,
    /// The prompt of the last request that entered.
    latest: Option<(usize, Rc<Prompt>)>,
    /// The rows of the cache.
    rows: Vec<Row>,
    /// (R), i64, on the model's device: each row's last token, which is still to go through it.
    ids: Option<Tensor>,
    /// Draws whose numbers have not been looked at: on a GPU they arrive while it computes the next
    /// step. A row that they end has then gone one token too far, which counts for nothing.
    drawn: VecDeque<(Vec<Drawing>, Numbers)>,
    /// Whether tokens are drawn where the logits are, and looked at one step later.
    on_device: bool,
    responses: Vec<Sampled>,
    /// Of each request: whether its response has ended.
    ended: Vec<bool>,
}

/// A row of the batch.
struct Row {
    /// Index of its request.
    request: usize,
    stream: Stream,
    /// How many tokens it may still have.
    left: usize,
}

/// A token of a response that was drawn.
struct Drawing {
    request: usize,
    /// Whether it is the last that the response may have.
    last: bool,
}

enum Numbers {
    Here(Vec<Drawn>),
    Coming(Download),
}

impl<'a> Batch<'a> {
    fn new(
        model: &'a Transformer,
        requests: &'a [SampleRequest],
        sampling: &'a Sampling,
        on_device: bool,
    ) -> Result<Self> {
        let mut waiting: Vec<usize> = (0..requests.len()).collect();
        waiting.sort_by_key(|&r| std::cmp::Reverse(requests[r].prompt.len()));
        let shares =
            |i: usize| i > 0 && requests[waiting[i]].prompt == requests[waiting[i - 1]].prompt;
        let lengths: Vec<(usize, bool)> = waiting
            .iter()
            .enumerate()
            .map(|(i, &r)| (requests[r].prompt.len(), shares(i)))
            .collect();
        let (longest, limit) = bounds(model, lengths.iter().map(|&(length, _)| length), sampling);
        let size = Size::new(model, &lengths, limit, sampling.cache_bytes, on_device)?;
        let last = model.config.max_position_embeddings;
        let cache = Cache::new(model, size, (longest + limit).min(last))?;
        Ok(Self {
            model,
            requests,
            sampling,
            cache,
            waiting: waiting.into(),
            latest: None,
            rows: Vec::new(),
            ids: None,
            drawn: VecDeque::new(),
            on_device,
            responses: vec![EMPTY; requests.len()],
            ended: vec![false; requests.len()],
        })
    }

    /// Draws a token for each row and for each request that finds room. False: all is done.
    fn step(&mut self, stops: &Stops) -> Result<bool> {
        self.leave()?;
        let mut hidden = Vec::new(); // (R, C) in parts
        if let Some(ids) = self.ids.take().filter(|_| !self.rows.is_empty()) {
            hidden.push(self.cache.step(self.model, &ids)?);
        }
        hidden.extend(self.admit()?.iter().map(|prompt| prompt.last.shallow_clone()));
        let going = !hidden.is_empty();
        if going {
            self.draw(&Tensor::f_cat(&hidden, 0)?)?;
        }
        let ahead = usize::from(self.on_device && going);
        while self.drawn.len() > ahead {
            self.look(stops)?;
        }
        Ok(going)
    }

    /// Rows that have ended make room.
    fn leave(&mut self) -> Result<()> {
        let mut order: Vec<i64> = (0..self.rows.len() as i64).collect();
        for r in (0..self.rows.len()).rev() {
            if self.rows[r].left == 0 || self.ended[self.rows[r].request] {
                self.cache.swap_remove(r)?;
                self.rows.swap_remove(r);
                order.swap_remove(r);
            }
        }
        if let Some(ids) = self.ids.take_if(|ids| ids.size() != [order.len() as i64]) {
            let order = upload(Tensor::f_from_slice(&order)?, ids.device())?;
            self.ids = Some(ids.f_index_select(0, &order)?);
        }
        Ok(())
    }

    /// Lets requests enter that fit. Gives the prompt of each new row.
    fn admit(&mut self) -> Result<Vec<Rc<Prompt>>> {
        // A prompt alone keeps the machine less busy than several: wait for room for some.
        let free = self.cache.free_rows();
        let few = free * 8 < free + self.rows.len();
        if self.waiting.is_empty() || few && !self.rows.is_empty() {
            return Ok(vec![]);
        }
        let requests = self.requests;
        let same = |a: usize, b: usize| requests[a].prompt == requests[b].prompt;
        // The waiting siblings of the last row have its prompt; nobody else needs it.
        if !matches!((&self.latest, self.waiting.front()), (Some((l, _)), Some(&w)) if same(*l, w))
        {
            self.latest = None;
        }
        let mut chosen: Vec<usize> = Vec::new();
        let mut prompts: Vec<&[u32]> = Vec::new();
        let mut tokens = 0;
        while let Some(&next) = self.waiting.front().filter(|_| chosen.len() < free) {
            let before = chosen.last().copied().or(self.latest.as_ref().map(|(r, _)| *r));
            if !before.is_some_and(|before| same(before, next)) {
                tokens += requests[next].prompt.len();
                if !self.cache.fits(tokens) {
                    break;
                }
                prompts.push(&requests[next].prompt);
            }
            chosen.push(next);
            self.waiting.pop_front();
        }
        if chosen.is_empty() && self.rows.is_empty() {
            return Err(Error::defect("no request fits the cache that was sized for them"));
        }
        let mut ready = self.cache.prefill(self.model, &prompts)?.into_iter();
        let mut entered = Vec::with_capacity(chosen.len());
        let last = self.model.config.max_position_embeddings;
        for request in chosen {
            let prompt = match &self.latest {
                Some((before, prompt)) if same(*before, request) => prompt.clone(),
                _ => ready.next().ok_or_else(|| Error::defect("a prompt was not computed"))?,
            };
            self.cache.push(&prompt)?;
            self.rows.push(Row {
                request,
                stream: stream(self.sampling.seed, &requests[request]),
                left: self.sampling.max_new_tokens.min(last - requests[request].prompt.len()),
            });
            self.latest = Some((request, prompt.clone()));
            entered.push(prompt);
        }
        Ok(entered)
    }

    /// Draws a token for each row from its final hidden state (R, C).
    fn draw(&mut self, hidden: &Tensor) -> Result<()> {
        let bound = if self.model.device().is_cuda() { 4 * LOGITS } else { LOGITS };
        let together = (bound / self.model.config.vocab_size).max(16);
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for (part, rows) in self.rows.chunks_mut(together).enumerate() {
            let hidden = hidden.f_narrow(0, (part * together) as i64, rows.len() as i64)?;
            let head = self.model.head.as_ref().unwrap_or(&self.model.embedding);
            let logits = self.cache.product().linear(&hidden, head, None)?; // (R, V)
            let uniforms: Vec<f64> = rows.iter_mut().map(|row| row.stream.uniform()).collect();
            match self.on_device {
                true => there.push(draw_there(&logits, &uniforms, self.sampling)?),
                false => here.extend(draw(&logits, &uniforms, self.sampling)?),
            }
        }
        let (ids, numbers) = if self.on_device {
            let there = Tensor::f_cat(&there, 0)?;
            (
                there.f_select(1, 0)?.f_to_kind(Kind::Int64)?,
                Numbers::Coming(Download::start(&there)?),
            )
        } else {
            let ids: Vec<i64> = here.iter().map(|drawn| i64::from(drawn.id)).collect();
            (Tensor::f_from_slice(&ids)?, Numbers::Here(here))
        };
        self.ids = Some(ids);
        let drawing = |row: &mut Row| {
            row.left -= 1;
            Drawing { request: row.request, last: row.left == 0 }
        };
        self.drawn.push_back((self.rows.iter_mut().map(drawing).collect(), numbers));
        Ok(())
    }

    /// Adds the oldest of the drawn tokens to their responses, which may end them.
    fn look(&mut self, stops: &Stops) -> Result<()> {
        let Some((drawings, numbers)) = self.drawn.pop_front() else { return Ok(()) };
        let drawn = match numbers {
            Numbers::Here(drawn) => drawn,
            Numbers::Coming(download) => read(download.wait()?)?,
        };
        for (Drawing { request, last }, drawn) in drawings.into_iter().zip(drawn) {
            if self.ended[request] {
                continue;
            }
            if !drawn.model_logprob.is_finite() {
                return Err(Error::data(
                    "the model's logits are not finite: its weights hold NaN or infinity",
                ));
            }
            let response = &mut self.responses[request];
            response.tokens.push(drawn.id);
            response.logprobs.push(drawn.logprob);
            response.model_logprobs.push(drawn.model_logprob);
            response.stop = if stops.ids.contains(&drawn.id) {
                Stop::End
            } else if stops.end_of_text(&response.tokens)? {
                Stop::Text
            } else if last {
                Stop::Length
            } else {
                continue;
            };
            self.ended[request] = true;
        }
        Ok(())
    }
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

fn check(
    model: &Transformer,
    stops: &Stops,
    requests: &[SampleRequest],
    sampling: &Sampling,
) -> Result<()> {
    if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
        return Err(Error::usage(format!("temperature {} is below 0", sampling.temperature)));
    }
    if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        return Err(Error::usage(format!("top_p {} is not in (0, 1]", sampling.top_p)));
    }
    if !(0.0..=1.0).contains(&sampling.min_p) {
        return Err(Error::usage(format!("min_p {} is not in [0, 1]", sampling.min_p)));
    }
    if stops.texts.iter().any(String::is_empty) {
        return Err(Error::usage("a stop text is empty: every response would end at once"));
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
