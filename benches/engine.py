"""Speed, memory and numerics of the engine beside Hugging Face transformers, in one run.

    python3 benches/engine.py PROGRAM [--device cpu|cuda] [--shapes FOLDER,smollm2,qwen-1.5b,qwen-7b]

PROGRAM is the `triad-torch` binary. A shape is a Hugging Face folder, or the name of a config below whose
weights are random. Without transformers, or with --alone, triad is measured alone; without torch the
ceilings are not measured either. On a CPU the two sides take turns, so that what else the machine
does hits both; on a GPU the one leaves before the other comes, so that each has all memory.

Each part runs in a process of its own with a time limit: one that fails leaves the others. All
numbers go into --json, and a table is printed at the end."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def llama(**keys):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 1e5, "max_position_embeddings": 8192,
            "tie_word_embeddings": True, **keys}  # fmt: skip


def qwen(**keys):
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
            "use_sliding_window": False, "num_hidden_layers": 28, **keys}  # fmt: skip


SHAPES = {
    "tiny": llama(vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2),
    "smollm2": llama(vocab_size=49152, hidden_size=576, intermediate_size=1536,
                     num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3),
    "qwen-1.5b": qwen(vocab_size=151936, hidden_size=1536, intermediate_size=8960,
                      num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen-7b": qwen(vocab_size=152064, hidden_size=3584, intermediate_size=18944,
                    num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False),
}  # fmt: skip

BYTES = {"f32": 4, "bf16": 2}


def works(given):
    """By name: prompts, samples of each, prompt tokens and new tokens; or the numbers of a step."""
    new, rows = given.new, given.rows
    sample = {
        "1 sequence": (1, 1, 32, new),
        f"{rows} sequences": (rows, 1, 32, new),
        f"8 samples of {rows // 8} prompts of {given.prompt}": (rows // 8, 8, given.prompt, new),
    }
    even, longest = given.sequence, 2 * given.sequence
    train = {
        f"step on {given.sequences} sequences of {even}": (given.sequences, even, even),
        f"step on 8 sequences of 32 to {longest}": (8, 32, longest),
    }
    return {
        **{name: dict(zip(("work", "prompts", "samples", "length", "new"), ("sample", *numbers)))
           for name, numbers in sample.items()},
        **{name: dict(zip(("work", "sequences", "shortest", "longest"), ("train", *numbers)))
           for name, numbers in train.items()},
    }  # fmt: skip


class Shape:
    def __init__(self, name):
        self.name = os.path.basename(os.path.normpath(name))
        if name in SHAPES:
            self.config = SHAPES[name]
            self.folder = os.path.join(tempfile.gettempdir(), f"triad-engine-{name}")
            os.makedirs(self.folder, exist_ok=True)
            with open(os.path.join(self.folder, "config.json"), "w") as file:
                json.dump(self.config, file)
        else:
            self.folder = name
            with open(os.path.join(name, "config.json")) as file:
                self.config = json.load(file)
        c = self.config
        self.heads, self.hidden = c["num_attention_heads"], c["hidden_size"]
        self.width = c.get("head_dim") or self.hidden // self.heads
        self.kv = c.get("num_key_value_heads") or self.heads
        self.layers, self.vocabulary = c["num_hidden_layers"], c["vocab_size"]
        attention = self.width * self.hidden * (2 * self.heads + 2 * self.kv)
        block = attention + 3 * self.hidden * c["intermediate_size"]
        # Numbers that a token is multiplied with: the embedding is looked up, the head is not.
        self.multiplied = self.layers * block + self.vocabulary * self.hidden
        tied = c.get("tie_word_embeddings", True)
        self.parameters = self.multiplied + (0 if tied else self.vocabulary * self.hidden)

    def random(self):
        return not any(name.endswith(".safetensors") for name in os.listdir(self.folder))

    def ids(self, row, length):
        return [(1000 + 7 * t + 31 * row) % self.vocabulary for t in range(length)]

    def lengths(self, work):
        count, shortest, longest = work["sequences"], work["shortest"], work["longest"]
        return [shortest + (longest - shortest) * row // max(count - 1, 1) for row in range(count)]

    def flops(self, work, lora):
        """Of a training step, without what is computed again: 2 per number forward, and 2 (frozen
        weights) or 4 backward; attention to the tokens before likewise, causally."""
        lengths = self.lengths(work)
        forward = sum(2 * self.multiplied * n + 2 * self.layers * self.heads * self.width * n * n
                      for n in lengths)  # fmt: skip
        return forward * (2 if lora else 3)

    def bytes(self, work, precision):
        """What sampling has to read at least: for each token all weights once and the keys and
        values of every row; and the weights once for the prompts."""
        rows = work["prompts"] * work["samples"]
        token = 2 * self.layers * self.kv * self.width * BYTES[precision]
        context = sum(work["length"] + t for t in range(1, work["new"]))
        return work["new"] * self.multiplied * BYTES[precision] + rows * context * token


class Triad:
    name = "triad"

    def __init__(self, given, shape, precision, lora, threads):
        command = [given.program, "measure", shape.folder, "--precision", precision,
                   "--device", given.device, "--threads", str(threads)]  # fmt: skip
        if lora:
            command += ["--lora", str(lora)]
        self.given, self.lora = given, lora
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"triad-torch measure ended with {self.process.wait()}; see its message")
        return json.loads(line)

    def run(self, work):
        if work["work"] == "train":
            # Beside frozen weights more activations stay.
            tokens = self.given.micro_batch // (2 if self.lora else 1)
            work = {**work, "micro_batch_tokens": tokens}
        print(json.dumps(work), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Transformers:
    name = "transformers"

    def __init__(self, given, shape, precision, lora, threads):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self.torch, self.shape, self.device = torch, shape, given.device
        self.cuda = given.device.startswith("cuda")
        torch.set_num_threads(threads)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
        if shape.random():
            with torch.device(self.device):
                config = AutoConfig.from_pretrained(shape.folder)
                self.model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        else:
            self.model = AutoModelForCausalLM.from_pretrained(shape.folder, dtype=dtype)
        self.model.to(self.device)
        self.optimizer = None

    def run(self, work):
        if self.cuda:
            self.torch.cuda.synchronize()
            self.torch.cuda.reset_peak_memory_stats()
        answer = getattr(self, work["work"])(work)
        if self.cuda:
            answer["peak_bytes"] = self.torch.cuda.max_memory_allocated()
        else:
            with open("/proc/self/status") as status:
                (line,) = [line for line in status if line.startswith("VmHWM")]
            answer["peak_bytes"] = int(line.split()[1]) << 10
        return answer

    def clock(self):
        if self.cuda:
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def sample(self, work):
        torch, new = self.torch, work["new"]
        rows = [self.shape.ids(p, work["length"])
                for p in range(work["prompts"]) for _ in range(work["samples"])]  # fmt: skip
        ids = torch.tensor(rows, device=self.device)
        self.model.eval()
        start = self.clock()
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, min_new_tokens=new, max_new_tokens=new, pad_token_id=0,
            )  # fmt: skip
        return {"seconds": self.clock() - start, "tokens": out[:, ids.shape[1] :].numel()}

    def train(self, work):
        """Padded to the longest sequence; torch's fused AdamW."""
        torch = self.torch
        if self.optimizer is None:
            self.model.train()
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=1e-5, weight_decay=0.0, fused=True
            )
        lengths = self.shape.lengths(work)
        ids = torch.zeros(len(lengths), max(lengths) + 1, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, length in enumerate(lengths):
            own = torch.tensor(self.shape.ids(row, length + 1))
            ids[row, : length + 1] = own
            mask[row, : length + 1] = 1
            labels[row, : length + 1] = own
        start = self.clock()
        ids, mask, labels = (tensor.to(self.device) for tensor in (ids, mask, labels))
        loss = self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"seconds": self.clock() - start, "tokens": sum(lengths), "loss": loss.item()}

    def close(self):
        self.model = self.optimizer = None


