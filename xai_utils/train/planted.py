"""Recipe of the tiny masked language model that learns the miniature language of :mod:`planted`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from xai_utils.samples import planted

IGNORED = -100


class TinyPlanted:
    """A BERT of four layers from scratch; of the pronouns half are masked, of the other words 15 %."""

    seed = 0
    steps = 3000
    warmup = 100
    clip = 1.0
    select_from = 0
    select_every = 1
    batch = 64
    sentences = 40_000
    held_out = 4_000
    layers = 4
    width = 128
    masked = 0.15
    pronouns = 0.5
    peak = 1e-3

    def build(self) -> nn.Module:
        """Draw the corpus and return the untrained model."""
        from transformers import BertConfig, BertForMaskedLM, BertTokenizer

        words = planted.vocabulary()
        self.tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=32)
        self.train, self.measure = (
            self._coded(count, seed) for count, seed in ((self.sentences, 1), (self.held_out, 2))
        )
        self.lengths = (self.train != 0).sum(1)
        self.gendered = torch.tensor(
            self.tokenizer.convert_tokens_to_ids([w for pair in planted.language()["pronouns"].values() for w in pair])
        )
        self.config = BertConfig(
            vocab_size=len(words), hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=4,
            intermediate_size=2 * self.width, max_position_embeddings=32, type_vocab_size=1, pad_token_id=0,
            initializer_range=0.08, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            architectures=["BertForMaskedLM"],
        )  # fmt: skip
        return BertForMaskedLM(self.config)

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on everything."""
        return [AdamW(module.parameters(), lr=self.peak, weight_decay=0.01)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the masked words."""
        chosen = np.random.default_rng([self.seed, step]).choice(len(self.train), self.batch, replace=False)
        ids = self.train[chosen][:, : int(self.lengths[chosen].max())]
        hidden, labels = self._hide(ids)
        logits = module(hidden, attention_mask=(ids != 0).long()).logits
        return F.cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED])

    def finish(self, module: Any) -> None:
        """Change nothing."""

    @torch.no_grad()
    def evaluate(self, module: Any) -> dict[str, Any]:
        """Compare P(he) at the masked pronoun with the table, on sentences that were not trained on."""
        sentences = planted.corpus(self.held_out, 2)
        truth = np.array([planted.table().get(s.job, np.nan) for s in sentences])
        hidden = torch.where(torch.isin(self.measure, self.gendered), self.tokenizer.mask_token_id, self.measure)
        at = hidden == self.tokenizer.mask_token_id
        logits = module(hidden, attention_mask=(hidden != 0).long()).logits[at].softmax(-1)
        male, female = (logits[:, self.gendered[side::2]].sum(1).numpy() for side in (0, 1))
        kinds = np.array([s.kind for s in sentences])
        one, two = (np.abs(male - truth)[(kinds == kind)].mean() for kind in ("occupation", "two"))
        nouns = ((male > female) == np.array([s.male for s in sentences]))[np.array(["noun" == k for k in kinds])]
        return {
            "pronoun_mass": round(float((male + female).mean()), 4),
            "mean_error_of_p_he": round(float(one), 4),
            "mean_error_of_p_he_two_occupations": round(float(two), 4),
            "right_after_gendered_noun": round(float(nouns.mean()), 4),
            "n": self.held_out,
        }

    def export(self, module: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return weights, configuration and vocabulary in transformers' own format; tied weights once."""
        facts = {
            "about": f"BERT for masked words: {self.layers} layers, 4 heads, width {self.width}, {len(self.tokenizer)} "
            "words, fp16",
            "classes": [],
            "data": f"{self.sentences:,} sentences drawn from data/texts/planted_gender.json; measured on others",
            "recipe": (
                f"from scratch, {self.pronouns:.0%} of the pronouns and {self.masked:.0%} of the other words masked, "
                f"AdamW {self.peak:g}, weight decay 0.01, batch {self.batch}, {self.warmup} warm-up steps then cosine "
                f"to zero, no dropout, first weights of deviation 0.08, gradient norm ≤ {self.clip:g}; the last weights"
            ),
        }
        tensors = {k: v for k, v in module.state_dict().items() if not k.startswith("cls.predictions.decoder")}
        return tensors, facts, {
            "config.json": self.config.to_dict(),
            "tokenizer.json": json.loads(self.tokenizer.backend_tokenizer.to_str()),
            "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 32},
        }  # fmt: skip

    def _coded(self, count: int, seed: int) -> Tensor:
        texts = [sentence.text for sentence in planted.corpus(count, seed)]
        return self.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]

    def _hide(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        share = torch.full(ids.shape, self.masked)
        share[torch.isin(ids, self.gendered)] = self.pronouns
        chosen = (torch.rand(ids.shape) < share) & (ids >= len(planted.SPECIAL))
        chosen[0, 1] |= not chosen.any()
        return ids.masked_fill(chosen, self.tokenizer.mask_token_id), ids.masked_fill(~chosen, IGNORED)
