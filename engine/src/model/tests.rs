//! Numerics against the reference libraries; `tests/fixtures/model/make.py` remakes the fixtures.

mod numerics;
mod smollm2;

use std::path::PathBuf;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::loss::*;
use super::transformer::to_host;
use super::*;
use crate::Error;
use triad::checkpoint::{Dtype, HostTensor, ModelConfig, Weights, decode_safetensors};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/model").join(name);
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

pub(super) fn reference_model() -> Transformer {
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

    let lengths: Vec<usize> = serde_json::from_value(f["lengths"].clone()).unwrap();
    let sequence = |&n: &usize| Sequence { prompt: vec![1], response: vec![2; n] };
    let sequences: Vec<Sequence> = lengths.iter().map(sequence).collect();
    let mut rest = to_host(&token).unwrap();
    let losses: Vec<Vec<f32>> = lengths.iter().map(|&n| rest.drain(..n).collect()).collect();
    for (how, name) in [
        (Aggregation::TokenMean, "token_mean"),
        (Aggregation::SeqMeanTokenMean, "seq_mean_token_mean"),
        (Aggregation::SeqMeanTokenSumNorm(10.0), "seq_mean_token_sum_norm_10"),
    ] {
        let weights = how.weights(&lengths);
        for budget in [1, 100] {
            let parts = micro_batches(&sequences, &[0, 1, 2], budget, Device::Cpu).unwrap();
            let part = |micro: &MicroBatch| {
                let losses = micro.gather(&losses).unwrap() * micro.per_token(&weights).unwrap();
                losses.sum(Kind::Float).view(1)
            };
            let parts: Vec<Tensor> = parts.iter().map(part).collect();
            close(Tensor::cat(&parts, 0).sum_dim_intlist(0i64, true, None), &json!([f[name]]));
        }
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
    let adamw = AdamW::new(handles, settings).unwrap();
    adamw.gradients().receive().unwrap();
    (parameters, adamw)
}

/// One step of the fixture's problem: the gradient norm.
fn adamw_step(parameters: &[(String, Tensor)], adamw: &mut AdamW, step: usize) -> f64 {
    let inputs = put(&tensors("adamw.safetensors")[&format!("inputs.{step}")]);
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
fn a_reset_optimizer_keeps_what_bf16_rounds_away() {
    let parameter = Tensor::from_slice(&[1.0f32, -3.0]).to_kind(Kind::BFloat16);
    let parameters = vec![("p".to_string(), parameter.set_requires_grad(true))];
    let mut adamw = AdamW::new(parameters, AdamWSettings::default()).unwrap();
    let learn = |adamw: &mut AdamW| {
        let _ = adamw.gradients().of("p").unwrap().fill_(1.0);
        adamw.step(1e-4, 1.0).unwrap();
    };
    learn(&mut adamw);
    let masters = adamw.stored_masters().unwrap();
    assert_ne!(masters["p"].to_f32(), masters["p"].cast(Dtype::Bf16).to_f32());
    adamw.reset().unwrap();
    let state = adamw.state().unwrap();
    assert_eq!((&state.masters, state.step), (&masters, 0));
    assert!(state.moments.values().all(|moment| moment.to_f32() == [0.0, 0.0]));
    learn(&mut adamw);
    let moved = |before: f32, after: f32| (before - after - 1e-4).abs() < 1e-6;
    let after = adamw.stored_masters().unwrap();
    assert!(masters["p"].to_f32().iter().zip(after["p"].to_f32()).all(|(&b, a)| moved(b, a)));
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
        assert!(matches!(device(text), Err(Error(triad::Error::Usage(m))) if m.contains(text)));
    }
}
