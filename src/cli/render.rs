//! `triad render`.

use clap::{Args, ValueEnum};
use serde_json::Value;
use triad_launch::{batch, kubernetes};

use super::place::{On, SiteFile};
use super::run::Source;
use super::{Globals, output};
use crate::pipeline::Launch;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Render {
    /// What for
    #[arg(value_name = "kubernetes|aws-batch")]
    on: On,
    #[command(flatten)]
    source: Source,
    /// The last stage wanted, with everything it is made from
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// One object that runs all stages in order, instead of a job for each
    #[arg(long, value_name = "KIND")]
    workflow: Option<Workflow>,
    #[command(flatten)]
    site: SiteFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workflow {
    Argo,
}

/// What a place's own tools take.
enum Rendered {
    Yaml(Vec<Value>),
    Json(Value),
}

impl Render {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let pipeline = self.source.load()?;
        let store = globals.open_store()?;
        self.on.check(&store)?;
        let launch = Launch::plan(&store, &pipeline, self.until.as_deref()).await?;
        if launch.stages.is_empty() {
            return Err(Error::usage(format!(
                "nothing to render: all of `{}` is committed",
                pipeline.name
            )));
        }
        launch.publish(&store, &pipeline, self.on.sees_files()).await?;
        match self.rendered(&launch)? {
            Rendered::Json(value) => output::json(&value),
            Rendered::Yaml(documents) => {
                for document in documents {
                    let text = serde_saphyr::to_string(&document).map_err(Error::defect)?;
                    output::write(format!("---\n{}\n", text.trim_end()).as_bytes())?;
                }
                Ok(())
            }
        }
    }

    fn rendered(&self, launch: &Launch) -> Result<Rendered> {
        let (site, order) = (self.site.read()?, &launch.order);
        match (self.on, self.workflow) {
            (On::Kubernetes, None) => {
                Ok(Rendered::Yaml(kubernetes::render(order, &site.kubernetes)?))
            }
            (On::Kubernetes, Some(Workflow::Argo)) => {
                Ok(Rendered::Yaml(vec![kubernetes::workflow(order, &site.kubernetes)?]))
            }
            (On::AwsBatch, None) => Ok(Rendered::Json(batch::render(order, &site.aws_batch)?)),
            (On::AwsBatch, Some(_)) => Err(Error::usage("--workflow is for kubernetes")),
            (On::Local | On::Slurm, _) => Err(Error::usage(format!(
                "render {}: there are kubernetes and aws-batch",
                self.on.name()
            ))),
        }
    }
}
