//! Job definitions: one for each distinct set of container settings.
//!
//! The command comes with each job, so a definition knows no pipeline, and its name holds a digest
//! of all it says: one that is there under this name is the same, and repeated runs register
//! nothing.

use std::collections::BTreeMap;
use std::iter::once;

use aws_sdk_batch::Client;
use aws_sdk_batch::types::{
    ContainerProperties, EvaluateOnExit, Host, JobDefinitionType, JobTimeout, KeyValuePair,
    LogConfiguration, LogDriver, MountPoint, PlatformCapability, ResourceRequirement, ResourceType,
    RetryAction, RetryStrategy, Secret, Volume,
};
use serde::Serialize;

use super::client::{failure, unfinished};
use super::site::{LOG_GROUP, Site};
use crate::Result;
use crate::order::Resources;

/// First match decides. What none matches is started again: the process never ran.
const RULES: [Rule; 5] = [
    // Taken back by Spot, or broken, whatever the process left with.
    Rule::on(Rule { on_status_reason: Some("Host EC2*"), ..NONE }, "RETRY"),
    Rule::on(Rule { on_exit_code: Some("75"), ..NONE }, "RETRY"),
    Rule::on(Rule { on_reason: Some("OutOfMemory*"), ..NONE }, "EXIT"),
    // 64, 65 and 70 do not pass by trying again; of others nothing is known.
    Rule::on(Rule { on_exit_code: Some("*"), ..NONE }, "EXIT"),
    Rule::on(Rule { on_reason: Some("CannotPullContainer*"), ..NONE }, "EXIT"),
];

/// The shortest that Batch takes, in seconds.
const SHORTEST: u64 = 60;
/// Of a job that has no root file system to write to.
const SCRATCH: &str = "scratch";

/// As `aws batch register-job-definition --cli-input-json` takes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    #[serde(rename = "jobDefinitionName")]
    pub name: String,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    r#type: &'static str,
    platform_capabilities: [&'static str; 1],
    container_properties: Container,
    retry_strategy: Retry,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Timeout>,
    propagate_tags: bool,
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_role_arn: Option<String>,
    resource_requirements: Vec<Requirement>,
    environment: Vec<Variable>,
    secrets: Vec<Reference>,
    readonly_root_filesystem: bool,
    volumes: [Scratch; 1],
    mount_points: [Mount; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    log_configuration: Option<Log>,
}

#[derive(Debug, Clone, Serialize)]
struct Requirement {
    r#type: &'static str,
    value: String,
}

#[derive(Debug, Clone, Serialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    name: String,
    value_from: String,
}

/// Docker's own folder on the instance's disk, empty at first.
#[derive(Debug, Clone, Serialize)]
struct Scratch {
    name: &'static str,
    host: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    container_path: &'static str,
    source_volume: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    log_driver: &'static str,
    options: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    attempts: i32,
    evaluate_on_exit: &'static [Rule],
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    on_status_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_exit_code: Option<&'static str>,
    action: &'static str,
}

const NONE: Rule = Rule { on_status_reason: None, on_reason: None, on_exit_code: None, action: "" };

impl Rule {
    const fn on(condition: Rule, action: &'static str) -> Rule {
        Rule { action, ..condition }
    }
}

/// Of each attempt.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeout {
    attempt_duration_seconds: i32,
}

