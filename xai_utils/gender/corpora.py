"""Pairs of sentences that differ in one gendered word: WinoGender, WinoBias and the gender rows of CrowS-Pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_utils import check, runtime
from xai_utils.methods import masked
from xai_utils.models import Model
from xai_utils.samples import gender as gender_texts

CORPORA = ("winogender", "winobias", "crows_pairs")
_MORE = (("his", "her"), ("him", "her"), ("himself", "herself"), ("male", "female"), ("males", "females"))


@dataclass(frozen=True)
class Contrast:
    """A sentence with [MASK] where its two versions differ, and the words that stood there.

    Attributes:
        text: with one [MASK].
        pair: masculine and feminine word.
        name: of the row, in WinoGender the occupation.
        women: share of women in that occupation, per cent, where the corpus says so, else NaN.
    """

    text: str
    pair: tuple[str, str]
    name: str
    women: float = float("nan")


def read(model: Model, corpus: str, folder: Path) -> list[Contrast]:
    """Read one corpus from a folder and keep the pairs that differ in one gendered word of one token.

    Args:
        model: whose word pieces are compared.
        corpus: one of :data:`CORPORA`; its files lie in ``folder / corpus``, as published.
        folder: of the corpora.

    Raises:
        ValueError: the folder or the file is missing, or no pair is left.

    Differs from: the published code, which compares words at equal places after splitting at blanks, so that a longer
        sentence is cut and an insertion shifts everything behind it.
    """
    check.one_of("corpus", corpus, CORPORA)
    home = Path(folder) / corpus
    if not home.is_dir():
        raise ValueError(f"there is no folder {corpus} in {Path(folder).name!r}; get it from its authors' repository.")
    rows = {"winogender": _winogender, "winobias": _winobias, "crows_pairs": _crows}[corpus](home)
    found = [c for one, two, name, women in rows if (c := contrast(model, one, two, name, women)) is not None]
    if not found:
        raise ValueError(f"no pair of {corpus} differs in one gendered word of {model.name}'s vocabulary.")
    runtime.record.data[corpus] = f"{len(found)} pairs"
    return found


def contrast(model: Model, one: str, other: str, name: str = "", women: float = float("nan")) -> Contrast | None:
    """Return the sentence with [MASK] where word pieces differ, if this is one gendered word, else ``None``."""
    pieces = [model.tokenizer.tokenize(text) for text in (one, other)]
    changes = [
        op for op in SequenceMatcher(None, pieces[0], pieces[1], autojunk=False).get_opcodes() if op[0] != "equal"
    ]
    if len(changes) != 1 or changes[0][0] != "replace" or changes[0][2] - changes[0][1] != 1:
        return None
    _, start, _, first, last = changes[0]
    words = (pieces[0][start], pieces[1][first])
    known = {*gender_texts.pairs(), *_MORE}
    pair = words if words in known else words[::-1]
    if last - first != 1 or pair not in known:
        return None
    kept = [*pieces[0][:start], "[MASK]", *pieces[0][start + 1 :]]
    return Contrast(model.tokenizer.convert_tokens_to_string(kept), pair, name, women)


def leanings(model: Model, contrasts: Sequence[Contrast], size: int = 64) -> np.ndarray:
    """Return log P(masculine) / P(feminine) at the [MASK] of every sentence, ``(contrast,)``."""
    found = np.full(len(contrasts), np.nan)
    for pair in dict.fromkeys(one.pair for one in contrasts):
        which = [i for i, one in enumerate(contrasts) if one.pair == pair]
        for start in range(0, len(which), size):
            some = which[start : start + size]
            both = masked.pair_probabilities(model, [contrasts[i].text for i in some], pair).double().cpu()
            found[some] = (both[:, 0].log() - both[:, 1].log()).numpy()
    return found


def named_scores(
    model: Model, contrasts: Sequence[Contrast], vectors: Tensor, size: int = 64
) -> tuple[list[Contrast], dict[str, np.ndarray]]:
    """Return the contrasts whose text holds their name (in WinoGender an occupation), and three scores of each.

    Args:
        model: the model.
        contrasts: of :func:`read`.
        vectors: DensRay directions ``(layer, width)`` of this model.
        size: sentences a pass.

    Returns:
        Log odds at [MASK]; AttCAT and AttDR of the name, summed over the layers; each ``(contrast,)``.
    """
    kept = [one for one in contrasts if one.name in one.text.split()]
    kept.sort(key=lambda one: one.pair)
    rows: list[Tensor] = []
    for pair in dict.fromkeys(one.pair for one in kept):
        some = [one for one in kept if one.pair == pair]
        for start in range(0, len(some), size):
            part = some[start : start + size]
            texts = [one.text for one in part]
            seen = masked.observe(model, texts, pair)
            where = seen.covers([one.name for one in part], texts)
            sums = [(scores.sum(0) * where).sum(-1) for scores in (seen.attcat(), seen.attdr(vectors))]
            rows.append(torch.stack([seen.score, *sums]).double().cpu())
    if not rows:
        raise ValueError("no sentence holds its own name; of the corpora only winogender names an occupation.")
    return kept, dict(zip(("log odds", "AttCAT", "AttDR"), torch.cat(rows, 1).numpy(), strict=True))


def by_occupation(contrasts: Sequence[Contrast], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return share of women and mean score of every occupation that has a share, two arrays ``(occupation,)``."""
    shares = {one.name.split(".")[0]: one.women for one in contrasts if one.women == one.women}
    rows: dict[str, list[float]] = {name: [] for name in shares}
    for one, score in zip(contrasts, scores, strict=True):
        if one.name in rows:
            rows[one.name].append(score)
    return np.array(list(shares.values())), np.array([np.mean(rows[name]) for name in shares])


def _winogender(home: Path) -> Iterable[tuple[str, str, str, float]]:
    women = {row["occupation"]: float(row["bls_pct_female"]) for row in _table(home / "occupations-stats.tsv", "\t")}
    by_name: dict[str, dict[str, str]] = {}
    for row in _table(home / "all_sentences.tsv", "\t"):
        name, gender = row["sentid"].removesuffix(".txt").rsplit(".", 1)
        by_name.setdefault(name, {})[gender] = row["sentence"]
    for name, versions in by_name.items():
        job = name.split(".")[0]
        yield versions["male"], versions["female"], job, women.get(job, float("nan"))


def _winobias(home: Path) -> Iterable[tuple[str, str, str, float]]:
    for kind in ("type1", "type2"):
        sides = [_file(home / f"{side}_stereotyped_{kind}.txt.test").splitlines() for side in ("pro", "anti")]
        for number, (one, other) in enumerate(zip(*sides, strict=True)):
            clean = [text.partition(" ")[2].replace("[", "").replace("]", "") for text in (one, other)]
            yield clean[0], clean[1], f"{kind} {number + 1}", float("nan")


def _crows(home: Path) -> Iterable[tuple[str, str, str, float]]:
    rows = _table(home / "crows_pairs_anonymized.csv", ",")
    return [
        (r["sent_more"], r["sent_less"], str(i), float("nan")) for i, r in enumerate(rows) if r["bias_type"] == "gender"
    ]


def _table(path: Path, separator: str) -> Sequence[dict[str, Any]]:
    import pandas as pd

    if not path.is_file():
        raise ValueError(f"{path.parent.name}/{path.name} is missing; get it from its authors' repository.")
    return pd.read_csv(path, sep=separator, keep_default_na=False).to_dict("records")  # type: ignore[return-value]


def _file(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path.parent.name}/{path.name} is missing; get it from its authors' repository.")
    return path.read_text(encoding="utf-8")
