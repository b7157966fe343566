//! Numerics against the reference libraries; `tests/fixtures/model/make.py` remakes the fixtures.

mod numerics;
mod smollm2;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::loss::*;
use super::transformer::to_host;
use super::*;
use crate::Error;
use crate::checkpoint::{Dtype, HostTensor, ModelConfig, Weights, decode_safetensors};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model").join(name);
    std::fs::read(path).unwrap()
}

fn tensors(name: &str) -> Weights {
    decode_safetensors(fixture(name).into()).unwrap()
}

fn put(tensor: &HostTensor) -> Tensor {
    let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(&tensor.to_f32()).reshape(shape)
}

fn floats(value: &Value) -> Tensor {
    let row = |v: &Value| -> Vec<f32> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    if value[0].is_array() {
        let rows: Vec<Tensor> =
            value.as_array().unwrap().iter().map(|v| Tensor::from_slice(&row(v))).collect();
        Tensor::stack(&rows, 0)
    } else {
        Tensor::from_slice(&row(value))
    }
}

fn ids(value: &Value) -> Tensor {
    floats(value).to_kind(Kind::Int64)
}

/// Largest difference relative to the largest value.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).double_value(&[])
}

fn reference_model() -> Transformer {
    let config = ModelConfig::from_json(&fixture("qwen2/config.json")).unwrap();
    let weights = tensors("qwen2/model.safetensors");
    Transformer::load(&config, &weights, Device::Cpu, Precision::F32, true).unwrap()
}

#[test]
fn right_padding_changes_nothing_before_it() {
    let model = reference_model();
    let short = Tensor::from_slice(&[5i64, 9, 2, 31]).view([1, 4]);
    let padded = Tensor::from_slice(&[5i64, 9, 2, 31, 0, 0, 7]).view([1, 7]);
    let (a, b) = (model.hidden(&short).unwrap(), model.hidden(&padded).unwrap().narrow(1, 0, 4));
    assert!(distance(&a, &b) < 1e-5);
}

fn requests(lengths: &[usize], samples: u32) -> Vec<SampleRequest> {
    let mut all = Vec::new();
    for (item, &length) in lengths.iter().enumerate() {
        let prompt: Vec<u32> = (0..length).map(|t| ((t * 7 + item * 5 + 1) % 48) as u32).collect();
        for sample in 0..samples {
            all.push(SampleRequest { prompt: prompt.clone(), item: item as u64, sample });
        }
    }
    all
}

const SAMPLING: Sampling = Sampling { temperature: 0.8, max_new_tokens: 20, seed: 4, top_p: 1.0 };

/// The uncached logits before each response token, (T, V).
fn full_logits(model: &Transformer, request: &SampleRequest, response: &Sampled) -> Tensor {
    let all: Vec<i64> =
        request.prompt.iter().chain(&response.tokens).map(|&id| i64::from(id)).collect();
    let hidden = model.hidden(&Tensor::from_slice(&all).unsqueeze(0)).unwrap().squeeze_dim(0);
    let start = request.prompt.len() as i64 - 1;
    model.logits(&hidden.narrow(0, start, response.tokens.len() as i64)).unwrap()
}

fn check_logprobs(lengths: &[usize], temperature: f64) -> BTreeSet<bool> {
    let model = reference_model();
    let requests = requests(lengths, 5);
    let sampling = Sampling { temperature, ..SAMPLING };
    let mut ended = BTreeSet::new();
    for (request, response) in requests.iter().zip(sample(&model, 3, &requests, &sampling).unwrap())
    {
        let logits = full_logits(&model, request, &response);
        let tokens: Vec<i64> = response.tokens.iter().map(|&id| i64::from(id)).collect();
        let at = if temperature == 0.0 { 1.0 } else { temperature };
        let expected = token_logprobs(&logits, &Tensor::from_slice(&tokens), at).unwrap();
        let far = (expected - Tensor::from_slice(&response.logprobs)).abs().max();
        assert!(far.double_value(&[]) < 1e-4, "{far:?}");
        if temperature == 0.0 {
            assert_eq!(Vec::<i64>::try_from(logits.argmax(-1, false)).unwrap(), tokens);
        }
        let last_is_eos = response.tokens.last() == Some(&3);
        assert_eq!(response.stop == Stop::End, last_is_eos);
        assert!(last_is_eos || response.tokens.len() == 20);
        assert!(!response.tokens[..response.tokens.len() - 1].contains(&3));
        ended.insert(last_is_eos);
    }
    ended
}

#[test]
fn the_cache_agrees_with_the_whole_sequence() {
    // Both ways to stop occur, so rows left the batch while others went on.
    assert_eq!(check_logprobs(&[9, 9, 9, 9], 0.8).len(), 2);
    assert_eq!(check_logprobs(&[3, 9, 1, 6, 9], 1.3).len(), 2);
}

