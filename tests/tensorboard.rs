//! `triad tensorboard`, read back by a reader of TFRecords and protobuf that shares no code with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use triad::entropy;

use crate::program::{command, failure, stdout};

/// Supervised training of a model of 263 tokens.
fn pipeline(steps: u32) -> String {
    format!(
        "\
pipeline: small
stages:
  tasks:
    job: generate
    params: {{family: arithmetic, split: train, levels: [{{level: 1, count: 20}}]}}
  demonstrations:
    job: demonstrate
    inputs: {{tasks: [tasks]}}
  init:
    job: init
    params: {{vocab_size: 263, hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, context: 256}}
    inputs: {{texts: demonstrations}}
  base:
    job: sft
    params: {{steps: {steps}, batch: 2, learning_rate: 0.01, checkpoint_every: 10}}
    inputs: {{base: init, examples: demonstrations}}
"
    )
}

fn write(dir: &Path, steps: u32) {
    std::fs::write(dir.join("small.yaml"), pipeline(steps)).unwrap();
}

/// CRC-32C bit by bit, masked as TFRecords have it.
fn checksum(content: &[u8]) -> u32 {
    let crc = !content.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The fields of a protobuf message: number, and the bytes of its value.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().unwrap();
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let size = match key & 7 {
            0 => {
                all.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(size);
        all.push((key >> 3, value.to_vec()));
        message = rest;
    }
    all
}

/// The numbers of an event file by step and tag.
fn read(file: &Path) -> BTreeMap<(u64, String), f32> {
    let bytes = std::fs::read(file).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(word(8), checksum(&rest[..8]));
        assert_eq!(word(12 + length), checksum(&rest[12..12 + length]));
        events.push(fields(&rest[12..12 + length]));
        rest = &rest[16 + length..];
    }
    let field = |event: &[(u64, Vec<u8>)], number: u64| {
        event.iter().find(|(n, _)| *n == number).map(|(_, value)| value.clone())
    };
    assert_eq!(field(&events[0], 3).unwrap(), b"brain.Event:2");
    let mut numbers = BTreeMap::new();
    for event in &events[1..] {
        let seconds = f64::from_le_bytes(field(event, 1).unwrap().try_into().unwrap());
        assert!((seconds - entropy::now().timestamp() as f64).abs() < 3600.0, "{seconds}");
        let step = u64::from_le_bytes(field(event, 2).unwrap().try_into().unwrap());
        for (_, value) in fields(&field(event, 5).unwrap()) {
            let value = fields(&value);
            let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
            let number = f32::from_le_bytes(field(&value, 2).unwrap().try_into().unwrap());
            assert_eq!(numbers.insert((step, tag), number), None);
        }
    }
    numbers
}

/// The one event file of the stage `base`.
fn events(dir: &Path) -> BTreeMap<(u64, String), f32> {
    let ids: Vec<_> = std::fs::read_dir(dir.join("base")).unwrap().collect();
    assert_eq!(ids.len(), 1);
    let folder = ids[0].as_ref().unwrap().path();
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() == 1 && files[0].to_str().unwrap().contains("tfevents"), "{files:?}");
    read(&files[0])
}

/// The numbers of dataset `metrics`.
fn metrics(dir: &Path) -> BTreeMap<(u64, String), f32> {
    let sql = "SELECT step, name, value FROM base.metrics WHERE level = 0";
    let rows = stdout(dir, &["query", sql, "--format", "csv"]);
    let row = |row: &str| {
        let [step, name, value] = row.split(',').collect::<Vec<_>>()[..] else { panic!("{row}") };
        ((step.parse().unwrap(), name.to_string()), value.parse::<f64>().unwrap() as f32)
    };
    rows.lines().skip(1).map(row).collect()
}

fn has_checkpoint(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        path.ends_with("steps") || path.is_dir() && has_checkpoint(&path)
    })
}

#[test]
fn an_unfinished_stage_shows_what_its_checkpoint_has() {
    let dir = tempfile::tempdir().unwrap();
    let triad = |args: &[&str]| stdout(dir.path(), args);
    write(dir.path(), 1_000_000);
    assert_eq!(
        triad(&["tensorboard", "small.yaml", "events"]),
        "no stage of `small.yaml` has metrics yet\n"
    );
    let mut run = command(dir.path(), &["run", "small.yaml"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !has_checkpoint(&dir.path().join("triad-store")) {
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(75));
    let said = triad(&["tensorboard", "small.yaml", "events"]);
    assert_eq!(said, "runs: 1; tensorboard --logdir events shows them\n");
    let plan = triad(&["plan", "small.yaml"]);
    let step = plan.split_once("continues from step ").unwrap().1;
    let step: u64 = step.split_whitespace().next().unwrap().parse().unwrap();
    let steps: Vec<u64> = events(&dir.path().join("events"))
        .into_keys()
        .filter_map(|(step, tag)| (tag == "loss").then_some(step))
        .collect();
    assert_eq!(steps, (1..=step).collect::<Vec<_>>());
}

#[test]
fn a_followed_run_is_written_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30);
    let mut follow = command(dir.path(), &["tensorboard", "small.yaml", "events", "--follow"]);
    let follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    let output = follow.wait_with_output().unwrap();
    assert!(output.status.success());
    let written = events(&dir.path().join("events"));
    assert_eq!(written, metrics(dir.path()));
    assert_eq!(written.len(), 60);
    stdout(dir.path(), &["tensorboard", "small", "again"]);
    assert_eq!(events(&dir.path().join("again")), written);
    assert_eq!(
        failure(dir.path(), &["tensorboard", "smal", "x"]),
        "64: error: no run of a pipeline `smal`; did you mean `small`?"
    );
    assert_eq!(
        failure(dir.path(), &["tensorboard", "small", "x", "--follow"]),
        "64: error: --follow needs the file of pipeline `small`: its name tells only what is committed"
    );
}
