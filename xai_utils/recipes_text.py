"""Recipes of the bundled text models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from xai_utils import loaders, samples


class MiniLMSST2:
    """MiniLM with a low-rank adapter on every linear layer, on SST-2's training sentences.

    Sentences of similar length share a batch, so that little is spent on padding.
    """

    seed = 0
    steps = 3000
    warmup = 150
    clip = 1.0
    select_from = 1000
    select_every = 250
    batch = 32
    rank = 32
    peak = 4e-4
    dropped = 0.1  # share of the words replaced by [MASK]
    smoothing = 0.05  # of the labels
    pool = 16  # batches drawn together, then cut by length

    def build(self) -> nn.Module:
        """Return the frozen MiniLM classifier with a trainable adapter and head."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(loaders.minilm_folder())
        self.sentences, self.labels = self._read("train")
        self.lengths = np.array([len(text.split()) for text in self.sentences])
        base = AutoModelForSequenceClassification.from_pretrained(loaders.minilm_folder(), num_labels=2)
        adapter = LoraConfig(
            task_type="SEQ_CLS", r=self.rank, lora_alpha=self.rank, lora_dropout=0.1,
            target_modules="all-linear", modules_to_save=["classifier"],
        )  # fmt: skip
        return get_peft_model(base, adapter)

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on the adapter and the head."""
        return [AdamW([p for p in module.parameters() if p.requires_grad], lr=self.peak, weight_decay=0.01)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of one batch."""
        chosen = self._batch(step)
        inputs = self.tokenizer([self.sentences[i] for i in chosen], padding=True, return_tensors="pt")
        ids = inputs["input_ids"]
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        inputs["input_ids"] = ids.masked_fill(
            (torch.rand(ids.shape) < self.dropped) & ~special, self.tokenizer.mask_token_id
        )
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
        head = next(m for n, m in module.named_modules() if n.endswith("classifier.modules_to_save.default"))
        head.bias[1] -= float(np.log(share / (1 - share)))

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Accuracy on the 872 sentences of SST-2's validation split."""
        sentences, labels = self._read("validation")
        order = np.argsort([len(text) for text in sentences], kind="stable")
        sentences, labels = [sentences[i] for i in order], labels[order]
        right = 0
        for start in range(0, len(sentences), 64):
            inputs = self.tokenizer(sentences[start : start + 64], padding=True, return_tensors="pt")
            predicted = module(**inputs).logits.argmax(-1).numpy()
            right += int((predicted == labels[start : start + 64]).sum())
        return {"sst2_validation_accuracy": round(right / len(labels), 4), "n": len(labels)}

    def export(self, module: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return the adapter in peft's own format."""
        from peft import get_peft_model_state_dict

        config = module.peft_config["default"].to_dict()
        keep = ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "modules_to_save", "bias")
        settings = {key: sorted(v) if isinstance(v := config[key], set) else v for key in keep}
        facts = {
            "about": "all-MiniLM-L6-v2 with a LoRA adapter and a classification head, fp16",
            "base_sha256": loaders.MINILM_SHA256,
            "classes": list(samples.SENTIMENT),
            "data": "GLUE SST-2 training sentences (67,349); measured on its validation sentences",
            "recipe": (
                f"LoRA rank {self.rank} on all linear layers, dropout 0.1, {self.dropped:.0%} of the words masked, "
                f"label smoothing {self.smoothing}, AdamW {self.peak:g}, batch {self.batch}, {self.warmup} warm-up "
                f"steps then cosine to zero, bfloat16 autocast, gradient norm ≤ {self.clip:g}; of the weights every "
                f"{self.select_every} steps from {self.select_from} on, the most accurate on the validation "
                "sentences, whose accuracy is therefore a little optimistic; then the training phrases' class "
                "frequencies taken out of the head's bias"
            ),
        }
        return dict(get_peft_model_state_dict(module)), facts, {"adapter_config.json": settings}

    def _read(self, split: str) -> tuple[list[str], np.ndarray]:
        texts = samples.sst2(split)
        return [text.text for text in texts], np.array([text.label for text in texts])
