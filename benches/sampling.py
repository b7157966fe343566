"""Sampling speed of triad beside Hugging Face transformers, on the same CPU cores in one run.

    cargo bench --bench sampling --no-run      # prints the program's path
    python benches/sampling.py PROGRAM FOLDER [--triad FOLDER] [--threads 2] [--rounds 3]

FOLDER is a Hugging Face model (SmolLM2-135M-Instruct for the figures in the docs); --triad names
another folder of the same weights for triad. Needs torch and transformers. Both sides draw at
temperature 1 from the same prompts, to the full length. They take turns, so that what else the
machine does hits both; the ratio of each turn counts, and the median of the turns is printed with
the smallest and the largest."""

import argparse
import os
import statistics
import subprocess
import time

import torch
from transformers import AutoModelForCausalLM

# (prompts, samples of each, prompt tokens, new tokens)
WORK = {
    "1 sequence": (1, 1, 32, 48),
    "64 sequences": (64, 1, 32, 48),
    "8 samples of 8 prompts of 400": (8, 8, 400, 48),
}


class Triad:
    def __init__(self, program, folder, dtype, threads):
        self.process = subprocess.Popen(
            [program, folder, dtype, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def seconds(self, work):
        print(*work, file=self.process.stdin, flush=True)
        seconds, tokens = self.process.stdout.readline().split()
        assert int(tokens) == work[0] * work[1] * work[3]
        return float(seconds)


class Transformers:
    def __init__(self, folder, dtype):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def seconds(self, work):
        prompts, samples, length, new = work
        rows = [[(1000 + 7 * t + 31 * p) % 40_000 for t in range(length)]
                for p in range(prompts) for _ in range(samples)]  # fmt: skip
        ids = torch.tensor(rows)
        start = time.perf_counter()
        with torch.inference_mode():
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, min_new_tokens=new, max_new_tokens=new, pad_token_id=0,
            )  # fmt: skip
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--triad")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{'':42} {'triad':>9} {'transformers':>13} {'ratio':>6}  (tokens/s, medians; range)")
    for dtype in given.dtypes.split(","):
        ours = Triad(given.program, given.triad or given.folder, dtype, given.threads)
        theirs = Transformers(given.folder, dtype)
        for name, work in WORK.items():
            if given.only not in name:
                continue
            warm_up = (1, 1, 32, 4)
            ours.seconds(warm_up), theirs.seconds(warm_up)
            turns = [(ours.seconds(work), theirs.seconds(work)) for _ in range(given.rounds)]
            tokens = work[0] * work[1] * work[3]
            a, b = (statistics.median(tokens / turn[side] for turn in turns) for side in (0, 1))
            ratios = sorted(b / a for a, b in turns)
            print(f"{dtype + ', ' + name:42} {a:9.1f} {b:13.1f} {statistics.median(ratios):6.2f}"
                  f"  ({ratios[0]:.2f} to {ratios[-1]:.2f}; load {os.getloadavg()[0]:.1f})",
                  flush=True)  # fmt: skip


main()
