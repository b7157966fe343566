//! A published model, too large for the repository: infra/smollm2.sh makes its folder.

use std::path::Path;

use super::*;
use triad::checkpoint::Checkpoint;

#[test]
fn smollm2_writes_what_it_writes_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/smollm2");
    assert!(folder.exists(), "{} is missing; run `make setup`", folder.display());
    let Checkpoint { config, tokenizer, weights, .. } = Checkpoint::from_folder(&folder).unwrap();
    let model = Transformer::load(&config, &weights, Device::Cpu, Precision::F32, false).unwrap();
    let rows: Value = serde_json::from_slice(&fixture("smollm2.json")).unwrap();
    let rows = rows.as_array().unwrap();
    let numbers = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let requests: Vec<SampleRequest> = (0..)
        .zip(rows)
        .map(|(item, row)| {
            let prompt = tokenizer.encode_prompt(row["prompt"].as_str().unwrap()).unwrap();
            assert_eq!(prompt, numbers(&row["ids"]));
            SampleRequest { prompt, item, sample: 0 }
        })
        .collect();
    let greedy = Sampling { temperature: 0.0, max_new_tokens: 100, ..Sampling::default() };
    // No id ends a response: each has 100 tokens.
    let drawn = sample(&model, &Stops::at(&[]), &requests, &greedy).unwrap();
    assert_eq!(drawn.len(), 10);
    for (row, response) in rows.iter().zip(drawn) {
        assert_eq!(response.tokens, numbers(&row["tokens"]), "{}", row["prompt"]);
        assert_eq!(response.tokens.len(), 100);
    }
}
