use super::*;

fn tiny() -> Checkpoint {
    let config = json!({
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 264,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "extra_key": [1],
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let weights = init_weights(&config, 1).unwrap();
    let tokenizer = Tokenizer::train(std::iter::empty(), 263).unwrap();
    Checkpoint { config, tokenizer, weights }
}

fn through(objects: &[(String, Bytes)]) -> Result<Checkpoint> {
    Checkpoint::from_objects(|name| {
        let found = objects.iter().find(|(n, _)| n == name);
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| Error::data(format!("no {name}")))
    })
}

#[test]
fn a_checkpoint_survives_the_round_trip() {
    let checkpoint = tiny();
    let objects = checkpoint.objects().unwrap();
    let read = through(&objects).unwrap();
    assert_eq!(read.weights, checkpoint.weights);
    assert_eq!(read.objects().unwrap(), objects);
    assert_eq!(read.config.other["extra_key"], json!([1]));
    assert_eq!(read.config.eos_token_id, Some(json!(checkpoint.tokenizer.eos())));
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
