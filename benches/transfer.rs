//! Large objects to S3 and back beside `aws s3 cp` and raw concurrent requests, and what a run with
//! nothing to do costs.
//!
//! ```text
//! eval "$(infra/s3-dev.sh & sleep 5)"; pip install awscli; cargo bench --bench transfer
//! ```
//! Takes `TRIAD_STORE` and `AWS_*` as triad does, `AWS_CLI` for another `aws`, and writes two files of
//! 2 GB (or `--gigabytes N`) below the system's temporary folder, in five turns (or `--turns N`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutMultipartOptions};
use serde_json::json;
use triad::entropy::Stream;
use triad::id::ArtifactId;
use triad::store::{Artifact, Attempt, Key, Manifest, Source, Store};

const PART: usize = 8 << 20;

/// As the program has it: memory is measured as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let option = |name: &str, absent: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(absent, |at| args[at + 1].parse().unwrap())
    };
    let (gigabytes, turns) = (option("--gigabytes", 2), option("--turns", 5));
    let dir = tempfile::tempdir().unwrap();
    nothing_to_do(dir.path());
    let Ok(url) = std::env::var("TRIAD_STORE") else {
        println!("TRIAD_STORE is not set: no transfer measured");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(transfer(&url, gigabytes << 30, turns, dir.path()));
}

/// Seconds of each turn, by what was measured.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    /// Runs `work` once what earlier turns wrote is on the disk.
    async fn take(&mut self, what: &'static str, work: impl Future<Output = ()>) {
        assert!(Command::new("sync").status().unwrap().success());
        let started = Instant::now();
        work.await;
        self.0.entry(what).or_default().push(started.elapsed().as_secs_f64());
    }

    fn report(&self, size: usize) {
        for (what, times) in &self.0 {
            let mut rates: Vec<_> = times.iter().map(|t| size as f64 / t / 1e6).collect();
            rates.sort_by(f64::total_cmp);
            let middle = rates[rates.len() / 2];
            let (least, most) = (rates[0], rates[rates.len() - 1]);
            println!("{what:<12} {middle:6.0} MB/s ({least:.0}-{most:.0})");
        }
    }

    /// How many times as fast `ours` was as `theirs`, turn by turn.
    fn compare(&self, ours: &str, theirs: &str) {
        let mut ratios: Vec<_> =
            self.0[theirs].iter().zip(&self.0[ours]).map(|(t, o)| t / o).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios[ratios.len() / 2];
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        println!("{ours} / {theirs}: {middle:.2} ({least:.2}-{most:.2})");
    }
}

/// The most memory this process ever had, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1000
}

