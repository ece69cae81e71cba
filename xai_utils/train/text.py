"""Recipes of the bundled text models, trained on SST-2's training sentences and phrases."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from xai_utils import samples
from xai_utils.models import bundled
from xai_utils.train.recipe import Export, Recipe, adapter, hide, muon_and_adamw

DATA = "GLUE SST-2 training sentences (67,349); measured on its validation sentences"


@cache
def sst2(split: str) -> tuple[list[str], np.ndarray]:
    """Return sentences and labels of a split."""
    texts = samples.sst2(split)
    return [text.text for text in texts], np.array([text.label for text in texts])


class SST2Recipe(Recipe):
    """Classify sentences in batches of similar length; the head forgets how frequent the classes were in training."""

    batch = 32
    pool = 16  # batches drawn together, then cut by length
    dropped = 0.1  # share of the words replaced by [MASK]
    smoothing = 0.05  # of the labels

    def read(self) -> None:
        """Read the training split."""
        self.sentences, self.labels = sst2("train")
        self.lengths = np.array([len(text.split()) for text in self.sentences])

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of one batch."""
        chosen = self._batch(step)
        inputs = self.tokenizer([self.sentences[i] for i in chosen], padding=True, return_tensors="pt")
        hidden = hide(inputs["input_ids"], self.dropped, self.tokenizer.all_special_ids)
        inputs["input_ids"] = inputs["input_ids"].masked_fill(hidden, self.tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(**inputs).logits
        truth = torch.as_tensor(self.labels[chosen])
        return F.cross_entropy(logits.float(), truth, label_smoothing=self.smoothing)

    def _batch(self, step: int) -> np.ndarray:
        """Sort a pool of random sentences by length and return this step's slice of it."""
        turn, place = divmod(step, self.pool)
        noise = np.random.default_rng([self.seed, turn])
        pool = noise.choice(len(self.labels), size=self.pool * self.batch, replace=False)
        pool = pool[np.argsort(self.lengths[pool], kind="stable")].reshape(self.pool, self.batch)
        return pool[noise.permutation(self.pool)[place]]

    @torch.no_grad()
    def finish(self, module: Any) -> None:
        """Take the class frequencies of the training phrases (55.8 % positive) out of the head's bias.

        Source: post-hoc logit adjustment, Menon et al. (2021), arXiv:2007.07314, section 4.1.
        """
        share = self.labels.mean()
        self.head(module).bias[1] -= float(np.log(share / (1 - share)))

    def head(self, module: Any) -> Any:
        """Return the linear layer that gives the class scores."""
        return module.classifier

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Accuracy on the 872 sentences of SST-2's validation split."""
        sentences, labels = sst2("validation")
        order = np.argsort([len(text) for text in sentences], kind="stable")
        sentences, labels = [sentences[i] for i in order], labels[order]
        right = 0
        for start in range(0, len(sentences), 64):
            inputs = self.tokenizer(sentences[start : start + 64], padding=True, return_tensors="pt")
            predicted = module(**inputs).logits.argmax(-1).numpy()
            right += int((predicted == labels[start : start + 64]).sum())
        return {"sst2_validation_accuracy": round(right / len(labels), 4), "n": len(labels)}


class MiniLMSST2(SST2Recipe):
    """MiniLM with a low-rank adapter on every linear layer."""

    steps = 3000
    warmup = 150
    select_from = 1000
    select_every = 250
    rank = 32
    peak = 4e-4

    def build(self) -> nn.Module:
        """Return the frozen MiniLM classifier with a trainable adapter and head."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.read()
        self.tokenizer = AutoTokenizer.from_pretrained(bundled.minilm_folder())
        base = AutoModelForSequenceClassification.from_pretrained(bundled.minilm_folder(), num_labels=2)
        settings = LoraConfig(
            task_type="SEQ_CLS", r=self.rank, lora_alpha=self.rank, lora_dropout=0.1,
            target_modules="all-linear", modules_to_save=["classifier"],
        )  # fmt: skip
        return get_peft_model(base, settings)

    def head(self, module: Any) -> Any:
        """Return the head that peft trains in place of the base's."""
        return next(m for n, m in module.named_modules() if n.endswith("classifier.modules_to_save.default"))

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "about": "all-MiniLM-L6-v2 with a LoRA adapter and a classification head, fp16",
            "base_sha256": bundled.MINILM_SHA256,
            "classes": list(samples.SENTIMENT),
            "data": DATA,
            "recipe": (
                f"LoRA rank {self.rank} on all linear layers, dropout 0.1, {self.dropped:.0%} of the words masked, "
                f"label smoothing {self.smoothing}, AdamW {self.peak:g}, batch {self.batch}, {self.warmup} warm-up "
                f"steps then cosine to zero, bfloat16 autocast, gradient norm ≤ {self.clip:g}; of the weights every "
                f"{self.select_every} steps from {self.select_from} on, the most accurate on the validation "
                "sentences, whose accuracy is therefore a little optimistic; then the training phrases' class "
                "frequencies taken out of the head's bias"
            ),
        }

    def export(self, module: Any) -> Export:
        """Return the adapter in peft's own format."""
        tensors, settings = adapter(module)
        return tensors, self.facts(), {"adapter_config.json": settings}


