//! What a folder holds comes back.

use super::*;

#[test]
fn the_seedlings_files_are_written_as_they_are() {
    let folder = root().join("models/seedling");
    let objects = Checkpoint::from_folder(&folder).unwrap().objects().unwrap();
    assert_eq!(objects.len(), std::fs::read_dir(&folder).unwrap().count());
    for (name, bytes) in objects {
        assert!(bytes == std::fs::read(folder.join(&name)).unwrap(), "{name}");
    }
}

/// A folder as other tools make it: files we do not use, keys we do not know, rows without a token.
fn foreign() -> Vec<(String, Bytes)> {
    let mut checkpoint = tiny();
    let keys = [
        ("vocab_size", json!(300)),
        ("eos_token_id", json!([256, 258])),
        ("dtype", json!("bfloat16")),
        ("torch_dtype", json!("bfloat16")),
        ("transformers_version", json!("4.51.0")),
    ];
    checkpoint.config = checkpoint.config.with(&keys).unwrap();
    let weights = init_weights(&checkpoint.config, 3, 0.02).unwrap();
    checkpoint.weights =
        weights.into_iter().map(|(name, tensor)| (name, tensor.cast(Dtype::Bf16))).collect();
    let mut objects = checkpoint.objects().unwrap();
    objects.retain(|(name, _)| name != GENERATION && name != TOKENIZER_SETTINGS);
    let file = |name: &str, text: &str| (name.to_string(), Bytes::from(text.to_string()));
    objects.extend([
        file(GENERATION, r#"{"eos_token_id":[257],"temperature":0.6, "top_k": 20}"#),
        file(TOKENIZER_SETTINGS, "{ \"eos_token\": \"<|im_end|>\",\n\n\"odd\":1}"),
        file(CHAT_TEMPLATE, "{{ messages[0].content }}"),
        file("merges.txt", "#version: 0.2\n"),
        file("vocab.json", "{}"),
    ]);
    objects.sort();
    objects
}

#[test]
fn nothing_is_lost() {
    let objects = foreign();
    let mut read = through(&objects).unwrap();
    let mut written = read.objects().unwrap();
    written.sort();
    assert_eq!(written, objects);
    assert_eq!(read.stop_ids().unwrap(), [256, 257, 258]);
    assert_eq!(read.weights["model.embed_tokens.weight"].shape, [300, 16]);
    let hi = [Message { role: "user".into(), content: "hi".into() }];
    assert_eq!(read.tokenizer.chat(&hi, false).unwrap().unwrap(), "hi");

    // Other weights: the config says so, and nothing else changes.
    read.weights.iter_mut().for_each(|(_, tensor)| *tensor = tensor.cast(Dtype::F32));
    let config = &read.objects().unwrap()[0];
    let expected = String::from_utf8(objects[1].1.to_vec()).unwrap();
    assert_eq!(config.1, expected.replace("bfloat16", "float32").as_bytes());
}

#[test]
fn large_models_are_cut_into_files_as_hugging_face_does() {
    let checkpoint = tiny();
    let mut objects = Vec::new();
    let put = |name, bytes| {
        objects.push((name, bytes));
        Ok(())
    };
    checkpoint.write_in_shards(20_000, put).unwrap();
    let shards: Vec<_> =
        objects.iter().filter(|(name, _)| name.ends_with(".safetensors")).collect();
    assert_eq!(shards[0].0, "model-00001-of-00002.safetensors");
    assert_eq!(shards.len(), 2);
    let index = &objects.iter().find(|(name, _)| name == INDEX).unwrap().1;
    let index: Value = serde_json::from_slice(index).unwrap();
    for (name, tensor) in &checkpoint.weights {
        let file = index["weight_map"][name].as_str().unwrap();
        let shard = &shards.iter().find(|(name, _)| name == file).unwrap().1;
        assert_eq!(&decode_safetensors(shard.clone()).unwrap()[name], tensor);
    }
    let size: usize = checkpoint.weights.values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], size);
    assert_eq!(through(&objects).unwrap().weights, checkpoint.weights);
}

#[test]
fn tensors_that_follow_from_others_are_dropped() {
    let mut checkpoint = tiny();
    let head = checkpoint.weights["model.embed_tokens.weight"].clone();
    checkpoint.weights.insert("lm_head.weight".into(), head);
    let angles = HostTensor::from_f32([2], &[1.0, 0.01], Dtype::F32);
    checkpoint.weights.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), angles);
    let mut objects = tiny().objects().unwrap();
    objects[2].1 = encode_safetensors(&checkpoint.weights).unwrap();
    assert_eq!(through(&objects).unwrap().weights, tiny().weights);
    let other = HostTensor::from_f32([264, 16], &[1.0; 264 * 16], Dtype::F32);
    checkpoint.weights.insert("lm_head.weight".into(), other);
    objects[2].1 = encode_safetensors(&checkpoint.weights).unwrap();
    assert!(message(through(&objects)).contains("`lm_head.weight`"));
}

