//! `triad bucket`.

use clap::{Args, Subcommand};

use super::Globals;
use super::output::{self, Table};
use crate::store::Proof;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Bucket {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the store's bucket, versioned, encrypted and private, and set what expires
    Init {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Prove by live calls that the store does what triad needs; says which permission is missing
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Bucket {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let (proofs, json) = match self.command {
            Command::Init { json } => (store.init_bucket().await?, json),
            Command::Check { json } => (store.check_bucket().await, json),
        };
        let mut table = Table::new(&["what", "fine", "said"]);
        for Proof { what, fine, said } in &proofs {
            let fine = if *fine { "yes" } else { "no" };
            table.push(vec![(*what).into(), fine.into(), said.clone().into()]);
        }
        if json {
            output::json(&proofs)?;
        } else {
            table.print(false)?;
        }
        match proofs.iter().filter(|proof| !proof.fine).count() {
            0 => Ok(()),
            n => Err(Error::usage(format!("{n} of {} are not as they must be", proofs.len()))),
        }
    }
}
