use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::{
    Dtype, HostTensor, LazyCheckpoint, Vocabulary, Weights, decode_safetensors, encode_safetensors,
};
use crate::entropy::Stream;
use crate::{Error, Result};

struct Nobody;

impl Watch for Nobody {
    fn wrote(&self, _: u64) -> Result<()> {
        Ok(())
    }
}

fn limits(memory: u64, threads: usize, is_remote: bool) -> Limits {
    Limits::new(memory, Some(threads), is_remote)
}

fn plan(recipe: &str, models: &[(&str, &Path)]) -> Result<Plan> {
    let recipe = Recipe::from_yaml(recipe)?;
    let open = |(name, folder): &(&str, &Path)| {
        Ok((name.to_string(), LazyCheckpoint::from_folder(folder)?))
    };
    Plan::new(recipe, models.iter().map(open).collect::<Result<_>>()?)
}

fn merged(plan: &Plan, limits: Limits) -> Result<(TempDir, Weights)> {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    plan.write_to_folder(&folder, limits, 1 << 40, &Nobody)?;
    let file = std::fs::read(folder.join("model.safetensors")).unwrap();
    Ok((dir, decode_safetensors(file.into())?))
}

/// How many bf16 numbers lie between two.
fn steps(a: f32, b: f32) -> u32 {
    let place = |value: f32| {
        let bits = i32::from(half::bf16::from_f32(value).to_bits());
        if bits & 0x8000 != 0 { 0x8000 - bits } else { bits }
    };
    place(a).abs_diff(place(b))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/merge")
}

#[test]
fn every_method_merges_as_mergekit_does() {
    let root = fixtures();
    let mut count = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let recipe = Recipe::from_yaml(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let open = |model: &str| {
            let folder = root.join("models").join(model);
            (model.to_string(), LazyCheckpoint::from_folder(&folder).unwrap())
        };
        let models = recipe.model_names().into_iter().map(open).collect();
        let plan = Plan::new(recipe, models).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (dir, ours) = merged(&plan, limits(MEMORY, 2, false)).unwrap();
        let theirs = std::fs::read(path.with_extension("safetensors")).unwrap();
        let theirs = decode_safetensors(theirs.into()).unwrap();
        let allowed = u32::from(!name.starts_with("linear"));
        // Tokens that were added have other ids: by text.
        let rows = std::fs::read(path.with_extension("json")).ok().map(|file| {
            let theirs: BTreeMap<String, usize> = serde_json::from_slice(&file).unwrap();
            let json = std::fs::read(dir.path().join("out/tokenizer.json")).unwrap();
            let files = BTreeMap::from([("tokenizer.json".to_string(), json.into())]);
            let ours = Vocabulary::from_files(&files).unwrap().ids();
            assert_eq!(ours.len(), theirs.len(), "{name}");
            let pair = |(token, id): (&String, &usize)| (ours[token] as usize, *id);
            theirs.iter().map(pair).collect::<BTreeMap<usize, usize>>()
        });
        assert!(ours.keys().eq(theirs.keys()), "{name}");
        for (tensor, ours) in &ours {
            let theirs = &theirs[tensor];
            assert_eq!((&ours.shape, ours.dtype), (&theirs.shape, theirs.dtype), "{name} {tensor}");
            let vocabulary = tensor.contains("embed") || tensor.contains("lm_head");
            let (a, b) = (ours.to_f32(), theirs.to_f32());
            let width = ours.shape[ours.shape.len() - 1];
            for (at, &a) in a.iter().enumerate() {
                let (row, column) = (at / width, at % width);
                let row = match &rows {
                    Some(rows) if vocabulary => rows.get(&row).copied().unwrap_or(row),
                    _ => row,
                };
                let b = b[row * width + column];
                let same = if ours.dtype == Dtype::F32 { a == b } else { steps(a, b) <= allowed };
                assert!(same, "{name}: {tensor} at {row}, {column}: {a}, mergekit has {b}");
            }
        }
    }
    assert!(count > 20, "{count} recipes");
}

