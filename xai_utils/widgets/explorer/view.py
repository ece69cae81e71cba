"""One view of one model on one input: what is asked, what is captured for it, and the numbers that are shown.

No widget is met here. :mod:`app` shows these numbers in a browser, :mod:`files` on paper, and notebook 10
from its parameters, so that a view found by dragging can be made again without a browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai_utils import check, methods, samples
from xai_utils.methods.observation import Observation, observe
from xai_utils.models import Model, encoding
from xai_utils.models.targets import Target
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample, Text

NONE, DISCARD = "none", "discard"
CHANGES: dict[str, tuple[str, float, float, float]] = {  # parameter, least, greatest, first value
    NONE: ("nothing", 0.0, 1.0, 0.0),
    DISCARD: ("share", 0.0, 0.95, 0.5),
    "spectral": ("alpha", 0.0, 0.99, 0.8),
    "enhancement": ("alpha", 0.0, 0.99, 0.9),
    "pagerank": ("restart", 0.01, 1.0, 0.15),
    "heat": ("time", 0.0, 10.0, 3.0),
    "rank": ("rank", 1.0, 12.0, 4.0),
}  #: what may be done to the layers before the rollout: a share of small entries dropped, or a filter of notebook 03


@dataclass(frozen=True)
class Request:
    """What a view shows; every field is a parameter of notebook 10, in capitals.

    Attributes:
        model: a name for :func:`models.load`.
        sample: a sentence, a prompt, or a picture's name or file (see :func:`samples.picture`).
        target: class index or name, or the next word; ``None`` for the predicted one.
        methods: names in :data:`methods.METHODS`.
        layer: of the linked map; negative ones count from the last.
        head: of the linked map; ``None`` for the mean of all heads.
        query: position whose row is read, prefix tokens ([CLS]) included; see :func:`read_at`.
        change: a name in :data:`CHANGES`; the rollout is shown before and after it.
        strength: its parameter; ``None`` takes its first value.
        second_model: a second model beside the first on the same sample, or ``""``.
        against: name of a class, or a word, that the target is set against, or ``""``.
        difference: whether the first method minus the second is shown as well; with a second model, each method on the
            first model minus the same on the second. See :func:`difference`.
    """

    model: str = "vit-scenes"
    sample: str = "scene:3:2"
    target: int | str | None = None
    methods: tuple[str, ...] = ("rollout", "gradient_rollout", "transformer_attribution")
    layer: int = -1
    head: int | None = None
    query: int = 0
    change: str = NONE
    strength: float | None = None
    second_model: str = ""
    against: str = ""
    difference: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", check.text("sample", self.sample))
        object.__setattr__(self, "methods", (self.methods,) if isinstance(self.methods, str) else tuple(self.methods))
        for name in self.methods:
            check.one_of("method", name, tuple(methods.METHODS))
        check.one_of("change", self.change, tuple(CHANGES))
        parameter, least, greatest, _ = CHANGES[self.change]
        if self.strength is not None and not least <= self.strength <= greatest:
            raise ValueError(
                f"strength is {self.strength}; {self.change} takes a {parameter} from {least} to {greatest}."
            )

    def parameters(self) -> dict[str, Any]:
        """Return the view as parameters of notebook 10, ready for papermill."""
        return {
            name.upper(): list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def requested(parameters: Mapping[str, Any]) -> Request:
    """Read a view back from parameters (a notebook's ``globals()``, a YAML file); other names are left alone."""
    named = {one.name: parameters[one.name.upper()] for one in fields(Request) if one.name.upper() in parameters}
    return Request(**named)


@dataclass(frozen=True)
class Panel:
    """One map of a view: a title and its scores, or what went wrong."""

    title: str
    found: Attribution | None = None
    problem: str = ""


@dataclass
class Captured:
    """A model's one pass over one sample for one class, kept for redrawing, and the maps made of it so far.

    Attributes:
        model: the model.
        sample: what it looked at.
        target: what is asked, see :class:`models.Question`.
        seen: the pass; ``None`` for a model without attention.
        batch: the encoded sample.
        logits: of every answer, ``(answer,)`` on the CPU; ``None`` for a model without a classifier.
        maps: attributions by method.
    """

    model: Model
    sample: Sample
    target: Target
    seen: Observation | None
    batch: encoding.Batch
    logits: Tensor | None = None
    maps: dict[str, Panel] = field(default_factory=dict)

    @property
    def attention(self) -> Tensor:
        """``(layer, head, query, key)``; ``ValueError`` for a model that has none."""
        if self.seen is None:
            raise ValueError(f"{self.model.name} has no attention to show; its methods work, the linked map does not.")
        return self.seen.view(0).attention


def sample_of(model: Model, what: str, folder: Path | None = None) -> Sample:
    """Read the sample of a request as this model takes it: a sentence, or a picture's name or file.

    A file that was uploaded is named without its folder, which is where it is looked for, wherever one stands.
    """
    if model.kind == "text":
        return samples.text(what)
    name = what.strip()
    kept = folder / name if folder is not None and name else None
    return samples.picture(str(kept) if kept is not None and kept.is_file() else name)


def capture(model: Model, sample: Sample, target: Target = None) -> Captured:
    """Look at a sample once: one forward and one backward pass; models without attention are only encoded."""
    if model.blocks == 0:
        batch = encoding.encode(model, [sample])
        return Captured(model, sample, target, None, batch, _answer(model, batch))
    seen = observe(model, [sample], target, gradient=bool(model.classes))
    logits = None if seen.logits is None else seen.logits[0].detach().double().cpu()
    return Captured(model, sample, target, seen, seen.batch, logits)


@torch.inference_mode()
def _answer(model: Model, batch: encoding.Batch) -> Tensor | None:
    return model.logits(batch.inputs)[0].double().cpu() if model.classes else None


def read_at(captured: Captured, query: int) -> int:
    """Return the position whose row is shown: in a language model the last instead of the first, which reads itself."""
    return len(names_of(captured)) - 1 if captured.model.head == "next" and query == 0 else query


def linked(captured: Captured, layer: int, head: int | None) -> Tensor:
    """Return the map of which every row can be read, ``(query, key)``: one head, or the mean of all."""
    attention = captured.attention
    check.index("layer", layer, len(attention))
    if head is None:
        return attention[layer].mean(0)
    check.index("head", head, attention.shape[1])
    return attention[layer, head]


def heads(captured: Captured, layer: int, query: int) -> Tensor:
    """Return what every head of a layer reads at one position, ``(head, key)``."""
    attention = captured.attention
    check.index("layer", layer, len(attention))
    check.index("query", query, attention.shape[-1])
    return attention[layer, :, query]


def overview(captured: Captured, query: int) -> Tensor:
    """Return what every head of every layer reads at one position, ``(layer, head, key)``."""
    check.index("query", query, captured.attention.shape[-1])
    return captured.attention[:, :, query]


def panel(captured: Captured, name: str) -> Panel:
    """Return a method's map, computed once; a method that cannot explain this model says why in its place."""
    if name not in captured.maps:
        try:
            captured.maps[name] = Panel(name, _attribution(captured, name))
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            captured.maps[name] = Panel(name, problem=str(error))
    return captured.maps[name]


def _attribution(captured: Captured, name: str) -> Attribution:
    method, seen = methods.METHODS[name], captured.seen
    if seen is not None and method.score is not None and (seen.states is not None or not method.asks):
        return methods.attribute(name, seen)
    return methods.explain(name, captured.model, captured.sample, captured.target)


def before_after(captured: Captured, change: str, strength: float | None = None) -> tuple[Panel, ...]:
    """Return plain rollout and rollout of the changed layers, or nothing for no change."""
    if change == NONE:
        return ()
    value = CHANGES[change][3] if strength is None else strength
    title = f"rollout, {change} {CHANGES[change][0]} {value:g}"
    if captured.seen is None:
        return (Panel(title, problem=f"{captured.model.name} has no attention to roll out."),)
    try:
        if change == DISCARD:
            after = methods.attribute("rollout", captured.seen, discard=value)
        else:
            value = min(value, captured.attention.shape[-1]) if change == "rank" else value
            after = methods.attribute("diffusion_rollout", captured.seen, filter=change, strength=value)
    except ValueError as error:
        return (panel(captured, "rollout"), Panel(title, problem=str(error)))
    return (Panel("rollout, before", panel(captured, "rollout").found), Panel(title, after))


def panels(captured: Captured, request: Request, beside: Mapping[str, Captured] | None = None) -> list[Panel]:
    """Return every map of a view: its methods, their difference if asked for, then before and after the change.

    Rollout before the change is left out where it is one of the methods.

    Args:
        captured: of the model whose maps they are.
        request: what is shown.
        beside: the captured passes of the whole view by place, for the difference of two models.
    """
    asked = [panel(captured, name) for name in request.methods]
    there = [one.found for one in asked]
    changed = [
        one
        for one in before_after(captured, request.change, request.strength)
        if one.found is None or not any(one.found is found for found in there)
    ]
    return [*asked, *(_differences(captured, request, beside or {}) if request.difference else ()), *changed]


def difference(one: Panel, other: Panel, title: str) -> Panel:
    """Return one map minus another, each divided by the sum of its sizes first: units differ from map to map.

    A map that is missing, or of other tokens, leaves its reason; so do two maps that say the same.
    """
    if one.found is None or other.found is None:
        return Panel(title, problem=one.problem or other.problem)
    if one.found.labels != other.found.labels:
        return Panel(title, problem="the two models read different tokens, so their maps have no difference.")
    shares = [found.scores.double() / found.scores.double().abs().sum() for found in (one.found, other.found)]
    try:
        found = replace(one.found, scores=shares[0] - shares[1], signed=True, unit="share of the map", method=title)
    except ValueError:
        return Panel(title, problem="the two maps are the same, up to a factor.")
    return Panel(title, found)


def _differences(captured: Captured, request: Request, beside: Mapping[str, Captured]) -> list[Panel]:
    others = [one for one in beside.values() if one is not captured]
    if others and captured is next(iter(beside.values())):
        (other,) = others
        title = f"minus {other.model.name}"
        return [difference(panel(captured, n), panel(other, n), f"{n}, {title}") for n in request.methods]
    if others:
        return []
    if len(request.methods) < 2:
        return [Panel("difference", problem="choose two methods, or a second model, to see a difference.")]
    one, other_name = request.methods[:2]
    return [difference(panel(captured, one), panel(captured, other_name), f"{one} − {other_name}")]


def names_of(captured: Captured) -> list[str]:
    """Name every position of the linked map: prefix tokens, then what stands in the text, or ``row,column``.

    A word that the model does not know keeps its own letters, and is followed by the token that is read instead.
    """
    prefix, labels = captured.batch.prefix, captured.batch.labels[0]
    if isinstance(captured.sample, Text):
        ids = captured.batch.inputs["input_ids"][0].tolist()
        triples = zip(labels, captured.batch.spans[0], ids, strict=True)
        labels = tuple(_written(captured, *one) for one in triples)
    return [*(["[CLS]", *(f"[{n}]" for n in range(1, prefix))][:prefix]), *labels]


def _written(captured: Captured, label: str, span: tuple[int, int], token: int) -> str:
    word, tokenizer = captured.sample.text[slice(*span)].strip(), captured.model.tokenizer  # type: ignore[union-attr]
    unknown = word and token == tokenizer.unk_token_id
    return f"{word} {tokenizer.unk_token}" if unknown else word or label


def special(captured: Captured) -> list[int]:
    """Return the places of a text's special tokens ([CLS], [SEP]), which take most of many maps; none in a picture."""
    return [i for i, (start, end) in enumerate(captured.batch.spans[0]) if start == end] if captured.batch.spans else []
