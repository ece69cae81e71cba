"""Hidden states of gendered words at every layer, one forward pass for all: written sentences, or a cached corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from xai_utils import check, files, runtime
from xai_utils.capture import capture_attention
from xai_utils.maths import densray
from xai_utils.models import Model, encoding
from xai_utils.samples import gender, passages
from xai_utils.samples.gender import Item
from xai_utils.samples.kinds import Text

SIDES = ("male", "female")


@dataclass(frozen=True)
class Vectors:
    """States of gendered words; ``[l]`` is what enters block ``l``, the last what leaves the last block.

    Attributes:
        male: ``(layer + 1, vector, width)``, float32.
        female: same, in the same order: the counterfactual partners.
        group: ``(vector,)``, the number of the pair of words each belongs to; of a corpus that of its sentence.
    """

    male: Tensor
    female: Tensor
    group: np.ndarray

    def sides(self, layer: int, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Return both sides at one layer in double precision; ``most`` vectors each, evenly spread, or all."""
        some = evenly(self.male.shape[1], most)
        return self.male[layer, some].double(), self.female[layer, some].double()

    def half(self, odd: bool) -> Vectors:
        """Return only the vectors of groups of odd, or of even number."""
        keep = torch.from_numpy(self.group % 2 == odd)
        return Vectors(self.male[:, keep], self.female[:, keep], self.group[keep.numpy()])

    def rays(self, most: int | None = None) -> tuple[Tensor, list[float]]:
        """Solve DensRay at every layer; ``most`` as in :meth:`sides`.

        Returns:
            Unit vectors ``(layer + 1, width)``, float32, and the share that each has in its positive eigenvalues.
        """
        solved = [densray.densray(*self.sides(layer, most)) for layer in range(len(self.male))]
        return torch.stack([one.vector for one in solved]).float(), [one.explained for one in solved]

    def means(self) -> Tensor:
        """Return the normalised difference of the means at every layer, ``(layer + 1, width)``, float32."""
        return torch.stack([densray.mean_difference(*both) for both in zip(self.male, self.female, strict=True)])

    def coordinates(self, rays: Tensor) -> list[tuple[float, float]]:
        """Return the mean coordinate of the masculine and of the feminine side along each layer's direction."""
        male, female = ((side @ rays[..., None]).mean((1, 2)).tolist() for side in (self.male, self.female))
        return list(zip(male, female, strict=True))

    def rank_one_gap(self, most: int | None = None) -> float:
        """Return how far any entry of unnormalised DensRay is from the mean difference of the same vectors."""
        layers = [self.sides(layer, most) for layer in range(len(self.male))]
        flat = torch.stack([densray.densray(*both, normalised=False).vector for both in layers])
        return float((flat - torch.stack([densray.mean_difference(*both) for both in layers])).abs().max())


def turns(rays: Tensor) -> list[float]:
    """Return the cosine of each layer's direction with the next one's, which no convention of one layer's sign fixes.

    Blocks add to what they get, so a coordinate goes on from layer to layer; a direction turned by the labels that
    really flipped would have a negative cosine with the one before.
    """
    return (rays[:-1] * rays[1:]).sum(-1).tolist()


def evenly(count: int, most: int | None) -> Tensor:
    """Return places spread evenly over ``count``, at most ``most`` of them; ``None`` means all."""
    if most is not None:
        check.at_least_one("most", most)
    return torch.linspace(0, count - 1, count if most is None else min(most, count)).long()


def states(model: Model, items: Sequence[Item], size: int = 128) -> Tensor:
    """Return the states of one word in every sentence, ``(layer + 1, item, width)``; one pass gives all layers.

    Raises:
        ValueError: no item, or a word that is not a single token of the model.
    """
    return _both_ways(model, items, size)[0]


def _both_ways(model: Model, items: Sequence[Item], size: int = 128) -> Tensor:
    """Return :func:`states`, and those of the token as far from the end as the word from the beginning.

    Together ``(2, layer + 1, item, width)``; see :func:`extracted`.
    """
    if not items:
        raise ValueError("no sentence with a gendered word; expected at least one on each side.")
    order = np.argsort([len(item.text) for item in items], kind="stable")
    parts = [order[start : start + size] for start in range(0, len(items), size)]
    found = torch.cat([_states(model, [items[i] for i in part]) for part in parts], 2)
    return found[:, :, np.argsort(order)]


def written(model: Model, pairs: Sequence[tuple[str, str]] | None = None, places: int | None = 1) -> Vectors:
    """Return the vectors of the written contexts, places and pairs; see :func:`gender.gendered`."""
    male, female = gender.gendered(pairs, places)
    group = np.arange(len(male)) % len(gender.pairs() if pairs is None else pairs)
    return Vectors(states(model, male), states(model, female), group)


def extracted(model: Model) -> tuple[Vectors, Vectors]:
    """Return the vectors of :func:`written`, and what the published extraction takes from the same sentences.

    It indexes the states of every sentence by the place of its gendered word, times -1 for the other side, and never
    asks whose sentence it is. So either side gets its own words, and from the other side's sentences the token that
    stands as far from the end as the gendered word from the beginning: half of either side are arbitrary words. It
    stops at a number of vectors, so that only half as many sentences are read: the first half of the contexts here.

    Source: repository dream3244/Deep-Learning, Training_for_DR_subspace.ipynb.
    """
    sides = gender.gendered(places=1)
    (male, male_end), (female, female_end) = (_both_ways(model, items) for items in sides)
    group, half = np.arange(len(sides[0])) % len(gender.pairs()), len(sides[0]) // 2
    mixed, other = (torch.cat([a[:, :half], b[:, :half]], 1) for a, b in ((male, female_end), (female, male_end)))
    return Vectors(male, female, group), Vectors(mixed, other, np.tile(group[:half], 2))