class DeepSST2(SST2Recipe):
    """A deep, narrow BERT from scratch, with a vocabulary of its own; nothing is chosen on the validation sentences.

    Post-LN as in BERT. So that many such layers train, every residual branch starts small: its last linear layer is
    initialised a tenth as wide as the others.
    """

    layers = 12
    steps = 3000
    batch = 64
    decay = 0.05
    peak = 2e-3
    width = 128
    words = 8000  # of the vocabulary

    def build(self) -> nn.Module:
        """Train the vocabulary and return the untrained classifier."""
        from transformers import BertConfig, BertForSequenceClassification

        self.read()
        self.tokenizer = word_pieces(self.sentences, self.words)
        config = BertConfig(
            vocab_size=len(self.tokenizer), hidden_size=self.width, num_hidden_layers=self.layers,
            num_attention_heads=4, intermediate_size=2 * self.width, max_position_embeddings=128, type_vocab_size=1,
            id2label=dict(enumerate(samples.SENTIMENT)), label2id={n: i for i, n in enumerate(samples.SENTIMENT)},
            architectures=["BertForSequenceClassification"], pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        model: Any = BertForSequenceClassification(config)
        for layer in model.bert.encoder.layer:
            for last in (layer.attention.output.dense, layer.output.dense):
                nn.init.normal_(last.weight, std=0.1 * config.initializer_range)
        return model

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the matrices of the layers, AdamW on the rest."""
        return muon_and_adamw(module, self.peak, self.decay, lambda name: name.startswith("bert.encoder."))

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "about": f"BERT: {self.layers} layers (post-LN), 4 heads, width {self.width}, {self.words} words, fp16",
            "classes": list(samples.SENTIMENT),
            "data": DATA,
            "recipe": (
                "from scratch; last linear layer of every residual branch initialised at a tenth; dropout 0.1, "
                f"{self.dropped:.0%} of the words masked, label smoothing {self.smoothing}; Muon on the matrices of "
                f"the layers and AdamW on the rest, {self.peak:g}, weight decay 0.05, batch {self.batch}, "
                f"{self.warmup} warm-up steps then cosine to zero, bfloat16 autocast, gradient norm ≤ {self.clip:g}; "
                "the last weights, nothing chosen on the validation sentences; then the training phrases' class "
                "frequencies taken out of the head's bias"
            ),
        }


class DeeperSST2(DeepSST2):
    """The same with 24 layers."""

    layers = 24


def word_pieces(sentences: list[str], words: int) -> Any:
    """Return BERT's uncased tokenizer with the ``words`` entries these sentences need most.

    Special tokens and single characters stay, so nothing becomes unknown that was known; other words fall apart into
    pieces that are left. (A vocabulary trained anew by the ``tokenizers`` library differs from run to run.)
    """
    from transformers import AutoTokenizer, BertTokenizer

    whole = AutoTokenizer.from_pretrained(bundled.minilm_folder())
    used = Counter(piece for row in whole(sentences, add_special_tokens=False)["input_ids"] for piece in row)
    names = sorted(whole.get_vocab(), key=whole.get_vocab().__getitem__)
    always = [n for n in names if n in whole.all_special_tokens or (n.isascii() and len(n.removeprefix("##")) == 1)]
    often = sorted(used, key=lambda piece: (-used[piece], piece))
    kept = dict.fromkeys([*always, *(names[piece] for piece in often)])
    vocabulary = {name: index for index, name in enumerate(list(kept)[:words])}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=128)
