//! Sampling against the uncached model.

use std::collections::BTreeSet;

use tch::{Device, Kind};

use super::*;
use crate::model::Precision;
use crate::model::loss::token_logprobs;
use crate::model::tests::reference_model;
use crate::model::transformer::to_host;
use triad::checkpoint::Dtype;

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

/// As on a GPU: libtorch attends, tokens are drawn on the device and looked at a step later.
fn sample_on_device(
    model: &Transformer,
    stops: &Stops,
    requests: &[SampleRequest],
    sampling: &Sampling,
) -> Vec<Sampled> {
    let _guard = tch::no_grad_guard();
    let mut batch = Batch::new(model, requests, sampling, true).unwrap();
    while batch.step(stops).unwrap() {}
    batch.responses
}

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
        let close = |logprobs: &[f32], at: f64| {
            let expected = token_logprobs(&logits, &Tensor::from_slice(&tokens), at).unwrap();
            let far = (expected - Tensor::from_slice(logprobs)).abs().max();
            assert!(far.double_value(&[]) < 1e-4, "{far:?}");
        };
        close(&response.model_logprobs, 1.0);
        if temperature == 0.0 {
            assert_eq!(Vec::<i64>::try_from(logits.argmax(-1, false)).unwrap(), tokens);
            assert!(response.logprobs.iter().all(|&logprob| logprob == 0.0));
        } else {
            close(&response.logprobs, temperature);
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
fn a_device_draws_what_the_host_draws() {
    let model = reference_model();
    let batch = requests(&[3, 9, 1, 6, 9, 14], 4);
    let decode = |ids: &[u32]| Ok(ids.iter().map(|id| format!("{id};")).collect());
    let texts = ["7;".to_string()];
    let stops = Stops { ids: &[3, 11], texts: &texts, decode: &decode };
    let mut ends = BTreeSet::new();
    for sampling in [
        SAMPLING,
        Sampling { temperature: 0.0, ..SAMPLING },
        Sampling { cache_bytes: 60_000, ..SAMPLING },
        Sampling { top_k: 12, top_p: 0.9, min_p: 0.05, ..SAMPLING },
        Sampling { top_p: 0.7, max_new_tokens: 1, ..SAMPLING },
    ] {
        let host = sample(&model, &stops, &batch, &sampling).unwrap();
        let device = sample_on_device(&model, &stops, &batch, &sampling);
        for (host, device) in host.iter().zip(&device) {
            assert_eq!((&host.tokens, host.stop), (&device.tokens, device.stop));
            for (host, device) in
                [(&host.logprobs, &device.logprobs), (&host.model_logprobs, &device.model_logprobs)]
            {
                let far = host.iter().zip(device).map(|(a, b)| (a - b).abs());
                assert!(far.fold(0.0, f32::max) < 1e-5);
                assert_eq!(host.len(), device.len());
            }
            ends.insert(format!("{:?}", host.stop));
        }
    }
    assert_eq!(ends.len(), 3, "{ends:?}");
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
    assert!(matches!(long, Error(triad::Error::Data(_))));
}

/// Samples twice, in any budget and one by one: the same tokens.
#[test]
fn a_small_cache_changes_no_token() {
    let model = reference_model();
    let batch = requests(&[3, 9, 1, 6, 9, 14], 4);
    let all = sample(&model, &Stops::at(&[3]), &batch, &SAMPLING).unwrap();
    for cache_bytes in [100_000, 60_000, 40_000] {
        let sampling = Sampling { cache_bytes, ..SAMPLING };
        let some = sample(&model, &Stops::at(&[3]), &batch, &sampling).unwrap();
        for (all, some) in all.iter().zip(&some) {
            assert_eq!((&all.tokens, all.stop), (&some.tokens, some.stop));
            let far = all.logprobs.iter().zip(&some.logprobs).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f32::max) < 1e-5);
        }
        assert_eq!(some, sample(&model, &Stops::at(&[3]), &batch, &sampling).unwrap());
    }
}

#[test]
fn the_cache_stays_within_its_budget() {
    let model = reference_model();
    let requests = requests(&[3, 9, 1, 6, 9, 14, 30, 30, 2], 3);
    let mut rows = BTreeSet::new();
    for cache_bytes in (30_000..600_000).step_by(13_000) {
        let sampling = Sampling { cache_bytes, ..SAMPLING };
        let _guard = tch::no_grad_guard();
        for on_device in [false, true] {
            let Ok(mut batch) = Batch::new(&model, &requests, &sampling, on_device) else {
                continue;
            };
            while batch.step(&Stops::at(&[3])).unwrap() {
                let held = batch.cache.held_bytes();
                assert!(batch.cache.bytes() <= cache_bytes && held <= cache_bytes);
                rows.insert(batch.rows.len());
            }
            assert!(batch.responses.iter().all(|response| !response.tokens.is_empty()));
        }
    }
    assert!(rows.contains(&1) && rows.contains(&27), "{rows:?}");
}

#[test]
fn a_budget_below_one_row_names_the_least_that_would_do() {
    let (model, requests) = (reference_model(), requests(&[9, 12], 1));
    let within = |cache_bytes| {
        let sampling = Sampling { cache_bytes, ..SAMPLING };
        let checked = check_cache(&model, &[9, 12], &sampling).map_err(|e| e.to_string());
        let sampled = sample(&model, &Stops::at(&[3]), &requests, &sampling);
        assert_eq!(sampled.map(drop).map_err(|e| e.to_string()), checked);
        checked
    };
    let message = within(1000).unwrap_err();
    assert!(message.starts_with("cache_bytes 1000: a prompt of 12 tokens"), "{message}");
    let least: usize = message.rsplit(' ').next().unwrap().parse().unwrap();
    within(least - 1).unwrap_err();
    within(least).unwrap();
}