/// A model with tensors of several units: random, or `like` and something for some numbers.
fn model(seed: u64, like: Option<&Weights>) -> Weights {
    let mut weights = Weights::new();
    let shapes = [
        ("model.embed_tokens.weight", vec![257, 1031]),
        ("model.layers.0.mlp.up_proj.weight", vec![1031, 129]),
        ("model.layers.0.norm.weight", vec![1031]),
        ("model.layers.1.mlp.up_proj.weight", vec![1031, 129]),
        ("model.layers.1.norm.weight", vec![1031]),
        ("model.norm.weight", vec![1031]),
    ];
    for (number, (name, shape)) in shapes.into_iter().enumerate() {
        let mut stream = Stream::new(seed, "model", number as u64);
        let base = like.map(|like| like[name].to_f32());
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|at| match &base {
                Some(base) if stream.chance(0.3) => base[at],
                Some(base) => base[at] + 0.02 * (stream.uniform() as f32 - 0.5),
                None => stream.uniform() as f32 - 0.5,
            })
            .collect();
        weights.insert(name.into(), HostTensor::from_f32(shape, &values, Dtype::Bf16));
    }
    weights
}

fn write_model(folder: &Path, weights: &Weights) {
    std::fs::create_dir_all(folder).unwrap();
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "num_hidden_layers": 2, "vocab_size": 257, "tie_word_embeddings": true});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), encode_safetensors(weights).unwrap()).unwrap();
}

