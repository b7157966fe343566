//! Errors, sorted by what a scheduler should do about them.

/// A failed command. The variant decides the exit code, the message is one line:
/// what, where, the offending value, what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is wrong: flags, pipeline file, names. Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// An input is wrong: a dataset, a checkpoint, a digest. Exit code 65.
    #[error("{0}")]
    Data(String),
    /// A defect of triad or of the machine. Exit code 70.
    #[error("{0}")]
    Defect(String),
    /// The same command may succeed later: storage out of reach, disk full, preempted. Exit code 75.
    #[error("{0}")]
    TryAgain(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self::Usage(message.to_string())
    }

    pub fn data(message: impl std::fmt::Display) -> Self {
        Self::Data(message.to_string())
    }

    pub fn defect(message: impl std::fmt::Display) -> Self {
        Self::Defect(message.to_string())
    }

    pub fn try_again(message: impl std::fmt::Display) -> Self {
        Self::TryAgain(message.to_string())
    }

    /// The process exit code of `sysexits.h` that tells a scheduler what to do.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::Defect(_) => 70,
            Self::TryAgain(_) => 75,
        }
    }

    /// The same error with `place: ` before its message.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Usage(m) => Self::Usage(format!("{place}: {m}")),
            Self::Data(m) => Self::Data(format!("{place}: {m}")),
            Self::Defect(m) => Self::Defect(format!("{place}: {m}")),
            Self::TryAgain(m) => Self::TryAgain(format!("{place}: {m}")),
        }
    }
}
