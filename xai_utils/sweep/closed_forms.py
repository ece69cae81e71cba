"""Measure closed forms against back-propagation and sampling over many texts, in parts that survive an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from xai_utils import check, files
from xai_utils.maths import attention_layer, lime, mask_ratio
from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import Document
from xai_utils.models import Model
from xai_utils.samples import sets
from xai_utils.samples.kinds import Text
from xai_utils.sweep import parts

SETTINGS = "settings.json"


def sweep(
    model: Model,
    texts: Sequence[Text],
    folder: Path,
    count: int = 5000,
    width: float = 0.25,
    ridge: float = 1.0,
    seed: int = 0,
    part: int = 50,
    quiet: bool = False,
) -> pd.DataFrame:
    """Measure every text, one row for each (see :func:`measure`); what the folder already holds is not repeated.

    Args:
        model: an attention classifier.
        texts: what to measure.
        folder: where ``part-NNNNNN.parquet`` go, each whole or not at all.
        count: masks of the sampled LIME.
        width: of its kernel.
        ridge: of its regression.
        seed: of the masks, with the number of the text.
        part: texts in one file.
        quiet: show no progress.

    Raises:
        ValueError: the folder holds parts made with other settings, texts or weights.
    """
    check.at_least_one("part", part)
    settings = {"count": count, "width": width, "ridge": ridge, "seed": seed, "part": part, "model": model.sha256}
    _claim(folder, {**settings, "texts": sets.digest(texts)})
    tables = []
    for start in tqdm(range(0, len(texts), part), desc="parts", disable=quiet):
        file = folder / f"part-{start:06d}.parquet"
        table = parts.read(file)
        if table is None:
            numbered = list(enumerate(texts))[start : start + part]
            rows = [measure(closed_forms.read(model, text), count, width, ridge, seed + i) for i, text in numbered]
            table = pd.DataFrame(rows)
            parts.write(table, file, settings)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def measure(read: Document, count: int, width: float, ridge: float, seed: int) -> dict[str, Any]:
    """Compare closed forms with their references on one text.

    Returns:
        ``words``: distinct ones; ``tokens``; ``gradient``: largest difference between closed form and back-propagation
        over the largest gradient; ``gradient_single``: the same in single precision; ``published_gradient``: error of
        the published form in the row of the class token, over the length of that row; and, over the length of the
        exact slopes, the error of the LIME that is sampled (``sampled``), of the limit for many words (``limit``, equal
        weights), and of the published approximation against the same kernel (``published``) and against equal weights
        (``published_equal``); ``published_correlation`` with the exact slopes.
    """
    truth = closed_forms.autograd(read)
    without = attention_layer.gradient(read.layer, read.embeddings, query_term=False).mean(0)
    parts = read.ratio()
    right, equal = lime.exact_each(parts, (width, inf)).mean(1)
    masks = lime.sample(parts.words, count, seed)
    drawn = lime.regress(masks, mask_ratio.outputs(parts, masks).mean(1), width, ridge)
    coarse = lime.published(parts).mean(0)
    return {
        "words": parts.words,
        "tokens": len(read.labels),
        "gradient": _gap(read),
        "gradient_single": _gap(closed_forms.single(read)),
        "published_gradient": error(without[0], truth[0]),
        "sampled": error(drawn, right),
        "limit": error(lime.large_limit(parts, inf).mean(0), equal),
        "published": error(coarse, right),
        "published_equal": error(coarse, equal),
        "published_correlation": float(torch.corrcoef(torch.stack([coarse, right]))[0, 1]),
    }


def error(found: Tensor, right: Tensor) -> float:
    """Return the length of a difference over the length of what is right."""
    return float((found - right).norm() / right.norm())


def _gap(read: Document) -> float:
    """Return the largest difference of the closed gradient from back-propagation, over the largest gradient."""
    truth = closed_forms.autograd(read)
    slope = attention_layer.gradient(read.layer, read.embeddings).mean(0)
    return float((slope - truth).abs().max() / truth.abs().max())


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write what the folder is for, or refuse a folder that is for something else."""
    file, wanted = folder / SETTINGS, json.dumps(settings, indent=1, sort_keys=True)
    if file.is_file() and file.read_text() != wanted:
        old = json.loads(file.read_text())
        other = [name for name, value in settings.items() if old.get(name) != value]
        raise ValueError(f"{folder.name} holds parts made with other {', '.join(other)}; name a new folder.")
    files.write(file, wanted)