/// Folders `base`, `a` and `b`, with their weights.
fn three() -> (TempDir, [Weights; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let base = model(1, None);
    let all = [model(2, Some(&base)), model(3, Some(&base))];
    let [a, b] = all;
    for (name, weights) in [("base", &base), ("a", &a), ("b", &b)] {
        write_model(&dir.path().join(name), weights);
    }
    (dir, [base, a, b])
}

fn plan_three(dir: &TempDir, method: &str, parameters: &str) -> Result<Plan> {
    let has_base = !matches!(method, "linear" | "karcher");
    let base = if has_base { "base_model: base\n" } else { "" };
    let recipe = format!(
        "merge_method: {method}\n{base}dtype: bfloat16\nparameters: {{{parameters}}}\n\
         models: [{{model: a}}, {{model: b}}]\n"
    );
    let path = |name: &'static str| dir.path().join(name);
    let (base, a, b) = (path("base"), path("a"), path("b"));
    let all: [(&str, &Path); 3] = [("base", &base), ("a", &a), ("b", &b)];
    plan(&recipe, if has_base { &all } else { &all[1..] })
}

const EVERY: [(&str, &str); 12] = [
    ("linear", "weight: 0.4"),
    ("nuslerp", "weight: 1, nuslerp_flatten: false"),
    ("nuslerp", "weight: 1, nuslerp_flatten: false, nuslerp_row_wise: true"),
    ("multislerp", "weight: 1"),
    ("task_arithmetic", "weight: 0.6"),
    ("ties", "weight: 1, density: 0.37"),
    ("ties", "weight: 1, density: 0.9, rescale: true"),
    ("breadcrumbs_ties", "weight: 1, density: 0.6, gamma: 0.05"),
    ("dare_ties", "weight: 1, density: 0.3"),
    ("della_linear", "weight: 1, density: 0.5, epsilon: 0.2"),
    ("model_stock", "filter_wise: true"),
    ("karcher", "max_iter: 5"),
];

#[test]
fn threads_memory_and_places_change_no_byte() {
    let (dir, _) = three();
    for (method, parameters) in EVERY {
        let plan = plan_three(&dir, method, parameters).unwrap();
        let (_, first) = merged(&plan, limits(MEMORY, 1, false)).unwrap();
        for (memory, threads, is_remote) in
            [(MEMORY, 3, false), (0, 2, false), (400_000, 4, true), (MEMORY, 2, true)]
        {
            let (_, other) = merged(&plan, limits(memory, threads, is_remote)).unwrap();
            assert!(first == other, "{method} {parameters}: {memory} {threads} {is_remote}");
        }
    }
}

#[test]
fn large_tensors_are_thinned_as_by_sorting() {
    let (dir, [base, a, b]) = three();
    let (density, gamma) = (0.37, 0.05);
    for (method, top) in [("ties", true), ("breadcrumbs_ties", false)] {
        let gammas = if top { String::new() } else { format!(", gamma: {gamma}") };
        let parameters = format!("weight: 1, normalize: true, density: {density}{gammas}");
        let plan = plan_three(&dir, method, &parameters).unwrap();
        let (_, ours) = merged(&plan, limits(MEMORY, 2, false)).unwrap();
        for (name, ours) in &ours {
            let origin = base[name].to_f32();
            let deltas = [&a, &b].map(|model| {
                let values = model[name].to_f32();
                let mut delta: Vec<f32> =
                    values.iter().zip(&origin).map(|(value, origin)| value - origin).collect();
                let mut order: Vec<usize> = (0..delta.len()).collect();
                let count = delta.len() as f64;
                let kept = (density * count) as usize;
                let gone = if top {
                    order.sort_by(|&x, &y| delta[y].abs().total_cmp(&delta[x].abs()));
                    order.split_off(kept)
                } else {
                    order.sort_by(|&x, &y| delta[x].abs().total_cmp(&delta[y].abs()));
                    let low = delta.len() - kept - (gamma * count) as usize;
                    let high = order.split_off(low + kept);
                    order.truncate(low);
                    [order, high].concat()
                };
                gone.into_iter().for_each(|at| delta[at] = 0.0);
                delta
            });
            for (at, (ours, origin)) in ours.to_f32().into_iter().zip(origin).enumerate() {
                let (x, y) = (deltas[0][at], deltas[1][at]);
                let sign = if x + y >= 0.0 { 1.0 } else { -1.0 };
                let agreeing: Vec<f32> = [x, y].into_iter().filter(|d| d * sign > 0.0).collect();
                let mean = agreeing.iter().sum::<f32>() / agreeing.len().max(1) as f32;
                let expected = half::bf16::from_f32(origin + mean).to_f32();
                assert!(ours == expected, "{method} {name} at {at}: {ours}, not {expected}");
            }
        }
    }
}

#[test]
fn chance_keeps_the_share_and_the_sum_of_magnitudes() {
    let (dir, [base, a, _]) = three();
    let name = "model.embed_tokens.weight";
    let delta = |of: &Weights| -> Vec<f64> {
        let (values, origin) = (of[name].to_f32(), base[name].to_f32());
        values.iter().zip(origin).map(|(value, origin)| f64::from(value - origin)).collect()
    };
    let given = delta(&a);
    let run = |method: &str, parameters: &str, seed: u64| {
        let recipe = format!(
            "merge_method: {method}\nbase_model: base\nout_dtype: float32\nseed: {seed}\n\
             parameters: {{weight: 1, normalize: false, {parameters}}}\nmodels: [{{model: a}}]\n"
        );
        let (at, to) = (dir.path().join("base"), dir.path().join("a"));
        let plan = plan(&recipe, &[("base", &at), ("a", &to)]).unwrap();
        delta(&merged(&plan, limits(MEMORY, 2, false)).unwrap().1)
    };
    let total = |of: &[f64]| of.iter().map(|d| d.abs()).sum::<f64>();
    let kept = |of: &[f64]| of.iter().filter(|d| **d != 0.0).count() as f64;
    for (method, parameters) in
        [("dare_linear", "density: 0.3"), ("della_linear", "density: 0.3, epsilon: 0.1")]
    {
        let found = run(method, parameters, 1);
        let share = kept(&found) / kept(&given);
        // DELLA is kinder to what is not zero: of a third that is, it keeps less.
        let expected = if method == "della_linear" { 0.33 } else { 0.3 };
        assert!((share - expected).abs() < 0.01, "{method}: {share}");
        assert!((total(&found) / total(&given) - 1.0).abs() < 1e-3, "{method}");
        assert_ne!(found, run(method, parameters, 2));
        assert_eq!(found, run(method, parameters, 1));
        let plain = run(method, &format!("{parameters}, rescale: false"), 1);
        assert!(total(&plain) < 0.5 * total(&given));
    }
}

fn refusal(result: Result<Plan>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => format!("{}: {error}", error.exit_code()),
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (dir, [_, a, _]) = three();
    let mut other = a.clone();
    let norm = HostTensor::from_f32(vec![7], &[0.0; 7], Dtype::Bf16);
    other.insert("model.norm.weight".into(), norm);
    write_model(&dir.path().join("b"), &other);
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "weight: 1")),
        @"65: tensor `model.norm.weight`: shape [1031] in `a`, [7] in `b`");
    other.remove("model.norm.weight");
    write_model(&dir.path().join("b"), &other);
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "weight: 1")),
        @"65: model `b` lacks tensor `model.norm.weight`");
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "wieght: 1")),
        @"64: parameters: unknown parameter `wieght`; ties has weight, density, lambda, normalize, rescale, int8_mask");
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "weight: much")),
        @r#"64: parameters.weight: "much" is no number"#);
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "density: 0.5")),
        @"64: no value of parameter `weight` of model `a` for tensor `model.embed_tokens.weight`");
    insta::assert_snapshot!(refusal(plan_three(&dir, "slerp", "t: 0.5")),
        @"64: method slerp takes 2 models, not 3");
    insta::assert_snapshot!(refusal(plan_three(&dir, "della", "weight: 1, density: 0.1")),
        @"64: tensor `model.embed_tokens.weight`: density 0.1 +- epsilon 0.15 must lie between 0 and 1");
    let norm = a["model.norm.weight"].clone();
    other.insert("model.norm.weight".into(), norm.clone());
    other.insert("model.layers.9000000000.norm.weight".into(), norm);
    write_model(&dir.path().join("b"), &other);
    insta::assert_snapshot!(refusal(plan_three(&dir, "ties", "weight: 1")),
        @"65: model `b`: 9000000001 layers by their numbers, in 7 tensors");
    for (recipe, said) in [
        ("merge_method: linear\nmodels: []", "either `models` or `slices`"),
        ("merge_method: lineal\nmodels: [{model: a}]", "lineal"),
        ("merge_method: linear\nmodels: [{model: a}]\nmodules: {}", "modules"),
        ("merge_method: linear\nmodels: [{model: a, wieght: 1}]", "wieght"),
        ("merge_method: linear\nmodels: [{model: a}]\ndtype: int8", "no type `int8`"),
    ] {
        let error = Recipe::from_yaml(recipe).unwrap_err();
        assert!(matches!(&error, Error::Usage(text) if text.contains(said)), "{error}");
    }
}

