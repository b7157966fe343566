//! A completion server for tests: HTTP on loopback, answers from a function.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use triad::entropy::Stream;

/// A request as it came.
#[derive(Clone)]
pub struct Seen {
    /// How many came before.
    pub number: usize,
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

pub struct Reply {
    pub status: u16,
    pub headers: &'static str,
    pub body: String,
}

impl Reply {
    pub fn new(status: u16, body: impl ToString) -> Self {
        Self { status, headers: "", body: body.to_string() }
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    seen: Mutex<Vec<Seen>>,
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Listens until the test process ends.
pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

impl Server {
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let state = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                // The client may hang up at any moment.
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Self { url, shared }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The most requests that were in work at a time.
    pub fn most_at_a_time(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let (mut line, mut length, mut authorization) = (String::new(), 0, None);
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_string();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim().split_once(": ") else { break };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().unwrap(),
                    "authorization" => authorization = Some(value.to_string()),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body = serde_json::from_slice(&body).unwrap();
            let seen = {
                let mut all = self.seen.lock().unwrap();
                let number = all.len();
                all.push(Seen { number, path, authorization, body });
                all.last().unwrap().clone()
            };
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(open, Ordering::SeqCst);
            let Reply { status, headers, body } = (self.answer)(&seen);
            self.open.fetch_sub(1, Ordering::SeqCst);
            let length = body.len();
            write!(
                writer,
                "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
            )?;
        }
    }
}

/// What the model of these tests answers: letters that follow from prompt, seed and temperature,
/// then the end of text.
fn letters(request: &Value) -> String {
    let name = format!("{}/{}", request["prompt"], request["temperature"]);
    let mut stream = Stream::new(request["seed"].as_u64().unwrap(), &name, 0);
    (0..4).map(|_| (b'a' + stream.below(26) as u8) as char).collect()
}

/// As vLLM answers: ids of a tokenizer with one token a byte, and what goes with each.
pub fn vllm(tokenizer: &triad::checkpoint::Tokenizer, seen: &Seen) -> Reply {
    let text = letters(&seen.body);
    let mut ids = tokenizer.encode(&text).unwrap();
    ids.push(tokenizer.eos());
    let logprobs: Vec<f64> = ids.iter().map(|&id| -0.125 * f64::from(id % 16)).collect();
    let names: Vec<_> = ids.iter().map(|id| format!("token_id:{id}")).collect();
    let prompt = match &seen.body["prompt"] {
        Value::String(text) => json!(tokenizer.encode(text).unwrap()),
        ids => ids.clone(),
    };
    let choice = json!({
        "index": 0, "text": text, "finish_reason": "stop", "stop_reason": null,
        "token_ids": ids, "prompt_token_ids": prompt,
        "logprobs": {"tokens": names, "token_logprobs": logprobs, "top_logprobs": [], "text_offset": []},
    });
    Reply::new(200, json!({"id": "cmpl-1", "object": "text_completion", "choices": [choice]}))
}

/// A server that gives nothing but text.
pub fn text_only(seen: &Seen) -> Reply {
    let choice = json!({"text": letters(&seen.body), "finish_reason": "length"});
    Reply::new(200, json!({"choices": [choice]}))
}
