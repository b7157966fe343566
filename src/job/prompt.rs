//! What a task says to a model.

use crate::checkpoint::{Message, Tokenizer};
use crate::dataset::Task;
use crate::reward::Tag;
use crate::{Error, Result};

/// A task's prompt for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
}

impl Prompt {
    /// A task in chat form is rendered by the checkpoint's own template, up to the answer, whose
    /// think part is opened where the task's text opens it (a reasoning model's template may have
    /// done that). A task without
    /// messages, or a checkpoint without a template, takes the task's text as it is.
    pub fn new(task: &Task, tokenizer: &Tokenizer) -> Result<Self> {
        let fail = |e: Error| e.at(format!("task `{}`", task.task_id));
        let chat = match &task.messages[..] {
            "" => None,
            messages => {
                let messages: Vec<Message> = serde_json::from_str(messages)
                    .map_err(|e| fail(Error::data(format!("column messages: {e}"))))?;
                tokenizer.chat(&messages, true).map_err(fail)?
            }
        };
        let Some(mut text) = chat else {
            let ids = tokenizer.encode_prompt(&task.prompt)?;
            return Ok(Self { text: task.prompt.clone(), ids });
        };
        let think = Tag::Think.text();
        let asked = task.prompt.trim_end().ends_with(think);
        if asked && !text.trim_end().ends_with(think) {
            text.push_str(think);
        }
        // The template has put the begin of text where it wants it: none is added.
        let ids = tokenizer.encode(&text)?;
        Ok(Self { text, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TokenizerFiles;

    fn tokenizer(template: Option<&str>) -> Tokenizer {
        Tokenizer::from_files(TokenizerFiles {
            tokenizer: Tokenizer::train(std::iter::empty(), 263).unwrap().bytes(),
            settings: None,
            special: None,
            template: template.map(|text| text.to_string().into()),
            eos: None,
        })
        .unwrap()
    }

    #[test]
    fn a_chat_is_rendered_and_its_think_part_opened_once() {
        let messages = r#"[{"role": "user", "content": "1+1=?"}]"#;
        let task = |messages: &str| Task {
            prompt: "1+1=?<think>".into(),
            messages: messages.into(),
            ..Task::default()
        };
        let text = |messages: &str, template: Option<&str>| {
            let prompt = Prompt::new(&task(messages), &tokenizer(template)).unwrap();
            assert_eq!(prompt.ids, tokenizer(None).encode(&prompt.text).unwrap());
            prompt.text
        };
        let template = "<|im_start|>{{ messages[0].content }}<|im_end|>\n";
        assert_eq!(text("", Some(template)), "1+1=?<think>");
        assert_eq!(text(messages, None), "1+1=?<think>");
        let open = format!("{template}{{{{ '<think>\\n' }}}}");
        assert_eq!(text(messages, Some(template)), "<|im_start|>1+1=?<|im_end|><think>");
        assert_eq!(text(messages, Some(&open)), "<|im_start|>1+1=?<|im_end|>\n<think>\n");
        let broken = Prompt::new(&task("[1]"), &tokenizer(Some(template))).unwrap_err();
        assert!(broken.to_string().contains("column messages"));
    }
}