#[test]
fn greedy_takes_the_likeliest_token() {
    check_logprobs(&[9, 9], 0.0);
    check_logprobs(&[4, 9, 2], 0.0);
}

#[test]
fn a_response_does_not_depend_on_its_neighbours() {
    let model = reference_model();
    let batch = requests(&[3, 9, 1, 6], 4);
    let together = sample(&model, 3, &batch, &SAMPLING).unwrap();
    assert_eq!(together, sample(&model, 3, &batch, &SAMPLING).unwrap());
    for (request, expected) in batch.iter().zip(&together) {
        let alone = sample(&model, 3, std::slice::from_ref(request), &SAMPLING).unwrap();
        assert_eq!(alone[0].tokens, expected.tokens);
    }
    let distinct: BTreeSet<&[u32]> = together.iter().map(|r| r.tokens.as_slice()).collect();
    assert_eq!(distinct.len(), together.len(), "samples of one prompt must differ");
    let reseeded = sample(&model, 3, &batch, &Sampling { seed: 5, ..SAMPLING }).unwrap();
    assert_ne!(together, reseeded);
}

#[test]
fn draws_follow_the_distribution_and_top_p_cuts_its_tail() {
    let model = reference_model();
    let prompt = vec![1, 2, 3];
    let batch: Vec<SampleRequest> =
        (0..4000).map(|sample| SampleRequest { prompt: prompt.clone(), item: 0, sample }).collect();
    let hidden = model.hidden(&Tensor::from_slice(&[1i64, 2, 3]).unsqueeze(0)).unwrap();
    let logits = model.logits(&hidden.select(1, 2)).unwrap().squeeze_dim(0);
    let expected = to_host(&(logits / 3.0).softmax(-1, None)).unwrap();
    let sampling = Sampling { temperature: 3.0, max_new_tokens: 1, seed: 1, top_p: 1.0 };
    let frequencies = |top_p| {
        let mut counts = vec![0f32; 48];
        for response in sample(&model, 3, &batch, &Sampling { top_p, ..sampling }).unwrap() {
            counts[response.tokens[0] as usize] += 1.0 / 4000.0;
        }
        counts
    };
    for (drawn, expected) in frequencies(1.0).iter().zip(&expected) {
        assert!((drawn - expected).abs() < 4.0 * (expected / 4000.0).sqrt() + 1e-3);
    }
    let mut sorted: Vec<f32> = expected.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut mass = 0.0;
    let least = sorted
        .iter()
        .find(|p| {
            mass += **p;
            mass >= 0.5
        })
        .unwrap();
    for (drawn, p) in frequencies(0.5).iter().zip(&expected) {
        assert_eq!(*drawn > 0.0, p >= least, "{drawn} {p} {least}");
    }
}

#[test]
fn responses_end_at_the_models_last_position() {
    let model = reference_model();
    let long = Sampling { max_new_tokens: 1000, temperature: 1.0, ..SAMPLING };
    let response = sample(&model, 999, &requests(&[60, 50], 1), &long).unwrap();
    assert_eq!(response[0].tokens.len(), 4);
    assert_eq!(response[1].tokens.len(), 14);
    assert_eq!(response[0].stop, Stop::Length);
}

#[test]
fn bad_prompts_are_named() {
    let model = reference_model();
    let ask = |prompt: Vec<u32>| {
        let request = SampleRequest { prompt, item: 12, sample: 0 };
        sample(&model, 3, &[request], &SAMPLING).unwrap_err().to_string()
    };
    assert_eq!(ask(vec![]), "item 12: the prompt has no tokens");
    assert_eq!(ask(vec![1, 48]), "item 12: token id 48 in the prompt; the model has 48");
    assert!(ask(vec![1; 64]).contains("max_position_embeddings is 64"));
    let long = model.hidden(&Tensor::zeros([1, 65], (Kind::Int64, Device::Cpu))).unwrap_err();
    assert!(matches!(long, Error::Data(_)));
}

