"""Hidden states of gendered words at every layer, one forward pass for all: written sentences, or a cached corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from xai_utils import check, files
from xai_utils.capture import capture_attention
from xai_utils.maths import densray
from xai_utils.methods import masked
from xai_utils.models import Model, encoding
from xai_utils.samples import gender, passages
from xai_utils.samples.gender import Item
from xai_utils.samples.kinds import Text

COLUMNS = ("male", "female")


@dataclass(frozen=True)
class Vectors:
    """States of gendered words; ``[l]`` is what enters block ``l``, the last what leaves the last block.

    Attributes:
        male: ``(layer + 1, vector, width)``, float32.
        female: same, in the same order: the counterfactual partners.
    """

    male: Tensor
    female: Tensor

    def direction(self, layer: int, normalised: bool = True, most: int | None = None) -> densray.Direction:
        """Solve DensRay at one layer in double precision; ``most`` vectors a side, evenly spread, or all."""
        sides = (self.male[layer], self.female[layer])
        if most is not None:
            check.at_least_one("most", most)
            sides = tuple(side[torch.linspace(0, len(side) - 1, min(most, len(side))).long()] for side in sides)  # type: ignore[assignment]
        return densray.densray(sides[0].double(), sides[1].double(), normalised)


def states(model: Model, items: Sequence[Item], size: int = 128, quiet: bool = True) -> Tensor:
    """Return the states of one word in every sentence, ``(layer + 1, item, width)``; one pass gives all layers.

    Raises:
        ValueError: no item, or a word that is not a single token of the model.
    """
    if not items:
        raise ValueError("no sentence with a gendered word; expected at least one on each side.")
    order = np.argsort([len(item.text) for item in items], kind="stable")
    found: Tensor | None = None
    for start in tqdm(range(0, len(items), size), desc="states", disable=quiet):
        chosen = order[start : start + size]
        taken = _states(model, [items[i] for i in chosen])
        found = torch.empty(len(taken), len(items), taken.shape[-1]) if found is None else found
        found[:, chosen] = taken
    assert found is not None
    return found


def written(model: Model, pairs: Sequence[tuple[str, str]] | None = None, quiet: bool = True) -> Vectors:
    """Return the vectors of the written contexts, places and pairs; see :func:`gender.gendered`."""
    male, female = gender.gendered(pairs)
    return Vectors(states(model, male, quiet=quiet), states(model, female, quiet=quiet))


def of_corpus(
    model: Model,
    source: str,
    cache: Path,
    count: int = 5000,
    pairs: Sequence[tuple[str, str]] | None = None,
    column: str = "text",
    split: str = "train",
    chunk: int = 500,
    quiet: bool = False,
) -> Vectors:
    """Extract ``count`` vectors a side from running text; an interrupted extraction goes on where it stopped.

    Every sentence with a gendered word gives one vector on that word's side, and its counterfactual one on the other.

    Args:
        model: the model.
        source: see :func:`passages.stream`.
        cache: folder for the parts (parquet, each written whole or not at all).
        count: sentences to take, at most.
        pairs: gender pairs, masculine first; default the bundled ones. Pairs with a word of several tokens are refused.
        column: of the text.
        split: of a hub's data set.
        chunk: sentences a part.
        quiet: show no progress.

    Raises:
        ValueError: no sentence of the corpus holds a gendered word; or see :func:`gender.check_pairs`.

    Differs from: the published extraction, which also kept the words of the other side, counted from the end of the
        sentence: half of both its sets are arbitrary words.
    """
    given = gender.pairs() if pairs is None else gender.check_pairs(pairs)
    for word in {word for pair in given for word in pair}:
        masked.token_id(model, word)
    check.at_least_one("count", count)
    found = islice(candidates(model, source, given, column, split), count)
    folder = cache / _key(model, source, given, column, split, count, chunk)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in tqdm(range(-(-count // chunk)), desc="corpus", disable=quiet):
        items = list(islice(found, chunk))
        if not items:
            break
        parts.append(_part(model, folder / f"part-{number:05d}.parquet", items))
    if not parts:
        raise ValueError(
            f"no sentence of {Path(source).name} holds a gendered word such as {given[0][0]!r}; give other text."
        )
    return Vectors(torch.cat([male for male, _ in parts], 1), torch.cat([female for _, female in parts], 1))


def candidates(
    model: Model, source: str, given: Sequence[tuple[str, str]], column: str = "text", split: str = "train"
) -> Iterator[tuple[Item, Item]]:
    """Yield masculine and feminine sentence of every usable one; label and side always agree."""
    limit = min(96, model.tokenizer.model_max_length)
    for passage in passages.stream(source, split, column):
        for sentence in passages.sentences(passage):
            found = gender.occurrences(sentence, given)
            if not found or len(model.tokenizer(sentence, verbose=False)["input_ids"]) > limit:
                continue
            partner = _partner(found[0], given)
            if partner is not None:
                yield (found[0], partner) if found[0].male else (partner, found[0])


def _partner(item: Item, given: Sequence[tuple[str, str]]) -> Item | None:
    """Return the same place in the swapped sentence, or nothing if it holds no word of the other side."""
    start = len(gender.swap(item.text[: item.start] + ".", given)) - 1
    swapped = gender.swap(item.text, given)
    return next(
        (other for other in gender.occurrences(swapped, given) if other.start == start and other.male != item.male),
        None,
    )


def _states(model: Model, items: Sequence[Item]) -> Tensor:
    batch = encoding.encode(model, [Text(item.text) for item in items])
    places = [_place(model, item, spans) for item, spans in zip(items, batch.spans, strict=True)]
    without_head: Any = model.module.base_model
    with torch.inference_mode(), capture_attention(model.module, model.blocks, layers=(), hidden=True) as trace:
        without_head(**batch.inputs)
    return torch.stack([state[range(len(items)), places].float().cpu() for state in trace.hidden])


def _place(model: Model, item: Item, spans: Sequence[tuple[int, int]]) -> int:
    """Return the token of the item's word, which must be that word and nothing else."""
    if (item.start, item.end) not in spans:
        raise ValueError(f"{item.word!r} in {item.text!r} is not a single token of {model.name}; leave this pair out.")
    return list(spans).index((item.start, item.end))


