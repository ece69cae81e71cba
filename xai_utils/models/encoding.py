"""Turn samples into the tensors a model takes, and remember which token is which."""

from __future__ import annotations

import string
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from xai_utils.models.kinds import Model, Preprocessing
from xai_utils.samples.kinds import Picture, Text


@dataclass(frozen=True)
class Batch:
    """Model inputs for several samples of one kind.

    Attributes:
        inputs: keyword arguments of the model, on its device, first axis the sample.
        labels: per sample the text of every explained token (words and specials, or ``"row,column"``).
        prefix: leading positions that are not explained (0 for text).
        grid: ``(rows, columns)`` of patches, ``None`` for text.
        spans: per text, the character span of every token, (0, 0) for specials.
        views: pictures as the model sees them, ``(sample, 3, size, size)`` in [0, 1], for plots.
    """

    inputs: dict[str, Tensor]
    labels: tuple[tuple[str, ...], ...]
    prefix: int = 0
    grid: tuple[int, int] | None = None
    spans: tuple[tuple[tuple[int, int], ...], ...] = ()
    views: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def length(self, sample: int) -> int:
        """Positions of one sample, prefix included, padding not."""
        return self.prefix + len(self.labels[sample])

    def one(self, sample: int) -> Batch:
        """Return one sample by itself, without its padding."""
        here, n = slice(sample, sample + 1), self.length(sample)
        cut = {name: values[here] if self.grid else values[here, :n] for name, values in self.inputs.items()}
        views = None if self.views is None else self.views[here]
        return Batch(cut, self.labels[here], self.prefix, self.grid, self.spans[here], views)


def encode(model: Model, samples: Sequence[Text | Picture] | Mapping[str, Tensor]) -> Batch:
    """Encode samples for a model, or take tensors of one's own as they are.

    Args:
        model: what will read them. In a sentence for a model of masked words, ``[MASK]`` is its mask token.
        samples: sentences or pictures; or the model's keyword arguments, first axis the sample: ``input_ids`` with
            ``attention_mask`` (padding at the end), or normalised pixels ``(sample, 3, row, column)``, in the model's
            own precision.

    Raises:
        ValueError: the wrong kind of sample, one that the model cannot take whole, or tensors that do not fit.
    """
    if isinstance(samples, Mapping):
        return _tensors(model, samples)
    if not samples:
        raise ValueError("no sample to encode.")
    wanted = Text if model.kind == "text" else Picture
    for sample in samples:
        if not isinstance(sample, wanted):
            takes = "sentences" if wanted is Text else "pictures"
            raise ValueError(f"{model.name} takes {takes}, not a {type(sample).__name__.lower()}.")
    if wanted is Text:
        return _texts(model, samples)  # type: ignore[arg-type]
    return _pictures(model, samples)  # type: ignore[arg-type]


