"""One way to ask: which number of a model's answer an explanation follows down.

A question names a class (or a word), perhaps another one against it, and a row of :data:`TARGETS`. Observation,
relevance, integrated gradients, removal and metrics all take the :class:`Asked` that becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.models.kinds import UNITS, Model

Class = int | str | Sequence[int | str] | None  #: one for all samples, one for each, or the predicted ones


@dataclass(frozen=True)
class Kind:
    """One line of the table of targets.

    Attributes:
        score: ``(logits or probabilities of the class, the same of the other class or None) -> number``, ``(sample,)``.
        unit: of the number.
        of: what ``score`` is given: ``"logits"`` or ``"probabilities"``.
        against: whether there is another class.
    """

    score: Callable[[Tensor, Tensor | None], Tensor]
    unit: str
    of: str = "logits"
    against: bool = False


def _difference(one: Tensor, other: Tensor | None) -> Tensor:
    assert other is not None
    return one - other


TARGETS: dict[str, Kind] = {
    "logit": Kind(lambda one, _: one, "logit"),
    "difference": Kind(_difference, "logit", against=True),
    "probability": Kind(lambda one, _: one, "probability", of="probabilities"),
    "log_probability": Kind(lambda one, _: one.log(), "log-probability", of="probabilities"),
}


@dataclass(frozen=True)
class Question:
    """A target in full.

    Attributes:
        target: class index or name (or a word), one for all samples or a list; ``None`` for the predicted one.
        against: likewise, the class that it is set against.
        kind: a name in :data:`TARGETS`; ``"difference"`` if there is a class against, else ``"logit"``.
    """

    target: Class = None
    against: Class = None
    kind: str = ""

    def __post_init__(self) -> None:
        kind = self.kind or ("logit" if self.against is None else "difference")
        check.one_of("kind of target", kind, tuple(TARGETS))
        object.__setattr__(self, "kind", kind)
        if TARGETS[kind].against != (self.against is not None):
            needs = "needs a class against" if TARGETS[kind].against else "takes no class against"
            raise ValueError(f"the target {kind!r} {needs}; against is {self.against!r}.")


Target = Class | Question  #: what a caller may ask


@dataclass(frozen=True)
class Asked:
    """What is asked of every sample of a batch, resolved to numbers of the answer.

    Attributes:
        targets: class of each sample.
        against: the other class of each, or ``None``.
        kind: a name in :data:`TARGETS`.
        link: of the model, see :attr:`kinds.Model.link`.
        names: of what is asked, one a sample.
    """

    targets: tuple[int, ...]
    against: tuple[int, ...] | None = None
    kind: str = "logit"
    link: str = "softmax"
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def unit(self) -> str:
        """Unit of the number that is asked for; the one number of a regression head is just that."""
        return UNITS.get(self.link, TARGETS[self.kind].unit)

    def score(self, logits: Tensor) -> Tensor:
        """Return the number asked for of every row of ``(sample, answer)``, ``(sample,)``, attached to the graph."""
        row = TARGETS[self.kind]
        values = probabilities(logits, self.link) if row.of == "probabilities" else logits
        other = None if self.against is None else _at(values, self.against)
        return row.score(_at(values, self.targets), other)

    def seed(self, logits: Tensor) -> Tensor:
        """Return the gradient of the numbers by the logits, where a backward pass begins, ``(sample, answer)``."""
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.score(leaf).sum(), leaf)[0]

    def must_slope(self, logits: Tensor) -> None:
        """Raise ``ValueError`` for a sample that is its own reference: the gradient of its cosine is zero."""
        if self.link != "cosine" or self.against is not None:
            return
        flat = 1 - self.score(logits).abs() < 8 * torch.finfo(logits.dtype).eps
        if flat.any():
            raise ValueError(
                f"{int(flat.sum())} of {len(flat)} samples cannot be told from their reference. A cosine is greatest "
                "there, so its gradient is zero and only rounding errors would be shown. Take another reference, "
                "measure='projection', or a method that goes elsewhere: integrated_gradients or leave_one_out."
            )

    def of(self, chosen: Sequence[int]) -> Asked:
        """Return what is asked of some samples, in this order; one sample may be named many times."""
        against = None if self.against is None else tuple(self.against[i] for i in chosen)
        names = tuple(self.names[i] for i in chosen) if self.names else ()
        return Asked(tuple(self.targets[i] for i in chosen), against, self.kind, self.link, names)


def _at(values: Tensor, classes: Sequence[int]) -> Tensor:
    return values.gather(-1, torch.tensor(classes, device=values.device)[:, None]).squeeze(-1)


def probabilities(logits: Tensor, link: str = "softmax") -> Tensor:
    """Turn ``(..., answer)`` logits into probabilities; ``ValueError`` for a head of one number, which has none."""
    if link in UNITS:
        raise ValueError(f"{_what(link)} has no probability; ask for the number itself (kind 'logit').")
    return logits.sigmoid() if link == "sigmoid" else logits.softmax(-1)


def _what(link: str) -> str:
    return "one number" if link == "none" else f"a {link}"


def asked(model: Model, logits: Tensor | int, target: Target = None) -> Asked | None:
    """Resolve a question for a batch.

    Args:
        model: whose answer it is.
        logits: ``(sample, answer)``; or the number of samples, where the question names its classes.
        target: see :class:`Question`; ``None`` asks for the predicted class.

    Returns:
        The resolved question; ``None`` for a model without a head.

    Raises:
        ValueError: an unknown class or word, a number of classes that is not that of samples, or a class asked of a
            model without a head.
    """
    question = target if isinstance(target, Question) else Question(target)
    if not model.classes:
        if question != Question():
            first = question.target if isinstance(question.target, (int, str, type(None))) else question.target[0]
            raise ValueError(f"{model.name} has no classifier, so there is no class {first!r}.")
        return None
    count = logits if isinstance(logits, int) else len(logits)
    if question.target is None:
        if isinstance(logits, int):
            raise ValueError("no class is named, so the model's answer is needed to find the predicted one.")
        targets = tuple(logits.argmax(-1).tolist())
    else:
        targets = _resolved(model, question.target, count)
    against = None if question.against is None else _resolved(model, question.against, count)
    names = tuple(model.classes[one] for one in targets)
    if against is not None:
        names = tuple(f"{name} − {model.classes[other]}" for name, other in zip(names, against, strict=True))
    if TARGETS[question.kind].of == "probabilities" and model.link in UNITS:
        what = _what(model.link)
        raise ValueError(f"{model.name} gives {what} and no probability; ask for the number itself (kind 'logit').")
    return Asked(targets, against, question.kind, model.link, names)


def needs_answer(target: Target) -> bool:
    """Whether the model has to answer before a question is complete: no class is named."""
    return target is None or (isinstance(target, Question) and target.target is None)


def given(targets: Asked | Sequence[int]) -> Asked:
    """Take classes as they are: an :class:`Asked`, or one class index a sample, whose logits are asked for."""
    return targets if isinstance(targets, Asked) else Asked(tuple(int(one) for one in targets))


def per_sample(target: Target, count: int) -> list[Target]:
    """Take a question apart, one for each sample."""
    question = target if isinstance(target, Question) else Question(target)
    return [
        Question(one, other, question.kind)
        for one, other in zip(_each(question.target, count), _each(question.against, count), strict=True)
    ]


def together(questions: Sequence[Target]) -> Target:
    """Put questions of single samples, as :func:`per_sample` makes them, together again."""
    whole = [one if isinstance(one, Question) else Question(one) for one in questions]
    target, against = [one.target for one in whole], [one.against for one in whole]
    return Question(
        None if None in target else target,  # type: ignore[arg-type]
        None if None in against else against,  # type: ignore[arg-type]
        whole[0].kind,
    )


def _each(classes: Class, count: int) -> Sequence[int | str | None]:
    if classes is None or isinstance(classes, (int, str)):
        return [classes] * count
    if len(classes) != count:
        raise ValueError(f"{len(classes)} classes are given for {count} samples; expected one for each, or one.")
    return classes


def _resolved(model: Model, classes: Class, count: int) -> tuple[int, ...]:
    return tuple(model.class_index(one) for one in _each(classes, count))  # type: ignore[arg-type]
