//! Asking a server, and asking again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};

use super::Endpoint;
use super::failure::{passing, refusal, retry_after, said, unreachable};
use super::wire::{Asking, Completion, Request, Unfit};
use crate::entropy::Stream;
use crate::{Error, Result};

/// A server that never answered is given up sooner: its address is probably wrong.
const STRANGER: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(20);
/// At most one line on retries in that time, whatever the number of requests.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);

/// What a client did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent, repeated ones included.
    pub requests: u64,
    pub retries: u64,
}

/// A connection to a server; shared by the requests in flight.
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    asking: Asking,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// Whether the server ever answered anything.
    answered: bool,
    completed: Option<Instant>,
    warned: Option<Instant>,
}

/// What became of one try.
enum Try {
    Done(Completion),
    /// Worth another, not before the time the server asked for.
    Again(String, Option<Duration>),
    Failed(Error),
}

impl Client {
    /// # Errors
    /// [`Error::Defect`] if TLS cannot be set up.
    pub fn new(endpoint: Endpoint, asking: Asking) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(endpoint.limits.timeout)
            // A followed redirect would turn the request into a GET.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_keepalive(Duration::from_secs(60))
            .build()
            .map_err(|e| Error::defect(format!("HTTP client: {e}")))?;
        Ok(Self { http, endpoint, asking, state: Mutex::default() })
    }

    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Asks for one completion until there is one. Dropping the future ends the request.
    ///
    /// # Errors
    /// [`Error::TryAgain`] when the server is out of reach, busy or broken for longer than its
    /// `patience`, counted from this request's first failure or the last completion of any other,
    /// whichever is later: a busy server that gets on is not given up. [`Error::Usage`] when it
    /// refuses the request, [`Error::Data`] when its answer is no completion.
    pub async fn complete(&self, request: &Request) -> Result<Completion> {
        let body = serde_json::to_vec(&self.asking.body(request)).map_err(Error::defect)?;
        let mut failing: Option<Instant> = None;
        let mut tries = 0;
        loop {
            let (why, wait) = match self.try_once(&body).await {
                Try::Done(completion) => return Ok(completion),
                Try::Failed(error) => return Err(error),
                Try::Again(why, wait) => (why, wait.unwrap_or_default()),
            };
            let first = *failing.get_or_insert_with(Instant::now);
            tries += 1;
            let pause = delay(request.seed, tries).max(wait);
            let place = &self.endpoint.url;
            {
                let mut state = self.state();
                let since = state.completed.map_or(first, |completed| completed.max(first));
                let patience = self.endpoint.limits.patience;
                let patience = if state.answered { patience } else { patience.min(STRANGER) };
                if since.elapsed() + pause > patience {
                    return Err(Error::try_again(format!(
                        "{place}: {why}; given up after {tries} tries in {:.0} s; check the server \
                         and TRIAD_SERVER_URL, then run the same command again",
                        first.elapsed().as_secs_f64()
                    )));
                }
                state.counts.retries += 1;
                if state.warned.is_none_or(|last| last.elapsed() > BETWEEN_WARNINGS) {
                    state.warned = Some(Instant::now());
                    tracing::warn!("{place}: {why}; trying again");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_once(&self, body: &[u8]) -> Try {
        let authorization = match self.endpoint.authorization() {
            Ok(authorization) => authorization,
            Err(error) => return Try::Failed(error),
        };
        let mut request = self.http.post(self.endpoint.url.clone()).body(body.to_vec());
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        self.state().counts.requests += 1;
        let lost = |error| Try::Again(unreachable(&self.endpoint, &error), None);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return lost(error),
        };
        self.state().answered = true;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = match response.bytes().await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let said = |body: &[u8]| said(&self.endpoint, body);
        if passing(status) {
            let why = format!("status {}{}", status.as_u16(), said(&answer));
            return Try::Again(why, retry_after(&headers));
        }
        if !status.is_success() {
            let model = &self.asking.model;
            return Try::Failed(refusal(&self.endpoint, model, status, &headers, &answer));
        }
        match Completion::parse(&answer) {
            Ok(completion) => {
                self.state().completed = Some(Instant::now());
                Try::Done(completion)
            }
            Err(Unfit::Aborted) => Try::Again("the server dropped the request".into(), None),
            Err(Unfit::Strange(what)) => Try::Failed(Error::data(format!(
                "{}: the answer is no completion ({what}){}; check that TRIAD_SERVER_URL is the \
                 base URL of an OpenAI-compatible server",
                self.endpoint.url,
                said(&answer)
            ))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubled after each try, and drawn from its upper half so that requests that failed together do
/// not come back together.
fn delay(seed: u32, tries: u32) -> Duration {
    let whole = FIRST_DELAY.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_DELAY);
    let draw = Stream::new(seed.into(), "retry", tries.into()).uniform();
    whole.mul_f64(0.5 + draw / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_differ_from_request_to_request() {
        for tries in 1..40 {
            let whole = (0.25 * 2f64.powi(tries - 1)).min(20.0);
            for seed in 0..20 {
                let delay = delay(seed, tries as u32).as_secs_f64();
                assert!((0.5 * whole..=whole).contains(&delay), "{tries}: {delay} of {whole}");
            }
        }
        assert_ne!(delay(1, 3), delay(2, 3));
    }
}
