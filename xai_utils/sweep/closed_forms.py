"""Closed forms over many texts: against back-propagation and sampling, against each other, against marked words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from xai_utils import check, files, samples, stats
from xai_utils.maths import lime
from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import Document, Sampling
from xai_utils.metrics import agreement, rankings
from xai_utils.models import Model, shortened
from xai_utils.samples import sets
from xai_utils.samples.kinds import Text
from xai_utils.stats import Interval
from xai_utils.sweep import parts

SETTINGS = "settings.json"
GUESSES = 20  #: random rankings of a text's words, whose mean precision is chance


def texts_of(model: Model, data: str, count: int, seed: int) -> list[Text]:
    """Return texts to compare the closed forms on, each as long as the model's positions allow.

    Args:
        model: an attention classifier.
        data: ``"reviews"``, one to five bundled ones joined at random; ``"imdb"`` or ``"sst2"``, the test part of
            IMDB or the validation part of SST-2 (a hub or its cache); or the path of a ``.csv`` or ``.jsonl`` with the
            columns ``text`` and ``label``.
        count: of texts at most, drawn at random; of reviews exactly so many.
        seed: of the drawing.

    Raises:
        FileNotFoundError: another name, and no such file.
    """
    if data == "reviews":
        return samples.paragraphs(count, seed, most=5)
    public: dict[str, Callable[[], list[Text]]] = {"imdb": samples.imdb, "sst2": samples.sst2}
    found = public[data]() if data in public else samples.labelled(data)[0]
    drawn = np.random.default_rng(seed).permutation(len(found))[:count]
    return shortened(model, [found[i] for i in drawn])


def compare(
    model: Model, texts: Sequence[Text], how: Sampling, seed: int = 0, folder: str | Path = "", part: int = 50
) -> pd.DataFrame:
    """Measure every text, one row for each (see :func:`measure`); what the folder already holds is not repeated.

    Args:
        model: an attention classifier.
        texts: what to measure.
        how: LIME is sampled.
        seed: of the masks, with the number of the text.
        folder: where ``part-NNNNNN.parquet`` go, each whole or not at all; ``""`` keeps nothing.
        part: texts in one file.

    Raises:
        ValueError: the folder holds parts made with other settings, texts or weights.
    """
    check.at_least_one("part", part)
    settings = {**vars(how), "seed": seed, "part": part, "model": model.sha256}
    if folder:
        _claim(Path(folder), {**settings, "texts": sets.digest(texts)})
    tables = []
    for start in tqdm(range(0, len(texts), part), desc="parts", disable=None):  # silent unless in a terminal
        file = Path(folder) / f"part-{start:06d}.parquet"
        table = parts.read(file) if folder else None
        if table is None:
            numbered = list(enumerate(texts))[start : start + part]
            table = pd.DataFrame([measure(closed_forms.read(model, text), how, seed + i) for i, text in numbered])
            if folder:
                parts.write(table, file, settings)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def measure(read: Document, how: Sampling, seed: int) -> dict[str, Any]:
    """Compare closed forms with their references on one text.

    Returns:
        ``words``: distinct ones; ``tokens``; ``gradient``: largest difference between closed form and back-propagation
        over the largest gradient; ``gradient_single``: the same in single precision; ``published_gradient``: error of
        the published form in the row of the class token, over the length of that row; ``class_row``: the length of that
        row over that of the whole gradient; ``published_whole``: error of the published form over the length of the
        whole gradient; and, over the length of the exact slopes, the error of LIME that is sampled (``sampled``), of
        the limit for many words (``limit``, equal weights), and of the published approximation against the same kernel
        (``published``) and against equal weights (``published_equal``); ``published_correlation`` with exact slopes.
    """
    right, equal = lime.exact_each(read.ratio(), (how.width, inf)).mean(1)
    coarse, back, short = read.published_lime().mean(0), read.autograd(), read.gradient(query_term=False).mean(0)
    return {
        "words": len(read.words),
        "tokens": len(read.labels),
        "gradient": _gap(read),
        "gradient_single": _gap(read.single()),
        "published_gradient": error(short[0], back[0]),
        "class_row": float(back[0].norm() / back.norm()),
        "published_whole": error(short, back),
        "sampled": error(read.sampled_lime(seed, how).mean(0), right),
        "limit": error(read.limit_lime().mean(0), equal),
        "published": error(coarse, right),
        "published_equal": error(coarse, equal),
        "published_correlation": float(torch.corrcoef(torch.stack([coarse, right]))[0, 1]),
    }


def error(found: Tensor, right: Tensor) -> float:
    """Return the length of a difference over the length of what is right."""
    return float((found - right).norm() / right.norm())


def _gap(read: Document) -> float:
    """Return the largest difference of the closed gradient from back-propagation, over the largest gradient."""
    truth = read.autograd()
    return float((read.gradient().mean(0) - truth).abs().max() / truth.abs().max())


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write what the folder is for, or refuse a folder that is for something else."""
    file, wanted = folder / SETTINGS, json.dumps(settings, indent=1, sort_keys=True)
    if file.is_file() and file.read_text(encoding="utf-8") != wanted:
        old = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if old.get(name) != value]
        raise ValueError(f"{folder.name} holds parts made with other {', '.join(other)}; name a new folder.")
    files.write(file, wanted)


