//! Sampling against the uncached model.

use std::collections::BTreeSet;

use tch::{Device, Kind};

use super::*;
use crate::model::loss::token_logprobs;
use crate::model::tests::reference_model;
use crate::model::transformer::to_host;

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

const SAMPLING: Sampling = Sampling {
    temperature: 0.8,
    max_new_tokens: 20,
    seed: 4,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    cache_bytes: 1 << 20,
};

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
    for (request, response) in
        requests.iter().zip(sample(&model, &Stops::at(&[3]), &requests, &sampling).unwrap())
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
    let together = sample(&model, &Stops::at(&[3]), &batch, &SAMPLING).unwrap();
    assert_eq!(together, sample(&model, &Stops::at(&[3]), &batch, &SAMPLING).unwrap());
    for (request, expected) in batch.iter().zip(&together) {
        let alone =
            sample(&model, &Stops::at(&[3]), std::slice::from_ref(request), &SAMPLING).unwrap();
        assert_eq!(alone[0].tokens, expected.tokens);
    }
    let distinct: BTreeSet<&[u32]> = together.iter().map(|r| r.tokens.as_slice()).collect();
    assert_eq!(distinct.len(), together.len(), "samples of one prompt must differ");
    let reseeded =
        sample(&model, &Stops::at(&[3]), &batch, &Sampling { seed: 5, ..SAMPLING }).unwrap();
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
    let sampling = Sampling { temperature: 3.0, max_new_tokens: 1, seed: 1, ..SAMPLING };
    let frequencies = |top_p| {
        let mut counts = vec![0f32; 48];
        for response in
            sample(&model, &Stops::at(&[3]), &batch, &Sampling { top_p, ..sampling }).unwrap()
        {
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
    let response = sample(&model, &Stops::at(&[999]), &requests(&[60, 50], 1), &long).unwrap();
    assert_eq!(response[0].tokens.len(), 4);
    assert_eq!(response[1].tokens.len(), 14);
    assert_eq!(response[0].stop, Stop::Length);
}

#[test]
fn bad_prompts_are_named() {
    let model = reference_model();
    let ask = |prompt: Vec<u32>| {
        let request = SampleRequest { prompt, item: 12, sample: 0 };
        sample(&model, &Stops::at(&[3]), &[request], &SAMPLING).unwrap_err().to_string()
    };
    assert_eq!(ask(vec![]), "item 12: the prompt has no tokens");
    assert_eq!(ask(vec![1, 48]), "item 12: token id 48 in the prompt; the model has 48");
    assert!(ask(vec![1; 64]).contains("max_position_embeddings is 64"));
    let long = model.hidden(&Tensor::zeros([1, 65], (Kind::Int64, Device::Cpu))).unwrap_err();
    assert!(matches!(long, Error::Data(_)));
}
