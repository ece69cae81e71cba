"""One table of methods: every map there is, published, ours or null, is a row of it.

:func:`explain` does everything in one call. To look at one input in many ways, :func:`observe` once (one forward and
at most one backward pass) and :func:`attribute` as often as wanted; that costs no further pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.methods import attention, closed_forms, hidden, integrated, nulls, occlusion, relevance, suits
from xai_utils.methods.observation import Observation, observe
from xai_utils.models import memory
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, Target, asked, needs_answer, per_sample, together
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample, Text

#: tokens of a sample from which it is measured what a pass holds: sixteen with fewer stay near the budget in a model of
#: twelve layers of twelve heads, maps and their gradients together
LONG = 256
Scores = list[tuple[Tensor, dict[str, Any]]]
Tensors = Mapping[str, Tensor]  #: samples of one's own, encoded already


@dataclass(frozen=True)
class Method:
    """One line of the table. Exactly one of ``score``, ``passes`` and ``maps`` is there.

    Attributes:
        score: ``(view, **options) -> (scores of every position, details)`` of one observed sample.
        passes: ``(model, batch, asked, **options) -> [(scores, details) of every sample]``, with passes of its own.
        maps: ``(model, samples, asked, **options) -> [Attribution]``, for what needs the samples themselves.
        asks: whether it explains what is asked (a class, a word), and so needs a head.
        signed: whether negative scores mean evidence against what is asked.
        unit: of a score; ``asked`` in it stands for the unit of the number that is asked for.
        suits: ``model -> ""``, or the reason why the method cannot explain it.
        family: ``"attention"``, ``"gradient"``, ``"relevance"``, ``"hidden"``, ``"closed form"``, ``"removal"`` or
            ``"null"``.
        slow_on: kinds of models on which it takes seconds a sample; it works there, but a sweep leaves it out.
        half: whether the arithmetic of a model in half precision is enough for it.
        reads_maps: whether a ``score`` looks at the attention of what was observed.
        at_sample: whether it goes by the gradient at the sample itself, which may be zero there (see
            :meth:`targets.Asked.must_slope`).
    """

    score: Callable[..., tuple[Tensor, dict[str, Any]]] | None = None
    passes: Callable[..., Scores] | None = None
    maps: Callable[..., list[Attribution]] | None = None
    asks: bool = True
    signed: bool = False
    unit: str = "asked"
    suits: Callable[[Model], str] = suits.everything
    family: str = "attention"
    slow_on: tuple[str, ...] = ()
    half: bool = True
    reads_maps: bool = True
    at_sample: bool = True

    @property
    def whole(self) -> bool:
        """Whether a batch goes through the model as a whole; what makes passes of its own bounds them itself."""
        return self.at_sample and self.maps is None


@overload
def explain(name: str, model: Model, samples: Sample, target: Target = None, **options: Any) -> Attribution: ...
@overload
def explain(
    name: str, model: Model, samples: Sequence[Sample] | Tensors, target: Target = None, **options: Any
) -> list[Attribution]: ...
def explain(
    name: str,
    model: Model,
    samples: Sample | Sequence[Sample] | Tensors,
    target: Target = None,
    batch_size: int = 16,
    **options: Any,
) -> Attribution | list[Attribution]:
    """Explain one sample or many.

    Args:
        name: a name in :data:`METHODS`.
        model: from :func:`models.load`, or :func:`models.wrap` of one's own.
        samples: one sample, or a sequence; a batch gives what a loop gives. Or tensors of one's own: the model's
            keyword arguments, first axis the sample (see :func:`encoding.encode`).
        target: class (or word) by index or name for all samples, or a list with one for each; ``None`` explains each
            sample's predicted one. :class:`targets.Question` asks for more: a class against another, a probability.
        batch_size: samples in one pass, at most; of long ones fewer, so that a pass stays within
            :data:`memory.BUDGET`.
        **options: of the method, see its function.

    Raises:
        ValueError: unknown method, class, option value or unusable sample; an empty or NaN map.
        TypeError: unknown option, or a model that the method does not suit; the reason is said.
    """
    check.one_of("method", name, tuple(METHODS))
    check.at_least_one("batch_size", batch_size)
    must_suit(name, model)
    single = isinstance(samples, (Text, Picture))
    many: Any = [samples] if isinstance(samples, (Text, Picture)) else samples
    counts = [len(one) for one in many.values()] if isinstance(many, Mapping) else [len(many)]
    if isinstance(many, Mapping) and (0 in counts or len(set(counts)) != 1):
        encode(model, many)  # says what is wrong with them
    count = counts[0]
    questions = per_sample(target, count)

    def explained(start: int, end: int) -> list[Attribution]:
        with torch.inference_mode(False):
            return _explain(name, model, _some(many, start, end), together(questions[start:end]), options)

    size = min(batch_size, count) if model.padding == "any" else 1  # it reads padding, so each goes alone
    if size > 1 and METHODS[name].whole:
        size = min(size, _fitting(model, many, count, explained))
    found = [one for start in range(0, count, size) for one in explained(start, start + size)] if count else []
    return found[0] if single else found


def _some(many: Any, start: int, end: int) -> Any:
    """Return samples from ``start`` to before ``end``."""
    return {key: value[start:end] for key, value in many.items()} if isinstance(many, Mapping) else many[start:end]


def _fitting(model: Model, many: Any, count: int, explained: Callable[[int, int], object]) -> int:
    """Return how many samples as long as the longest one pass can hold; all, as long as they are short."""
    lengths = [0] * count if isinstance(many, Mapping) else [len(getattr(one, "text", "")) for one in many]
    place = lengths.index(max(lengths))
    if encode(model, _some(many, place, place + 1)).length(0) < LONG:
        return count
    one = memory.peak(lambda _: explained(place, place + 1), torch.empty(0))
    return max(1, memory.BUDGET // max(one, 1))


def _explain(
    name: str, model: Model, some: Sequence[Sample] | Tensors, target: Target, options: dict[str, Any]
) -> list[Attribution]:
    """Explain one batch."""
    method = METHODS[name]
    if method.score is not None:
        seen = observe(model, some, target, gradient=method.asks, maps=method.reads_maps)
        return [attribute(name, seen, i, **options) for i in range(len(seen.batch))]
    batch = encode(model, some)
    question = _question(model, batch, target, method.at_sample) if method.asks else None
    if method.maps is not None:
        return method.maps(model, some, question, **options)
    assert method.passes is not None
    found = method.passes(model, batch, question, **options)
    return [
        _label(name, model, batch, i, scores, question, {**options, **details})
        for i, (scores, details) in enumerate(found)
    ]


def _question(model: Model, batch: Batch, target: Target, at_sample: bool) -> Asked:
    looks = at_sample and model.compare is not None
    with torch.no_grad():
        logits = model.logits(batch.inputs) if looks or needs_answer(target) else len(batch)
        question = asked(model, logits, target)
    assert question is not None  # a method that asks suits no model without a head
    if looks and isinstance(logits, Tensor):
        question.must_slope(logits)
    return question


def attribute(name: str, seen: Observation, sample: int = 0, **options: Any) -> Attribution:
    """Score the tokens of one observed sample by one method; no further pass through the model."""
    check.one_of("method", name, tuple(METHODS))
    method = METHODS[name]
    check.index("sample", sample, len(seen.batch))
    if method.score is None:
        raise ValueError(f"{name} needs passes of its own; call explain({name!r}, ...).")
    must_suit(name, seen.model)
    if method.asks and seen.states is None:
        raise ValueError(f"{name} needs gradients; call observe(..., gradient=True).")
    scores, details = method.score(seen.view(sample), **options)
    question = seen.asked if method.asks else None
    return _label(name, seen.model, seen.batch, sample, scores, question, {**options, **details})


def read_relevance(
    seen: Observation, asked: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> dict[str, list[Attribution]]:
    """Explain an observed batch by several readings of one relevance pass, which takes its gradients from there.

    Args:
        seen: with gradients.
        asked: label -> (name in :data:`relevance.READ`, options).
    """
    for name, _ in asked.values():
        must_suit(name, seen.model)
    assert seen.asked is not None
    found = relevance.readings(seen.model, seen.batch, seen.asked, list(asked.values()), seen.gradient)
    return {
        label: [
            _label(name, seen.model, seen.batch, i, scores, seen.asked, {**options, **details})
            for i, (scores, details) in enumerate(own)
        ]
        for (label, (name, options)), own in zip(asked.items(), found, strict=True)
    }


def _label(
    name: str, model: Model, batch: Batch, sample: int, scores: Tensor, question: Asked | None, details: dict[str, Any]
) -> Attribution:  # fmt: skip
    method = METHODS[name]
    return Attribution(
        scores[batch.prefix :].to(torch.promote_types(scores.dtype, torch.float32)),
        batch.labels[sample],
        name,
        model.name,
        None if question is None else question.targets[sample],
        "" if question is None else question.names[sample],
        method.unit if question is None else method.unit.replace("asked", question.unit),
        method.signed,
        batch.grid,
        details,
    )


def methods_for(model: Model) -> tuple[str, ...]:
    """Return the names of all methods that suit a model in its precision, in the order of the table."""
    return tuple(name for name in METHODS if not _refused(name, model))


def must_suit(name: str, model: Model) -> None:
    """Raise ``TypeError`` with the reason if a method cannot explain a model, or not in the model's precision."""
    if reason := _refused(name, model):
        raise TypeError(f"{name} cannot explain {model.name}: {reason}")


