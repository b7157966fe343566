//! The site file: how a place runs jobs. It changes nothing about what they make.

use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result, batch, kubernetes, slurm};

/// Most bytes of a site file.
const BYTES: u64 = 1 << 20;

/// A section for each scheduler, all of which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    pub aws_batch: batch::Site,
    pub kubernetes: kubernetes::Site,
    pub slurm: slurm::Site,
}

impl Site {
    /// # Errors
    /// `Usage` beginning with the file and line.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display();
        let fail = |why: String| Error::Usage(format!("site file `{file}`: {why}"));
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > BYTES {
            return Err(fail(format!("{size} bytes, where {BYTES} are allowed")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::parse(&file.to_string(), &text)
    }

    fn parse(file: &str, text: &str) -> Result<Self> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        // A file of comments alone.
        let found: Option<Self> =
            serde_saphyr::from_str_with_options(text, options).map_err(|e| {
                let message = e.without_snippet().to_string();
                let message = message.lines().next().unwrap_or_default();
                let message = message.split(" at line ").next().unwrap_or(message);
                Error::Usage(match e.location() {
                    Some(location) => format!("{file}:{}: {message}", location.line()),
                    None => format!("{file}: {message}"),
                })
            })?;
        Ok(found.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(Site::parse("s", "").unwrap(), Site::default());
        assert_eq!(Site::parse("s", "# nothing yet\n").unwrap(), Site::default());
        let text = "slurm:\n  partition: gpu\n  options: [--qos=low]\n  setup: |\n    module load cuda\n    ulimit -n 4096\n";
        let Site { slurm, .. } = Site::parse("s", text).unwrap();
        assert_eq!(slurm.partition.as_deref(), Some("gpu"));
        assert_eq!(slurm.setup, "module load cuda\nulimit -n 4096\n");
        assert_eq!(slurm.grace, slurm::Site::default().grace);
    }

    #[test]
    fn a_mistake_has_a_place() {
        let said = |text: &str| Site::parse("site.yaml", text).unwrap_err().to_string();
        let unknown = said("slurm:\n  partition: gpu\n  patience: 3\n");
        assert!(unknown.starts_with("site.yaml:3: ") && unknown.contains("patience"), "{unknown}");
        let shape = said("slurm:\n  grace: soon\n");
        assert!(shape.starts_with("site.yaml:2: "), "{shape}");
        let absent = Site::read(Path::new("/nowhere/site.yaml")).unwrap_err().to_string();
        assert!(absent.starts_with("site file `/nowhere/site.yaml`: "), "{absent}");
    }
}