#[test]
fn losses_are_those_of_the_formulas() {
    let f: Value = serde_json::from_slice(&fixture("losses.json")).unwrap();
    let close = |ours: Tensor, name: &Value| {
        assert!(distance(&ours, &floats(name)) < 1e-5, "{ours} {name}");
    };
    let logits = floats(&f["logits"]);
    let temperature = f["temperature"].as_f64().unwrap();
    close(token_logprobs(&logits, &ids(&f["targets"]), temperature).unwrap(), &f["logprobs"]);
    close(entropy(&logits).unwrap(), &f["entropy"]);
    let (new, old, reference) =
        (floats(&f["logp"]), floats(&f["logp_old"]), floats(&f["logp_ref"]));
    for (kind, name) in [(Kl::K1, "k1"), (Kl::K2, "k2"), (Kl::K3, "k3")] {
        close(kl(kind, &new, &reference).unwrap(), &f["kl"][name]);
    }
    let (advantages, weights) = (floats(&f["advantages"]), floats(&f["weights"]));
    let clip = Clip { low: 0.2, high: 0.28, dual: None };
    let token = policy_loss(&new, &old, &advantages, None, clip).unwrap();
    let dual = Clip { low: 0.2, high: 0.2, dual: Some(1.5) };
    let bounded = policy_loss(&new, &old, &advantages, Some(&weights), dual).unwrap();
    close(bounded, &f["policy_dual"]);

    let lengths: Vec<i64> = serde_json::from_value(f["lengths"].clone()).unwrap();
    let sequence: Vec<i64> =
        (0..).zip(&lengths).flat_map(|(s, &n)| std::iter::repeat_n(s, n as usize)).collect();
    let sequence = Tensor::from_slice(&sequence);
    for (how, name) in [
        (Aggregation::TokenMean, "token_mean"),
        (Aggregation::SeqMeanTokenMean, "seq_mean_token_mean"),
        (Aggregation::SeqMeanTokenSumNorm(10.0), "seq_mean_token_sum_norm_10"),
    ] {
        let ours = how.aggregate(&token, &sequence, 3).unwrap();
        close(ours.view(1), &json!([f[name]]));
    }
    close(token, &f["policy"]);
}

fn adamw_start() -> (Vec<(String, Tensor)>, AdamW) {
    let fixture = tensors("adamw.safetensors");
    let parameters: Vec<(String, Tensor)> = ["bias", "matrix"]
        .map(|name| (name.to_string(), put(&fixture[&format!("start.{name}")])))
        .map(|(name, tensor)| (name, tensor.set_requires_grad(true)))
        .into();
    let handles = parameters.iter().map(|(name, p)| (name.clone(), p.shallow_clone())).collect();
    let settings = AdamWSettings { betas: (0.9, 0.98), eps: 1e-6, weight_decay: 0.1 };
    (parameters, AdamW::new(handles, settings).unwrap())
}

/// One step of the fixture's problem: the gradient norm.
fn adamw_step(parameters: &[(String, Tensor)], adamw: &mut AdamW, step: usize) -> f64 {
    let inputs = put(&tensors("adamw.safetensors")[&format!("inputs.{step}")]);
    adamw.zero_grad().unwrap();
    let out = (inputs.matmul(&parameters[1].1) + &parameters[0].1).tanh().square();
    out.sum(None).backward();
    let (rate, clip) = [(1e-2, 1.0), (2e-2, 100.0), (5e-3, 0.5)][step];
    adamw.step(rate, clip).unwrap()
}

#[test]
fn adamw_is_that_of_torch() {
    let fixture = tensors("adamw.safetensors");
    let (parameters, mut adamw) = adamw_start();
    for step in 0..3 {
        let norm = adamw_step(&parameters, &mut adamw, step);
        let expected = fixture[&format!("norm.{step}")].to_f32()[0];
        assert!((norm as f32 - expected).abs() < 1e-5 * expected);
        for (name, p) in &parameters {
            let far = distance(p, &put(&fixture[&format!("{name}.{step}")]));
            assert!(far < 1e-6, "{name} after step {step}: {far}");
        }
    }
}

#[test]
fn a_restored_optimizer_continues_bit_for_bit() {
    let (parameters, mut adamw) = adamw_start();
    for step in 0..2 {
        adamw_step(&parameters, &mut adamw, step);
    }
    let state = adamw.state().unwrap();
    let saved: Vec<Tensor> = parameters.iter().map(|(_, p)| p.detach().copy()).collect();
    adamw_step(&parameters, &mut adamw, 2);

    let (again, mut restored) = adamw_start();
    tch::no_grad(|| again.iter().zip(&saved).for_each(|((_, p), s)| p.shallow_clone().copy_(s)));
    restored.restore(&state).unwrap();
    adamw_step(&again, &mut restored, 2);
    for ((name, a), (_, b)) in parameters.iter().zip(&again) {
        assert_eq!(to_host(a).unwrap(), to_host(b).unwrap(), "{name}");
    }
    assert_eq!(adamw.state().unwrap(), restored.state().unwrap());

    let mut lacking = state;
    lacking.moments.remove("v.bias");
    let error = restored.restore(&lacking).unwrap_err().to_string();
    assert_eq!(error, "optimizer state lacks the tensor `v.bias`");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let (parameters, mut adamw) = adamw_start();
    let before = to_host(&parameters[1].1).unwrap();
    (&parameters[1].1 * f64::INFINITY).sum(None).backward();
    assert!(!adamw.step(0.1, 1.0).unwrap().is_finite());
    assert_eq!(to_host(&parameters[1].1).unwrap(), before);
    assert_eq!(adamw.steps(), 0);
}

#[test]
fn devices_have_names() {
    assert_eq!(device("cpu").unwrap(), Device::Cpu);
    for text in ["gpu", "cuda:x", "cuda:9999"] {
        assert!(matches!(device(text), Err(Error::Usage(m)) if m.contains(text)));
    }
}
