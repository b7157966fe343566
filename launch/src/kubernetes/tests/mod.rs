//! Manifests by rules and schemas, the client against an API server in this process.

mod client;
mod drive;
mod failures;
mod http;
mod infra;
mod manifests;
mod orders;
mod rules;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// A program or folder of `.tools/`.
fn tool(path: &str) -> PathBuf {
    let tool = root().join(".tools").join(path);
    assert!(tool.exists(), "{} is missing; run `make setup`", tool.display());
    tool
}

/// kubernetes-validate, strict.
fn validator(version: &str, files: &[PathBuf]) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", tool("kubernetes-validate"))
        .args(["-m", "kubernetes_validate", "--strict", "-k", version])
        .args(files);
    command
}

/// Manifests fit the schemas of the oldest and the newest Kubernetes that triad knows.
fn validate(files: &[PathBuf]) {
    for version in ["1.33", "1.37"] {
        let output = validator(version, files).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&said));
    }
}