#[test]
fn what_would_be_another_model_is_refused_by_key_and_value() {
    let refused = |key: &str, value: Value| {
        let text = message(tiny().config.with(&[(key, value.clone())]));
        assert!(text.contains(key) && text.contains(&value.to_string()), "{text}");
    };
    refused("model_type", json!("qwen2_moe"));
    refused("hidden_act", json!("gelu"));
    refused("attention_dropout", json!(0.1));
    refused("quantization_config", json!({"quant_method": "gptq"}));
    refused("partial_rotary_factor", json!(0.5));
    refused("rms_norm_eps", json!(0));
    refused("num_hidden_layers", json!(-1));
    refused("tie_word_embeddings", json!("yes"));
    let other = [("architectures", json!(["Qwen2ForSequenceClassification"]))];
    assert!(message(tiny().config.with(&other)).contains("[\"Qwen2ForSequenceClassification\"]"));
    let scaling = |value: Value| message(tiny().config.with(&[("rope_scaling", value)]));
    assert!(scaling(json!({"type": "dynamic", "factor": 2.0})).contains("\"dynamic\""));
    assert!(scaling(json!({"type": "linear"})).contains("lacks `factor`"));
    assert!(scaling(json!({"type": "linear", "factor": "2"})).contains("factor is \"2\""));
    assert!(scaling(json!({"mrope_section": [1]})).contains("`mrope_section`"));
}

#[test]
fn a_sliding_window_is_refused_where_it_would_slide() {
    let with = |on: bool, width: Value, first: u64| {
        let keys = [
            ("use_sliding_window", json!(on)),
            ("sliding_window", width),
            ("max_window_layers", json!(first)),
        ];
        tiny().config.with(&keys)
    };
    with(false, json!(32), 0).unwrap();
    with(true, json!(null), 0).unwrap();
    with(true, json!(32), 2).unwrap();
    assert!(message(with(true, json!(32), 1)).contains("use_sliding_window true"));
    let types = json!(["full_attention", "sliding_attention"]);
    let text = message(tiny().config.with(&[("layer_types", types)]));
    assert!(text.contains("layer_types \"sliding_attention\""), "{text}");
}

#[test]
fn missing_keys_mean_what_each_family_means_by_them() {
    let read = |kind: &str| {
        ModelConfig::from_json(json!({"model_type": kind}).to_string().as_bytes()).unwrap()
    };
    let (llama, qwen2, qwen3) = (read("llama"), read("qwen2"), read("qwen3"));
    assert_eq!((llama.vocab_size, llama.intermediate_size), (32_000, 11_008));
    assert_eq!((llama.num_key_value_heads, llama.max_position_embeddings), (32, 2048));
    assert_eq!((qwen2.vocab_size, qwen2.max_position_embeddings), (151_936, 32_768));
    assert!(qwen2.qkv_bias && !qwen2.output_bias && !qwen3.qkv_bias && !llama.qkv_bias);
    assert!(qwen3.qk_norm && !qwen2.qk_norm && !llama.qk_norm);
    assert_eq!((qwen2.head_dim(), qwen3.head_dim()), (128, 128));
    let few = json!({"model_type": "llama", "num_attention_heads": 8}).to_string();
    assert_eq!(ModelConfig::from_json(few.as_bytes()).unwrap().num_key_value_heads, 8);
}

/// As published, with the number of parameters that their pages name.
#[test]
fn published_configs_are_read() {
    let rows = [
        (
            7_615_616_512,
            r#"{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
            "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584,
            "initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 32768,
            "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
            "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
            "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false,
            "vocab_size": 152064}"#,
        ),
        (
            8_190_735_360,
            r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960,
            "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32,
            "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
            "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
            "use_sliding_window": false, "vocab_size": 151936}"#,
        ),
        (
            8_030_261_248,
            r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
            "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
            "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "vocab_size": 128256}"#,
        ),
        (
            6_738_415_616,
            r#"{"_name_or_path": "meta-llama/Llama-2-7b-hf",
            "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
            "tie_word_embeddings": false, "torch_dtype": "float16", "vocab_size": 32000}"#,
        ),
        (
            134_515_008,
            r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 576, "initializer_range": 0.041666666666666664,
            "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192,
            "mlp_bias": false, "model_type": "llama", "num_attention_heads": 9,
            "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false,
            "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true,
            "torch_dtype": "bfloat16", "transformers.js_config": {"kv_cache_dtype": {}},
            "use_cache": true, "vocab_size": 49152}"#,
        ),
    ];
    for (parameters, text) in rows {
        let config = ModelConfig::from_json(text.as_bytes()).unwrap();
        let sizes = config.tensors().into_values().map(|shape| shape.iter().product::<usize>());
        assert_eq!(sizes.sum::<usize>(), parameters, "{text}");
    }
}
