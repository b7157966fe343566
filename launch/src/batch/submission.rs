//! Jobs as they are submitted.

use std::collections::BTreeMap;

use aws_sdk_batch::config::retry::RetryConfig;
use aws_sdk_batch::types::{ArrayProperties, ContainerOverrides, JobDependency};
use aws_sdk_batch::{Client, Config};
use serde::Serialize;

use super::client::{failure, unfinished};
use super::definition::Definition;
use super::site::{Site, accept};
use crate::Result;
use crate::order::{Order, Resources, Task};

/// Jobs that one can wait for.
const DEPENDENCIES: usize = 20;
/// Letters, digits, `-` and `_`.
const NAME: usize = 128;
const TAG: usize = 256;

/// A job and what it runs with.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub definition: Definition,
    pub submission: Submission,
}

/// As `aws batch submit-job --cli-input-json` takes it.
///
/// A dependency is on the whole of what it names, never `N_TO_N`, also where both have the same
/// shards. Of its rollouts shard *i* of `verify` reads what shard *i* of `draw` wrote, but finds it in
/// the artifact's manifest, which whoever ends last of all shards writes. Started after shard *i*
/// alone it would leave with 64.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Submission {
    #[serde(rename = "jobName")]
    pub name: String,
    #[serde(rename = "jobQueue")]
    queue: String,
    #[serde(rename = "jobDefinition")]
    pub definition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    array_properties: Option<Array>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    container_overrides: Overrides,
    propagate_tags: bool,
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Array {
    size: i32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dependency {
    /// Or [`reference`] to a job that is yet to be submitted.
    pub job_id: String,
}

#[derive(Debug, Clone, Serialize)]
struct Overrides {
    command: Vec<String>,
}

/// Jobs that make a task when all of `after` have ended well, in the order to submit them; the last
/// is the task's own. Before it come those that wait for twenty jobs each and do nothing, where it
/// has to wait for more.
pub(super) fn plan(
    order: &Order,
    task: usize,
    site: &Site,
    after: Vec<String>,
) -> Result<Vec<Planned>> {
    let Some(task) = order.tasks.get(task) else {
        return Err(crate::Error::Defect(format!("no task {task} in the order")));
    };
    accept(task)?;
    let tags = tags(order, task, site);
    let mut waits = after;
    waits.sort();
    waits.dedup();
    let mut planned = Vec::new();
    while waits.len() > DEPENDENCIES {
        let definition = Definition::new(site, false, Resources::default())?;
        let mut joined = Vec::new();
        for some in waits.chunks(DEPENDENCIES) {
            if let [one] = some {
                joined.push(one.clone());
                continue;
            }
            let name = format!("triad-join-{}-{}", order.mark(task), planned.len());
            joined.push(reference(&name));
            planned.push(Planned {
                submission: Submission {
                    name,
                    queue: site.queue.clone(),
                    definition: definition.name.clone(),
                    array_properties: None,
                    depends_on: dependencies(some),
                    container_overrides: Overrides { command: vec!["--version".into()] },
                    propagate_tags: true,
                    tags: tags.clone(),
                },
                definition: definition.clone(),
            });
        }
        waits = joined;
    }
    let definition = Definition::new(site, task.computes, task.resources)?;
    let submission = Submission {
        name: name(order, task),
        queue: site.queue_for(task.resources.gpus).into(),
        definition: definition.name.clone(),
        array_properties: (task.shards > 1)
            .then(|| Array { size: i32::try_from(task.shards).unwrap_or(i32::MAX) }),
        depends_on: dependencies(&waits),
        container_overrides: Overrides { command: order.arguments(task) },
        propagate_tags: true,
        tags,
    };
    planned.push(Planned { definition, submission });
    Ok(planned)
}

fn dependencies(ids: &[String]) -> Vec<Dependency> {
    ids.iter().map(|id| Dependency { job_id: id.clone() }).collect()
}

/// In the place of the id of a job that has none yet.
pub(super) fn reference(name: &str) -> String {
    format!("${{{name}}}")
}

/// What the names of an artifact's jobs begin with: Batch finds names by their beginnings.
pub(super) fn beginning(order: &Order, task: &Task) -> String {
    format!("triad-{}-", order.mark(task))
}

/// A job's name, which also says the pipeline and the stage, as far as they fit.
pub(super) fn name(order: &Order, task: &Task) -> String {
    let mut name = beginning(order, task) + &cleaned(&order.pipeline) + "-" + &cleaned(&task.stage);
    name.truncate(NAME);
    name
}

/// ASCII only.
fn cleaned(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

fn tags(order: &Order, task: &Task, site: &Site) -> BTreeMap<String, String> {
    let own = [("pipeline", &order.pipeline), ("stage", &task.stage), ("artifact", &task.artifact)];
    let own = own.map(|(key, value)| {
        let kept = value.chars().map(|c| match c {
            ' ' | '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@' => c,
            c if c.is_alphanumeric() => c,
            _ => '-',
        });
        (format!("triad:{key}"), kept.take(TAG).collect())
    });
    site.tags.clone().into_iter().chain(own).collect()
}

impl Submission {
    /// Its id. Tried once: a call that got no answer may have made the job all the same, and SubmitJob
    /// knows no token by which Batch could tell a second one.
    pub async fn send(&self, client: &Client) -> Result<String> {
        let depends =
            self.depends_on.iter().map(|one| JobDependency::builder().job_id(&one.job_id).build());
        let command = Some(self.container_overrides.command.clone());
        let sent = client
            .submit_job()
            .job_name(&self.name)
            .job_queue(&self.queue)
            .job_definition(&self.definition)
            .set_array_properties(
                self.array_properties
                    .map(|array| ArrayProperties::builder().size(array.size).build()),
            )
            .set_depends_on((!self.depends_on.is_empty()).then(|| depends.collect()))
            .container_overrides(ContainerOverrides::builder().set_command(command).build())
            .propagate_tags(self.propagate_tags)
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .customize()
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(|e| failure("SubmitJob", &e))?;
        sent.job_id().map(Into::into).ok_or_else(|| unfinished("SubmitJob"))
    }
}
