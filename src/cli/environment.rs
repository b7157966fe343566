//! Every environment variable that triad reads.

/// The store's URL or path.
pub const STORE: &str = "TRIAD_STORE";
/// `cpu`, `cuda:N` or `auto`.
pub const DEVICE: &str = "TRIAD_DEVICE";
/// Base URL of an OpenAI-compatible server.
pub const SERVER_URL: &str = "TRIAD_SERVER_URL";
/// The server's bearer token. No flag: other users of a machine see those.
pub const SERVER_KEY: &str = "TRIAD_SERVER_KEY";
/// Requests in flight at a time.
pub const SERVER_CONCURRENCY: &str = "TRIAD_SERVER_CONCURRENCY";
/// Seconds without any completion after which failing requests are given up.
pub const SERVER_PATIENCE: &str = "TRIAD_SERVER_PATIENCE";
/// Seconds that one completion may take.
pub const SERVER_TIMEOUT: &str = "TRIAD_SERVER_TIMEOUT";
/// Threads of libtorch for each running stage.
pub const THREADS: &str = "TRIAD_THREADS";
/// Bytes that queries and filters may hold.
pub const MEMORY: &str = "TRIAD_MEMORY";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "TRIAD_LOG_FORMAT";
/// A log filter such as `debug` or `triad::pipeline=trace`, in place of `-v`.
pub const LOG: &str = "TRIAD_LOG";
/// The bearer token that clients of `triad serve` send.
pub const SERVE_TOKEN: &str = "TRIAD_SERVE_TOKEN";
/// The site file.
pub const SITE: &str = "TRIAD_SITE";
/// Which shard a job of a scheduler does, from 0: Kubernetes, Slurm, AWS Batch.
pub const SHARD: &[&str] =
    &["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX"];
/// Where the prompt's history is kept, below `triad/`; `$HOME/.local/state` where it is not set.
pub const STATE_HOME: &str = "XDG_STATE_HOME";
pub const HOME: &str = "HOME";

/// The end of `--help`. The store's own variables are read by its client, not by triad.
pub const HELP: &str = "\
Environment:
  TRIAD_STORE, TRIAD_DEVICE, TRIAD_THREADS, TRIAD_MEMORY,
  TRIAD_LOG_FORMAT                                             defaults of the flags
  TRIAD_LOG                                                    log filter, such as `debug`
  TRIAD_SERVER_URL                                             default of --server
  TRIAD_SERVER_KEY                                             its bearer token
  TRIAD_SERVER_CONCURRENCY (32)                                requests in flight at a time
  TRIAD_SERVER_PATIENCE (300), TRIAD_SERVER_TIMEOUT (1800)     seconds: until a failing server is
                                                               given up; for one completion
  TRIAD_SERVE_TOKEN                                            bearer token that `triad serve` wants
  TRIAD_SITE                                                   default of --site
  JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID,
  AWS_BATCH_JOB_ARRAY_INDEX                                    the shard of `triad job --shards`
  XDG_STATE_HOME (~/.local/state)                              triad/query_history in it
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE,
  AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, …              for s3:// stores

Exit codes: 0 done, 64 wrong request, 65 bad data, 70 defect, 75 try again";
