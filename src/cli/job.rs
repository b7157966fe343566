//! `triad job`.

use clap::Args;

use super::logging::Terminal;
use super::run::{self, Source};
use super::{Globals, output};
use crate::Result;
use crate::job::Shard;
use crate::pipeline::{self, Ending};

#[derive(Args)]
pub(super) struct Job {
    #[command(flatten)]
    source: Source,
    /// The stage to run; what it is made from must be committed
    stage: String,
    /// Do part I of N only, counted from 1; the last to finish commits the whole
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
}

/// `1/4` to `4/4`.
fn shard(text: &str) -> Result<Shard, String> {
    let parsed = text.split_once('/').and_then(|(i, n)| {
        let (i, of) = (i.parse::<u32>().ok()?, n.parse::<u32>().ok()?);
        (1..=of).contains(&i).then(|| Shard { index: i - 1, of })
    });
    parsed.ok_or_else(|| "shards of 4 are 1/4, 2/4, 3/4, 4/4".into())
}

impl Job {
    pub async fn execute(self, globals: &Globals, terminal: Terminal) -> Result<()> {
        let pipeline = self.source.load()?;
        let position = pipeline.position(&self.stage)?;
        let store = globals.open_store()?;
        let options = run::options(globals, terminal)?;
        run::set_threads(globals);
        let shard = self.shard.unwrap_or(Shard::WHOLE);
        let ending = pipeline::run_stage(&store, &pipeline, position, shard, &options).await?;
        let state = match &ending {
            Ending::Found(_) => "found committed",
            Ending::ShardCommitted => "shard committed, others are missing",
            _ => "committed",
        };
        let id = &pipeline.stages[position].id;
        output::line(format!("{}/{} {id} {state}", pipeline.name, self.stage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_one() {
        assert_eq!(shard("1/4"), Ok(Shard { index: 0, of: 4 }));
        assert_eq!(shard("4/4"), Ok(Shard { index: 3, of: 4 }));
        for wrong in ["0/4", "5/4", "4", "a/b", "1/0"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}
