"""Recipes of the bundled Mamba models; transformers' own module on our scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from xai_utils import samples
from xai_utils.models.mamba_classifier import MambaClassifier
from xai_utils.samples import recall
from xai_utils.train.recipe import Recipe, muon_and_adamw
from xai_utils.train.text import DATA, DeepSST2, word_pieces


def untrained(tokenizer: Any, classes: Sequence[str], width: int, layers: int, states: int) -> MambaClassifier:
    """Return a fresh classifier for what the tokenizer gives it."""
    from transformers import MambaConfig

    names = dict(enumerate(classes))
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, state_size=states, use_cache=False,
        id2label=names, label2id={name: i for i, name in names.items()}, pad_token_id=tokenizer.pad_token_id,
        architectures=["MambaClassifier"],
    )  # fmt: skip
    return MambaClassifier(config)


class MambaRecall(Recipe):
    """A tiny Mamba that recalls the letter behind the mark, from up to 64 tokens ago; see :mod:`recall`."""

    steps = 800
    warmup = 50
    batch = 32
    shortest, longest = 16, 64
    peak = 4e-3
    width, layers, states = 48, 2, 8

    def build(self) -> nn.Module:
        """Return the untrained model."""
        self.tokenizer = letters_tokenizer()
        return untrained(self.tokenizer, recall.LETTERS, self.width, self.layers, self.states)

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of one batch of equal length."""
        noise = np.random.default_rng([self.seed, step])
        length = int(noise.integers(self.shortest, self.longest + 1))
        drawn = [recall.draw(noise, length) for _ in range(self.batch)]
        logits = module(self._ids(drawn)).logits
        return F.cross_entropy(logits, torch.tensor([one.label for one in drawn]))

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Accuracy on 2,000 fresh sequences of the greatest length."""
        noise = np.random.default_rng([self.seed, 1, 1])
        right = 0
        for _ in range(20):
            drawn = [recall.draw(noise, self.longest) for _ in range(100)]
            predicted = module(self._ids(drawn)).logits.argmax(1)
            right += int((predicted == torch.tensor([one.label for one in drawn])).sum())
        return {"recall_accuracy": right / 2000, "n": 2000, "tokens": self.longest}

    def _ids(self, drawn: list[recall.Recall]) -> Tensor:
        return torch.tensor([self.tokenizer.convert_tokens_to_ids(list(one.tokens)) for one in drawn])

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "about": f"transformers' Mamba: {self.layers} layers, width {self.width}, {self.states} states, fp16",
            "classes": list(recall.LETTERS),
            "data": "sequences drawn by samples.recall; measured on fresh ones",
            "recipe": (
                f"AdamW {self.peak:g}, weight decay 0.01, batch {self.batch} of {self.shortest} to {self.longest} "
                f"tokens, {self.warmup} warm-up steps then cosine to zero, gradient norm ≤ {self.clip:g}; last weights"
            ),
        }


def letters_tokenizer() -> Any:
    """Return the tokenizer of the recall task: one token a letter, words divided by blanks.

    The mark that asks, at the end, is its own special token, as [SEP] is elsewhere: never removed and never ranked.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ("[PAD]", "[UNK]", recall.MARK, *recall.LETTERS)
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    asking = (recall.MARK, words.index(recall.MARK))
    inner.post_processor = processors.TemplateProcessing(single=f"$A {recall.MARK}", special_tokens=[asking])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512)


class MambaSST2(DeepSST2):
    """A small Mamba from scratch on SST-2, with the vocabulary of the deep BERT models; the last token decides."""

    layers = 4
    steps = 1600
    states = 8

    def build(self) -> nn.Module:
        """Train the vocabulary and return the untrained classifier."""
        self.read()
        self.tokenizer = word_pieces(self.sentences, self.words)
        return untrained(self.tokenizer, samples.SENTIMENT, self.width, self.layers, self.states)

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the projections of the layers, AdamW on the rest; no weight decay on the scan's own parameters."""
        return muon_and_adamw(
            module,
            self.peak,
            self.decay,
            lambda name: "_proj.weight" in name,
            lambda name, _parameter: name.endswith(("A_log", ".D", "bias")),
        )

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "about": (
                f"transformers' Mamba: {self.layers} layers, width {self.width}, {self.states} states, "
                f"{self.words} words, fp16"
            ),
            "classes": list(samples.SENTIMENT),
            "data": DATA,
            "recipe": (
                f"from scratch; {self.dropped:.0%} of the words masked, label smoothing {self.smoothing}; Muon on the "
                f"projections and AdamW on the rest, {self.peak:g}, weight decay 0.05 (none on A, D and biases), batch "
                f"{self.batch}, {self.warmup} warm-up steps then cosine to zero, bfloat16 autocast outside the scan, "
                f"gradient norm ≤ {self.clip:g}; the last weights, nothing chosen on the validation sentences; then "
                "the training phrases' class frequencies taken out of the head's bias"
            ),
        }