#[test]
fn nan_and_infinity_are_named_and_refused_unless_allowed() {
    let (dir, [_, mut a, _]) = three();
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut values = a[name].to_f32();
    values[129 * 700 + 5] = f32::NAN;
    a.insert(name.into(), HostTensor::from_f32(vec![1031, 129], &values, Dtype::Bf16));
    write_model(&dir.path().join("a"), &a);
    for (method, memory) in [("linear", MEMORY), ("ties", MEMORY), ("ties", 0)] {
        let plan = plan_three(&dir, method, "weight: 1").unwrap();
        let error = merged(&plan, limits(memory, 2, false)).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "model `a`: tensor `{name}` holds NaN or an infinity at [700, 5]; \
                 `allow_non_finite: true` merges it all the same"
            )
        );
        assert_eq!(error.exit_code(), 65);
    }
    let mut plan = plan_three(&dir, "linear", "weight: 1").unwrap();
    plan.recipe.allow_non_finite = true;
    let (_, weights) = merged(&plan, limits(MEMORY, 2, false)).unwrap();
    assert!(weights[name].to_f32()[129 * 700 + 5].is_nan());
}

/// Ends a merge after so many bytes.
struct Ends(std::sync::atomic::AtomicU64, u64);

impl Watch for Ends {
    fn wrote(&self, bytes: u64) -> Result<()> {
        let before = self.0.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        if before > self.1 { Err(Error::try_again("stopped")) } else { Ok(()) }
    }
}

#[test]
fn a_folder_continues_with_the_files_that_are_whole() {
    let (dir, _) = three();
    let plan = plan_three(&dir, "ties", "weight: 1, density: 0.5").unwrap();
    let limits = limits(MEMORY, 2, false);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    plan.write_to_folder(&whole, limits, 300_000, &Nobody).unwrap();
    let ends = Ends(Default::default(), 600_000);
    let error = plan.write_to_folder(&parts, limits, 300_000, &ends).unwrap_err();
    assert_eq!(error.exit_code(), 75);
    let first = parts.join("model-00001-of-00003.safetensors");
    let changed = || std::fs::metadata(&first).unwrap().modified().unwrap();
    let before = changed();
    // Another merge does not take it up.
    let other = plan_three(&dir, "ties", "weight: 1, density: 0.6").unwrap();
    let error = other.write_to_folder(&parts, limits, 300_000, &Nobody).unwrap_err();
    assert!(error.to_string().ends_with("is not empty; give a new one"), "{error}");
    plan.write_to_folder(&parts, limits, 300_000, &Nobody).unwrap();
    assert_eq!(changed(), before);
    let mut names = 0;
    for entry in std::fs::read_dir(&whole).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert!(read(&whole) == read(&parts), "{name:?}");
        names += 1;
    }
    assert_eq!(std::fs::read_dir(&parts).unwrap().count(), names);
    let merged = LazyCheckpoint::from_folder(&parts).unwrap();
    assert_eq!(merged.tensors.len(), 6);
}
