//! Forward and backward of each architecture against transformers.

use super::*;

/// A variant of the fixture `architectures`.
struct Case {
    name: &'static str,
    config: ModelConfig,
    weights: Weights,
    plain: Value,
}

const VARIANTS: [&str; 9] = [
    "qwen2",
    "qwen2-tied",
    "qwen2-yarn",
    "qwen3",
    "qwen3-bias",
    "llama3",
    "llama-linear",
    "llama-yarn",
    "llama-bias",
];

/// Number `i` of tensor `number`: what `weight` in make.py draws.
fn value(number: u32, i: u32) -> f32 {
    let mut x = i.wrapping_mul(0x9E37_79B1).wrapping_add(number.wrapping_mul(0x0100_0193));
    x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA77);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE3D);
    x ^= x >> 16;
    ((x >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.7
}

fn cases() -> impl Iterator<Item = Case> {
    let plain: Value = serde_json::from_slice(&fixture("architectures.json")).unwrap();
    assert_eq!(plain.as_object().unwrap().len(), VARIANTS.len());
    VARIANTS.into_iter().map(move |name| {
        let plain = plain[name].clone();
        let config = ModelConfig::from_json(plain["config"].to_string().as_bytes()).unwrap();
        let draw = |(number, (name, shape)): (u32, (String, Vec<usize>))| {
            let one = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            let count = shape.iter().product::<usize>() as u32;
            let values: Vec<f32> = (0..count).map(|i| value(number, i) + one).collect();
            (name, HostTensor::from_f32(shape, &values, Dtype::F32))
        };
        let weights = (0..).zip(config.tensors()).map(draw).collect();
        Case { name, config, weights, plain }
    })
}

impl Case {
    fn load(&self, precision: Precision) -> Transformer {
        Transformer::load(&self.config, &self.weights, Device::Cpu, precision, true).unwrap()
    }

    /// Logits (B, T, V), loss, and every fifth number of each gradient, by libtorch's autograd.
    fn run(&self, model: &Transformer) -> (Tensor, f64, Vec<(String, Tensor)>) {
        let logits = model.logits(&model.hidden(&ids(&self.plain["ids"])).unwrap()).unwrap();
        let targets = ids(&self.plain["targets"]).view(-1);
        let flat = logits.view([-1, self.config.vocab_size as i64]);
        let loss = -token_logprobs(&flat, &targets, 1.0).unwrap().mean(None);
        loss.backward();
        let gradients = model.parameters().into_iter().map(|(name, p)| (name, p.grad())).collect();
        (logits.detach(), loss.double_value(&[]), self.parts(model, gradients))
    }

    /// The same by our own passes; none where the machine has not what they need.
    #[cfg(target_arch = "x86_64")]
    fn run_own(&self, model: &Transformer) -> Option<(Tensor, f64, Vec<(String, Tensor)>)> {
        if !train::serves(model) {
            return None;
        }
        let tokens = ids(&self.plain["ids"]);
        let (rows, length) = tokens.size2().unwrap();
        let sequences: Vec<Vec<i64>> =
            (0..rows).map(|row| Vec::try_from(tokens.get(row)).unwrap()).collect();
        let batch = packed::Packed::new(&sequences, Device::Cpu).unwrap();
        let all = Tensor::arange(rows * length, (Kind::Int64, Device::Cpu));
        let targets = ids(&self.plain["targets"]).view(-1);
        let pass = train::Pass::new(model, &batch).unwrap();
        let logits = model.logits(&pass.hidden(&all).unwrap()).unwrap();
        let gradients = Gradients::new(&model.parameters()).unwrap();
        let mut total = 0.0;
        let loss = |part: std::ops::Range<usize>, logits: &Tensor| {
            let targets = targets.narrow(0, part.start as i64, part.len() as i64);
            let nll = -token_logprobs(logits, &targets, 1.0)?.sum(Kind::Float);
            let nll = nll / (rows * length) as f64;
            total += nll.double_value(&[]);
            Ok(nll)
        };
        pass.backward(&all, false, &gradients, loss).unwrap();
        let of = |(name, _): (String, Tensor)| (name.clone(), gradients.of(&name).unwrap());
        let gradients = model.parameters().into_iter().map(of).collect();
        let logits = logits.view([rows, length, self.config.vocab_size as i64]);
        Some((logits.detach(), total, self.parts(model, gradients)))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn run_own(&self, _: &Transformer) -> Option<(Tensor, f64, Vec<(String, Tensor)>)> {
        None
    }

    fn parts(&self, model: &Transformer, all: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        let part = |(name, gradient): (String, HostTensor)| {
            let part: Vec<f32> = gradient.to_f32().into_iter().step_by(5).collect();
            (name, Tensor::from_slice(&part))
        };
        model.by_checkpoint_name(all, Dtype::F32).unwrap().into_iter().map(part).collect()
    }
}

fn norm(parts: &[Tensor]) -> f64 {
    parts.iter().map(|part| part.square().sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt()
}

#[test]
fn f32_is_that_of_transformers() {
    let reference = tensors("architectures.safetensors");
    for case in cases() {
        let name = case.name;
        let model = case.load(Precision::F32);
        for (logits, loss, gradients) in
            [Some(case.run(&model)), case.run_own(&model)].into_iter().flatten()
        {
            let far = distance(&logits, &put(&reference[&format!("{name}/logits")]));
            assert!(far < 1e-5, "logits of {name}: {far}");
            let expected = case.plain["loss"].as_f64().unwrap();
            assert!((loss / expected - 1.0).abs() < 1e-5, "loss of {name}: {loss} {expected}");
            for (tensor, gradient) in &gradients {
                let expected = put(&reference[&format!("{name}/gradient.{tensor}")]);
                let far = distance(gradient, &expected);
                assert!(far < 1e-5, "gradient of {name}, {tensor}: {far}");
            }
            let given = reference.keys().filter(|key| key.starts_with(&format!("{name}/"))).count();
            assert_eq!(gradients.len() + 1, given, "{name}");
        }
    }
}

/// What bf16 loses is chance, so two right programs differ from each other as much as each does
/// from f32 (1 to 2 percent here). The measure of "right" is therefore the distance from f32: ours
/// may be at most a quarter above that of transformers in bf16, taken over all numbers.
#[test]
fn bf16_loses_no_more_than_transformers_does() {
    let reference = tensors("architectures.safetensors");
    for case in cases() {
        let name = case.name;
        let bound = |what: &str| 1.25 * case.plain[what].as_f64().unwrap();
        let model = case.load(Precision::Bf16);
        for (logits, loss, gradients) in
            [Some(case.run(&model)), case.run_own(&model)].into_iter().flatten()
        {
            let exact = put(&reference[&format!("{name}/logits")]);
            let far = norm(&[logits - &exact]) / norm(&[exact]);
            assert!(far < bound("bf16_logits"), "logits of {name}: {far}");
            // A mean of 120 tokens: no more than the logits' own error.
            let off = (loss / case.plain["loss"].as_f64().unwrap() - 1.0).abs();
            assert!(off < bound("bf16_logits") / 4.0, "loss of {name}: {off}");
            let exact: Vec<Tensor> = gradients
                .iter()
                .map(|(tensor, _)| put(&reference[&format!("{name}/gradient.{tensor}")]))
                .collect();
            let apart: Vec<Tensor> =
                gradients.iter().zip(&exact).map(|((_, a), b)| a - b).collect();
            let far = norm(&apart) / norm(&exact);
            assert!(far < bound("bf16_gradients"), "gradients of {name}: {far}");
        }
    }
}

#[test]
fn weights_come_back_as_they_were() {
    for case in cases() {
        assert_eq!(case.load(Precision::F32).weights(Dtype::F32).unwrap(), case.weights);
        let half: Weights =
            case.weights.iter().map(|(name, w)| (name.clone(), w.cast(Dtype::Bf16))).collect();
        assert_eq!(case.load(Precision::F32).weights(Dtype::Bf16).unwrap(), half);
        assert_eq!(case.load(Precision::Bf16).weights(Dtype::Bf16).unwrap(), half);
        let names: Vec<String> =
            case.load(Precision::Bf16).parameters().into_iter().map(|p| p.0).collect();
        assert!(names.is_sorted());
    }
}

/// The old keys that people's folders have and the ones that transformers 5 writes mean the same.
#[test]
fn both_spellings_of_a_config_are_one_model() {
    for case in cases() {
        let written = ModelConfig::from_json(case.plain["written"].to_string().as_bytes()).unwrap();
        assert_eq!(written.rope, case.config.rope, "{}", case.name);
        assert_eq!(written.tensors(), case.config.tensors(), "{}", case.name);
        assert_eq!(written.rms_norm_eps, case.config.rms_norm_eps);
        assert_eq!(written.max_position_embeddings, case.config.max_position_embeddings);
    }
}

#[test]
fn scalings_that_stretch_the_config_move_its_limit() {
    let limits = cases().map(|case| (case.name, case.config.max_position_embeddings));
    let stretched: Vec<_> = limits.filter(|(_, limit)| *limit != 64).collect();
    assert_eq!(stretched, [("qwen2-yarn", 128), ("llama-linear", 160), ("llama-yarn", 128)]);
}
