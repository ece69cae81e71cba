"""Take tokens of one sample away and ask the model again, for any batch of keep masks.

What is put where a token was is a choice, the *operator*, and never hidden: results may differ between operators.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from xai_utils import check
from xai_utils.encode import Batch, encode
from xai_utils.models import Model
from xai_utils.observation import Sample, targets_of

OPERATORS = {"text": ("mask", "delete"), "vision": ("mean", "blur")}
OUTPUTS = ("probability", "logit")
BLUR = 2.0  #: standard deviation of the blur, patches


def scorer(
    model: Model,
    sample: Sample,
    target: int | str | None = None,
    operator: str | None = None,
    output: str = "probability",
    batch_size: int = 64,
) -> Callable[[Tensor], Tensor]:
    """Return ``score(keep)``: how sure the model is of one class when only some tokens are kept.

    Args:
        model: text or vision model with a classifier.
        sample: one sentence or picture.
        target: class; ``None`` takes the one predicted for the whole sample.
        operator: what replaces a token. Text: ``"mask"`` puts [MASK] in its place, ``"delete"`` closes the gap. Vision:
            ``"mean"`` paints its patch in the picture's mean colour, ``"blur"`` with the blurred picture (Gaussian of
            :data:`BLUR` patches). ``None`` takes the first of these.
        output: ``"probability"`` or ``"logit"`` of the class.
        batch_size: masked samples in one pass.

    Returns:
        ``score``: takes ``keep``, ``(mask, token)`` bool over the tokens of ``encode(...).labels[0]``, and returns
        ``(mask,)`` float64 on the CPU. Special tokens of a text have to be kept.
    """
    operator = OPERATORS[model.kind][0] if operator is None else operator
    check.one_of(f"operator for {model.kind}", operator, OPERATORS[model.kind])
    check.one_of("output", output, OUTPUTS)
    check.at_least_one("batch_size", batch_size)
    batch = encode(model, [sample])
    with torch.inference_mode():
        chosen = targets_of(model, model.logits(batch.inputs), target)
    assert chosen is not None
    replace = _texts(model, batch, operator) if model.kind == "text" else _pictures(batch, operator)

    @torch.inference_mode()
    def score(keep: Tensor) -> Tensor:
        _fits(keep, batch)
        logits = torch.cat([model.logits(replace(some.to(model.device))) for some in keep.split(batch_size)])
        values = logits.double().softmax(-1) if output == "probability" else logits.double()
        return values[:, chosen[0]].cpu()

    return score


def _fits(keep: Tensor, batch: Batch) -> None:
    tokens = len(batch.labels[0])
    if keep.dtype != torch.bool or keep.ndim != 2 or keep.shape[1] != tokens or not len(keep):
        raise ValueError(f"keep is {keep.dtype} {tuple(keep.shape)}, expected bool (mask, {tokens} tokens).")
    special = [i for i, (start, end) in enumerate(batch.spans[0]) if start == end] if batch.spans else []
    if not keep[:, special].all():
        raise ValueError("a mask removes a special token, which the model always reads; leave it out of the order.")


def _texts(model: Model, batch: Batch, operator: str) -> Callable[[Tensor], dict[str, Tensor]]:
    tokenizer, inputs = model.tokenizer, batch.inputs

    def mask(keep: Tensor) -> dict[str, Tensor]:
        many = {name: values.expand(len(keep), -1) for name, values in inputs.items()}
        return many | {"input_ids": many["input_ids"].where(keep, tokenizer.mask_token_id)}

    def delete(keep: Tensor) -> dict[str, Tensor]:
        kept_first = (~keep).int().argsort(dim=1, stable=True)[:, : int(keep.sum(1).max())]
        many = {name: values.expand(len(keep), -1).gather(1, kept_first) for name, values in inputs.items()}
        there = keep.gather(1, kept_first)
        ids = many["input_ids"].where(there, tokenizer.pad_token_id)
        return many | {"input_ids": ids, "attention_mask": there.to(inputs["attention_mask"].dtype)}

    if operator == "mask" and tokenizer.mask_token_id is None:
        raise ValueError(f"{model.name} has no mask token; take operator='delete'.")
    return mask if operator == "mask" else delete


def _pictures(batch: Batch, operator: str) -> Callable[[Tensor], dict[str, Tensor]]:
    ((name, pixels),) = batch.inputs.items()
    assert batch.grid is not None
    rows, columns = (side // count for side, count in zip(pixels.shape[-2:], batch.grid, strict=True))
    if operator == "mean":
        instead = pixels.mean((-2, -1), keepdim=True)
    else:
        spread = (0, 0, BLUR * rows, BLUR * columns)
        instead = torch.from_numpy(gaussian_filter(pixels.cpu().numpy(), spread)).to(pixels)

    def replace(keep: Tensor) -> dict[str, Tensor]:
        shown = keep.unflatten(1, batch.grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)  # type: ignore[arg-type]
        return {name: pixels.where(shown[:, None], instead)}

    return replace
