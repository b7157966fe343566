//! Where stages run: this machine, or a scheduler's.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use triad_launch::batch::Batch;
use triad_launch::kubernetes::Kubernetes;
use triad_launch::scheduler::Scheduler;
use triad_launch::site::Site;
use triad_launch::slurm::Slurm;

use super::environment;
use crate::store::{self, Store};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum On {
    /// In this process.
    Local,
    Slurm,
    Kubernetes,
    AwsBatch,
}

/// A scheduler, and how it runs jobs.
#[derive(Args)]
pub(super) struct Place {
    /// Where stages run
    #[arg(long, value_name = "WHERE", default_value = "local")]
    pub on: On,
    #[command(flatten)]
    pub site: SiteFile,
}

#[derive(Args)]
pub(super) struct SiteFile {
    /// How that place runs jobs: a YAML file with a section for each scheduler
    #[arg(long, env = environment::SITE, value_name = "FILE")]
    site: Option<PathBuf>,
}

impl SiteFile {
    pub fn read(&self) -> Result<Site> {
        Ok(self.site.as_deref().map(Site::read).transpose()?.unwrap_or_default())
    }
}

impl On {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Slurm => "slurm",
            Self::Kubernetes => "kubernetes",
            Self::AwsBatch => "aws-batch",
        }
    }

    /// Whether jobs see this machine's files, at the same paths.
    pub fn sees_files(self) -> bool {
        matches!(self, Self::Local | Self::Slurm)
    }

    /// Refuses a store that jobs there cannot open.
    pub fn check(self, store: &Store) -> Result<()> {
        let url = store.url();
        let seen = match url.scheme() {
            "memory" => self == Self::Local,
            "file" => self.sees_files(),
            _ => true,
        };
        if seen {
            return Ok(());
        }
        Err(Error::usage(format!(
            "store {url} is on this machine, where jobs on {} do not see it; give an s3:// one by --store",
            self.name()
        )))
    }
}

impl Place {
    pub async fn connect(&self) -> Result<Box<dyn Scheduler>> {
        let site = self.site.read()?;
        match self.on {
            On::Slurm => Ok(Box::new(Slurm::new(site.slurm)?)),
            On::Local => Err(Error::usage("--on local starts no jobs; give a scheduler")),
            On::Kubernetes => Ok(Box::new(Kubernetes::connect(site.kubernetes).await?)),
            On::AwsBatch => Ok(Box::new(Batch::connect(site.aws_batch, &store::amazon().await)?)),
        }
    }
}
