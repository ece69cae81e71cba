"""Time relevance passes of a batch of pictures against a plain forward and backward pass, and one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from tests.bench.bench_capture import eager, graph_from_the_embedding
from tests.bench.bench_methods import pictures, vision_model
from tests.bench.measure import Against, Row, in_turn, peak
from xai_utils.methods import relevance
from xai_utils.models import Model
from xai_utils.models.encoding import encode

TRANSFORMER_ATTRIBUTION, MODIFIED = 2.5, 1.6  # of a plain pass


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure a batch of DeiT-tiny's size."""
    count, repeats = (2, 1) if quick else (16, 3)
    model, samples = vision_model(), pictures(count)
    batch, targets = encode(model, samples), [0] * count
    singles = [encode(model, [sample]) for sample in samples]

    exact, wide = relevance._in_float64(model, batch)

    def plain(model: Model = model, inputs: dict[str, Tensor] = batch.inputs) -> None:
        with eager(model.module), graph_from_the_embedding(model.module):
            model.logits(inputs)[:, 0].sum().backward()

    works: dict[str, Callable[[], object]] = {
        "plain": plain,
        "plain, float64": lambda: plain(exact, wide.inputs),
        "transformer attribution": lambda: relevance.transformer_attribution(model, batch, targets),
        "CP-LRP": lambda: relevance.modified_gradient("cp", model, batch, targets),
        "AttnLRP": lambda: relevance.modified_gradient("attnlrp", model, batch, targets),
        "loop": lambda: [relevance.transformer_attribution(model, one, [0]) for one in singles],
    }
    times = in_turn(works, repeats)
    base = Against("forward + backward, attention written out", times["plain"], MODIFIED)
    for name in ("CP-LRP", "AttnLRP"):
        yield Row(f"{name}, {count} pictures, DeiT-tiny", times[name], base, None, peak(works[name]))
    name = "transformer attribution"
    base = Against("a forward and a backward pass in float64", times["plain, float64"], TRANSFORMER_ATTRIBUTION)
    yield Row(f"{name}, {count} pictures, DeiT-tiny", times[name], base, None, peak(works[name]))
    base = Against("a forward and a backward pass in float32", times["plain"])
    yield Row(f"{name}, {count} pictures, DeiT-tiny", times[name], base)
    loop = Against("picture by picture", times["loop"], 1.0)
    yield Row(f"{name}, {count} pictures, DeiT-tiny", times[name], loop)
