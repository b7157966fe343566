//! Where rows are written: stdout, or a file that appears when all of them are there.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Clones write to the same place.
#[derive(Clone)]
pub(super) enum Target {
    /// Set when the reader has left (`| head`), which is no error.
    Stdout(Arc<AtomicBool>),
    /// A file beside the one that it will replace; none for a device or a pipe.
    File { file: Arc<File>, path: PathBuf, beside: Option<PathBuf> },
}

impl Target {
    /// # Errors
    /// `Usage` for a URL, `TryAgain` when the file cannot be made.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(Arc::default())) };
        let shown = path.display();
        if shown.to_string().contains("://") {
            let said = format!("--output {shown} is no file; write it with COPY (…) TO '{shown}'");
            return Err(Error::usage(said));
        }
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::NotFound => Error::usage(format!("{shown}: no such folder")),
            _ => Error::try_again(format!("{shown}: {e}")),
        };
        // Links are followed: the file at their end is replaced.
        let real = path.canonicalize().unwrap_or_else(|_| path.into());
        if real.is_dir() {
            return Err(Error::usage(format!("{shown} is a folder")));
        }
        if real.exists() && !real.is_file() {
            let file = OpenOptions::new().write(true).open(&real).map_err(failed)?;
            return Ok(Self::File { file: Arc::new(file), path: real, beside: None });
        }
        let beside = real.with_added_extension(format!("{}.part", std::process::id()));
        let file = File::create(&beside).map_err(failed)?;
        Ok(Self::File { file: Arc::new(file), path: real, beside: Some(beside) })
    }

    pub fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Stdout(gone) if gone.load(Ordering::Relaxed))
    }

    /// All is written: puts the file in its place.
    pub fn keep(self) -> Result<()> {
        match self {
            Self::File { path, beside: Some(beside), .. } => std::fs::rename(&beside, &path)
                .map_err(|e| Error::try_again(format!("{}: {e}", path.display()))),
            _ => Ok(()),
        }
    }

    /// Leaves nothing behind.
    pub fn discard(&self) {
        if let Self::File { beside: Some(beside), .. } = self {
            // It may never have been made.
            let _ = std::fs::remove_file(beside);
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::File { file, .. } => (&**file).write(bytes),
            Self::Stdout(gone) if gone.load(Ordering::Relaxed) => Ok(bytes.len()),
            Self::Stdout(gone) => match std::io::stdout().write(bytes) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                    gone.store(true, Ordering::Relaxed);
                    Ok(bytes.len())
                }
                written => written,
            },
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::File { file, .. } => (&**file).flush(),
            Self::Stdout(_) => match std::io::stdout().flush() {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                flushed => flushed,
            },
        }
    }
}
