//! `triad completions`.

use clap::{Args, CommandFactory};

use super::output;
use crate::Result;

#[derive(Args)]
pub(super) struct Completions {
    /// bash, elvish, fish, powershell or zsh
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn execute(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "triad", &mut script);
        output::write(&script)
    }
}
