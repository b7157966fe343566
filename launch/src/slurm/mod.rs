//! Slurm, through its own commands: one job for a stage, an array job where it has shards.

mod command;
mod script;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::order::Order;
use crate::scheduler::{Failure, Job, Scheduler, State};
use crate::{Error, Result, duration};
use command::run;
use state::Row;

/// Names in one argument of a command, which has a longest length.
const AT_ONCE: usize = 500;

/// How a site runs jobs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    pub partition: Option<String>,
    pub account: Option<String>,
    /// Of `sbatch`, as they stand: `--qos=low`. They come last, so they win.
    pub options: Vec<String>,
    /// Lines of shell before triad.
    pub setup: String,
    /// What triad is called with, as shell: `apptainer exec triad.sif triad`. This program's own path
    /// when absent.
    pub program: Option<String>,
    /// The folder of the jobs' logs, which the nodes see as well.
    pub logs: PathBuf,
    /// So long before its time is up a job is told to commit a checkpoint.
    #[serde(deserialize_with = "duration::deserialize")]
    pub grace: Duration,
    /// How often a job that left with 75 is put back into the queue.
    pub requeues: u32,
    /// Between two looks at the queue.
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            options: Vec::new(),
            setup: String::new(),
            program: None,
            logs: "triad-logs".into(),
            grace: Duration::from_secs(300),
            requeues: 1000,
            interval: Duration::from_secs(5),
        }
    }
}

/// Slurm as this machine's `sbatch`, `squeue`, `scontrol` and `scancel` reach it.
pub struct Slurm {
    site: Site,
}

impl Slurm {
    /// # Errors
    /// `Usage` where the folder of logs cannot be made.
    pub fn new(mut site: Site) -> Result<Self> {
        let fail = |what: &str, e: std::io::Error| Error::Usage(format!("{what}: {e}"));
        site.logs = std::path::absolute(&site.logs).map_err(|e| fail("slurm.logs", e))?;
        std::fs::create_dir_all(&site.logs)
            .map_err(|e| fail(&format!("slurm.logs `{}`", site.logs.display()), e))?;
        if site.program.is_none() {
            let this = std::env::current_exe().map_err(|e| fail("slurm.program is not set", e))?;
            site.program = Some(script::quoted(&this.to_string_lossy()));
        }
        Ok(Self { site })
    }

    /// What the queue says of jobs, ended ones too.
    async fn rows(&self, jobs: &[Job]) -> Result<BTreeMap<String, Vec<Row>>> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        let ids = format!("--jobs={}", ids.join(","));
        let format = format!("--format={}", state::FORMAT);
        let arguments = ["--noheader", "--array", "--states=all", &ids, &format];
        let text = match run("squeue", &arguments, "").await {
            // All that Slurm says of a single job that it has forgotten.
            Err(Error::Usage(why)) if why.contains("Invalid job id") => String::new(),
            found => found?,
        };
        let mut found = state::by_job(&text)?;
        let lost: Vec<&str> = jobs
            .iter()
            .map(|job| job.name.as_str())
            .filter(|name| !found.contains_key(*name))
            .collect();
        if !lost.is_empty() {
            found.extend(self.accounts(&lost).await);
        }
        Ok(found)
    }

    /// What the accounting says of jobs that left the queue; nothing where none is kept.
    async fn accounts(&self, ids: &[&str]) -> BTreeMap<String, Vec<Row>> {
        let ids = format!("--jobs={}", ids.join(","));
        let format = format!("--format={}", state::ACCOUNTS);
        let arguments = ["--noheader", "--parsable2", "--allocations", &ids, &format];
        let text = run("sacct", &arguments, "").await.unwrap_or_default();
        state::by_account(&text)
    }

    /// The state of a job with a task that failed, and why: the first such task tells.
    async fn failed(&self, job: &Job, rows: &[Row]) -> State {
        let text = run("scontrol", &["--oneliner", "show", "job", &job.name], "").await;
        let mut details = state::details(&text.unwrap_or_default());
        let row = rows.iter().find(|row| row.state.is_failure());
        let index = row.and_then(|row| row.index);
        let detail = details.remove(&index).unwrap_or_default();
        let exit = detail.exit.or(row.and_then(|row| row.exit));
        if state::is_killed(row, exit) {
            return State::Gone;
        }
        let log = detail.log.unwrap_or_else(|| self.site.logs.join(script::log(&job.name, index)));
        let (code, reason) = state::explain(row, exit, job, index);
        State::Failed(Failure { code, reason, log: command::tail(&log).await })
    }
}

#[async_trait]
impl Scheduler for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn chains(&self) -> bool {
        true
    }

    async fn find(&self, order: &Order) -> Result<Vec<Option<Job>>> {
        let names: Vec<_> = order.tasks.iter().map(|task| script::name(order, task)).collect();
        let mut text = String::new();
        for names in names.chunks(AT_ONCE) {
            let by_name = format!("--name={}", names.join(","));
            text += &run("squeue", &["--noheader", &by_name, "--format=%F|%j"], "").await?;
        }
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for line in text.lines() {
            let (id, name) = line.trim().split_once('|').unwrap_or_default();
            let id: u64 = id.parse().map_err(|_| command::unknown("squeue", line))?;
            // Where two clients submitted the same task, the second job waits for the first.
            found.entry(name).and_modify(|first| *first = id.min(*first)).or_insert(id);
        }
        let job = |name: &String| Some(Job { name: found.get(name.as_str())?.to_string() });
        Ok(names.iter().map(job).collect())
    }

    async fn submit(&self, order: &Order, task: usize, after: &[Job]) -> Result<Job> {
        let (arguments, text) = script::submission(order, &order.tasks[task], after, &self.site);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = run("sbatch", &arguments, &text).await?;
        // `ID` or `ID;CLUSTER`.
        let id = said.trim().split(';').next().unwrap_or_default();
        match id.parse::<u64>() {
            Ok(id) => Ok(Job { name: id.to_string() }),
            Err(_) => Err(command::unknown("sbatch", &said)),
        }
    }

    async fn states(&self, jobs: &[Job]) -> Result<Vec<State>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows(jobs).await?;
        let mut states = Vec::new();
        for job in jobs {
            let rows = rows.get(&job.name).map_or(&[][..], Vec::as_slice);
            states.push(match state::of(rows) {
                Some(state) => state,
                None => self.failed(job, rows).await,
            });
        }
        Ok(states)
    }

    async fn changed(&self) {
        tokio::time::sleep(self.site.interval.max(Duration::from_secs(1))).await;
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<()> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        if ids.is_empty() { Ok(()) } else { run("scancel", &ids, "").await.map(drop) }
    }
}
