use std::fmt::Display;

/// triad's own error, which one of libtorch's becomes.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] pub triad::Error);

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn usage(message: impl Display) -> Self {
        Self(triad::Error::usage(message))
    }

    pub fn data(message: impl Display) -> Self {
        Self(triad::Error::data(message))
    }

    pub fn defect(message: impl Display) -> Self {
        Self(triad::Error::defect(message))
    }

    /// The same error with `place: ` before its message.
    pub fn at(self, place: impl Display) -> Self {
        Self(self.0.at(place))
    }
}

impl From<Error> for triad::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl From<tch::TchError> for Error {
    /// The first line: what follows in libtorch's message is a stack trace.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        Self::defect(format!("libtorch: {}", text.lines().next().unwrap_or_default()))
    }
}