impl Definition {
    /// # Errors
    /// [`crate::Error::Usage`] for a site without the image.
    pub fn new(site: &Site, torch: bool, resources: Resources) -> Result<Self> {
        let memory =
            resources.memory.map_or(site.memory_mib, |bytes| bytes.div_ceil(1 << 20).max(4));
        let mut requirements = vec![
            Requirement {
                r#type: "VCPU",
                value: resources.cpus.unwrap_or(site.cpus).max(1).to_string(),
            },
            Requirement { r#type: "MEMORY", value: memory.to_string() },
        ];
        if resources.gpus > 0 {
            requirements.push(Requirement { r#type: "GPU", value: resources.gpus.to_string() });
        }
        let variables = site.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        let references = site.secrets.iter().map(|(name, arn)| (name.clone(), arn.clone()));
        let content = Content {
            r#type: "container",
            platform_capabilities: ["EC2"],
            container_properties: Container {
                image: site.image(torch)?.into(),
                job_role_arn: site.job_role.clone(),
                execution_role_arn: site.execution_role.clone(),
                resource_requirements: requirements,
                environment: variables.map(|(name, value)| Variable { name, value }).collect(),
                secrets: references
                    .map(|(name, value_from)| Reference { name, value_from })
                    .collect(),
                readonly_root_filesystem: true,
                volumes: [Scratch { name: SCRATCH, host: BTreeMap::new() }],
                mount_points: [Mount { container_path: "/tmp", source_volume: SCRATCH }],
                log_configuration: (site.log_group != LOG_GROUP).then(|| Log {
                    log_driver: "awslogs",
                    options: once(("awslogs-group", site.log_group.clone())).collect(),
                }),
            },
            retry_strategy: Retry {
                attempts: i32::try_from(site.attempts).unwrap_or(i32::MAX),
                evaluate_on_exit: &RULES,
            },
            timeout: resources.time.map(|time| {
                let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
                let seconds = i32::try_from(whole.max(SHORTEST)).unwrap_or(i32::MAX);
                Timeout { attempt_duration_seconds: seconds }
            }),
            propagate_tags: true,
            tags: site.tags.clone(),
        };
        let text =
            serde_json::to_string(&content).map_err(|e| crate::Error::Defect(e.to_string()))?;
        let digest = blake3::hash(text.as_bytes()).to_hex();
        let kind = if torch { "torch" } else { "cpu" };
        Ok(Self { name: format!("triad-{kind}-{}", &digest[..16]), content })
    }

    /// The ARN of what is registered with this content. Two clients at once may register it twice:
    /// both revisions say the same.
    pub async fn ensure(&self, client: &Client) -> Result<String> {
        let asked = client.describe_job_definitions().job_definition_name(&self.name);
        let there = asked.status("ACTIVE").send().await;
        let there = there.map_err(|e| failure("DescribeJobDefinitions", &e))?;
        if let Some(found) = there.job_definitions().iter().find_map(|one| one.job_definition_arn())
        {
            return Ok(found.into());
        }
        let Content { retry_strategy: retry, timeout, tags, .. } = &self.content;
        let rules = retry.evaluate_on_exit.iter().map(|rule| {
            EvaluateOnExit::builder()
                .set_on_status_reason(rule.on_status_reason.map(Into::into))
                .set_on_reason(rule.on_reason.map(Into::into))
                .set_on_exit_code(rule.on_exit_code.map(Into::into))
                .action(RetryAction::from(rule.action))
                .build()
        });
        let strategy = RetryStrategy::builder()
            .attempts(retry.attempts)
            .set_evaluate_on_exit(Some(rules.collect()));
        let made = client
            .register_job_definition()
            .job_definition_name(&self.name)
            .r#type(JobDefinitionType::from(self.content.r#type))
            .set_platform_capabilities(Some(
                self.content.platform_capabilities.map(PlatformCapability::from).into(),
            ))
            .container_properties(self.content.container_properties.typed()?)
            .retry_strategy(strategy.build())
            .set_timeout(timeout.map(|timeout| {
                let seconds = timeout.attempt_duration_seconds;
                JobTimeout::builder().attempt_duration_seconds(seconds).build()
            }))
            .propagate_tags(self.content.propagate_tags)
            .set_tags(Some(tags.clone().into_iter().collect()))
            .send()
            .await
            .map_err(|e| failure("RegisterJobDefinition", &e))?;
        made.job_definition_arn().map(Into::into).ok_or_else(|| unfinished("RegisterJobDefinition"))
    }
}

impl Container {
    fn typed(&self) -> Result<ContainerProperties> {
        let requirements = self.resource_requirements.iter().map(|one| {
            ResourceRequirement::builder()
                .r#type(ResourceType::from(one.r#type))
                .value(&one.value)
                .build()
        });
        let variables = self
            .environment
            .iter()
            .map(|one| KeyValuePair::builder().name(&one.name).value(&one.value).build());
        let secrets = self
            .secrets
            .iter()
            .map(|one| Secret::builder().name(&one.name).value_from(&one.value_from).build());
        let volumes = self
            .volumes
            .iter()
            .map(|one| Volume::builder().name(one.name).host(Host::builder().build()).build());
        let mounts = self.mount_points.iter().map(|one| {
            MountPoint::builder()
                .container_path(one.container_path)
                .source_volume(one.source_volume)
                .build()
        });
        let log = self.log_configuration.as_ref().map(|log| {
            let options = log.options.iter().map(|(name, value)| (name.to_string(), value.clone()));
            LogConfiguration::builder()
                .log_driver(LogDriver::from(log.log_driver))
                .set_options(Some(options.collect()))
                .build()
        });
        Ok(ContainerProperties::builder()
            .image(&self.image)
            .set_job_role_arn(self.job_role_arn.clone())
            .set_execution_role_arn(self.execution_role_arn.clone())
            .set_resource_requirements(Some(requirements.collect()))
            .set_environment(Some(variables.collect()))
            .set_secrets(Some(secrets.collect()))
            .readonly_root_filesystem(self.readonly_root_filesystem)
            .set_volumes(Some(volumes.collect()))
            .set_mount_points(Some(mounts.collect()))
            .set_log_configuration(log)
            .build())
    }
}
