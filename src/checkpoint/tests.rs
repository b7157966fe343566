mod folders;
mod text;

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tiny() -> Checkpoint {
    let config = json!({
        "model_type": "qwen2", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 264,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "extra_key": [1],
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let weights = init_weights(&config, 1, 0.02).unwrap();
    let tokenizer = Tokenizer::train(std::iter::empty(), 263).unwrap();
    Checkpoint::fresh(config, tokenizer, weights).unwrap()
}

fn through(objects: &[(String, Bytes)]) -> Result<Checkpoint> {
    Checkpoint::from_objects(|name| {
        Ok(objects.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.clone()))
    })
}

#[test]
fn a_checkpoint_survives_the_round_trip() {
    let checkpoint = tiny();
    let objects = checkpoint.objects().unwrap();
    let read = through(&objects).unwrap();
    assert_eq!(read.weights, checkpoint.weights);
    assert_eq!(read.objects().unwrap(), objects);
    assert_eq!(read.config.source()["extra_key"], json!([1]));
    assert_eq!(read.stop_ids().unwrap(), [checkpoint.tokenizer.eos()]);
}

#[test]
fn one_token_a_byte_and_the_tags_stay_in_the_text() {
    let tokenizer = Tokenizer::train(std::iter::empty(), 263).unwrap();
    assert_eq!(tokenizer.size(), 263);
    let text = "<think>é  1+2</think>\n<answer>3</answer>";
    let mut ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids.len(), 4 + "é  1+2\n3".len());
    ids.push(tokenizer.eos());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}

#[test]
fn merges_are_learnt_and_do_not_depend_on_the_order() {
    let texts = ["lower lowest low", "newer newest new", "low low low <think>"];
    let forward = Tokenizer::train(texts.iter().map(|t| t.to_string()), 280).unwrap();
    let backward = Tokenizer::train(texts.iter().rev().map(|t| t.to_string()), 280).unwrap();
    assert_eq!(forward.bytes(), backward.bytes());
    assert!(forward.size() > 263 && forward.size() <= 280);
    let ids = forward.encode("lowest newest").unwrap();
    assert!(ids.len() < "lowest newest".len());
    assert_eq!(forward.decode(&ids).unwrap(), "lowest newest");
    assert!(matches!(Tokenizer::train(std::iter::empty(), 262), Err(Error::Usage(_))));
}

#[test]
fn fresh_weights_have_the_promised_spread() {
    let weights = tiny().weights;
    let deviation = |name: &str| {
        let values = weights[name].to_f32();
        (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
    };
    assert!((deviation("model.embed_tokens.weight") - 0.02).abs() < 1e-3);
    assert!((deviation("model.layers.1.mlp.down_proj.weight") - 0.01).abs() < 1e-3);
    assert_eq!(deviation("model.layers.0.self_attn.q_proj.bias"), 0.0);
    assert_eq!(deviation("model.norm.weight"), 1.0);
    assert_ne!(weights, init_weights(&tiny().config, 2, 0.02).unwrap());
}

#[test]
fn numbers_round_to_the_nearest_even() {
    let values = [1.0, -2.5, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1e-3];
    let stored = HostTensor::from_f32([5], &values, Dtype::Bf16);
    assert_eq!(stored.to_f32()[..4], [1.0, -2.5, 1.0, 1.0 + 4.0 / 256.0]);
    assert_eq!(stored.cast(Dtype::F32).cast(Dtype::Bf16), stored);
    assert_eq!(HostTensor::from_f32([5], &values, Dtype::F32).to_f32(), values);
}

fn message(result: Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::Data(message)) if !message.contains('\n') => message,
        other => panic!("no one-line data error: {other:?}"),
    }
}

#[test]
fn broken_weight_files_are_data_errors() {
    let file = encode_safetensors(&tiny().weights).unwrap();
    assert_eq!(decode_safetensors(file.clone()).unwrap(), tiny().weights);
    for end in [0, 4, 100, file.len() - 1] {
        let text = message(decode_safetensors(file.slice(..end)));
        assert!(text.contains(&format!("{end} bytes")), "{text}");
    }
    let mut garbled = file.to_vec();
    garbled[20] = 0xff;
    message(decode_safetensors(garbled.into()));

    let mut objects = tiny().objects().unwrap();
    objects[2].1 = file.slice(..file.len() - 7);
    assert!(message(through(&objects)).starts_with("model.safetensors: "));
}

#[test]
fn what_does_not_belong_together_is_named() {
    let mut lacking = tiny();
    lacking.weights.remove("model.layers.1.mlp.up_proj.weight");
    let text = message(lacking.check());
    assert_eq!(text, "checkpoint lacks the tensor `model.layers.1.mlp.up_proj.weight`");

    let mut extra = tiny();
    extra.weights.insert("adapter".into(), HostTensor::from_f32([1], &[0.0], Dtype::F32));
    assert!(message(extra.check()).contains("`adapter`"));

    let mut misshapen = tiny();
    let tensor = HostTensor::from_f32([4, 4], &[0.0; 16], Dtype::F32);
    misshapen.weights.insert("model.norm.weight".into(), tensor);
    assert!(message(misshapen.check()).contains("`model.norm.weight` has shape [4, 4]"));

    let mut small = tiny();
    small.config = small.config.with(&[("vocab_size", json!(262))]).unwrap();
    small.weights = init_weights(&small.config, 1, 0.02).unwrap();
    let text = message(small.check());
    assert!(text.contains("disagree") && text.contains("263 ids") && text.contains("262 rows"));
}

#[test]
fn other_architectures_are_refused_by_name() {
    let refused = |config: Value| message(ModelConfig::from_json(config.to_string().as_bytes()));
    let gemma = json!({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"});
    assert!(refused(gemma).contains("GemmaForCausalLM"));
    let mut config = Value::Object(tiny().config.source().clone());
    config["rope_parameters"] = json!({"rope_type": "longrope", "rope_theta": 1e6});
    assert!(refused(config.clone()).contains("longrope"));
    config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
    let read = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    assert_eq!(read.rope, Rope { theta: 5e5, scaling: RopeScaling::Default });
    config["num_attention_heads"] = json!(3);
    assert!(refused(config).contains("hidden_size 16"));
}

#[test]
fn shards_are_joined() {
    let checkpoint = tiny();
    let mut objects = checkpoint.objects().unwrap();
    let (mut a, mut b, mut map) = (Weights::new(), Weights::new(), serde_json::Map::new());
    for (index, (name, tensor)) in checkpoint.weights.iter().enumerate() {
        let (file, part) =
            if index % 2 == 0 { ("a.safetensors", &mut a) } else { ("b.safetensors", &mut b) };
        part.insert(name.clone(), tensor.clone());
        map.insert(name.clone(), json!(file));
    }
    objects.remove(2);
    objects.push(("a.safetensors".into(), encode_safetensors(&a).unwrap()));
    objects.push(("b.safetensors".into(), encode_safetensors(&b).unwrap()));
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    objects.push((INDEX.into(), index.into()));
    assert_eq!(through(&objects).unwrap().weights, checkpoint.weights);
}

#[test]
fn folders_are_read_back_and_a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tiny();
    checkpoint.to_folder(folder.path()).unwrap();
    let read = Checkpoint::from_folder(folder.path()).unwrap();
    assert_eq!(read.objects().unwrap(), checkpoint.objects().unwrap());
    std::fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    assert!(
        message(Checkpoint::from_folder(folder.path())).ends_with("model.safetensors is missing")
    );
}
