"""A tiny Llama as a GGUF file of any quantisation, as llama.cpp's converter writes it."""

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers as hf
from gguf.quants import dequantize, quantize

WIDTH, INNER, LAYERS, HEADS, KEYS = 32, 64, 2, 4, 2  # whole blocks of 32 numbers, as quantisation needs
PIECES = ["<|endoftext|>", "<|im_end|>", *map(chr, range(ord("a"), ord("z") + 1)), "Ġ", "Ġa", "Ġb", "Ġc"]
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def module() -> hf.LlamaForCausalLM:
    """Build the model with large random weights; the same every time."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(PIECES), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KEYS, max_position_embeddings=64, tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )  # fmt: skip
    found = hf.LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in found.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3)
    return found


def write(file: Path, kind: str, without: str = "") -> hf.LlamaForCausalLM:
    """Write the file; return the model with the numbers that its quantisation leaves.

    Args:
        file: to write.
        kind: of gguf's types, such as ``"Q8_0"``; norms are always float32.
        without: part of the name of tensors that are left out.
    """
    left, qtype = module(), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(file, "llama")
    _settings(writer)
    for name, parameter in left.named_parameters():
        values, own = parameter.numpy(), qtype if parameter.ndim > 1 else gguf.GGMLQuantizationType.F32
        heads = HEADS if "q_proj" in name else KEYS if "k_proj" in name else 0
        packed = quantize(_paired(values, heads) if heads else values, own)
        rounded = dequantize(packed, own).reshape(values.shape)
        parameter.copy_(torch.from_numpy(_apart(rounded, heads) if heads else rounded.copy()))
        if not without or without not in name:
            writer.add_tensor(_named(name), packed, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return left


def _settings(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(PIECES))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(PIECES)
    writer.add_token_types([3, 3] + [1] * (len(PIECES) - 2))
    writer.add_token_merges(["Ġ a", "Ġ b", "Ġ c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _named(name: str) -> str:
    """Return what llama.cpp calls a parameter."""
    parts = name.split(".")
    block = f"blk.{parts[2]}." if parts[1] == "layers" else ""
    stem = ".".join(parts[3:-1] if block else parts[:-1])
    return f"{block}{NAMES[stem]}.{parts[-1]}"


def _paired(values: np.ndarray, heads: int) -> np.ndarray:
    """Put the two numbers that rotate together next to each other, as llama.cpp has them."""
    return np.ascontiguousarray(values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape))


def _apart(values: np.ndarray, heads: int) -> np.ndarray:
    """Undo :func:`_paired`."""
    return np.ascontiguousarray(values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape))
