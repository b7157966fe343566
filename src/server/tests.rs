//! The wire format.

use serde_json::{Value, json};

use super::wire::Unfit;
use super::*;

fn asking(prompt: PromptForm, fields: Fields) -> Asking {
    Asking { model: "m".into(), prompt, fields, stop: vec![], stop_ids: vec![2, 5] }
}

fn request() -> Request {
    Request {
        text: "ab".into(),
        ids: [1, 7, 8].into(),
        bare: false,
        max_tokens: 9,
        temperature: 0.5,
        top_k: 0,
        top_p: 0.9,
        min_p: 0.0,
        seed: 4,
    }
}

fn parse(answer: Value) -> Result<Completion, Unfit> {
    Completion::parse(answer.to_string().as_bytes())
}

#[test]
fn a_body_holds_ids_or_text_with_or_without_extensions() {
    let body = asking(PromptForm::Ids, Fields::Extended).body(&request());
    assert_eq!(body["prompt"], json!([1, 7, 8]));
    assert_eq!(body["stop_token_ids"], json!([2, 5]));
    assert_eq!((&body["top_k"], &body["min_p"]), (&json!(-1), &json!(0.0)));
    assert_eq!(body.get("add_special_tokens"), None);
    let body = asking(PromptForm::Text, Fields::Extended).body(&request());
    assert_eq!((&body["prompt"], &body["add_special_tokens"]), (&json!("ab"), &json!(true)));
    let body = asking(PromptForm::Text, Fields::Openai).body(&request());
    let plain = json!({
        "model": "m", "prompt": "ab", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9,
        "seed": 4, "logprobs": 1,
    });
    assert_eq!(body, plain);
}

#[test]
fn ids_are_found_where_each_server_puts_them() {
    let lists = |tokens: &[&str]| json!({"tokens": tokens, "token_logprobs": [-0.5, -1.0]});
    let expected = Ids::Given(vec![7, 8]);
    for (extra, logprobs) in [
        (json!([7, 8]), lists(&["a", "b"])),
        (Value::Null, lists(&["token_id:7", "token_id:8"])),
        (
            Value::Null,
            json!({"content": [
                {"id": 7, "token": "a", "logprob": -0.5},
                {"id": 8, "token": "b", "logprob": -1.0},
            ]}),
        ),
    ] {
        let answer = json!({
            "choices": [{
                "text": "ab", "finish_reason": "stop", "token_ids": extra, "logprobs": logprobs,
                "prompt_token_ids": [1],
            }],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        });
        let completion = parse(answer).unwrap();
        assert_eq!(completion.ids, expected);
        assert_eq!(completion.logprobs, [-0.5, -1.0]);
        assert_eq!((completion.prompt_ids, completion.prompt_tokens), (Some(vec![1]), Some(1)));
        assert_eq!(completion.finish, Finish::Stop);
    }
}

#[test]
fn what_is_missing_stays_missing() {
    let answer = |logprobs: Value, count: usize| {
        let choice = json!({"text": "ab", "finish_reason": "length", "logprobs": logprobs});
        parse(json!({"choices": [choice], "usage": {"completion_tokens": count}})).unwrap()
    };
    let none = answer(Value::Null, 2);
    assert_eq!((none.ids, none.logprobs), (Ids::Texts(vec![]), vec![]));
    let texts = answer(json!({"tokens": ["a", "b"], "token_logprobs": [-0.5, null]}), 2);
    assert_eq!((texts.ids, texts.logprobs), (Ids::Texts(vec!["a".into(), "b".into()]), vec![]));
    // llama.cpp gives no entry for a token that ends within a character.
    let partial = answer(json!({"content": [{"id": 7, "token": "a", "logprob": -0.5}]}), 2);
    assert_eq!(partial.ids, Ids::Texts(vec!["a".into()]));
    let unknown = answer(json!([1, 2]), 2);
    assert_eq!((unknown.ids, unknown.logprobs), (Ids::Texts(vec![]), vec![]));
}

#[test]
fn answers_that_are_no_completion_are_told_apart() {
    let finished =
        |reason: Value| parse(json!({"choices": [{"text": "", "finish_reason": reason}]}));
    assert_eq!(finished(json!("abort")).unwrap_err(), Unfit::Aborted);
    let strange = |answer: Result<Completion, Unfit>| match answer.unwrap_err() {
        Unfit::Strange(what) => what,
        Unfit::Aborted => panic!("aborted"),
    };
    assert_eq!(strange(finished(json!("content_filter"))), "finish_reason \"content_filter\"");
    assert_eq!(strange(finished(Value::Null)), "finish_reason null");
    assert_eq!(strange(parse(json!({"choices": []}))), "0 choices, 1 was asked for");
    assert!(strange(parse(json!({"error": "x"}))).contains("missing field `choices`"));
    assert!(strange(Completion::parse(b"<html>")).contains("expected value"));
}
