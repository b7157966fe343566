//! Where the credentials of S3 come from, for the data plane and the control plane.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use chrono::{SecondsFormat, TimeDelta};
use tempfile::TempDir;
use triad::entropy;

use crate::program::command;
use crate::s3_server::{ISSUED_SECRET, Server};

const SECRET: &str = "a-secret-that-no-message-shows";

/// A server, and a home with these files.
fn home(files: &[(&str, &str)]) -> (Arc<Server>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(".aws/sso/cache")).unwrap();
    for (name, text) in files {
        let text = text.replace("HOME", &dir.path().display().to_string());
        std::fs::write(dir.path().join(name), text.replace("SECRET", SECRET)).unwrap();
    }
    (Server::start(), dir)
}

/// `triad ARGS` on the server's bucket, with these variables alone.
fn triad(server: &Server, home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(home, args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.args(["--store", "s3://bucket/x"]).env("HOME", home);
    command.env("AWS_ENDPOINT_URL", server.endpoint()).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
    command.output().unwrap()
}

/// Both planes work with what `variables` say, and nothing shows a secret; gives who signed.
fn signers(server: &Server, home: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    for command in ["init", "check"] {
        let output = triad(server, home, &["bucket", command, "-vv"], variables);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{variables:?}: {text}");
        assert!(!text.contains(SECRET) && !text.contains(ISSUED_SECRET), "{variables:?}");
    }
    server.signers().into_iter().collect()
}

/// The exit code and the only line of stderr.
fn refusal(server: &Server, home: &Path, variables: &[(&str, &str)]) -> (i32, String) {
    let output = triad(server, home, &["ls"], variables);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(!text.contains(SECRET) && !text.contains(ISSUED_SECRET), "{text}");
    (output.status.code().unwrap(), text)
}

const PROFILES: &str = "\
[profile keys]
aws_access_key_id = PROFILE
aws_secret_access_key = SECRET
[profile role]
role_arn = arn:aws:iam::1:role/a
source_profile = keys
[profile forbidden]
role_arn = arn:aws:iam::1:role/forbidden
source_profile = keys
[profile circle]
role_arn = arn:aws:iam::1:role/a
source_profile = nowhere
[profile single]
sso_session = work
sso_account_id = 1
sso_role_name = a
[sso-session work]
sso_start_url = https://example.com/start
sso_region = us-east-1
[profile helper]
credential_process = sh HOME/helper
";
/// What `aws sso login` leaves, named by the SHA-1 of `work`.
const TOKEN: (&str, &str) = (
    ".aws/sso/cache/e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json",
    r#"{"accessToken": "SECRET", "expiresAt": "2100-01-01T00:00:00Z"}"#,
);
const HELPER: (&str, &str) = ("helper", "echo >>HOME/asked; cat HOME/keys.json");

#[test]
fn the_environment_then_a_profile_then_a_role() {
    let (server, dir) = home(&[(".aws/config", PROFILES), TOKEN, ("token", "a web identity")]);
    let at = |path: &str| format!("{}/{path}", server.endpoint());
    let (container, token) = (at("container"), dir.path().join("token").display().to_string());
    let signers = |variables: &[(&str, &str)]| signers(&server, dir.path(), variables).join(" ");
    let keys = [("AWS_ACCESS_KEY_ID", "KEY"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    assert_eq!(signers(&keys), "KEY");
    assert_eq!(signers(&[keys[0], keys[1], ("AWS_PROFILE", "keys")]), "KEY");
    assert_eq!(signers(&[("AWS_PROFILE", "keys")]), "PROFILE");
    // The profile's keys sign what asks for the role's.
    assert_eq!(signers(&[("AWS_PROFILE", "role")]), "ISSUED+ PROFILE");
    assert_eq!(signers(&[("AWS_PROFILE", "single")]), "ISSUED+");
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", &*token), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/a")];
    assert_eq!(signers(&web), "ISSUED+");
    assert_eq!(signers(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*container)]), "ISSUED+");
    let endpoint = server.endpoint();
    let instance =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*endpoint)];
    assert_eq!(signers(&instance), "ISSUED+");
}

#[test]
fn a_process_is_asked_again_when_its_credentials_expire() {
    let (server, dir) = home(&[(".aws/config", PROFILES), HELPER]);
    for (life, times) in [(3600, 2..3), (30, 10..1000)] {
        let until = entropy::now() + TimeDelta::seconds(life);
        let keys = serde_json::json!({"Version": 1, "AccessKeyId": "PROCESS",
            "SecretAccessKey": SECRET, "SessionToken": "token",
            "Expiration": until.to_rfc3339_opts(SecondsFormat::Secs, true)});
        std::fs::write(dir.path().join("keys.json"), keys.to_string()).unwrap();
        std::fs::write(dir.path().join("asked"), "").unwrap();
        assert_eq!(signers(&server, dir.path(), &[("AWS_PROFILE", "helper")]), ["PROCESS+"]);
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap().lines().count();
        assert!(times.contains(&asked), "{life}: {asked}");
    }
}

#[test]
fn what_gives_no_credentials_is_said_in_one_line() {
    let (server, dir) = home(&[(".aws/config", PROFILES), HELPER]);
    let refusal = |variables: &[(&str, &str)]| refusal(&server, dir.path(), variables);
    let cut = format!("{{\"Version\": 1, \"AccessKeyId\": \"K\", \"SecretAccessKey\": \"{SECRET}");
    for (variables, parts) in [
        (&[][..], &["no credentials: AWS_ACCESS_KEY_ID is not set", "or AWS_PROFILE"][..]),
        (&[("AWS_ACCESS_KEY_ID", "KEY")], &["no credentials: "]),
        (&[("AWS_PROFILE", "gone")], &["no profile `gone`"]),
        (&[("AWS_PROFILE", "circle")], &["no credentials: "]),
        (&[("AWS_PROFILE", "forbidden")], &["no credentials: ", "AccessDenied"]),
        (&[("AWS_PROFILE", "single")], &["no credentials: ", "run `aws sso login`"]),
        (&[("AWS_PROFILE", "helper")], &["no credentials: ", "keys.json: No such file"]),
    ] {
        let (code, text) = refusal(variables);
        assert_eq!(code, 64, "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{variables:?}: {text}");
    }
    std::fs::write(dir.path().join("keys.json"), cut).unwrap();
    assert_eq!(refusal(&[("AWS_PROFILE", "helper")]).0, 64);
    // Somebody else's trouble is worth another try.
    let (code, text) =
        refusal(&[("AWS_PROFILE", "role"), ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")]);
    assert!(code == 75 && text.contains("no credentials: "), "{code} {text}");
    // Nothing of this concerns a local store.
    let mut local = command(dir.path(), &["ls"]);
    local.env("AWS_PROFILE", "gone").env("HOME", dir.path());
    assert!(local.output().unwrap().status.success());
}
