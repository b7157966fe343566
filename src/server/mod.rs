//! Servers that complete prompts over OpenAI's API (vLLM, SGLang, llama.cpp): requests, answers,
//! retries. What is asked belongs to an artifact's identity, where the server is does not.

mod client;
mod endpoint;
mod failure;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{Client, Counts};
pub use endpoint::{Endpoint, Limits};
pub use wire::{Asking, Completion, Fields, Finish, Ids, PromptForm, Request};
