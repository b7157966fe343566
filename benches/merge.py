"""Merging three 1.1B models (TinyLlama's shape, bf16): time and peak memory, beside mergekit.

    python3 benches/merge.py target/release/triad [--mergekit bin/mergekit-yaml] [--runs 5]
                             [--methods linear,ties] [--folder DIR]

Makes random models below DIR (6.6 GB; a temporary folder unless given, where they stay). Every run
is a process of its own; what was read before is in the page cache. `copy` is cat: the same bytes
read, and as many written as a merge writes. Prints the median, the spread and the peak resident memory."""

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

LAYERS, HIDDEN, INNER, NARROW, VOCABULARY = 22, 2048, 5632, 256, 32000
MODELS = "models:\n- {{model: {a}, parameters: {{weight: 1.0{more}}}}}\n- {{model: {b}, parameters: {{weight: 0.2{more}}}}}\n"
THIRD = "- {{model: {base}, parameters: {{weight: 0.1}}}}\n"
BASE = "base_model: {base}\ndtype: bfloat16\n"
RECIPES = {
    "linear": ("", MODELS + THIRD + "dtype: bfloat16\n"),
    "slerp": ("", BASE + "models:\n- model: {base}\n- model: {a}\nparameters: {{t: 0.4}}\n"),
    "nuslerp": ("", MODELS + "dtype: bfloat16\n"),
    "multislerp": ("", MODELS + THIRD + "dtype: bfloat16\n"),
    "karcher": ("", "models: [{{model: {a}}}, {{model: {b}}}, {{model: {base}}}]\ndtype: bfloat16\n"),
    "model_stock": ("", BASE + "models: [{{model: {a}}}, {{model: {b}}}]\n"),
    "task_arithmetic": ("", BASE + MODELS),
    "ties": (", density: 0.5", BASE + MODELS),
    "breadcrumbs": (", density: 0.9", BASE + MODELS),
    "dare_ties": (", density: 0.5", BASE + MODELS),
    "dare_linear": (", density: 0.5", BASE + MODELS),
    "della": (", density: 0.5", BASE + MODELS),
}


def shapes():
    yield "lm_head.weight", (VOCABULARY, HIDDEN)
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in {
            "input_layernorm": (HIDDEN,), "mlp.down_proj": (HIDDEN, INNER),
            "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
            "post_attention_layernorm": (HIDDEN,), "self_attn.k_proj": (NARROW, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN), "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.v_proj": (NARROW, HIDDEN)}.items():  # fmt: skip
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)


def model(folder, number):
    """bf16 numbers of all magnitudes between 2^-9 and 2^-3; the models share half of their bits."""
    import numpy

    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
              "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
              "num_key_value_heads": 4, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
              "torch_dtype": "bfloat16"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in shapes():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for seed, (name, shape) in enumerate(shapes()):
            size = shape[0] * (shape[1] if len(shape) > 1 else 1)
            same = numpy.random.default_rng(seed).integers(0, 1 << 16, size, dtype=numpy.uint16)
            own = numpy.random.default_rng([seed, number]).integers(0, 1 << 6, size, dtype=numpy.uint16)
            exponent = 118 + (same >> 7) % 6
            file.write(((same & 0x8000) | (exponent << 7) | ((same & 0x40) + own)).tobytes())


def run(command, **options):
    """Seconds, and MB of resident memory at most."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors.decode())
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def measure(name, command, out, runs, files):
    seconds, memory = [], []
    for _ in range(runs):
        shutil.rmtree(out, ignore_errors=True)
        # mergekit's memory takes the place of what was in the page cache.
        run(["cat", *files])
        taken, peak = run(command)
        seconds.append(taken)
        memory.append(peak)
    shutil.rmtree(out, ignore_errors=True)
    median = statistics.median(seconds)
    print(f"{name:28} {median:7.2f} s  {min(seconds):7.2f} to {max(seconds):7.2f}  {max(memory):6.0f} MB", flush=True)
    return median


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triad")
    parser.add_argument("--mergekit")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mergekit-runs", type=int, default=1)
    parser.add_argument("--methods", default=",".join(RECIPES))
    parser.add_argument("--folder")
    given = parser.parse_args()
    root = pathlib.Path(given.folder or tempfile.mkdtemp())
    paths = {name: root / name for name in ("base", "a", "b")}
    for number, path in enumerate(paths.values()):
        if not path.exists():
            # A child's peak memory begins with its parent's.
            maker = multiprocessing.get_context("spawn").Process(target=model, args=(path, number))
            maker.start()
            maker.join()
    out = root / "out"
    files = [str(path / "model.safetensors") for path in paths.values()]
    copy = ["sh", "-c", f"mkdir {out} && cat {files[0]} > {out}/x && cat {files[1]} {files[2]} > /dev/null"]
    measure("copy", copy, out, given.runs, files)
    for method in given.methods.split(","):
        more, text = RECIPES[method]
        recipe = root / f"{method}.yaml"
        recipe.write_text(f"merge_method: {method}\n" + text.format(more=more, **paths))
        ours = measure(f"{method}", [given.triad, "merge", str(recipe), str(out)], out, given.runs, files)
        if given.mergekit:
            command = [given.mergekit, str(recipe), str(out), "--no-write-model-card", "--quiet"]
            theirs = measure(f"{method}, mergekit", command, out, given.mergekit_runs, files)
            print(f"{method:28} {theirs / ours:7.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
