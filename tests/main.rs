//! The one integration-test binary: a module per subject.
#[global_allocator]
static ALLOCATOR: hostile::Counting = hostile::Counting;

mod audit;
mod benchmarks;
mod chaos;
mod cli;
mod code;
mod completions;
mod credentials;
mod hooked;
mod hostile;
mod launch;
mod launched;
mod layers;
mod merge;
mod program;
mod prompt;
mod published;
mod readers;
mod report;
mod resume;
mod rounds;
mod query;
mod rl;
mod s3_faults;
mod s3_server;
mod scored;
mod serve;
mod server;
mod slurm;
#[path = "../launch/tests/slurm/cluster.rs"]
mod slurm_cluster;
mod store;
mod store_check;
mod store_faults;
mod store_s3;
mod tensorboard;
mod toy;