def flattened_errors(model: Model, texts: Sequence[Text], factors: Sequence[float]) -> pd.DataFrame:
    """Measure the approximations of LIME where attention is made flat, so that no word dominates.

    Args:
        model: an attention classifier.
        texts: at least two, of different length.
        factors: that keys are multiplied by; at 0 attention is uniform.

    Returns:
        The median error against exact LIME with equal weights, over its length: by ``kind`` (``"limit"``,
        ``"published"``) and ``factor``, for the ``"shorter half"`` and the ``"longer half"`` of the texts.
    """
    rows = []
    for text, factor in product(texts, factors):
        flat = closed_forms.read(model, text).flattened(factor)
        right = flat.exact_lime(inf).mean(0)
        for kind, found in (("limit", flat.limit_lime()), ("published", flat.published_lime())):
            rows.append((factor, kind, len(flat.words), error(found.mean(0), right)))
    table = pd.DataFrame(rows, columns=["factor", "kind", "words", "error"])
    halves = ["shorter half", "longer half"]
    table["length"] = np.where(table.words < table.words.median(), *halves)
    return table.groupby(["kind", "factor", "length"]).error.median().unstack()[halves]


def judge(
    model: Model, reviews: Sequence[Text], labels: Sequence[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare the sizes of closed forms with each other and with the words that people marked as deciding.

    Args:
        model: an attention classifier.
        reviews: with a label and marked words.
        labels: of the forms, see :data:`closed_forms.FORMS`; ``"LIME"`` and the one compared with, which comes first.
        seed: of random rankings.

    Returns:
        Three tables of one row a review. ``agrees``: Spearman's correlation over distinct words between the first form
        and the size of each other. ``finds``: average precision of each form for the marked words, minus that of a
        random ranking (the mean of :data:`GUESSES`); signed forms explain the review's label and are judged as they
        are, and once more by their size, called ``"... (size)"``; and ``random``, one more such ranking. ``decides``:
        whether the review is judged rightly (``right``), and how much the word that is first by the first form speaks
        for the class that was chosen, by exact LIME in the unit of the score (``pull``).
    """
    noise = np.random.default_rng(seed)
    tables: tuple[list[dict[str, float]], ...] = [], [], []
    for review in reviews:
        read = closed_forms.read(model, review)
        scores = closed_forms.word_scores(read, labels)
        tables[0].append(_agrees(scores))
        asked = read if review.label in (None, read.target) else closed_forms.read(model, review, review.label)
        tables[1].append(_finds(closed_forms.word_scores(asked, labels), read.marked, noise))
        tables[2].append(_decides(model, read, scores))
    agrees, finds, decides = map(pd.DataFrame, tables)
    return agrees, finds, decides


def _agrees(scores: Mapping[str, Tensor]) -> dict[str, float]:
    (_, first), *others = scores.items()
    return {label: float(agreement.spearman(first, one.abs())) for label, one in others}


def _finds(scores: Mapping[str, Tensor], marked: Tensor, noise: np.random.Generator) -> dict[str, float]:
    guesses = torch.from_numpy(noise.random((GUESSES + 1, len(marked))))
    *chances, guess = rankings.average_precisions(guesses, marked.expand(guesses.shape)).tolist()
    signed = {f"{label} (size)": one.abs() for label, one in scores.items() if closed_forms.FORMS[label].signed}
    found = {label: rankings.average_precision(one, marked) for label, one in {**scores, **signed}.items()}
    return {label: value - float(np.mean(chances)) for label, value in {**found, "random": guess}.items()}


def _decides(model: Model, read: Document, scores: Mapping[str, Tensor]) -> dict[str, float]:
    chosen = int(closed_forms.class_scores(model, [read.text.text])[0].argmax())
    most = int(next(iter(scores.values())).argmax())
    sign = 1 if chosen == read.target else -1  # of two classes
    return {"right": float(chosen == read.text.label), "pull": sign * float(scores["LIME"][most])}


def intervals(table: pd.DataFrame, seed: int, level: float = 0.95) -> dict[str, Interval]:
    """Return the mean of every column with its bootstrap interval, see :func:`stats.mean_interval`."""
    return {str(name): stats.mean_interval(values.tolist(), seed, level) for name, values in table.items()}