#[test]
fn both_logprobs_are_those_of_their_distributions() {
    let model = reference_model();
    let requests = requests(&[3, 9, 6], 6);
    let sampling = Sampling { top_k: 12, top_p: 0.9, min_p: 0.05, ..SAMPLING };
    let mut cut = 0;
    for (request, response) in
        requests.iter().zip(sample(&model, &Stops::at(&[3]), &requests, &sampling).unwrap())
    {
        let logits = full_logits(&model, request, &response);
        let at_one = logits.log_softmax(-1, Kind::Double);
        let logp = (logits / sampling.temperature).log_softmax(-1, Kind::Double);
        for (t, &token) in response.tokens.iter().enumerate() {
            let expected = at_one.double_value(&[t as i64, i64::from(token)]);
            assert!((expected - f64::from(response.model_logprobs[t])).abs() < 1e-4);
            let logp = Vec::<f64>::try_from(logp.get(t as i64)).unwrap();
            // The cuts as Hugging Face's processors apply them, in turn, on softmax(logits).
            let mut p: Vec<f64> = logp.iter().map(|logp| logp.exp()).collect();
            let renormalise = |p: &mut Vec<f64>| {
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
            };
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
            order[12..].iter().for_each(|&i| p[i] = 0.0);
            renormalise(&mut p);
            let mut before = 0.0;
            for &i in &order {
                let mass = p[i];
                if before >= 0.9 {
                    p[i] = 0.0;
                }
                before += mass;
            }
            renormalise(&mut p);
            let least = 0.05 * p[order[0]];
            p.iter_mut().filter(|p| **p < least).for_each(|p| *p = 0.0);
            renormalise(&mut p);
            let ours = f64::from(response.logprobs[t]);
            assert!((p[token as usize].ln() - ours).abs() < 1e-4, "{ours} {}", p[token as usize]);
            cut += usize::from(ours > logp[token as usize] + 1e-3);
        }
    }
    assert!(cut > 20);
    let plain = Sampling { temperature: 1.0, ..SAMPLING };
    let plain = sample(&model, &Stops::at(&[3]), &requests, &plain).unwrap();
    assert!(plain.iter().all(|response| response.logprobs == response.model_logprobs));
}

#[test]
fn stop_texts_and_several_ids_end_a_response() {
    let model = reference_model();
    let batch = requests(&[3, 9, 6], 8);
    // Token 47 is a control token, which decoding leaves out.
    let decode = |ids: &[u32]| -> Result<String> {
        Ok(ids.iter().filter(|&&id| id != 47).map(|id| format!("{id};")).collect())
    };
    let free = sample(&model, &Stops::at(&[]), &batch, &SAMPLING).unwrap();
    assert!(free.iter().all(|r| r.stop == Stop::Length && r.tokens.len() == 20));
    // Two neighbours of a response as a text, and single tokens.
    let pair = format!("{};{};", free[5].tokens[6], free[5].tokens[7]);
    let texts = [pair, "unseen".to_string()];
    let stops = Stops { ids: &[3, 11], texts: &texts, decode: &decode };
    let mut seen = BTreeSet::new();
    for (free, ended) in free.iter().zip(sample(&model, &stops, &batch, &SAMPLING).unwrap()) {
        let end = (0..20).find_map(|t| {
            let text = decode(&free.tokens[..=t]).unwrap();
            if [3, 11].contains(&free.tokens[t]) {
                Some((t, Stop::End))
            } else {
                texts.iter().any(|stop| text.contains(stop.as_str())).then_some((t, Stop::Text))
            }
        });
        let (last, stop) = end.unwrap_or((19, Stop::Length));
        assert_eq!((&ended.tokens[..], ended.stop), (&free.tokens[..=last], stop));
        seen.insert(format!("{stop:?}"));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let empty = Stops { texts: &[String::new()], ..stops };
    assert!(sample(&model, &empty, &batch, &SAMPLING).is_err());
}

#[test]
fn cuts_that_make_no_sense_are_refused() {
    let model = reference_model();
    for (bad, name) in [
        (Sampling { temperature: -1.0, ..SAMPLING }, "temperature"),
        (Sampling { top_p: 0.0, ..SAMPLING }, "top_p"),
        (Sampling { min_p: 1.5, ..SAMPLING }, "min_p"),
    ] {
        let error = sample(&model, &Stops::at(&[3]), &requests(&[3], 1), &bad).unwrap_err();
        assert!(matches!(error, Error(triad::Error::Usage(m)) if m.starts_with(name)));
    }
}

#[test]
fn bf16_weights_sample_from_nearly_the_same_model() {
    let (model, requests) = (reference_model(), requests(&[3, 9, 9, 6], 4));
    let weights = model.weights(Dtype::F32).unwrap();
    let half =
        Transformer::load(&model.config, &weights, Device::Cpu, Precision::Bf16, false).unwrap();
    let responses = sample(&half, &Stops::at(&[3]), &requests, &SAMPLING).unwrap();
    let copied = model.copy(Precision::Bf16).unwrap();
    assert_eq!(sample(&copied, &Stops::at(&[3]), &requests, &SAMPLING).unwrap(), responses);
    for (request, response) in requests.iter().zip(&responses) {
        let logits = full_logits(&model, request, response);
        let tokens: Vec<i64> = response.tokens.iter().map(|&id| i64::from(id)).collect();
        let expected = token_logprobs(&logits, &Tensor::from_slice(&tokens), 0.8).unwrap();
        let far = (expected - Tensor::from_slice(&response.logprobs)).abs();
        let (most, mean) = (far.max().double_value(&[]), far.mean(None).double_value(&[]));
        assert!(most < 0.4 && mean < 0.1, "{most} {mean}");
    }
}
