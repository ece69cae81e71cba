"""Integrated gradients through captum, chunked, with as many steps as completeness asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor

from xai_utils import check
from xai_utils.models import removal
from xai_utils.models.encoding import Batch, patch_sums
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, given

METHOD = "gausslegendre"


def gradients(
    model: Model,
    batch: Batch,
    targets: Asked | Sequence[int],
    tolerance: float | None = 0.02,
    steps: int = 16,
    most_steps: int = 256,
    chunk: int = 32,
    word: int | None = None,
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Integrate the gradient from a baseline to the input.

    Text: at the word embeddings, from the same sentence with every word replaced (see :func:`without_words`). Pictures:
    at the pixels, from a picture of the data set's mean colour (zero after normalisation), added up by patch.

    Args:
        model: text or vision classifier.
        batch: its encoded samples.
        targets: what is asked of each sample, or its class index.
        tolerance: accepted completeness gap, as a share of ``|score(input) - score(baseline)|``; ``None`` takes
            ``steps`` for every sample, whatever the gap.
        steps: Gauss-Legendre nodes to begin with; doubled for the samples whose gap is too large.
        most_steps: where doubling stops.
        chunk: interpolated inputs in one pass; bounds the memory whatever the number of steps.
        word: of the baseline sentence, see :func:`without_words`.

    Returns:
        Per sample the scores of every position (zero at the prefix of a picture) and ``steps``, ``gap`` (absolute,
        logits), ``relative_gap`` and ``converged``.

    Source: Sundararajan, Taly & Yan (2017), arXiv:1703.01365; captum's implementation.
    """
    for name, value in (("steps", steps), ("most_steps", most_steps), ("chunk", chunk)):
        check.at_least_one(name, value)
    question = given(targets)
    found: dict[int, tuple[Tensor, dict[str, Any]]] = {}
    waiting = list(range(len(batch)))
    while waiting:
        scores, gaps, spans = _pass(model, batch, waiting, question.of(waiting), steps, chunk, word)
        relative = gaps.abs() / spans.abs().clamp(min=1e-9)
        last = tolerance is None or 2 * steps > most_steps
        for place, sample in enumerate(waiting):
            details = {
                "steps": steps,
                "gap": float(gaps[place]),
                "relative_gap": float(relative[place]),
                "converged": tolerance is not None and bool(relative[place] <= tolerance),
            }
            if details["converged"] or last:
                found[sample] = scores[place][: batch.length(sample)], details
        waiting = [sample for sample in waiting if sample not in found]
        steps *= 2
    return [found[i] for i in range(len(batch))]


def _pass(
    model: Model, batch: Batch, chosen: list[int], question: Asked, steps: int, chunk: int, word: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run captum once for some samples: scores ``(sample, position)``, gaps and score differences ``(sample,)``."""
    inputs = {name: tensor[chosen] for name, tensor in batch.inputs.items()}
    chunk = max(chunk, len(chosen))
    if batch.grid is None:
        return _words(model, inputs, question, steps, chunk, word)
    return _pixels(model, batch, inputs, question, steps, chunk)


def _words(
    model: Model, inputs: dict[str, Tensor], question: Asked, steps: int, chunk: int, word: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    ids = inputs["input_ids"]
    rest = [name for name in inputs if name != "input_ids"]

    def forward(words: Tensor, number: Tensor, *others: Tensor) -> Tensor:
        logits = model.logits({"input_ids": words, **dict(zip(rest, others, strict=True))})
        return question.of(number.tolist()).score(logits)

    others = (torch.arange(len(ids)), *(inputs[name] for name in rest))
    baseline = without_words(model, ids, word)
    module: Any = model.module
    words = module.get_input_embeddings()
    values = LayerIntegratedGradients(forward, words).attribute(
        ids, baseline, additional_forward_args=others, n_steps=steps, method=METHOD, internal_batch_size=chunk
    )
    with torch.inference_mode():
        at_input, nothing = forward(ids, *others), words(baseline)
        # Only the vectors are replaced: ids also tell RoBERTa its positions and GPT-2 its last word.
        hook = words.register_forward_hook(lambda *_: nothing)
        try:
            difference = at_input - forward(ids, *others)
        finally:
            hook.remove()
    return _with_gaps(values.sum(-1).detach(), difference)


def _pixels(
    model: Model, batch: Batch, inputs: dict[str, Tensor], question: Asked, steps: int, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    (name, pixels), *_ = inputs.items()

    def forward(images: Tensor, number: Tensor) -> Tensor:
        return question.of(number.tolist()).score(model.logits({name: images}))

    baseline, numbers = torch.zeros_like(pixels), torch.arange(len(pixels))
    values = IntegratedGradients(forward).attribute(
        pixels, baseline, additional_forward_args=(numbers,), n_steps=steps, method=METHOD, internal_batch_size=chunk
    )
    scores = patch_sums(values.detach().sum(1), batch)
    with torch.inference_mode():
        difference = forward(pixels, numbers) - forward(baseline, numbers)
    return _with_gaps(scores, difference)


def _with_gaps(scores: Tensor, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores ``(sample, position)``, their sum minus the score difference, and that difference ``(sample,)``."""
    return scores, scores.sum(1) - difference, difference


def without_words(model: Model, ids: Tensor, word: int | None = None) -> Tensor:
    """Write one word over every token of ``(batch, token)`` ids that is not special.

    Args:
        model: whose words they are.
        ids: as the model takes them.
        word: id to write; by default [PAD]. For a language model, in which [PAD] or the end of text would begin a new
            document, :data:`removal.NEUTRAL`; and its first token, which takes most attention, is kept.

    Raises:
        ValueError: nothing is known to write.
    """
    tokenizer = model.tokenizer
    if word is None and tokenizer is not None:
        word = removal.neutral_word(model) if model.head == "next" else tokenizer.pad_token_id
    if word is None:
        raise ValueError(f"the tokenizer of {model.name} has no [PAD], so there is no baseline sentence; give word=ID.")
    special = torch.tensor(tokenizer.all_special_ids if tokenizer is not None else [], device=ids.device)
    kept = torch.isin(ids, special)
    if model.head == "next":
        kept[:, 0] = True
    return torch.where(kept, ids, word)
