//! How a cluster runs jobs: section `kubernetes` of the site file.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use serde::Deserialize;

use crate::order::Task;
use crate::secret::is_secret;
use crate::{Error, Result, duration};

/// What is not said is the cluster's own default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// Of the kubeconfig; the current one where none is named.
    pub context: Option<String>,
    /// The context's where none is named.
    pub namespace: Option<String>,
    pub images: Images,
    /// Whose name pods have towards the bucket (IRSA, Pod Identity, Workload Identity). It needs no
    /// right in the cluster: pods get no token for the API.
    pub service_account: Option<String>,
    /// A LocalQueue of Kueue. Jobs are made suspended, and start when Kueue admits them.
    pub queue: Option<String>,
    /// Labels of the nodes for all pods.
    pub node_selector: BTreeMap<String, String>,
    /// Labels besides, for pods with GPUs.
    pub gpu_node_selector: BTreeMap<String, String>,
    /// As a pod has them. Pods with GPUs tolerate the taint `nvidia.com/gpu` in any case.
    pub tolerations: Vec<Toleration>,
    /// Nothing secret: it stands in the manifests.
    pub environment: BTreeMap<String, String>,
    /// Secrets of the namespace whose keys become environment variables.
    pub secrets: Vec<String>,
    /// Further tries of a shard that failed for no known reason.
    pub retries: u32,
    /// From SIGTERM to SIGKILL: longer than it takes to write a checkpoint.
    #[serde(deserialize_with = "duration::deserialize")]
    pub grace: Duration,
    /// For how long jobs that ended stay, with their pods and logs.
    #[serde(deserialize_with = "duration::deserialize")]
    pub ttl: Duration,
    /// Room in /tmp, such as `50Gi`: a query's spilled rows. Without it, the node's disk.
    pub scratch: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Without libtorch.
    pub cpu: String,
    /// For stages that compute or have GPUs.
    pub torch: String,
}

/// As Kubernetes spells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Toleration {
    pub key: Option<String>,
    pub operator: Option<String>,
    pub value: Option<String>,
    pub effect: Option<String>,
    pub toleration_seconds: Option<i64>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            context: None,
            namespace: None,
            images: Images::default(),
            service_account: None,
            queue: None,
            node_selector: BTreeMap::new(),
            gpu_node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            environment: BTreeMap::new(),
            secrets: Vec::new(),
            retries: 2,
            grace: Duration::from_secs(600),
            ttl: Duration::from_secs(3 * 24 * 3600),
            scratch: None,
        }
    }
}

impl From<&Toleration> for v1::Toleration {
    fn from(toleration: &Toleration) -> Self {
        let Toleration { key, operator, value, effect, toleration_seconds } = toleration.clone();
        Self { key, operator, value, effect, toleration_seconds }
    }
}

impl Site {
    /// The image that runs a task.
    pub fn image(&self, task: &Task) -> Result<&str> {
        let (key, image) = match task.computes || task.resources.gpus > 0 {
            true => ("torch", &self.images.torch),
            false => ("cpu", &self.images.cpu),
        };
        if image.is_empty() {
            return Err(Error::Usage(format!(
                "stage `{}` needs an image: name it in the site file, `kubernetes: {{images: \
                 {{{key}: …}}}}`",
                task.stage
            )));
        }
        Ok(image)
    }

    /// What the API would refuse later, or keep where others read it.
    pub fn check(&self) -> Result<()> {
        let names = [("namespace", &self.namespace), ("service_account", &self.service_account)];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))) {
            name_is(key, name)?;
        }
        self.secrets.iter().try_for_each(|name| name_is("secrets", name))?;
        if let Some(queue) = &self.queue {
            name_is("queue", queue)?;
        }
        for (key, image) in [("cpu", &self.images.cpu), ("torch", &self.images.torch)] {
            if image.contains(char::is_whitespace) {
                return Err(wrong(&format!("images.{key}"), image, "no image's name has spaces"));
            }
        }
        for (key, value) in self.node_selector.iter().chain(&self.gpu_node_selector) {
            if super::names::label(value, super::names::LONGEST) != *value {
                return Err(wrong(&format!("node_selector.{key}"), value, "not a label's value"));
            }
        }
        self.environment.keys().try_for_each(|name| variable(name))?;
        if self.grace.as_secs() == 0 {
            return Err(wrong("grace", "0", "processes would be killed before their checkpoint"));
        }
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).is_ok();
        if !seconds(self.grace) || !seconds(self.ttl) {
            return Err(wrong("grace or ttl", "", "more than 68 years"));
        }
        if i32::try_from(self.retries).is_err() {
            return Err(wrong("retries", &self.retries.to_string(), "2147483647 at most"));
        }
        if let Some(scratch) = self.scratch.as_deref().filter(|text| !quantity(text)) {
            return Err(wrong("scratch", scratch, "an amount such as 50Gi"));
        }
        Ok(())
    }
}

fn wrong(key: &str, value: &str, why: &str) -> Error {
    Error::Usage(format!("site file: kubernetes.{key}: `{value}`: {why}"))
}

/// A DNS subdomain in lower case, as objects are named.
fn name_is(key: &str, name: &str) -> Result<()> {
    let part = |part: &str| {
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let bytes = part.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| edge(Some(byte)) || *byte == b'-')
    };
    match name.len() <= 253 && name.split('.').all(part) {
        true => Ok(()),
        false => Err(wrong(key, name, "lower-case letters, digits, dashes and dots")),
    }
}

/// A variable that may stand in a manifest.
fn variable(name: &str) -> Result<()> {
    let key = format!("environment.{name}");
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(letters) || name.is_empty() || name.starts_with(|c: char| c.is_numeric()) {
        return Err(wrong(&key, name, "letters, digits and underscores"));
    }
    if is_secret(name) {
        let why = "looks like a secret, and would stand in manifests that others read; put it into a \
                   Secret and name that under `secrets`";
        return Err(Error::Usage(format!("site file: kubernetes.{key}: {why}")));
    }
    Ok(())
}

/// `50Gi`, `200G`.
fn quantity(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.matches('.').count() <= 1
        && ["", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&unit)
}
