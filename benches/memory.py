"""Peak memory of sft and rl over their steps, and after a resume.

    python3 benches/memory.py target/release/triad [--steps 200]

Trains models/seedling in a store of its own, with a checkpoint every 20 steps, and prints in MB the
peak of resident memory when the first checkpoint is committed, at the end, and of a process that
continues from the middle after the first one was killed. Fails when either is 10% above the first."""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

EVERY = 20
PIPELINE = """
pipeline: memory
stages:
  base: {{job: import-checkpoint, params: {{path: {model}}}}}
  tasks:
    job: generate
    params: {{family: arithmetic, split: train, levels: [{{level: 1, count: 1000}}]}}
  demonstrations: {{job: demonstrate, inputs: {{tasks: [tasks]}}}}
  sft:
    job: sft
    params: {{steps: {steps}, batch: 16, learning_rate: 0.0001, checkpoint_every: {every}}}
    inputs: {{base: base, examples: demonstrations}}
  rl:
    job: rl
    params:
      algorithm: grpo
      reward: correct
      curriculum: [{{level: 1, steps: {steps}}}]
      prompts: 4
      samples: 8
      max_new_tokens: 48
      learning_rate: 0.0001
      checkpoint_every: {every}
    inputs: {{base: base, tasks: tasks}}
"""


def peak(pid):
    """MB of resident memory at most, so far."""
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def newest(store):
    """The newest step of the one artifact that is under way."""
    steps = [int(file.stem) for file in store.glob("artifacts/*/steps/*.json")
             if not (file.parent.parent / "manifest.json").exists()]  # fmt: skip
    return max(steps, default=0)


def train(triad, folder, stage, until=None):
    """Runs a stage, to step `until` if given. Peaks: at its first checkpoint, and at its end."""
    command = [triad, "job", "memory.yaml", stage, "--store", "store"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    before, first = newest(folder / "store"), None
    while (done := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        step = newest(folder / "store")
        if first is None and step > before:
            first = peak(process.pid)
        if until and step >= until:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    if done[1] and not until:
        sys.exit(process.stderr.read().decode())
    return first, done[2].ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triad")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    triad, root = os.path.abspath(given.triad), pathlib.Path(__file__).parent.parent.resolve()
    failed = False
    print(f"MB     first checkpoint  step {given.steps}  resumed at {given.steps // 2}")
    for stage in ["sft", "rl"]:
        peaks = []
        for interrupted in [False, True]:
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                text = PIPELINE.format(model=root / "models/seedling", steps=given.steps, every=EVERY)
                (folder / "memory.yaml").write_text(text)
                for made in ["base", "tasks", "demonstrations"]:
                    subprocess.run([triad, "job", "memory.yaml", made, "--store", "store"],
                                   cwd=folder, check=True, capture_output=True)  # fmt: skip
                if interrupted:
                    train(triad, folder, stage, until=given.steps // 2)
                    peaks.append(train(triad, folder, stage)[1])
                else:
                    peaks.extend(train(triad, folder, stage))
        first, last, resumed = peaks
        failed |= max(last, resumed) > 1.1 * first
        print(f"{stage:6} {first:16.0f}  {last:8.0f}  {resumed:14.0f}", flush=True)
    sys.exit(failed)


main()
