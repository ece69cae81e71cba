"""Tiny random causal language models of every family, so that tests need no network."""

import tiny
import torch
import transformers as hf

from xai_utils.models import language, state_sha256
from xai_utils.models.attention_classifier import word_tokenizer
from xai_utils.models.kinds import Model

WORDS = tiny.BERT["vocab_size"]
SIZE = {
    "vocab_size": WORDS, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MHA = {**SIZE, "num_key_value_heads": 4}
SCANS = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
FAMILIES = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**{k: v for k, v in tiny.GPT.items() if k != "num_labels"})),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZE)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SIZE, sliding_window=4)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZE)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZE, head_dim=8)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SIZE, head_dim=8)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZE, head_dim=8, sliding_window=4)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SIZE, head_dim=8, sliding_window=4)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**{k: v for k, v in SIZE.items() if "key" not in k})),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**MHA | {"hidden_size": 32})),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SIZE)),
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**SIZE)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**SIZE)),
    "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(**SCANS)),
    "mamba2": lambda: hf.Mamba2ForCausalLM(hf.Mamba2Config(**{**SCANS, "num_heads": 4, "head_dim": 8, "n_groups": 1,
                                                              "expand": 2, "chunk_size": 8})),
}  # fmt: skip
# Their softmax is taken in float32, where a float64 mask is minus infinity: padding beyond a window would be NaN.
WINDOWED = ("mistral", "gemma2", "gemma3")


def built(family):
    """Build a module of a family; the same weights every time."""
    torch.manual_seed(0)
    module = FAMILIES[family]().to(torch.float32 if family in WINDOWED else torch.float64).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:
                parameter.normal_(std=0.3)
    return module


def wrapped(family, module):
    """Make a :class:`Model` of a module built here."""
    loaded = language.says_next(module, tiny.tokenizer(cls=False))
    return Model(
        f"tiny {family}", module, loaded.classes, None, 0, loaded.tokenizer, None, state_sha256(module), loaded.head
    )


def knowing(texts, limit=96):
    """Return a tiny random Llama that knows every word of some texts and begins each of them with a special."""
    reader = word_tokenizer(texts, limit=limit)
    torch.manual_seed(0)
    settings = hf.LlamaConfig(**SIZE | {"vocab_size": len(reader), "max_position_embeddings": limit})
    module = hf.LlamaForCausalLM(settings).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    loaded = language.says_next(module, reader)
    return Model("tiny llama", module, loaded.classes, 2, 0, reader, None, state_sha256(module), loaded.head)


def causal(family):
    """Return a language model of a family with large random weights."""
    return wrapped(family, built(family))
