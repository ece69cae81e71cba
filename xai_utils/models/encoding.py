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

from xai_utils.models.kinds import Model, Preprocessing, words_of
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

    def some(self, start: int, end: int) -> Batch:
        """Return samples from ``start`` to before ``end``, without the padding that none of them needs."""
        here, n = slice(start, end), max(self.length(i) for i in range(len(self))[start:end])
        cut = {name: values[here] if self.grid else values[here, :n] for name, values in self.inputs.items()}
        views = None if self.views is None else self.views[here]
        return Batch(cut, self.labels[here], self.prefix, self.grid, self.spans[here], views)

    def one(self, sample: int) -> Batch:
        """Return one sample by itself, without its padding."""
        return self.some(sample, sample + 1)


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
    if preprocessing.processor is not None:
        return _seen(_pixels(picture, preprocessing), preprocessing)
    if picture.shape[1:] == (preprocessing.size,) * 2 and preprocessing.resize == preprocessing.size:
        return picture
    image = Image.fromarray(np.round(picture.transpose(1, 2, 0) * 255).astype(np.uint8))
    how = Image.Resampling[preprocessing.interpolation.upper()]
    cropped = _crop(image.resize(_resized(image.size, preprocessing), how), preprocessing.size)
    return (np.asarray(cropped, dtype=np.float32) / 255).transpose(2, 0, 1)


