"""Recipes of the bundled models of masked words.

MiniLM with a prediction head and an adapter, and a tiny BERT on the miniature language of :mod:`planted`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.models import bundled
from xai_utils.samples import passages, planted
from xai_utils.train.recipe import Export, Recipe, adapter, hide, padded

#: Where the training text comes from without ``--data``: hub name and split.
HUB = (
    ("Salesforce/wikitext:wikitext-2-v1", "validation"),
    ("Salesforce/wikitext:wikitext-2-v1", "test"),
    ("google-research-datasets/gap", "train"),
    ("google-research-datasets/gap", "validation"),
    ("google-research-datasets/gap", "test"),
)
PRONOUNS = ("he", "she", "his", "her", "him")
HELD_OUT = 0.1  # the last part of every source: whole articles, so that none is on both sides but one
IGNORED = -100


class MaskedWordsRecipe(Recipe):
    """Predict words that are hidden; some words are hidden more often than others.

    All of them become [MASK]; BERT's random and unchanged tenths are left out, since only [MASK] is read here.
    """

    masked = 0.15  # share of the words hidden
    pronouns = 0.5  # of these words, so that the model learns to expect them
    often: Tensor  # ids of the words hidden so often, set by build

    def hidden(self, ids: Tensor, often: float | None = None) -> tuple[Tensor, Tensor]:
        """Return ids with [MASK] in some places, and the words that were there (elsewhere ``IGNORED``)."""
        share = torch.full(ids.shape, self.masked)
        share[torch.isin(ids, self.often)] = self.pronouns if often is None else often
        chosen = hide(ids, share, self.tokenizer.all_special_ids)
        chosen[0, 1] |= not chosen.any()
        return ids.masked_fill(chosen, self.tokenizer.mask_token_id), ids.masked_fill(~chosen, IGNORED)


@dataclass
class MiniLMMLM(MaskedWordsRecipe):
    """Put BERT's prediction head on MiniLM and train it together with a low-rank adapter.

    The decoder is tied to MiniLM's own word embeddings, which stay as they are, so that only adapter, transform and
    bias are shipped. Pieces are one to a few whole sentences, so that short inputs are known as well as long ones.
    """

    data: str = ""  # a file or folder of passages in place of the hub
    seed: int = 0
    steps: int = 480
    warmup: int = 40
    tokens: int = 3072  # in a batch, padding included
    longest: int = 96  # tokens of a piece
    masked: float = 0.15
    pronouns: float = 0.4
    rank: int = 64
    peak: float = 1.5e-3

    def build(self) -> nn.Module:
        """Read the passages and return MiniLM with an adapter on every linear layer of its blocks."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoTokenizer, BertForMaskedLM

        self.tokenizer = AutoTokenizer.from_pretrained(bundled.minilm_folder())
        train, self.held_out = self._read()
        self.lengths = np.array([len(piece) for piece in train])
        self.train = [train[i] for i in np.argsort(self.lengths, kind="stable")]
        self.lengths.sort()
        self.often = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(PRONOUNS)))
        base: Any = BertForMaskedLM.from_pretrained(bundled.minilm_folder())
        base.tie_weights()
        base.cls.predictions.bias.data.copy_(self._frequencies(len(self.tokenizer)))
        settings = LoraConfig(
            r=self.rank, lora_alpha=self.rank, lora_dropout=0.0, target_modules=r".*encoder.*(query|key|value|dense)",
            modules_to_save=["transform"],
        )  # fmt: skip
        model: Any = get_peft_model(base, settings)
        base.cls.predictions.bias.requires_grad_()
        return model

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the masked words; the vocabulary is scored at these places only."""
        ids = padded(self._batch(step), self.tokenizer.pad_token_id)
        hidden, labels = self.hidden(ids)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._scores(module, hidden, labels != IGNORED)
        return F.cross_entropy(logits.float(), labels[labels != IGNORED])

    @torch.no_grad()
    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure masked words, and masked he and she, on passages that were held out."""
        torch.manual_seed(self.seed)
        loss, right, count = 0.0, 0, 0
        for ids in self._held_out_batches():
            hidden, labels = self.hidden(ids, self.masked)
            logits, truth = self._scores(module, hidden, labels != IGNORED), labels[labels != IGNORED]
            loss += float(F.cross_entropy(logits, truth, reduction="sum"))
            right += int((logits.argmax(-1) == truth).sum())
            count += len(truth)
        words = {"masked_accuracy": round(right / count, 4), "perplexity": round(math.exp(loss / count), 2)}
        return {**words, "n": count, **self._pronouns(module)}

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "about": "all-MiniLM-L6-v2 with a LoRA adapter and BERT's prediction head, decoder tied to its words, fp16",
            "base_sha256": bundled.MINILM_SHA256,
            "classes": [],
            "data": (
                "WikiText-2 validation and test part (5 times as many he as she) and GAP (2,000 + 454 + 2,000 "
                f"Wikipedia passages, half of them about women), {len(self.train):,} pieces; measured on the last "
                f"{HELD_OUT:.0%} of every source, which were not trained on ({len(self.held_out):,} pieces)"
            ),
            "recipe": (
                f"LoRA rank {self.rank} on all linear layers of the blocks, transform and bias; pieces of whole "
                f"sentences up to {self.longest} tokens, {self.tokens} tokens a batch, {self.masked:.0%} of the tokens "
                f"masked and {self.pronouns:.0%} of {', '.join(PRONOUNS)}; AdamW {self.peak:g}, {self.warmup} warm-up "
                f"steps then cosine to zero, bfloat16 autocast, gradient norm ≤ {self.clip:g}; the last weights, "
                "nothing chosen on the held-out passages"
            ),
        }

    def export(self, module: Any) -> Export:
        """Return the adapter in peft's own format, and beside it the bias over the vocabulary."""
        tensors, settings = adapter(module)
        tensors[bundled.MLM_BIAS] = module.base_model.model.cls.predictions.bias.detach()
        return tensors, self.facts(), {"adapter_config.json": settings}

    @property
    def repeat(self) -> str:
        """Command that repeats a training on own passages."""
        return "python -m xai_utils train minilm-mlm --data FOLDER --out …" if self.data else ""

    def _read(self) -> tuple[list[list[int]], list[list[int]]]:
        """Return the pieces to train on and those held out, as token ids."""
        if self.data:
            sources = [list(passages.stream(name)) for name in self._files()]
        else:
            sources = [list(passages.stream(name, split)) for name, split in HUB]
        noise = np.random.default_rng(self.seed)
        train: list[list[int]] = []
        held_out: list[list[int]] = []
        for source in sources:
            cut = round((1 - HELD_OUT) * len(source))
            train += self._pieces(source[:cut], noise)
            held_out += self._pieces(source[cut:], noise)
        if not train or not held_out:
            raise ValueError(f"{self.data} holds too few passages to hold {HELD_OUT:.0%} of them out.")
        return train, held_out

    def _files(self) -> list[str]:
        path = Path(self.data)
        inside = sorted(p for p in path.iterdir() if p.suffix in passages.BUILDERS) if path.is_dir() else []
        return [str(p) for p in inside] or [self.data]

    def _pieces(self, source: list[str], noise: np.random.Generator) -> list[list[int]]:
        """Join neighbouring sentences of a passage up to a random length, at least one."""
        cut = [passages.sentences(passage) for passage in source]
        whole = [sentence for row in cut for sentence in row]
        coded = iter(self.tokenizer(whole, add_special_tokens=False)["input_ids"] if whole else ())
        first, last, found = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, []
        for row in cut:
            piece: list[int] = []
            room = int(noise.integers(8, self.longest))
            for ids in (next(coded) for _ in row):
                if piece and len(piece) + len(ids) > room:
                    found.append(piece)
                    piece, room = [], int(noise.integers(8, self.longest))
                piece = piece + ids
            found.append(piece)
        return [[first, *piece[: self.longest - 2], last] for piece in found if len(piece) > 3]

    def _frequencies(self, words: int) -> Tensor:
        counts = torch.bincount(torch.tensor([i for piece in self.train for i in piece]), minlength=words)
        return ((counts + 0.1) / counts.sum()).log()

    def _batch(self, step: int) -> list[list[int]]:
        """Draw a piece at random and its neighbours in length, as many as fit."""
        place = int(np.random.default_rng([self.seed, step]).integers(len(self.train)))
        count = max(4, self.tokens // int(self.lengths[place]))
        start = min(max(0, place - count // 2), max(0, len(self.train) - count))
        band = slice(max(0, start - 4 * count), start + 5 * count)
        chosen = np.random.default_rng([self.seed, step, 1]).permutation(len(self.train[band]))[:count]
        return [self.train[band][i] for i in chosen]

    def _scores(self, module: Any, ids: Tensor, where: Tensor) -> Tensor:
        """Return the logits ``(place, word)`` at the chosen places."""
        base = module.base_model.model
        states = base.bert(ids, attention_mask=(ids != self.tokenizer.pad_token_id).long()).last_hidden_state
        return base.cls.predictions(states[where])

    def _held_out_batches(self) -> list[Tensor]:
        ordered = sorted(self.held_out, key=len)
        filling = self.tokenizer.pad_token_id
        return [padded(ordered[start : start + 32], filling) for start in range(0, len(ordered), 32)]

    def _pronouns(self, module: Any) -> dict[str, Any]:
        """Mask the first he or she of every held-out piece and nothing else."""
        he, she = (self.tokenizer.convert_tokens_to_ids(word) for word in ("he", "she"))
        both, right, truth = [], [], []
        for ids in self._held_out_batches():
            hit = torch.isin(ids, torch.tensor([he, she]))
            rows = hit.any(1)
            if not rows.any():
                continue
            first = F.one_hot(hit[rows].long().argmax(1), ids.shape[1]).bool()
            scores = self._scores(module, ids[rows].masked_fill(first, self.tokenizer.mask_token_id), first)
            chances = scores.softmax(-1)[:, [he, she]]
            both.append(chances.sum(1))
            truth.append(torch.isin(ids[rows][first], torch.tensor([he])))
            right.append((chances[:, 0] > chances[:, 1]) == truth[-1])
        if not both:
            return {"pronoun_pieces": 0}
        male, correct = torch.cat(truth), torch.cat(right).float()
        sides = {f"right_when_{word}": correct[mask] for word, mask in (("he", male), ("she", ~male))}
        return {
            "pronoun_pieces": len(male),
            "p_he_plus_p_she": round(float(torch.cat(both).mean()), 4),
            **{name: round(float(side.mean()), 4) for name, side in sides.items() if len(side)},
            "n_he": int(male.sum()),
            "n_she": int((~male).sum()),
        }


class TinyPlanted(MaskedWordsRecipe):
    """A BERT of four layers from scratch."""

    steps = 3000
    batch = 64
    sentences = 40_000
    held_out = 4_000
    layers = 4
    width = 128

    def build(self) -> nn.Module:
        """Draw the corpus and return the untrained model."""
        from transformers import BertConfig, BertForMaskedLM, BertTokenizer

        words = planted.vocabulary()
        self.tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=32)
        self.train, self.measure = (
            self._coded(count, seed) for count, seed in ((self.sentences, 1), (self.held_out, 2))
        )
        self.lengths = (self.train != 0).sum(1)
        self.often = torch.tensor(
            self.tokenizer.convert_tokens_to_ids([w for pair in planted.language()["pronouns"].values() for w in pair])
        )
        config = BertConfig(
            vocab_size=len(words), hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=4,
            intermediate_size=2 * self.width, max_position_embeddings=32, type_vocab_size=1, pad_token_id=0,
            initializer_range=0.08, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            architectures=["BertForMaskedLM"],
        )  # fmt: skip
        return BertForMaskedLM(config)

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the masked words."""
        chosen = np.random.default_rng([self.seed, step]).choice(len(self.train), self.batch, replace=False)
        ids = self.train[chosen][:, : int(self.lengths[chosen].max())]
        hidden, labels = self.hidden(ids)
        logits = module(hidden, attention_mask=(ids != 0).long()).logits
        return F.cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED])

    @torch.no_grad()
    def evaluate(self, module: Any) -> dict[str, Any]:
        """Compare P(he) at the masked pronoun with the table, on sentences that were not trained on."""
        sentences = planted.corpus(self.held_out, 2)
        truth = np.array([planted.table().get(s.job, np.nan) for s in sentences])
        hidden = torch.where(torch.isin(self.measure, self.often), self.tokenizer.mask_token_id, self.measure)
        at = hidden == self.tokenizer.mask_token_id
        logits = module(hidden, attention_mask=(hidden != 0).long()).logits[at].softmax(-1)
        male, female = (logits[:, self.often[side::2]].sum(1).numpy() for side in (0, 1))
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

    def facts(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
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

    def export(self, module: Any) -> Export:
        """Return weights, configuration and vocabulary in transformers' own format; tied weights once."""
        tensors, facts, files = super().export(module)
        tensors = {name: value for name, value in tensors.items() if not name.startswith("cls.predictions.decoder")}
        about = {"tokenizer_class": "BertTokenizer", "model_max_length": self.tokenizer.model_max_length}
        return tensors, facts, {**files, "tokenizer_config.json": about}

    def _coded(self, count: int, seed: int) -> Tensor:
        texts = [sentence.text for sentence in planted.corpus(count, seed)]
        return self.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
