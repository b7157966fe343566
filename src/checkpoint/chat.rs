//! Chat templates: a conversation as the text that the model was trained on.

use std::fmt::Write;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant`.
    pub role: String,
    pub content: String,
}

/// What a template that asks for the date gets. A fixed day: a prompt is part of what a job's
/// output is made of, and must be the same tomorrow. It is the one that Llama 3's own template
/// falls back to.
const TODAY: chrono::NaiveDate = match chrono::NaiveDate::from_ymd_opt(2024, 7, 26) {
    Some(day) => day,
    None => chrono::NaiveDate::MIN,
};

/// The Jinja template of a checkpoint, rendered as transformers renders it.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Where it was read, for messages.
    place: &'static str,
    source: String,
    /// `bos_token`, `eos_token` and the like, by key.
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The template in `chat_template.jinja` if there is one, or that of `tokenizer_config.json`:
    /// a string, or a list of named ones, of which `default` counts.
    pub fn find(file: Option<&[u8]>, settings: &Map<String, Json>) -> Result<Option<Self>> {
        let (place, source) = match (file, settings.get("chat_template")) {
            (Some(file), _) => {
                let text = std::str::from_utf8(file)
                    .map_err(|e| Error::data(format!("chat_template.jinja: {e}")))?;
                ("chat_template.jinja", text)
            }
            (None, None | Some(Json::Null)) => return Ok(None),
            (None, Some(Json::String(text))) => ("tokenizer_config.json: chat_template", &text[..]),
            (None, Some(list)) => {
                let named = list.as_array().into_iter().flatten();
                let default = named.into_iter().find(|one| one["name"] == "default");
                match default.and_then(|one| one["template"].as_str()) {
                    Some(text) => ("tokenizer_config.json: chat_template `default`", text),
                    None => return Ok(None),
                }
            }
        };
        let token = |(key, value): (&String, &Json)| {
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            key.ends_with("_token").then(|| (key.clone(), text.to_string()))
        };
        let tokens = settings.iter().filter_map(token).collect();
        Ok(Some(Self { place, source: without_generation_marks(source), tokens }))
    }

    /// The conversation as text; with `add_generation_prompt` up to where the answer begins.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let fail = |e: minijinja::Error| {
            let line = e.line().map(|line| format!(", line {line}")).unwrap_or_default();
            let what = e.detail().map_or_else(|| e.kind().to_string(), str::to_string);
            Error::data(format!("{}{line}: {}", self.place, what.replace('\n', " ")))
        };
        let mut environment = environment().map_err(fail)?;
        environment.add_template("chat_template", &self.source).map_err(fail)?;
        let mut variables: Vec<(&str, Value)> =
            self.tokens.iter().map(|(key, text)| (&key[..], text.into())).collect();
        variables.extend([
            ("messages", Serde(messages).into()),
            ("add_generation_prompt", add_generation_prompt.into()),
            ("tools", ().into()),
            ("documents", ().into()),
        ]);
        let template = environment.get_template("chat_template").map_err(fail)?;
        template.render(Value::from_pairs(variables)).map_err(fail)
    }
}

/// Jinja with what transformers adds to it, and Python's methods.
fn environment<'a>() -> Result<Environment<'a>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |what: String| -> Result<Value, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    environment.add_function("strftime_now", strftime);
    Ok(environment)
}

/// [`TODAY`], at midnight, in Python's directives.
fn strftime(format: String) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    // An unknown directive is an error of the formatter, which `to_string` would panic on.
    write!(text, "{}", TODAY.and_time(chrono::NaiveTime::MIN).format(&format)).map_err(|_| {
        let what = format!("strftime_now: `{format}` has an unknown directive");
        minijinja::Error::new(ErrorKind::InvalidOperation, what)
    })?;
    Ok(text)
}

/// `{% generation %}` marks what the assistant says, for training masks, and prints nothing: it
/// becomes a block that is always shown.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let body = tag.trim_start_matches(['-', '+']).trim_start();
        let word = body.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        let instead = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => word,
        };
        out.push_str(&tag[..tag.len() - body.len()]);
        out.push_str(instead);
        rest = &body[word.len()..];
    }
    out + rest
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
        Some(width) => {
            let indent = " ".repeat(width);
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    };
    let bad = |what: String| minijinja::Error::new(ErrorKind::BadSerialization, what);
    written.map_err(|e| bad(e.to_string()))?;
    let text = String::from_utf8(out).map_err(|e| bad(e.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// Python's separators: `, ` and `: `.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