def view_mask(mask: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Put a ``(height, width)`` bool mask through the same resize and crop as its picture (nearest pixel).

    A checkpoint's own processor does so too; then a pixel counts where at least half of it is the mask's.
    """
    if preprocessing.processor is not None:
        return view(np.repeat(mask[None].astype(np.float32), 3, 0), preprocessing)[0] >= 0.5
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
    if tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, so give it input_ids and no sentences.")
    most = limit(model)
    for sample in samples:
        _fits(model, sample, most)
    coded = [tokens_of(model, sample) for sample in samples]
    asks = tokenizer.mask_token_id if model.head == "mask" else None  # the word to predict is not there to be explained
    spans = tuple(
        tuple((0, 0) if one == asks else span for span, one in zip(spans, inputs["input_ids"], strict=True))
        for inputs, spans in coded
    )
    for sample, (inputs, _), line in zip(samples, coded, spans, strict=True):
        _no_typed_marks(model, sample, inputs["input_ids"], line)
    labels = tuple(
        _labels(tokenizer, sample.text, inputs["input_ids"], line)
        for sample, (inputs, _), line in zip(samples, coded, spans, strict=True)
    )
    return Batch(_padded(model, [inputs for inputs, _ in coded]), labels, spans=spans)


def tokens_of(model: Model, sample: Text) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """Encode a text or pair of texts, and say where in it every token stands, also where the tokenizer does not."""
    tokenizer, text = model.tokenizer, sample.text
    if model.head == "mask":
        text = text.replace("[MASK]", tokenizer.mask_token)
    parts, at = _parts(sample, text), sample.second
    coded = dict(tokenizer(*parts, return_offsets_mapping=tokenizer.is_fast, return_attention_mask=True))
    if "offset_mapping" not in coded:
        return coded, _searched(tokenizer, text, coded["input_ids"])
    found = list(map(tuple, coded.pop("offset_mapping")))
    if at:
        which = tokenizer(*parts).sequence_ids()
        found = [(s + at, e + at) if one == 1 else (s, e) for (s, e), one in zip(found, which, strict=True)]
    return coded, found


def _parts(sample: Text, text: str) -> tuple[str, ...]:
    return (text[: sample.second - 1], text[sample.second :]) if sample.second else (text,)


def _padded(model: Model, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Tensor]:
    """Put rows together; padding stands behind the tokens, whatever the tokenizer's side, and only where it must."""
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": model.tokenizer.pad_token_id or 0}
    return {
        name: torch.tensor(
            [row[name] + [filler.get(name, 0)] * (longest - len(row[name])) for row in rows], device=model.device
        )
        for name in rows[0]
    }


def _no_typed_marks(model: Model, sample: Text, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> None:
    """Refuse a text that holds a mark such as [SEP], which a model reads as its own and not as a word."""
    tokenizer = model.tokenizer
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for one, (start, end) in zip(ids, spans, strict=True):
        if model.head != "next" and one in marks and start < end and sample.text[start:end].strip():
            raise ValueError(
                f"{sample.name!r} holds {sample.text[start:end].strip()!r}, which {model.name} reads as a mark of its "
                "own and not as a word. Leave it out; two texts are a pair, samples.text(first, second)."
            )


def _labels(tokenizer: Any, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """Return the tokens as a person reads them: bytes as characters, an unknown word as it was written."""
    written = tokenizer.convert_ids_to_tokens(list(ids))
    by_bytes = "ByteLevel" in str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", ""))
    return tuple(
        text[start:end].strip() or piece
        if one == tokenizer.unk_token_id
        else _readable(piece, text[start:end].strip())
        if by_bytes
        else piece
        for piece, one, (start, end) in zip(written, ids, spans, strict=True)
    )


def _readable(piece: str, written: str) -> str:
    """Read a piece of bytes beyond ASCII, such as ``è ¿ Ļ``, by what it stands for; the mark of a blank stays."""
    plain = piece.removeprefix("Ġ")
    return piece[: len(piece) - len(plain)] + written if written and not plain.isascii() else piece


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
    count = len(model.tokenizer(*_parts(sample, sample.text), verbose=False)["input_ids"])
    if count > most:
        raise ValueError(
            f"{sample.name!r} has {count} tokens, but {model.name} reads at most {most}. Nothing is cut off silently: "
            "models.shortened(model, texts) cuts and says so; or explain it piece by piece."
        )


def _positions(module: Any) -> int:
    """Return how many positions a text model has; RoBERTa leaves the first ones, up to its padding index, unused."""
    for name, table in module.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return len(table.weight) - table.padding_idx - 1
    told = getattr(module.config, "max_position_embeddings", None)
    return told if isinstance(told, int) and told > 0 else sys.maxsize  # a Mamba counts no positions


def _pictures(model: Model, samples: Sequence[Picture]) -> Batch:
    preprocessing = model.preprocessing
    assert preprocessing is not None  # a vision model has one
    for sample in samples:
        if not np.isfinite(sample.image).all():
            raise ValueError(f"the picture {sample.name!r} holds NaN or infinity.")
    if preprocessing.processor is not None:
        own = torch.stack([_pixels(sample.image, preprocessing) for sample in samples])
        views, pixels = np.stack([_seen(one, preprocessing) for one in own]), own.to(model.device, model.dtype)
    else:
        views = np.stack([view(sample.image, preprocessing) for sample in samples])
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        pixels = ((torch.from_numpy(views) - mean) / std).to(model.device, model.dtype)
    grid = patch_grid(model)
    return Batch({_pixels_named(model): pixels}, (_patches(grid),) * len(samples), model.prefix, grid, views=views)


def _pixels(picture: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """Let the checkpoint's own processor make the input of a picture ``(3, height, width)`` in [0, 1]."""
    assert preprocessing.processor is not None
    return preprocessing.processor(np.round(picture.transpose(1, 2, 0) * 255).astype(np.uint8))


def _seen(pixels: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Return the picture behind an input, ``(3, size, size)`` in [0, 1], red first."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (preprocessing.mean, preprocessing.std))
    shown = (pixels * std + mean).clamp(0, 1).numpy()
    return shown[::-1].copy() if getattr(preprocessing.processor, "blue_first", False) else shown


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
    told = model.preprocessing.cells if model.preprocessing is not None else None
    told = told or getattr(getattr(model.module, "patch_embed", None), "grid_size", None)
    if told is not None:
        return tuple(told)
    if size is None:
        assert model.preprocessing is not None  # a vision model has one
        size = (model.preprocessing.size,) * 2
    config = getattr(model.module, "config", None)
    config = getattr(config, "vision_config", config)
    patch = getattr(config if config is not None else model.module, "patch_size", None) or size[0] // 14
    high, wide = patch if isinstance(patch, (tuple, list)) else (patch, patch)
    if size[0] % high or size[1] % wide:
        raise ValueError(f"a picture of {size[0]} × {size[1]} pixels has no whole patches of {high} × {wide}.")
    return size[0] // high, size[1] // wide


def _resized(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    if preprocessing.squash:
        return preprocessing.resize, preprocessing.resize
    width, height = (preprocessing.resize * side // min(size) for side in size)  # integers, as torchvision rounds down
    return width, height


def _crop(image: Image.Image, size: int) -> Image.Image:
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def taken_together(model: Model) -> str:
    """Find out which texts a model can take in one batch, see :attr:`Model.padding`: it is given some, and each alone.

    MobileBERT, ConvBERT, FNet and Funnel read padding; a classifier that looks for the last token may not know it.
    """
    if getattr(getattr(model.module, "config", None), "local_attention", None):
        return "equal"  # ModernBERT: far padding sees no token in its window, and becomes NaN
    short, long = (_ids_of_words(model, length) for length in (5, 9))
    with torch.inference_mode():
        alone = [_alone(model, ids) for ids in (short, long)]
        if _same(model, [short, long], alone):
            return "any"
        return "equal" if _same(model, [long, long], [alone[1]] * 2) else "alone"


def _alone(model: Model, ids: Tensor) -> Tensor:
    try:
        return model.run({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{model.name} cannot read a text of {ids.shape[1]} words as it is, in {model.dtype} and without padding: "
            f"{error}. Take another dtype, or another architecture if it is one of one fixed length."
        ) from error


def specimen(model: Model) -> tuple[dict[str, Tensor], int]:
    """Return inputs of two samples to try a model with, and how many positions each has; a picture is noise."""
    if model.kind == "text":
        ids = _ids_of_words(model, 7).expand(1 if model.padding == "alone" else 2, -1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 7
    assert model.preprocessing is not None
    noise = np.random.default_rng(0).random((2, 3, model.preprocessing.size, model.preprocessing.size))
    pixels = torch.from_numpy(noise).to(model.device, model.dtype)
    rows, columns = patch_grid(model)
    return {_pixels_named(model): pixels}, model.prefix + rows * columns


def _pixels_named(model: Model) -> str:
    return "pixel_values" if hasattr(model.module, "config") else "x"


def _ids_of_words(model: Model, length: int) -> Tensor:
    """Return ids of so many different words, ``(1, token)``."""
    module: Any = model.module
    special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    words = [one for one in range(words_of(module)) if one not in special]
    ids = torch.tensor([[words[i * len(words) // length] for i in range(length)]], device=model.device)
    if model.head == "mask":
        ids[:, 1] = model.tokenizer.mask_token_id
    return ids


def _same(model: Model, rows: Sequence[Tensor], alone: Sequence[Tensor]) -> bool:
    """Whether a batch gives what its rows give alone; a batch that the model refuses does not."""
    longest = max(row.shape[1] for row in rows)
    filler = 0 if model.tokenizer is None else model.tokenizer.pad_token_id or 0
    ids = torch.cat([F.pad(row, (0, longest - row.shape[1]), value=filler) for row in rows])
    mask = torch.stack([torch.arange(longest, device=ids.device) < row.shape[1] for row in rows]).to(ids)
    try:
        found = model.run({"input_ids": ids, "attention_mask": mask})
    except (ValueError, RuntimeError, IndexError):
        return False
    pairs = zip(found, alone, strict=True)
    near = 1e-4 if model.dtype in (torch.float32, torch.float64) else 0.05
    return all((one[: len(own[0])] - own[0]).abs().max() <= near * own[0].abs().max() for one, own in pairs)
