"""Recipe of the bundled masked language model: MiniLM with a prediction head and an adapter."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from xai_utils.models import bundled
from xai_utils.samples import passages, planted

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


@dataclass
class MiniLMMLM:
    """Put BERT's prediction head on MiniLM and train it together with a low-rank adapter.

    The decoder is tied to MiniLM's own word embeddings, which stay as they are, so that only adapter, transform and
    bias are shipped. Pieces are one to a few whole sentences, so that short inputs are known as well as long ones.
    """

    data: str = ""  # a file or folder of passages in place of the hub
    seed: int = 0
    steps: int = 480
    warmup: int = 40
    clip: float = 1.0
    select_from: int = 0
    select_every: int = 1
    tokens: int = 3072  # in a batch, padding included
    longest: int = 96  # tokens of a piece
    masked: float = 0.15
    pronouns: float = 0.4  # of the pronouns are masked, so that the model learns to expect them
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
        self.common = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(PRONOUNS)))
        self.special = torch.tensor(self.tokenizer.all_special_ids)
        base: Any = BertForMaskedLM.from_pretrained(bundled.minilm_folder())
        base.tie_weights()
        base.cls.predictions.bias.data.copy_(self._frequencies(len(self.tokenizer)))
        adapter = LoraConfig(
            r=self.rank, lora_alpha=self.rank, lora_dropout=0.0, target_modules=r".*encoder.*(query|key|value|dense)",
            modules_to_save=["transform"],
        )  # fmt: skip
        model: Any = get_peft_model(base, adapter)
        base.cls.predictions.bias.requires_grad_()
        return model

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on adapter, transform and bias."""
        return [AdamW([p for p in module.parameters() if p.requires_grad], lr=self.peak, weight_decay=0.01)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the masked words; the vocabulary is scored at these places only."""
        ids = self._padded(self._batch(step))
        hidden, labels = self._hide(ids)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._scores(module, hidden, labels != IGNORED)
        return F.cross_entropy(logits.float(), labels[labels != IGNORED])

    def finish(self, module: Any) -> None:
        """Change nothing."""

    @torch.no_grad()
    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure masked words, and masked he and she, on passages that were held out."""
        torch.manual_seed(self.seed)
        loss, right, count = 0.0, 0, 0
        for ids in self._held_out_batches():
            hidden, labels = self._hide(ids, pronouns=self.masked)
            logits, truth = self._scores(module, hidden, labels != IGNORED), labels[labels != IGNORED]
            loss += float(F.cross_entropy(logits, truth, reduction="sum"))
            right += int((logits.argmax(-1) == truth).sum())
            count += len(truth)
        words = {"masked_accuracy": round(right / count, 4), "perplexity": round(math.exp(loss / count), 2)}
        return {**words, "n": count, **self._pronouns(module)}

    def export(self, module: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return the adapter in peft's own format, and beside it the bias over the vocabulary."""
        from peft import get_peft_model_state_dict

        config = module.peft_config["default"].to_dict()
        keep = ("peft_type", "r", "lora_alpha", "target_modules", "modules_to_save", "bias")
        settings = {key: sorted(v) if isinstance(v := config[key], set) else v for key in keep}
        facts = {
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
        tensors = dict(get_peft_model_state_dict(module))
        tensors[bundled.MLM_BIAS] = _head(module).bias.detach()
        return tensors, facts, {"adapter_config.json": settings}

    @property
    def repeat(self) -> str:
        """Command that repeats a training on own passages."""
        command = "python -m xai_utils train minilm-mlm --data FOLDER --out …"
        return command if self.data else ""

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

    def _padded(self, pieces: list[list[int]]) -> Tensor:
        longest = max(map(len, pieces))
        return torch.tensor([piece + [self.tokenizer.pad_token_id] * (longest - len(piece)) for piece in pieces])

    def _hide(self, ids: Tensor, pronouns: float | None = None) -> tuple[Tensor, Tensor]:
        """Return ids with [MASK] in some places, and the words that were there (elsewhere ``IGNORED``).

        All of them become [MASK]; BERT's random and unchanged tenths are left out, since only [MASK] is read here.
        """
        share = torch.full(ids.shape, self.masked)
        share[torch.isin(ids, self.common)] = self.pronouns if pronouns is None else pronouns
        chosen = (torch.rand(ids.shape) < share) & ~torch.isin(ids, self.special)
        chosen[0, 1] |= not chosen.any()
        return ids.masked_fill(chosen, self.tokenizer.mask_token_id), ids.masked_fill(~chosen, IGNORED)

    def _scores(self, module: Any, ids: Tensor, where: Tensor) -> Tensor:
        """Return the logits ``(place, word)`` at the chosen places."""
        base = getattr(module, "base_model", module).model
        states = base.bert(ids, attention_mask=(ids != self.tokenizer.pad_token_id).long()).last_hidden_state
        return base.cls.predictions(states[where])

    def _held_out_batches(self) -> list[Tensor]:
        ordered = sorted(self.held_out, key=len)
        return [self._padded(ordered[start : start + 32]) for start in range(0, len(ordered), 32)]

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


def _head(module: Any) -> Any:
    return getattr(module, "base_model", module).model.cls.predictions


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