def emit(**row):
    print(json.dumps(row), flush=True)


def speed(given, name, precision, sides):
    """Rows with the seconds of each work on each side."""
    shape, cpu = Shape(name), given.device == "cpu"
    threads = given.threads or (os.cpu_count() if cpu else 1)
    about = {"shape": shape.name, "precision": precision}
    todo = {n: work for n, work in works(given).items() if given.only in n}
    lora = 0

    def start(side):
        try:
            return side(given, shape, precision, lora, threads)
        except Exception as error:
            emit(kind="failure", side=side.name, why=said(error), lora=lora, **about)

    def once(side, work):
        try:
            return side.run(work)
        except Exception as error:
            return {"error": said(error)}

    def report(side, work_name, work, answers):
        errors = [answer["error"] for answer in answers if "error" in answer]
        row = {"kind": "speed", "side": side.name, "work": work_name, "lora": lora, **about}
        if errors:
            return emit(**row, error=errors[0])
        row["seconds"] = [answer["seconds"] for answer in answers]
        row["tokens"], row["peak_bytes"] = answers[0]["tokens"], answers[-1]["peak_bytes"]
        row["loss"] = answers[0].get("loss")
        if work["work"] == "train":
            row["flops"] = shape.flops(work, lora)
        else:
            row["bytes"] = shape.bytes(work, precision)
        emit(**row)

    warm_up = {"work": "sample", "prompts": 1, "samples": 1, "length": 32, "new": 4}

    def warm(side, work):
        once(side, work if work["work"] == "train" else warm_up)

    if cpu:
        alive = [side for side in map(start, sides) if side]
        for work_name, work in todo.items():
            for side in alive:
                warm(side, work)
            turns = [[once(side, work) for side in alive] for _ in range(given.repeats)]
            for side, answers in zip(alive, zip(*turns)):
                report(side, work_name, work, answers)
        for side in alive:
            side.close()
        return
    for side in sides:
        lora = 0
        alive = start(side)
        for kind in ("sample", "train"):
            if kind == "train" and alive and not fits(shape, alive):
                alive.close()
                lora, alive = 16, None
                if side is Triad:
                    alive = start(side)
                else:
                    emit(kind="note", text=f"{shape.name}: no memory to train it by transformers")
            for work_name, work in todo.items():
                if work["work"] == kind and alive:
                    warm(alive, work)
                    answers = [once(alive, work) for _ in range(given.repeats)]
                    report(alive, work_name, work, answers)
        if alive:
            alive.close()