async fn transfer(url: &str, size: usize, turns: usize, dir: &Path) {
    println!("most memory before: {} MB", peak());
    let store = Store::open(url).unwrap();
    let (up, down) = (dir.join("up"), dir.join("down"));
    let mut stream = Stream::new(1, "noise", 0);
    let block: Vec<u8> = (0..1 << 17).flat_map(|_| stream.next_u64().to_le_bytes()).collect();
    let mut file = File::create(&up).unwrap();
    for _ in 0..size / block.len() {
        file.write_all(&block).unwrap();
    }
    let bucket = url.trim_start_matches("s3://").split('/').next().unwrap();
    let there = format!("s3://{bucket}/aws-cli");
    let (raw, _) = store.raw(&Key::Run("x".into()));
    let mut times = Times::default();
    let mut most = 0;
    for turn in 0..turns {
        let started = Instant::now();
        let identity = json!({"job": "bench", "version": 1, "params": {"at": format!("{started:?}")},
            "inputs": {}});
        let id = ArtifactId::of(&identity);
        let mut attempt = Attempt::new(&store, &id);
        let send = async {
            attempt.write("large", Source::open(&up).unwrap(), None).await.unwrap();
        };
        times.take("up", send).await;
        let manifest = Manifest {
            format: Manifest::FORMAT,
            id: id.clone(),
            identity,
            kind: "checkpoint".into(),
            datasets: Default::default(),
            objects: Vec::new(),
            summary: Default::default(),
            producer: Default::default(),
        };
        attempt.commit(manifest).await.unwrap();
        let manifest = Artifact::open(&store, &id).await.unwrap().unwrap().manifest;
        let entry = &manifest.objects[0];
        times.take("down", async { store.download(&id, entry, &down).await.unwrap() }).await;
        std::fs::remove_file(&down).unwrap();
        times.take("verify", async { store.verify_entry(&id, entry).await.unwrap() }).await;
        if turn == 0 {
            most = peak();
        }
        times.take("raw up", raw_up(&raw, size, &block)).await;
        times.take("raw down", raw_down(&raw, &store.raw(&entry.key(&id)).1, size)).await;
        let (up, down) = (up.to_str().unwrap(), down.to_str().unwrap());
        times.take("aws up", async { aws(up, &there) }).await;
        times.take("aws down", async { aws(&there, down) }).await;
        std::fs::remove_file(down).unwrap();
        store.purge(&id).await.unwrap();
    }
    times.report(size);
    for (ours, theirs) in
        [("up", "raw up"), ("up", "aws up"), ("down", "raw down"), ("down", "aws down")]
    {
        times.compare(ours, theirs);
    }
    println!("most memory: {most} MB");
}

fn aws(from: &str, to: &str) {
    let aws = std::env::var("AWS_CLI").unwrap_or_else(|_| "aws".into());
    let status = Command::new(aws).args(["s3", "cp", "--quiet", from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "`aws` failed; pip install awscli");
}

async fn raw_down(raw: &Arc<dyn ObjectStore>, path: &object_store::path::Path, size: usize) {
    let ranges = (0..size as u64).step_by(PART).map(|at| at..at + PART as u64);
    stream::iter(ranges)
        .map(|range| raw.get_range(path, range))
        .buffer_unordered(8)
        .try_for_each(async |_| Ok(()))
        .await
        .unwrap();
}

/// Parts of an upload that is then abandoned.
async fn raw_up(raw: &Arc<dyn ObjectStore>, size: usize, block: &[u8]) {
    let part: Bytes = block.iter().copied().cycle().take(PART).collect();
    let path = "raw".into();
    let mut upload = raw.put_multipart_opts(&path, PutMultipartOptions::default()).await.unwrap();
    stream::iter(0..size / PART)
        .map(|_| tokio::spawn(upload.put_part(part.clone().into())))
        .buffer_unordered(8)
        .for_each(async |sent| sent.unwrap().unwrap())
        .await;
    upload.abort().await.unwrap();
}

/// `triad run` of 200 stages that are all committed.
fn nothing_to_do(dir: &Path) {
    let mut yaml = "pipeline: wide\nstages:\n".to_string();
    for stage in 0..200 {
        yaml += &format!(
            "  s{stage}:\n    job: generate\n    params: {{family: arithmetic, split: train, \
             seed: {stage}, levels: [{{level: 1, count: 1}}]}}\n"
        );
    }
    std::fs::write(dir.join("wide.yaml"), yaml).unwrap();
    let run = |store: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triad"));
        command.args(["run", "wide.yaml"]).current_dir(dir);
        command.stdout(Stdio::null()).stderr(Stdio::null()).env_remove("TRIAD_STORE");
        if let Some(store) = store {
            command.args(["--store", store]);
        }
        let started = Instant::now();
        assert!(command.status().unwrap().success());
        started.elapsed()
    };
    let remote = std::env::var("TRIAD_STORE").ok();
    for (what, store) in [("on disk", None), ("on S3", remote.as_deref())] {
        if what == "on S3" && store.is_none() {
            continue;
        }
        run(store);
        let best = (0..5).map(|_| run(store)).min().unwrap();
        println!("200 stages, nothing to do, {what}: {} ms", best.as_millis());
    }
}
