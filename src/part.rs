//! A part of triad that lies in a crate of its own, because of what it links: a program that has it
//! installs it, and one that has not says how to get there.

use std::sync::OnceLock;

use crate::{Error, Result};

/// A part of type `T`, for the rest of the process.
pub struct Part<T: ?Sized + 'static> {
    program: OnceLock<Program<T>>,
    /// What a program without it says.
    lacking: &'static str,
}

enum Program<T: ?Sized + 'static> {
    Has(&'static T),
    Lacks(fn() -> Error),
}

impl<T: ?Sized> Part<T> {
    pub const fn new(lacking: &'static str) -> Self {
        Self { program: OnceLock::new(), lacking }
    }

    /// Only the first call counts.
    pub fn install(&self, part: &'static T) {
        let _ = self.program.set(Program::Has(part));
    }

    /// What happens instead where one is needed: `elsewhere` goes on in another program, or says why
    /// not.
    pub fn install_elsewhere(&self, elsewhere: fn() -> Error) {
        let _ = self.program.set(Program::Lacks(elsewhere));
    }

    /// The part where this program has it.
    pub fn installed(&self) -> Option<&'static T> {
        match self.program.get() {
            Some(Program::Has(part)) => Some(*part),
            _ => None,
        }
    }

    /// The part. To be asked for before anything is begun that another program would begin again.
    ///
    /// # Errors
    /// `Usage` where there is none.
    pub fn get(&self) -> Result<&'static T> {
        match self.program.get() {
            Some(Program::Has(part)) => Ok(*part),
            Some(Program::Lacks(elsewhere)) => Err(elsewhere()),
            None => Err(Error::usage(self.lacking)),
        }
    }
}