def view(picture: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Resize and crop ``(3, height, width)`` to the square the model sees; values stay in [0, 1]."""
    if picture.shape[1:] == (preprocessing.size,) * 2 and preprocessing.resize == preprocessing.size:
        return picture
    image = Image.fromarray(np.round(picture.transpose(1, 2, 0) * 255).astype(np.uint8))
    how = Image.Resampling[preprocessing.interpolation.upper()]
    cropped = _crop(image.resize(_resized(image.size, preprocessing), how), preprocessing.size)
    return (np.asarray(cropped, dtype=np.float32) / 255).transpose(2, 0, 1)


def view_mask(mask: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Put a ``(height, width)`` bool mask through the same resize and crop as its picture (nearest pixel)."""
    image = Image.fromarray(mask.astype(np.uint8))
    resized = image.resize(_resized(image.size, preprocessing), Image.Resampling.NEAREST)
    return np.asarray(_crop(resized, preprocessing.size), dtype=bool)


def rationale_mask(sample: Text, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for every token whether it overlaps the sample's rationale, ``(token,)`` bool."""
    return np.array([any(s < end and start < e for start, end in sample.rationale) for s, e in spans])


def word_mask(sample: Text, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for every token whether it is a word or part of one, ``(token,)`` bool: the one rule for what is ranked.

    Specials, punctuation and blanks are none. Where evidence is known they never carry it, so a method that ranks a
    full stop first (as rollout does) would be judged by how it treats punctuation.
    """
    return np.array([any(map(_of_a_word, sample.text[start:end])) for start, end in spans], dtype=bool)


def _of_a_word(character: str) -> bool:
    return character not in string.punctuation and unicodedata.category(character)[0] not in "PZC"


def patch_sums(pixels: Tensor, batch: Batch) -> Tensor:
    """Add up ``(sample, row, column)`` by patch: ``(sample, position)``, zero at the prefix."""
    assert batch.grid is not None  # pictures have one
    rows, columns = batch.grid
    patches = pixels.unflatten(1, (rows, -1)).unflatten(3, (columns, -1)).sum((2, 4)).flatten(1)
    return F.pad(patches, (batch.prefix, 0))


def _texts(model: Model, samples: Sequence[Text]) -> Batch:
    tokenizer = model.tokenizer
    for sample in samples:
        _fits(model, sample, limit(model))
    texts = [s.text.replace("[MASK]", tokenizer.mask_token) if model.head == "mask" else s.text for s in samples]
    coded, offsets = _coded(tokenizer, texts)
    lengths = coded["attention_mask"].sum(1).tolist()
    ids = coded["input_ids"].tolist()
    labels = tuple(tuple(tokenizer.convert_ids_to_tokens(row[:n])) for row, n in zip(ids, lengths, strict=True))
    asks = tokenizer.mask_token_id if model.head == "mask" else None  # the word to predict is not there to be explained
    spans = tuple(
        tuple((0, 0) if one == asks else (start, end) for (start, end), one in zip(row[:n], line, strict=False))
        for row, n, line in zip(offsets, lengths, ids, strict=True)
    )
    return Batch({k: v.to(model.device) for k, v in coded.items()}, labels, spans=spans)


def _coded(tokenizer: Any, texts: list[str]) -> tuple[Any, list[list[tuple[int, int]]]]:
    """Encode texts, and say where in them every token stands, also of a tokenizer that does not say it itself."""
    coded = tokenizer(texts, padding=True, return_tensors="pt", return_offsets_mapping=True)
    if "offset_mapping" in coded:
        return coded, coded.pop("offset_mapping").tolist()
    pairs = zip(texts, coded["input_ids"].tolist(), strict=True)
    return coded, [_searched(tokenizer, text, ids) for text, ids in pairs]


def _searched(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Look for the tokens in their text, one behind the other.

    One that is written otherwise there stands behind the text: it is explained, and belongs to no word of it.
    """
    found, at, special = [], 0, set(tokenizer.all_special_ids)
    for number, one in enumerate(ids):
        piece = tokenizer.decode([one]).strip().removeprefix("##")
        start = text.find(piece, at) if piece else -1
        if one in special:
            found.append((0, 0))
        elif start < 0:
            found.append((len(text) + number, len(text) + number + 1))
        else:
            at = start + len(piece)
            found.append((start, at))
    return found


def limit(model: Model) -> int:
    """Return how many tokens a text model reads at most, specials among them."""
    told = sys.maxsize if model.tokenizer is None else model.tokenizer.model_max_length
    return min(_positions(model.module), told)


def _fits(model: Model, sample: Text, most: int) -> None:
    if not sample.text.strip():
        raise ValueError(f"the text of {sample.name!r} is empty; expected at least one word.")
    count = len(model.tokenizer(sample.text, verbose=False)["input_ids"])
    if count > most:
        raise ValueError(
            f"{sample.name!r} has {count} tokens, but {model.name} reads at most {most}. Nothing is cut off silently: "
            "shorten the text, or explain it piece by piece."
        )


def _positions(module: Any) -> int:
    """Return how many positions a text model has; RoBERTa leaves the first ones, up to its padding index, unused."""
    for name, table in module.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return table.num_embeddings - table.padding_idx - 1
    return getattr(module.config, "max_position_embeddings", sys.maxsize)  # a Mamba counts no positions


def _pictures(model: Model, samples: Sequence[Picture]) -> Batch:
    preprocessing = model.preprocessing
    assert preprocessing is not None  # a vision model has one
    for sample in samples:
        if not np.isfinite(sample.image).all():
            raise ValueError(f"the picture {sample.name!r} holds NaN or infinity.")
    views = np.stack([view(sample.image, preprocessing) for sample in samples])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    pixels = ((torch.from_numpy(views) - mean) / std).to(model.device, model.dtype)
    grid = patch_grid(model)
    name = "pixel_values" if hasattr(model.module, "config") else "x"
    return Batch({name: pixels}, (_patches(grid),) * len(samples), model.prefix, grid, views=views)


def _patches(grid: tuple[int, int]) -> tuple[str, ...]:
    return tuple(f"{row},{column}" for row in range(grid[0]) for column in range(grid[1]))


def _tensors(model: Model, given: Mapping[str, Tensor]) -> Batch:
    """Name the tokens of tensors that are encoded already."""
    inputs = {name: values.to(model.device) for name, values in given.items()}
    counts = {name: len(values) for name, values in inputs.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"expected tensors of one number of samples, at least one; got {counts or 'none'}.")
    if "input_ids" in inputs:
        return _ids(model, inputs)
    name, pixels = next(iter(inputs.items()))
    if pixels.ndim != 4 or pixels.dtype != model.dtype:
        raise ValueError(
            f"{name} is {pixels.dtype} {tuple(pixels.shape)}; {model.name} takes {model.dtype} (sample, channel, row, "
            "column), or input_ids."
        )
    if not pixels.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity.")
    grid = patch_grid(model, (pixels.shape[-2], pixels.shape[-1]))
    return Batch(inputs, (_patches(grid),) * len(pixels), model.prefix, grid)


def _padded_behind(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Move padding that stands in front behind the tokens, where no model counts it as positions."""
    front = (mask.cumsum(1) == 0).sum(1).tolist()
    rolled = [torch.stack([row.roll(-by) for row, by in zip(rows, front, strict=True)]) for rows in (ids, mask)]
    return {"input_ids": rolled[0], "attention_mask": rolled[1]}


def _ids(model: Model, inputs: dict[str, Tensor]) -> Batch:
    ids = inputs["input_ids"]
    mask = inputs.setdefault("attention_mask", torch.ones_like(ids))
    if ids.ndim == 2 and mask.shape == ids.shape and set(inputs) == {"input_ids", "attention_mask"}:
        inputs = _padded_behind(ids, mask)
        ids, mask = inputs.values()
    if ids.ndim != 2 or mask.shape != ids.shape or not (mask[:, 1:] <= mask[:, :-1]).all() or not mask[:, 0].all():
        raise ValueError(
            f"input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)}: expected both (sample, token), with "
            "ones for the tokens and then zeros for the padding behind them."
        )
    rows = [row[: int(real)].tolist() for row, real in zip(ids, mask.sum(1), strict=True)]
    if model.tokenizer is None:
        return Batch(inputs, tuple(tuple(map(str, row)) for row in rows))
    special = set(model.tokenizer.all_special_ids)
    spans = tuple(tuple((0, 0) if one in special else (i, i + 1) for i, one in enumerate(row)) for row in rows)
    return Batch(inputs, tuple(tuple(model.tokenizer.convert_ids_to_tokens(row)) for row in rows), spans=spans)


def patch_grid(model: Model, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return ``(rows, columns)`` of a vision model's patches.

    Args:
        model: a transformer with patches of one size; a convolutional network gets 14 × 14 (8 pixels at 112).
        size: ``(rows, columns)`` of the picture in pixels; by default what the model's preprocessing makes.
    """
    embed = getattr(model.module, "patch_embed", None)
    if embed is not None:
        return tuple(embed.grid_size)
    if size is None:
        assert model.preprocessing is not None  # a vision model has one
        size = (model.preprocessing.size,) * 2
    config = getattr(model.module, "config", None)
    patch = getattr(config if config is not None else model.module, "patch_size", None)
    patch = patch or size[0] // 14
    return size[0] // patch, size[1] // patch


def _resized(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    if preprocessing.squash:
        return preprocessing.resize, preprocessing.resize
    width, height = (preprocessing.resize * side // min(size) for side in size)  # integers, as torchvision rounds down
    return width, height


def _crop(image: Image.Image, size: int) -> Image.Image:
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))
