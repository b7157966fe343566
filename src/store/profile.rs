//! The profiles of `~/.aws/`: what the environment does not say.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Variables that give credentials, any of which comes before the default profile.
const GIVEN: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A profile's keys as the variables that they stand for.
const KEYS: [(&str, &str); 5] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
    ("region", "AWS_REGION"),
    ("endpoint_url", "AWS_ENDPOINT_URL"),
];

/// How a profile gives credentials that only Amazon's own tools get at.
const ELSEWHERE: [&str; 4] = ["role_arn", "sso_session", "sso_start_url", "credential_process"];

/// Adds to `settings` what the profile says that they do not.
///
/// # Errors
/// [`Error::Usage`] for a profile that was asked for and is not there, or that takes Amazon's tools.
pub(super) fn complete(settings: &mut BTreeMap<String, String>) -> Result<()> {
    let named = settings.get("AWS_PROFILE").cloned();
    if named.is_none() && GIVEN.iter().any(|name| settings.contains_key(*name)) {
        return Ok(());
    }
    let name = named.clone().unwrap_or_else(|| "default".into());
    let file = |variable: &str, usual: &str| {
        let home = settings.get("HOME").map(|home| format!("{home}/.aws/{usual}"));
        settings.get(variable).cloned().or(home)
    };
    let mut profile = BTreeMap::new();
    for (variable, usual) in
        [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
    {
        let text = file(variable, usual).and_then(|path| std::fs::read_to_string(path).ok());
        profile.extend(section(&text.unwrap_or_default(), &name));
    }
    if profile.is_empty() {
        return match named {
            Some(name) => Err(Error::usage(format!(
                "AWS_PROFILE: no profile `{name}` in ~/.aws/credentials or ~/.aws/config"
            ))),
            None => Ok(()),
        };
    }
    let keyless = !profile.contains_key("aws_access_key_id");
    if let Some(key) = ELSEWHERE.iter().find(|key| keyless && profile.contains_key(**key)) {
        return match named {
            Some(name) => Err(Error::usage(format!(
                "profile `{name}` gets its credentials by `{key}`; ask Amazon's tool for them: \
                 eval \"$(aws configure export-credentials --profile {name} --format env)\""
            ))),
            None => Ok(()),
        };
    }
    for (key, variable) in KEYS {
        // A profile that was asked for comes before other keys of the environment.
        let secret = variable.contains("KEY") || variable.contains("TOKEN");
        if let Some(value) = profile.get(key)
            && (!settings.contains_key(variable) || (secret && named.is_some()))
        {
            settings.insert(variable.into(), value.clone());
        }
    }
    Ok(())
}

/// The keys of section `[name]` or `[profile name]`.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let title = title.trim();
            let title = title.strip_prefix("profile ").unwrap_or(title);
            inside = title.trim() == name;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside)
            && !line.starts_with(['#', ';'])
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[(&str, &str)], files: [&str; 2]) -> Result<BTreeMap<String, String>> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        for (name, text) in ["config", "credentials"].into_iter().zip(files) {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        }
        let mut settings: BTreeMap<_, _> =
            given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        settings.insert("HOME".into(), home.path().display().to_string());
        complete(&mut settings)?;
        settings.remove("HOME");
        Ok(settings)
    }

    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion=eu-north-1\n\
                          [profile role]\nrole_arn = arn:aws:iam::1:role/x\n";
    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=d/+=\n\
                               \n[work]\naws_access_key_id=W\naws_secret_access_key = w\n";

    #[test]
    fn the_environment_comes_before_the_default_profile() {
        let files = [CONFIG, CREDENTIALS];
        let found = completed(&[], files).unwrap();
        assert_eq!(found["AWS_ACCESS_KEY_ID"], "D");
        assert_eq!(found["AWS_SECRET_ACCESS_KEY"], "d/+=");
        assert_eq!(found["AWS_REGION"], "eu-west-1");
        let found = completed(&[("AWS_REGION", "us-east-2")], files).unwrap();
        assert_eq!(found["AWS_REGION"], "us-east-2");
        assert_eq!(found["AWS_ACCESS_KEY_ID"], "D");
        for (name, value) in [("AWS_ACCESS_KEY_ID", "E"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "f")] {
            let found = completed(&[(name, value)], files).unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
        }
        assert!(completed(&[], ["", ""]).unwrap().is_empty());
    }

    #[test]
    fn a_profile_that_is_asked_for_must_be_there() {
        let files = [CONFIG, CREDENTIALS];
        let given = [("AWS_PROFILE", "work"), ("AWS_ACCESS_KEY_ID", "E")];
        let found = completed(&given, files).unwrap();
        assert_eq!((&*found["AWS_ACCESS_KEY_ID"], &*found["AWS_REGION"]), ("W", "eu-north-1"));
        let error = completed(&[("AWS_PROFILE", "none")], files).unwrap_err().to_string();
        assert!(error.contains("no profile `none`"), "{error}");
        let error = completed(&[("AWS_PROFILE", "role")], files).unwrap_err().to_string();
        assert!(error.contains("`role_arn`") && error.contains("export-credentials"), "{error}");
    }
}
