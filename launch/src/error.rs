//! What can go wrong, as triad's own errors: by what whoever called can do.

/// One clear line: what, where, the value, what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Exit code 64: the request is wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 65: what the store holds is damaged.
    #[error("{0}")]
    Data(String),
    /// Exit code 75: the scheduler does not answer, or was asked to stop.
    #[error("{0}")]
    TryAgain(String),
    /// Exit code 70: a defect of triad, or an answer that nothing is known to give.
    #[error("{0}")]
    Defect(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