def _refused(name: str, model: Model) -> str:
    return METHODS[name].suits(model) or suits.precise(model, METHODS[name].half)


def _closed(name: str, model: Model, samples: Sequence[Sample] | Tensors, question: Asked) -> list[Attribution]:
    if isinstance(samples, Mapping):
        raise TypeError(f"{name} is of words; give sentences, not tensors.")
    pairs = zip(samples, question.targets, strict=True)
    return [closed_forms.closed_form(model, one, target, name) for one, target in pairs]


_attention = partial(Method, asks=False, unit="share of the input", suits=suits.attends)
_weighted = partial(Method, unit="gradient-weighted attention", suits=suits.weighs)
_of_tokens = partial(Method, suits=suits.reads_tokens, family="gradient", reads_maps=False)
_by_rules = partial(Method, family="relevance")
_hidden = partial(Method, asks=False, unit="hidden attention", suits=suits.scans, family="hidden")

METHODS: dict[str, Method] = {
    "attention": _attention(attention.raw_attention, unit="attention share"),
    "rollout": _attention(attention.attention_rollout),
    "diffusion_rollout": _attention(attention.diffusion_rollout, half=False),
    "selective_rollout": _attention(attention.selective_rollout, half=False),
    "gradient_rollout": _weighted(attention.gradient_rollout, unit="gradient-weighted share"),
    "flow": _attention(attention.attention_flow, unit="share of the flow", slow_on=("vision",), half=False),
    "gradient_norm": _of_tokens(attention.gradient_norm, unit="asked per unit of embedding"),
    "gradient_x_input": _of_tokens(attention.gradient_x_input, signed=True),
    "attcat": _weighted(attention.attcat, signed=True, unit="attention × asked", family="gradient", suits=suits.pays),
    "integrated_gradients": Method(
        passes=integrated.gradients, signed=True, suits=suits.embeds, family="gradient", half=False, at_sample=False
    ),
    "generic_attention": _weighted(relevance.generic_attention),
    "attention_gradcam": _weighted(relevance.attention_gradcam),
    "transformer_attribution": _by_rules(
        passes=relevance.transformer_attribution,
        unit="gradient-weighted relevance",
        suits=suits.follows_positive_rules,
        half=False,
    ),
    "full_lrp": _by_rules(
        passes=relevance.full_lrp,
        signed=True,
        unit="share of relevance",
        suits=suits.follows_positive_rules,
        half=False,
    ),
    "cp_lrp": _by_rules(
        passes=partial(relevance.modified_gradient, "cp"), signed=True, suits=partial(suits.follows_rules, "cp")
    ),
    "attnlrp": _by_rules(
        passes=partial(relevance.modified_gradient, "attnlrp"),
        signed=True,
        suits=partial(suits.follows_rules, "attnlrp"),
    ),
    "hidden_attention": _hidden(passes=hidden.hidden_attention),
    "hidden_rollout": _hidden(passes=hidden.hidden_rollout, unit="share of the input"),
    "unified_attention": _hidden(passes=hidden.unified_attention, suits=suits.scans_texts),
    "hidden_rollout_published": _hidden(passes=hidden.hidden_rollout_published, unit="discounted hidden attention"),
    "mamba_attribution": _hidden(
        passes=hidden.mamba_attribution,
        asks=True,
        unit="gradient-weighted hidden attention",
        suits=suits.scans_channels,
    ),
    "mamba_lrp": _hidden(passes=hidden.relevance, asks=True, signed=True, unit="asked", suits=suits.scans_channels),
    "gradcam": Method(
        passes=relevance.gradcam, unit="gradient-weighted activation", suits=suits.convolves, family="gradient"
    ),
    "leave_one_out": Method(
        passes=occlusion.leave_one_out,
        signed=True,
        suits=suits.answers,
        family="removal",
        slow_on=("vision",),
        at_sample=False,
    ),
    **{
        name: Method(
            maps=partial(_closed, name),
            signed=closed_forms.FORMS[label].signed,
            unit="logit",
            suits=suits.closed,
            family="closed form",
        )
        for name, label in closed_forms.CLOSED.items()
    },
    **{
        name: Method(
            maps=partial(nulls.null, name),
            asks=name == "pixel_gradient",
            unit="none",
            suits=partial(suits.of_kind, kinds),
            family="null",
        )
        for name, kinds in nulls.NULLS.items()
    },
}
