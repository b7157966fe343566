//! Tokenizers and chat templates against transformers; the scripts under `tests/fixtures/model`
//! remake the fixtures.

use super::*;

fn fixture(name: &str) -> Bytes {
    let path = root().join("tests/fixtures/model").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

fn tokenizer(folder: &Path) -> Tokenizer {
    let file = |name: &str| Bytes::from(std::fs::read(folder.join(name)).unwrap());
    Tokenizer::from_files(TokenizerFiles {
        tokenizer: file("tokenizer.json"),
        settings: Some(file("tokenizer_config.json")),
        special: None,
        template: None,
        eos: None,
    })
    .unwrap()
}

fn check_ids(name: &str, folder: &Path) {
    let ids: Value = serde_json::from_slice(&fixture("tokenizers/ids.json")).unwrap();
    let tokenizer = tokenizer(folder);
    let texts = ids["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 30);
    for (i, text) in texts.iter().enumerate() {
        let text = text.as_str().unwrap();
        let expected = |kind: &str| -> Vec<u32> {
            serde_json::from_value(ids[name][kind][i].clone()).unwrap()
        };
        let plain = tokenizer.encode(text).unwrap();
        assert_eq!(plain, expected("plain"), "{name}: {text:?}");
        assert_eq!(tokenizer.encode_prompt(text).unwrap(), expected("prompt"), "{name}: {text:?}");
        let decoded = tokenizer.decode(&plain).unwrap();
        assert_eq!(decoded, ids[name]["decoded"][i].as_str().unwrap(), "{name}: {text:?}");
    }
}

#[test]
fn ids_are_those_of_transformers() {
    check_ids("seedling", &root().join("models/seedling"));
    for name in ["llama3", "llama2"] {
        check_ids(name, &root().join("tests/fixtures/model/tokenizers").join(name));
    }
    // A published one, too large for the repository: infra/smollm2.sh makes the folder.
    let folder = root().join(".tools/smollm2");
    assert!(folder.exists(), "{} is missing; run `make setup`", folder.display());
    check_ids("smollm2", &folder);
}

fn with_template(template: &str) -> Tokenizer {
    let settings = fixture("tokenizers/llama2/tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&settings).unwrap();
    settings["chat_template"] = json!(template);
    Tokenizer::from_files(TokenizerFiles {
        tokenizer: fixture("tokenizers/llama2/tokenizer.json"),
        settings: Some(settings.to_string().into()),
        special: None,
        template: None,
        eos: None,
    })
    .unwrap()
}

#[test]
fn chats_are_rendered_as_transformers_does() {
    let cases: Value = serde_json::from_slice(&fixture("chat.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let tokenizer = with_template(case["template"].as_str().unwrap());
        for render in case["renders"].as_array().unwrap() {
            let messages: Vec<Message> =
                serde_json::from_value(render["messages"].clone()).unwrap();
            let text = tokenizer.chat(&messages, render["open"].as_bool().unwrap()).unwrap();
            assert_eq!(text.unwrap(), render["text"].as_str().unwrap(), "{}", case["name"]);
        }
    }
    assert_eq!(cases.as_array().unwrap().len(), 7);
}

#[test]
fn a_template_is_found_where_transformers_looks() {
    let user = [Message { role: "user".into(), content: "hi".into() }];
    let named = json!([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]);
    let (file, settings) = (Bytes::from("f"), json!({"eos_token": "</s>", "chat_template": named}));
    let read = |template, settings: &Value| {
        Tokenizer::from_files(TokenizerFiles {
            tokenizer: fixture("tokenizers/llama2/tokenizer.json"),
            settings: Some(settings.to_string().into()),
            special: None,
            template,
            eos: None,
        })
        .unwrap()
        .chat(&user, true)
        .unwrap()
    };
    assert_eq!(read(Some(file), &settings).unwrap(), "f");
    assert_eq!(read(None, &settings).unwrap(), "d");
    assert_eq!(read(None, &json!({"eos_token": "</s>"})), None);
}

#[test]
fn broken_templates_say_where() {
    let user = [Message { role: "user".into(), content: "hi".into() }];
    let ask = |template: &str| message(with_template(template).chat(&user, true));
    let place = "tokenizer_config.json: chat_template, line 2: ";
    let text = ask("{{ bos_token }}\n{{ raise_exception('only assistants') }}");
    assert_eq!(text, format!("{place}only assistants"));
    assert!(ask("{% for m in messages %}\n{{ m.role }").starts_with(place));
    assert!(ask("\n{{ messages | nosuch }}").starts_with(place));
    assert!(ask("\n{{ strftime_now('%Q') }}").starts_with(&format!("{place}strftime_now: `%Q`")));
    let hour = with_template("{{ strftime_now('%-d.%m. %H:%M') }}").chat(&user, true);
    assert_eq!(hour.unwrap().unwrap(), "26.07. 00:00");
    let unknown = r#"[{"role": "user", "content": "hi", "name": "x"}]"#;
    assert!(serde_json::from_str::<Vec<Message>>(unknown).is_err());
}

#[test]
fn the_end_of_text_is_looked_for_where_it_may_stand() {
    let read = |settings: Option<Value>, special: Option<Value>, eos| {
        let file = |value: Option<Value>| value.map(|value| Bytes::from(value.to_string()));
        Tokenizer::from_files(TokenizerFiles {
            tokenizer: fixture("tokenizers/llama2/tokenizer.json"),
            settings: file(settings),
            special: file(special),
            template: None,
            eos,
        })
    };
    let end = |text: &str| Some(json!({"eos_token": text}));
    assert_eq!(read(end("</s>"), end("<s>"), Some(7)).unwrap().eos(), 2);
    assert_eq!(read(Some(json!({})), end("<s>"), Some(7)).unwrap().eos(), 1);
    assert_eq!(read(None, None, Some(7)).unwrap().eos(), 7);
    assert!(message(read(None, None, None)).contains("eos_token"));
    assert!(message(read(end("<eot>"), None, None)).contains("`<eot>`"));
}
