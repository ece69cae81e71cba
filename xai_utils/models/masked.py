"""Loaders of models that predict masked words: bundled ones and those of a hub."""

from __future__ import annotations

import json
from typing import Any

from xai_utils.models import bundled
from xai_utils.models.bundled import Loaded


def minilm_masked(source: str, _revision: str | None) -> Loaded:
    """Put the bundled prediction head and adapter on MiniLM and merge them: a plain BERT for masked words.

    The decoder is tied to the word embeddings of the installed package.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertForMaskedLM

    folder, _ = bundled.bundled(source)
    weights = load_file(folder / "adapter_model.safetensors")
    base: Any = BertForMaskedLM.from_pretrained(bundled.minilm_folder())
    base.tie_weights()
    base.cls.predictions.bias.data.copy_(weights.pop(bundled.MLM_BIAS))
    settings = {k: v for k, v in json.loads((folder / "adapter_config.json").read_text()).items() if k != "peft_type"}
    adapted: Any = get_peft_model(base, LoraConfig(**settings))
    loaded: Any = set_peft_model_state_dict(adapted, weights)
    if unknown := loaded.unexpected_keys:
        raise ValueError(f"{source} holds {len(unknown)} weights that fit nowhere, such as {unknown[0]}; `make train`.")
    return Loaded(adapted.merge_and_unload().float(), (), AutoTokenizer.from_pretrained(bundled.minilm_folder()))


def bundled_masked(source: str, _revision: str | None) -> Loaded:
    """Load a bundled transformers model of masked words with its own vocabulary; half precision becomes float32."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder, _ = bundled.bundled(source)
    module = AutoModelForMaskedLM.from_pretrained(folder, dtype="float32")
    return Loaded(module, (), AutoTokenizer.from_pretrained(folder))


def masked_hub(source: str, revision: str | None) -> Loaded:
    """Load a hub's model with the head that predicts masked words; ``ValueError`` if it has none."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    config = bundled.fetch(source, lambda: AutoConfig.from_pretrained(source, revision=revision))
    if not any(word in " ".join(config.architectures or ()) for word in ("MaskedLM", "PreTraining")):
        raise ValueError(f"{source} is {config.architectures}, which predicts no masked words; try bert-base-mlm.")
    module = bundled.fetch(source, lambda: AutoModelForMaskedLM.from_pretrained(source, revision=revision))
    return Loaded(module, (), bundled.fetch(source, lambda: AutoTokenizer.from_pretrained(source, revision=revision)))
