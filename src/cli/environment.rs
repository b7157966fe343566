//! Every environment variable that triad reads.

/// The store's URL or path.
pub const STORE: &str = "TRIAD_STORE";
/// `cpu` or `cuda:N`.
pub const DEVICE: &str = "TRIAD_DEVICE";
/// Threads of libtorch for each running stage.
pub const THREADS: &str = "TRIAD_THREADS";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "TRIAD_LOG_FORMAT";
/// A log filter such as `debug` or `triad::pipeline=trace`, in place of `-v`.
pub const LOG: &str = "TRIAD_LOG";

/// The end of `--help`. The store's own variables are read by its client, not by triad.
pub const HELP: &str = "\
Environment:
  TRIAD_STORE, TRIAD_DEVICE, TRIAD_THREADS, TRIAD_LOG_FORMAT   defaults of the flags
  TRIAD_LOG                                                    log filter, such as `debug`
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
  AWS_ENDPOINT, AWS_ALLOW_HTTP, …                              for s3:// stores

Exit codes: 0 done, 64 wrong request, 65 bad data, 70 defect, 75 try again";