def _part(model: Model, file: Path, items: list[tuple[Item, Item]]) -> tuple[Tensor, Tensor]:
    """Read one part, or compute it and write it through a temporary file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        computed = [states(model, [pair[side] for pair in items]) for side in (0, 1)]
        table = {"text": [one.text for one, _ in items], "partner": [two.text for _, two in items]}
        for name, side in zip(COLUMNS, computed, strict=True):
            for layer, rows in enumerate(side.numpy()):
                flat = pa.array(rows.reshape(-1), pa.float32())
                table[f"{name}_{layer}"] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        with files.whole(file) as temporary:
            pq.write_table(pa.table(table), temporary)
    read = pq.read_table(file)
    if read["text"].to_pylist() != [one.text for one, _ in items]:
        raise ValueError(
            f"{file.name} in the cache holds other sentences than the corpus now; remove {file.parent.name}."
        )
    layers = sum(name.startswith("male_") for name in read.column_names)
    return tuple(  # type: ignore[return-value]
        torch.stack([_column(read, f"{name}_{layer}", len(items)) for layer in range(layers)]) for name in COLUMNS
    )


def _column(table: object, name: str, rows: int) -> Tensor:
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)  # type: ignore[index]
    return torch.from_numpy(flat.copy()).reshape(rows, -1)


def _key(model: Model, source: str, *rest: object) -> str:
    """Name the folder by everything its content depends on."""
    told = repr((model.sha256, Path(source).name, rest))
    return f"{Path(source).name.replace(':', '-')}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def save_directions(file: Path, vectors: Tensor, model: Model, source: str) -> None:
    """Write directions ``(layer + 1, width)`` as safetensors with model, weights and data; whole or not at all."""
    from safetensors.torch import save_file

    told = {"model": model.name, "weights_sha256": model.sha256, "data": source, "method": "DensRay, class-mean sign"}
    with files.whole(file) as temporary:
        save_file({"directions": vectors.contiguous()}, temporary, told)
