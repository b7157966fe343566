//! infra/gpu-bench.sh, on the CPU: what a machine with a GPU will run.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_gpu_benchmark_measures_a_tiny_shape_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/gpu-bench.sh");
    let options = "--alone --shapes tiny --parity tiny --repeats 1 --rows 8 --prompt 24 --new 5 \
                   --sequences 8 --sequence 48 --threads 1";
    let output = Command::new(script)
        .args(options.split_whitespace())
        .env("TRIAD", env!("CARGO_BIN_EXE_triad-torch"))
        .env("DEVICE", "cpu")
        .env("OUT", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows = std::fs::read(folder.path().join("gpu-bench.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&rows).unwrap();
    let of = |kind: &str| -> Vec<&Value> { rows.iter().filter(|r| r["kind"] == kind).collect() };
    // The same program on the same device: what is compared is the comparison.
    let parity = of("parity");
    assert_eq!(parity.len(), 2);
    assert_eq!(parity[0]["logits"]["most"], 0.0);
    for name in ["greedy", "drawn", "cut"] {
        assert_eq!(parity[0][name]["agree"], 1.0);
        assert!(parity[0][name]["most_gap"].as_f64().unwrap() < 1e-4);
    }
    let far = parity[1]["logits"]["mean"].as_f64().unwrap();
    assert!(far > 1e-4 && far < 0.05, "bf16 is {far} away from f32");
    // Three ways to sample and two to train, in both precisions.
    let speeds = of("speed");
    assert_eq!(speeds.len(), 10);
    let (sampled, trained) = (&speeds[2], &speeds[3]);
    assert_eq!((sampled["tokens"].as_u64(), trained["tokens"].as_u64()), (Some(40), Some(8 * 48)));
    assert!(speeds.iter().all(|row| row["seconds"][0].as_f64().unwrap() > 0.0));
    for (row, work) in speeds.iter().map(|row| (row, row["work"].as_str().unwrap())) {
        let line = format!("| tiny, {}: {work} |", row["precision"].as_str().unwrap());
        assert!(text.contains(&line), "{line}\n{text}");
    }
}
