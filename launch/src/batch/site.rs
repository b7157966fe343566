//! How a place runs jobs on AWS Batch: `aws_batch` of the site file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::order::Task;
use crate::secret::is_secret;
use crate::{Error, Result};

/// Batch's own bound.
pub(super) const ATTEMPTS: u32 = 10;
/// Batch makes it where no other is named.
pub(super) const LOG_GROUP: &str = "/aws/batch/job";
/// Batch's bound on the jobs of an array.
const SHARDS: u32 = 10_000;
/// Tags of one job, ours among them.
const TAGS: usize = 50;
const OWN_TAGS: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// Name or ARN of the job queue.
    pub queue: String,
    /// Of jobs that want a GPU; `queue` when absent.
    pub gpu_queue: Option<String>,
    pub images: Images,
    /// ARN of the role that `triad` has in the container: it reads and writes the bucket.
    pub job_role: Option<String>,
    /// ARN of the role that ECS has: it reads the secrets.
    pub execution_role: Option<String>,
    /// Of stages that do not say.
    pub cpus: u32,
    /// Of stages that do not say, in MiB.
    pub memory_mib: u64,
    /// Times that a process starts at most: exit code 75 and lost machines start it again.
    pub attempts: u32,
    /// Group in CloudWatch Logs.
    pub log_group: String,
    /// Variables of the container.
    pub environment: BTreeMap<String, String>,
    /// Variables by the ARN, in Secrets Manager or Parameter Store, of what they hold.
    pub secrets: BTreeMap<String, String>,
    /// Tags of jobs and definitions.
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    pub cpu: Option<String>,
    /// With libtorch.
    pub torch: Option<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            queue: String::new(),
            gpu_queue: None,
            images: Images::default(),
            job_role: None,
            execution_role: None,
            cpus: 1,
            memory_mib: 2048,
            attempts: ATTEMPTS,
            log_group: LOG_GROUP.into(),
            environment: BTreeMap::new(),
            secrets: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }
}

impl Site {
    /// # Errors
    /// [`Error::Usage`] for what Batch would refuse, and for a secret that stands in it.
    pub(super) fn check(&self) -> Result<()> {
        if self.queue.is_empty() {
            return Err(wrong("queue", "is missing; give the name of a job queue"));
        }
        if !(1..=ATTEMPTS).contains(&self.attempts) {
            let text = format!("is {}; Batch starts a job 1 to {ATTEMPTS} times", self.attempts);
            return Err(wrong("attempts", &text));
        }
        if self.cpus == 0 || self.memory_mib < 4 {
            return Err(wrong("cpus, memory_mib", "must be at least 1 and 4"));
        }
        for name in self.environment.keys() {
            if is_secret(name) {
                let text =
                    "looks like a secret; name it under `secrets`, by the ARN of what holds it";
                return Err(wrong(&format!("environment.{name}"), text));
            }
            if self.secrets.contains_key(name) {
                return Err(wrong(&format!("secrets.{name}"), "stands under `environment` too"));
            }
        }
        // What is no ARN may be the secret itself: it is not said.
        for (name, arn) in &self.secrets {
            let service = arn.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(1));
            if !matches!(service, Some("secretsmanager" | "ssm")) {
                let text =
                    "is no ARN of Secrets Manager or Parameter Store; secrets go by reference";
                return Err(wrong(&format!("secrets.{name}"), text));
            }
        }
        if !self.secrets.is_empty() && self.execution_role.is_none() {
            return Err(wrong("execution_role", "is missing; it is who reads `secrets`"));
        }
        if self.tags.len() + OWN_TAGS > TAGS {
            return Err(wrong("tags", &format!("are more than {}", TAGS - OWN_TAGS)));
        }
        if let Some(name) = self.tags.keys().find(|name| name.starts_with("aws:")) {
            return Err(wrong(&format!("tags.{name}"), "begins with `aws:`, which is Amazon's"));
        }
        Ok(())
    }

    pub(super) fn queue_for(&self, gpus: u32) -> &str {
        let own = self.gpu_queue.as_deref().filter(|_| gpus > 0);
        own.unwrap_or(&self.queue)
    }

    /// All of them, each once.
    pub(super) fn queues(&self) -> Vec<&str> {
        let mut queues = vec![self.queue.as_str()];
        queues.extend(self.gpu_queue.as_deref().filter(|own| *own != self.queue));
        queues
    }

    pub(super) fn image(&self, torch: bool) -> Result<&str> {
        let (key, image) = match torch {
            true => ("images.torch", &self.images.torch),
            false => ("images.cpu", &self.images.cpu),
        };
        image.as_deref().ok_or_else(|| wrong(key, "is missing; name the image of the container"))
    }
}

/// Refuses more shards than an array holds.
pub(super) fn accept(task: &Task) -> Result<()> {
    if task.shards > SHARDS {
        return Err(Error::Usage(format!(
            "stage `{}`: {} shards; an array of AWS Batch holds {SHARDS} at most",
            task.stage, task.shards
        )));
    }
    Ok(())
}

fn wrong(key: &str, text: &str) -> Error {
    Error::Usage(format!("site file: aws_batch.{key} {text}"))
}
