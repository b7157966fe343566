"""Training speed of triad beside Hugging Face transformers, on the same CPU cores in one run.

    cargo bench --bench training --no-run      # prints the program's path
    python benches/training.py PROGRAM FOLDER [--threads 2] [--rounds 3]

FOLDER is a Hugging Face model (SmolLM2-135M-Instruct for the figures in the docs). Needs torch and
transformers. A step is forward, backward, clipping and AdamW; transformers pads a batch to its
longest sequence and uses torch's fused AdamW. The two take turns, each in a process of its own, so
that what else the machine does hits both; the ratio of each turn counts, and the median of the
turns is printed with the smallest and the largest, and each side's peak of resident memory."""

import argparse
import os
import statistics
import subprocess
import sys
import time

# (sequences, shortest, longest)
WORK = {
    "4 sequences of 256": (4, 256, 256),
    "8 sequences of 32 to 512": (8, 32, 512),
}


class Side:
    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def step(self, work):
        print(*work, file=self.process.stdin, flush=True)
        seconds, tokens, loss = self.process.stdout.readline().split()
        return float(seconds), int(tokens), float(loss)

    def peak(self):
        """MB of resident memory at most."""
        with open(f"/proc/{self.process.pid}/status") as status:
            (line,) = [line for line in status if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def transformers(folder, dtype, threads):
    """The other side: the same lines, the same answers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    vocabulary = model.config.vocab_size
    print("ready", flush=True)
    for line in sys.stdin:
        count, shortest, longest = map(int, line.split())
        lengths = [shortest + (longest - shortest) * row // max(count - 1, 1) for row in range(count)]
        ids = torch.zeros(count, max(lengths) + 1, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, length in enumerate(lengths):
            own = torch.tensor([(1000 + 7 * t + 31 * row) % vocabulary for t in range(length + 1)])
            ids[row, : length + 1] = own
            mask[row, : length + 1] = 1
            labels[row, : length + 1] = own
        start = time.perf_counter()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(time.perf_counter() - start, sum(lengths), loss.item(), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    given = parser.parse_args()
    if given.program == "transformers":
        return transformers(given.folder, given.dtypes, given.threads)
    print(f"{'':40} {'triad':>8} {'transformers':>13} {'ratio':>6}  (tokens/s, medians; range)")
    for dtype in given.dtypes.split(","):
        for name, work in WORK.items():
            if given.only not in name:
                continue
            threads = str(given.threads)
            ours = Side([given.program, given.folder, dtype, threads])
            theirs = Side([sys.executable, __file__, "transformers", given.folder,
                           "--dtypes", dtype, "--threads", threads])  # fmt: skip
            first = ours.step(work), theirs.step(work)  # to warm up
            far = abs(first[0][2] - first[1][2]) / first[1][2]
            assert far < (1e-4 if dtype == "float32" else 2e-2), f"losses differ: {first}"
            turns = [(ours.step(work), theirs.step(work)) for _ in range(given.rounds)]
            a, b = (statistics.median(t[side][1] / t[side][0] for t in turns) for side in (0, 1))
            ratios = sorted(theirs[0] / ours[0] for ours, theirs in turns)
            print(f"{dtype + ', ' + name:40} {a:8.1f} {b:13.1f} {statistics.median(ratios):6.2f}"
                  f"  ({ratios[0]:.2f} to {ratios[-1]:.2f}; peak {ours.peak():.0f} and"
                  f" {theirs.peak():.0f} MB; load {os.getloadavg()[0]:.1f})", flush=True)  # fmt: skip
            ours.close(), theirs.close()


main()
