"""Pairs of sentences that differ in one gendered word: WinoGender, WinoBias and the gender rows of CrowS-Pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from xai_utils import check, runtime
from xai_utils.gender import probes
from xai_utils.models import Model
from xai_utils.samples import gender as gender_texts
from xai_utils.samples.gender import Probe

CORPORA = ("winogender", "winobias", "crows_pairs")
_MORE = (("his", "her"), ("him", "her"), ("himself", "herself"), ("male", "female"), ("males", "females"))


@dataclass(frozen=True)
class Contrast(Probe):
    """A sentence with [MASK] where its two versions differ; its pair are the words that stood there.

    Attributes:
        women: share of women in the occupation that is its word, per cent, where the corpus says so, else NaN.
    """

    women: float = float("nan")


def read_all(model: Model, folder: str) -> dict[str, list[Contrast]]:
    """Read every corpus by :func:`read`; none if no folder is named."""
    return {name: read(model, name, Path(folder)) for name in CORPORA if folder}


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
    return Contrast(model.tokenizer.convert_tokens_to_string(kept), name, pair=pair, women=women)


def leanings(model: Model, contrasts: Sequence[Contrast]) -> np.ndarray:
    """Return log P(masculine) / P(feminine) at the [MASK] of every sentence, ``(contrast,)``."""
    masculine, feminine = probes.probabilities(model, contrasts, 64).log().T
    return (masculine - feminine).numpy()


def by_occupation(model: Model, contrasts: Sequence[Contrast], rays: Tensor, size: int = 64) -> pd.DataFrame:
    """Return what is said of every occupation whose share of women is known; only WinoGender names any.

    Args:
        model: the model.
        contrasts: of :func:`read`; those whose text does not hold their word are left out.
        rays: DensRay directions ``(layer, width)`` of this model.
        size: sentences a pass.

    Returns:
        One row an occupation, means over its sentences: ``women``, per cent; ``log odds`` at [MASK]; ``AttCAT`` and
        ``AttDR`` of the word, summed over the layers.
    """
    named = [one for one in contrasts if one.word in one.text.split() and one.women == one.women]
    if not named:
        raise ValueError("no sentence holds the name of an occupation; of the corpora only winogender has them.")
    women, rows = {one.word: one.women for one in named}, []
    for seen in probes.by_pair(model, named, size):
        scores = {"log odds": seen.log_odds, "AttCAT": seen.sums("AttCAT"), "AttDR": seen.sums("AttDR", rays)}
        rows.append(pd.DataFrame(scores, [one.word for one in seen.probes]))
    means = pd.concat(rows).groupby(level=0, sort=False).mean()
    return means.assign(women=[women[job] for job in means.index])


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
        files = [_there(home / f"{side}_stereotyped_{kind}.txt.test") for side in ("pro", "anti")]
        sides = [file.read_text(encoding="utf-8").splitlines() for file in files]
        for number, (one, other) in enumerate(zip(*sides, strict=True)):
            clean = [text.partition(" ")[2].replace("[", "").replace("]", "") for text in (one, other)]
            yield clean[0], clean[1], f"{kind} {number + 1}", float("nan")


def _crows(home: Path) -> Iterable[tuple[str, str, str, float]]:
    rows = _table(home / "crows_pairs_anonymized.csv", ",")
    return [
        (r["sent_more"], r["sent_less"], str(i), float("nan")) for i, r in enumerate(rows) if r["bias_type"] == "gender"
    ]


def _table(path: Path, separator: str) -> list[dict[str, Any]]:
    return pd.read_csv(_there(path), sep=separator, keep_default_na=False).to_dict("records")  # type: ignore[return-value]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path.parent.name}/{path.name} is missing; get it from its authors' repository.")
    return path
