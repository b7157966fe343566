//! The API's errors as ours.

use kube::Error as Kube;

use crate::Error;

/// What went wrong while `doing` (`creating job x`).
pub fn error(err: Kube, doing: &str) -> Error {
    match err {
        Kube::Api(status) => {
            let said = status.message.trim_end_matches('.');
            let said = if said.is_empty() { &status.reason } else { said };
            match status.code {
                401 => Error::Usage(format!(
                    "{doing}: Kubernetes does not know who asks: {said}; log in to the cluster again"
                )),
                // Not every 403 is a missing right: quotas and admission answer so too.
                403 if said.contains(" cannot ") => Error::Usage(format!(
                    "{doing}: {said}; the rights that triad needs are in \
                     infra/kubernetes/base/client.yaml"
                )),
                408 | 409 | 410 | 429 | 500.. => {
                    Error::TryAgain(format!("{doing}: Kubernetes answers {}: {said}", status.code))
                }
                _ => Error::Usage(format!("{doing}: {said}")),
            }
        }
        Kube::Service(_) | Kube::HyperError(_) | Kube::ReadEvents(_) => {
            Error::TryAgain(format!("{doing}: Kubernetes does not answer: {}", chain(&err)))
        }
        Kube::Auth(_) | Kube::InferConfig(_) | Kube::InferKubeconfig(_) => {
            Error::Usage(format!("{doing}: no access to a cluster: {}", chain(&err)))
        }
        err => Error::Defect(format!("{doing}: {}", chain(&err))),
    }
}

/// An error with its causes, in one line.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// Whether asking again right away may help: the connection failed. What the API itself refuses in
/// passing (429, 503, 504) was repeated already, after the time it asked for.
pub fn lost(err: &Kube) -> bool {
    matches!(err, Kube::Service(_) | Kube::HyperError(_))
}