@torch.inference_mode()
def running(model: Model, texts: Sequence[str], size: int = 32) -> Tensor:
    """Return the states of every token of running texts, specials included, ``(layer + 1, token, width)``, float32."""
    parts = []
    for start in range(0, len(texts), size):
        trace, batch = _traced(model, [Text(text) for text in texts[start : start + size]])
        real = batch.inputs["attention_mask"].bool()
        parts.append(torch.stack([state[real].float().cpu() for state in trace.hidden]))
    return torch.cat(parts, 1)


def of_corpus(
    model: Model,
    source: str,
    count: int = 5000,
    column: str = "text",
    split: str = "train",
    pairs: Sequence[tuple[str, str]] | None = None,
    cache: Path = runtime.ROOT / "runs" / "vectors",
    chunk: int = 500,
) -> Vectors:
    """Extract ``count`` vectors a side from running text; an interrupted extraction goes on where it stopped.

    Every sentence with a gendered word gives one vector on that word's side, and its counterfactual one on the other.

    Args:
        model: the model.
        source: see :func:`passages.stream`.
        count: sentences to take, at most.
        column: of the text.
        split: of a hub's data set.
        pairs: gender pairs, masculine first; default the bundled ones. Pairs with a word of several tokens are refused.
        cache: folder for the parts (safetensors, each written whole or not at all).
        chunk: sentences a part.

    Raises:
        ValueError: no sentence of the corpus holds a gendered word; or see :func:`gender.check_pairs`.

    Differs from: the published extraction, which also kept the words of the other side, counted from the end of the
        sentence: half of both its sets are arbitrary words.
    """
    given = gender.pairs() if pairs is None else gender.check_pairs(pairs)
    for word in {word for pair in given for word in pair}:
        model.class_index(word)
    check.at_least_one("count", count)
    found = islice(candidates(model, source, given, column, split), count)
    folder = cache / _key(model, source, given, column, split, count, chunk)
    parts = []
    for number in tqdm(range(-(-count // chunk)), desc="corpus"):
        items = list(islice(found, chunk))
        if not items:
            break
        parts.append(_part(model, folder / f"part-{number:05d}.safetensors", items))
    if not parts:
        raise ValueError(
            f"no sentence of {Path(source).name} holds a gendered word such as {given[0][0]!r}; give other text."
        )
    male, female = (torch.cat(side, 1) for side in zip(*parts, strict=True))
    return Vectors(male, female, np.arange(male.shape[1]))


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


def save_directions(model: Model, rays: Tensor, source: str, file: Path | None = None) -> None:
    """Write directions ``(layer + 1, width)`` as safetensors with model, weights and data; whole or not at all.

    The file is ``runs/directions/MODEL.safetensors`` unless another is named.
    """
    name = model.name.replace(":", "-").replace("/", "-")
    file = runtime.ROOT / "runs" / "directions" / f"{name}.safetensors" if file is None else file
    told = {"model": model.name, "weights_sha256": model.sha256, "data": source, "method": "DensRay, class-mean sign"}
    with files.whole(file) as temporary:
        save_file({"directions": rays.contiguous()}, temporary, told)


def _partner(item: Item, given: Sequence[tuple[str, str]]) -> Item | None:
    """Return the same place in the swapped sentence, or nothing if it holds no word of the other side."""
    start = len(gender.swap(item.text[: item.start] + ".", given)) - 1
    swapped = gender.swap(item.text, given)
    return next(
        (other for other in gender.occurrences(swapped, given) if other.start == start and other.male != item.male),
        None,
    )


def _states(model: Model, items: Sequence[Item]) -> Tensor:
    trace, batch = _traced(model, [Text(item.text) for item in items])
    places = np.array([_place(model, item, spans) for item, spans in zip(items, batch.spans, strict=True)])
    from_end = [batch.length(i) for i in range(len(items))] - places
    return torch.stack([
        torch.stack([state[range(len(items)), at].float().cpu() for state in trace.hidden]) for at in (places, from_end)
    ])  # fmt: skip


def _traced(model: Model, texts: Sequence[Text]) -> tuple[Any, encoding.Batch]:
    """Run the model without its head."""
    batch, without_head = encoding.encode(model, texts), cast(Any, model.module.base_model)
    with torch.inference_mode(), capture_attention(model.module, model.blocks, layers=(), hidden=True) as trace:
        without_head(**batch.inputs)
    return trace, batch


def _place(model: Model, item: Item, spans: Sequence[tuple[int, int]]) -> int:
    """Return the token of the item's word, which must be that word and nothing else."""
    if (item.start, item.end) not in spans:
        raise ValueError(f"{item.word!r} in {item.text!r} is not a single token of {model.name}; leave this pair out.")
    return list(spans).index((item.start, item.end))


def _part(model: Model, file: Path, items: list[tuple[Item, Item]]) -> tuple[Tensor, Tensor]:
    """Read one part, or compute and write it."""
    told = {"texts": json.dumps([[one.text, two.text] for one, two in items])}
    if not file.is_file():
        computed = {name: states(model, [pair[side] for pair in items]) for side, name in enumerate(SIDES)}
        with files.whole(file) as temporary:
            save_file(computed, temporary, told)
    with safe_open(file, "pt") as read:
        if read.metadata() != told:
            raise ValueError(
                f"{file.name} in the cache holds other sentences than the corpus now; remove {file.parent.name}."
            )
        return read.get_tensor(SIDES[0]), read.get_tensor(SIDES[1])


def _key(model: Model, source: str, *rest: object) -> str:
    """Name the folder by everything its content depends on."""
    told = repr((model.sha256, Path(source).name, rest))
    return f"{Path(source).name.replace(':', '-')}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