def fits(shape, side):
    """Whether there is memory to train all weights, with 24 GB for activations. Beside its bf16
    weights triad has f32 masters, moments and sums and bf16 gradients; torch's AdamW has bf16 ones."""
    activations = 24 << 30
    if side.name == "triad":
        return 18 * shape.parameters + activations < (side.about["available_bytes"] or 0)
    total = side.torch.cuda.get_device_properties(side.device).total_memory
    return 8 * shape.parameters + activations < total


def said(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def parity(given, name, precision):
    shape = Shape(name)
    side = Triad(given, shape, precision, 0, given.threads or os.cpu_count())
    emit(kind="parity", shape=shape.name, precision=precision,
         **side.run({"work": "parity", "length": given.sequence // 4}))  # fmt: skip
    side.close()


def ceilings(given):
    """Rates of a large bf16 matrix product and of a large copy, read and written bytes."""
    import torch

    cuda = given.device.startswith("cuda")
    n, size = (8192, 4 << 30) if cuda else (1024, 1 << 28)
    wait = torch.cuda.synchronize if cuda else lambda: None

    def fastest(work):
        times = []
        for _ in range(3 if cuda else 1):
            work()
        for _ in range(10 if cuda else 3):
            wait()
            start = time.perf_counter()
            work()
            wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    a, b = (torch.randn(n, n, device=given.device).to(torch.bfloat16) for _ in range(2))
    flops = 2 * n**3 / fastest(lambda: torch.mm(a, b))
    source = torch.empty(size, dtype=torch.uint8, device=given.device).random_()
    target = torch.empty_like(source)
    copied = 2 * size / fastest(lambda: target.copy_(source))
    device = torch.cuda.get_device_name() if cuda else "CPU"
    memory = torch.cuda.get_device_properties(0).total_memory if cuda else None
    emit(kind="ceilings", device=device, torch=torch.__version__, matmul_flops=flops,
         copy_bytes=copied, memory_bytes=memory)  # fmt: skip


def has(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None


def part(given, *words, limit):
    """Runs this program for one part; its rows, and one more if it failed."""
    left = given.deadline - time.monotonic()
    name = " ".join(words)
    if left < 5:
        return [{"kind": "failure", "part": name, "why": "no time left"}]
    print(f"{name} …", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--part", *words]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=out, stderr=log, start_new_session=True)
        why = None
        try:
            if process.wait(timeout=min(limit, left)):
                why = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            why = f"not done after {min(limit, left):.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # triad, where its parent died
        process.wait()
        out.seek(0), log.seek(0)
        rows = []
        for text in out.read().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(text))
        messages = [line for line in log.read().splitlines() if line.strip()]
    failed = [row for row in rows if row.get("kind") == "failure" or "error" in row]
    if why or failed:
        print(*messages[-12:], sep="\n", file=sys.stderr, flush=True)
    if why:
        rows.append({"kind": "failure", "part": name, "why": f"{why}: {(messages or [''])[-1]}"})
    return rows


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def table(rows):
    """Markdown."""
    ceiling = next((row for row in rows if row["kind"] == "ceilings"), None)
    if ceiling:
        yield (f"{ceiling['device']}, torch {ceiling['torch']}: bf16 product "
               f"{ceiling['matmul_flops'] / 1e12:.0f} TFLOP/s, copy "
               f"{ceiling['copy_bytes'] / 1e12:.2f} TB/s\n")  # fmt: skip
    checks = [row for row in rows if row["kind"] == "parity"]
    if checks:
        yield "| against the CPU in f32 | logits | gradients | worst gradient | recomputed | update | greedy | drawn | cut | sampler to trainer |"
        yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in checks:
        far = [row["logits"]["mean"], row["gradients"]["mean"], row["gradients"]["most"],
               row["recomputed"]["mean"], row["update"]["mean"]]  # fmt: skip
        far = ["not finite" if value is None else f"{value:.1e}" for value in far]
        agree = [f"{100 * row[name]['agree']:.0f}%" for name in ("greedy", "drawn", "cut")]
        yield (f"| {row['shape']}, {row['precision']} | {' | '.join(far + agree)} | "
               f"{row['drawn']['gap']:.1e} |")  # fmt: skip
    if checks:
        yield ""
    speeds = {}
    for row in rows:
        if row["kind"] == "speed":
            key = (row["shape"], row["precision"], row["work"])
            speeds.setdefault(key, {})[row["side"]] = row
    if speeds:
        yield "| tokens/s | triad | transformers | ratio | triad's share of the ceiling | peak memory, GB |"
        yield "|---|---|---|---|---|---|"
    for (shape, precision, work), sides in speeds.items():
        ours, theirs = sides.get("triad", {}), sides.get("transformers", {})
        rate, share, peak = {}, "—", []
        for name, row in (("triad", ours), ("transformers", theirs)):
            if "seconds" in row:
                rate[name] = row["tokens"] / statistics.median(row["seconds"])
            peak.append(f"{row['peak_bytes'] / 1e9:.2f}" if row.get("peak_bytes") else "—")
        if "triad" in rate and ceiling:
            seconds = statistics.median(ours["seconds"])
            if "flops" in ours:
                share = f"{100 * ours['flops'] / seconds / ceiling['matmul_flops']:.0f}% of product"
            else:
                share = f"{100 * ours['bytes'] / seconds / ceiling['copy_bytes']:.0f}% of copy"
        ratio = "—"
        if len(rate) == 2:
            pairs = sorted(b / a for a, b in zip(ours["seconds"], theirs["seconds"]))
            ratio = f"{rate['triad'] / rate['transformers']:.2f}"
            if len(pairs) > 1:
                ratio += f" ({pairs[0]:.2f} to {pairs[-1]:.2f})"
        lora = f", LoRA {ours['lora']}" if ours.get("lora") else ""
        cells = [number(rate[name]) if name in rate else "failed" if "error" in row else "—"
                 for name, row in (("triad", ours), ("transformers", theirs))]  # fmt: skip
        yield (f"| {shape}, {precision}{lora}: {work} | {' | '.join(cells)} | {ratio} | {share} | "
               f"{' and '.join(peak)} |")  # fmt: skip
        losses = [row["loss"] for row in (ours, theirs) if row.get("loss")]
        known = len(losses) == 2 and not ours.get("lora") and os.path.isdir(shape)
        if known and abs(losses[0] - losses[1]) > (1e-4 if precision == "f32" else 2e-2) * losses[1]:
            yield f"| | losses differ: {losses} | | | | |"
    for row in rows:
        if row["kind"] == "failure":
            place = row.get("part") or f"{row['side']}, {row['shape']}, {row['precision']}"
            yield f"\nFAILED: {place}: {row['why']}"
        elif "error" in row:
            yield f"\nFAILED: {row['side']}, {row['shape']}, {row['work']}: {row['error']}"
        elif row["kind"] == "note":
            yield f"\n{row['text']}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shapes", default="smollm2")
    parser.add_argument("--precisions", help="f32, bf16; both on a CPU, bf16 on a GPU")
    parser.add_argument("--parity", help="shape whose numbers are compared with the CPU's")
    parser.add_argument("--alone", action="store_true", help="without transformers")
    parser.add_argument("--only", default="", help="works whose name holds this")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="sequences that are sampled at a time")
    parser.add_argument("--prompt", type=int, default=400, help="tokens of a shared prompt")
    parser.add_argument("--new", type=int, default=48, help="tokens of a response")
    parser.add_argument("--sequences", type=int, default=4, help="that are trained on at a time")
    parser.add_argument("--sequence", type=int, default=256, help="tokens of a trained sequence")
    parser.add_argument("--micro-batch", type=int, default=4096, help="tokens of a micro-batch")
    parser.add_argument("--limit", type=float, default=3600, help="seconds of a part")
    parser.add_argument("--total", type=float, default=36000, help="seconds of all")
    parser.add_argument("--json", help="file for all numbers")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.deadline = time.monotonic() + given.total
    sides = {"triad": Triad, "transformers": Transformers}
    if given.part:
        kind, *words = given.part
        if kind == "ceilings":
            return ceilings(given)
        if kind == "parity":
            return parity(given, *words)
        name, precision, *names = words
        return speed(given, name, precision, [sides[name] for name in names])
    cpu = given.device == "cpu"
    precisions = (given.precisions or ("f32,bf16" if cpu else "bf16")).split(",")
    peer = not given.alone and has("torch") and has("transformers")
    rows = []
    if has("torch"):
        rows += part(given, "ceilings", limit=given.limit)
    if given.parity:
        for precision in ("f32", "bf16"):
            rows += part(given, "parity", given.parity, precision, limit=given.limit)
    both = ["triad", *(["transformers"] if peer else [])]
    # On a GPU all of triad comes first: what time does not suffice for is the other side.
    for names in [both] if cpu else [[name] for name in both]:
        for shape in given.shapes.split(","):
            for precision in precisions:
                rows += part(given, "speed", shape, precision, *names, limit=given.limit)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(rows, file, indent=1)
    print(*table(rows), sep="\n")
    return any(row["kind"] == "failure" or "error" in row for row in rows)


if __name__ == "__main__":
    sys.exit(main())
