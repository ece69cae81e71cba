"""Take tokens of samples away and ask the model again, for any batch of keep masks; or cut what is too long.

What is put where a token was is a choice, the *operator*, and never hidden: results may differ between operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from xai_utils import check, runtime
from xai_utils.models import memory
from xai_utils.models.encoding import Batch, encode, limit, tokens_of
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Question, Target, asked
from xai_utils.samples.kinds import Sample, Text

OPERATORS = {"text": ("mask", "delete", "unknown", "word"), "vision": ("mean", "blur", "black")}
OUTPUTS = ("probability", "logit")
BLUR = 2.0  #: standard deviation of the blur, patches
NEUTRAL = "the"  #: what the operator "word" writes
Replace = Callable[[Tensor], dict[str, Tensor]]


def operators_for(model: Model) -> tuple[str, ...]:
    """Return the operators that a model knows; a text model without a mask token has no ``"mask"``, and so on."""
    known = OPERATORS[model.kind]
    if model.kind == "vision":
        return known
    if model.tokenizer is None:
        return ("delete",)
    if model.head == "mask":  # a second [MASK] would be a second question
        known = ("delete", "unknown", "word")
    if model.head == "next":  # <|endoftext|>, which stands for unknown words, would begin a new document
        known = ("delete", "word")
    return tuple(one for one in known if one == "delete" or _token(model, one))


def places(batch: Batch, sample: int = 0) -> Tensor:
    """Return the tokens of a sample that may go, all but specials, ``(rank,)``."""
    if not batch.spans:
        return torch.arange(len(batch.labels[sample]))
    return torch.tensor([i for i, (start, end) in enumerate(batch.spans[sample]) if start < end])


def shortened(model: Model, texts: Sequence[Text], tokens: int | None = None) -> list[Text]:
    """Cut texts that are too long behind so many tokens; their names and the record say so, and others stay.

    What is left is read by the same tokens as before; a rationale behind the cut, or across it, is dropped.

    Args:
        model: a text model.
        texts: single ones; a pair that is too long is refused, because it is not known which of the two matters.
        tokens: specials among them; ``None`` takes as many as the model reads.

    Raises:
        ValueError: a pair that would be cut, or no room for one token of a text beside the specials.
    """
    most = limit(model) if tokens is None else tokens
    check.at_least_one("tokens", most)
    found = [_shortened(model, one, most) for one in texts]
    cut = sum(one is not other for one, other in zip(texts, found, strict=True))
    if cut:
        runtime.record.data[f"texts for {model.name}"] = f"{cut} of {len(texts)} cut after {most} tokens"
    return found


def _shortened(model: Model, sample: Text, most: int) -> Text:
    ids, ends = _own_tokens(model, sample)
    total = len(tokens_of(model, sample)[0]["input_ids"])
    if total <= most:
        return sample
    if sample.second:
        raise ValueError(f"{sample.name!r} is a pair of {total} tokens, and only single texts are cut; shorten it.")
    for kept in range(most - (total - len(ids)), 0, -1):
        spans = tuple(span for span in sample.rationale if span[1] <= ends[kept - 1])
        name = f"{sample.name}, first {kept} of {len(ids)} tokens"
        cut = replace(sample, text=sample.text[: ends[kept - 1]], name=name, rationale=spans)
        if _own_tokens(model, cut)[0] == ids[:kept]:  # half a word may be read otherwise
            return cut
    raise ValueError(f"{most} tokens leave no room for {sample.name!r} beside {total - len(ids)} specials; take more.")


def _own_tokens(model: Model, sample: Text) -> tuple[list[int], list[int]]:
    """Return the ids of a text without specials, and where each of them ends."""
    coded, spans = tokens_of(model, sample)
    own = [(one, end) for one, (start, end) in zip(coded["input_ids"], spans, strict=True) if start < end]
    return [one for one, _ in own], [end for _, end in own]


def scorer(
    model: Model,
    sample: Sample,
    target: Target = None,
    operator: str | None = None,
    output: str = "probability",
    batch_size: int = 64,
) -> Callable[[Tensor], Tensor]:
    """Return ``score(keep)``: how sure the model is of one class when only some tokens are kept.

    Args:
        model: text or vision model with a classifier.
        sample: one sentence or picture.
        target: class; ``None`` takes the one predicted for the whole sample. Or a question, which names its kind.
        operator: what replaces a token. Text: ``"mask"`` puts [MASK] in its place, ``"unknown"`` [UNK], ``"word"`` the
            word :data:`NEUTRAL`; ``"delete"`` closes the gap (where nothing is left of a prompt, a language model reads
            the token that begins a document). Vision: ``"mean"`` paints its patch in the picture's mean colour,
            ``"blur"`` with the blurred picture (Gaussian of :data:`BLUR` patches), ``"black"`` in black.
            ``None`` takes the first of these.
        output: ``"probability"`` or ``"logit"`` of the class.
        batch_size: masked samples in one pass, at most; fewer where memory is short.

    Returns:
        ``score``: takes ``keep``, ``(mask, token)`` bool over the tokens of ``encode(...).labels[0]``, and returns
        ``(mask,)`` float64 on the CPU. Special tokens of a text have to be kept.
    """
    operator = operators_for(model)[0] if operator is None else operator
    check.one_of("output", output, OUTPUTS)
    check.at_least_one("batch_size", batch_size)
    whole = target if isinstance(target, Question) else Question(target, kind=output)
    batch = encode(model, [sample])
    replace = replacer(model, batch, operator)
    with torch.inference_mode():
        question = asked(model, model.logits(batch.inputs), whole)
    assert question is not None

    def score(keep: Tensor) -> Tensor:
        _fits(keep, batch)
        return question.of([0] * len(keep)).score(_ask(model, [(replace, keep)], batch_size, memory.BUDGET))

    return score


def ask(
    model: Model,
    batches: Sequence[Batch],
    keeps: Sequence[Mapping[str, Tensor]],
    batch_size: int = 64,
    budget: int = memory.BUDGET,
) -> list[dict[str, Tensor]]:
    """Ask the model about masks of many samples in full batches.

    Args:
        model: text or vision model with a classifier.
        batches: of one sample each, from :func:`encoding`.
        keeps: for each sample, operator to ``(mask, token)`` bool.
        batch_size: masked samples in one pass, at most.
        budget: bytes that a pass may take (see :mod:`memory`); where memory runs out all the same, batches are halved.

    Returns:
        For each sample, operator to logits ``(mask, class)``, float64 on the CPU.
    """
    check.at_least_one("batch_size", batch_size)
    for batch, masks in zip(batches, keeps, strict=True):
        for keep in masks.values():
            _fits(keep, batch)
    asked = [(i, name) for i, masks in enumerate(keeps) for name in masks]
    asked.sort(key=lambda one: -len(batches[one[0]].labels[0]))  # longest first: the first row sets the batch size
    found = _ask(model, [(replacer(model, batches[i], name), keeps[i][name]) for i, name in asked], batch_size, budget)
    pieces = found.split([len(keeps[i][name]) for i, name in asked])
    answers: list[dict[str, Tensor]] = [{} for _ in batches]
    for (i, name), piece in zip(asked, pieces, strict=True):
        answers[i][name] = piece
    return answers


def replacer(model: Model, batch: Batch, operator: str) -> Replace:
    """Return ``replace(keep)``, which makes the model's inputs for masks of the one sample in ``batch``."""
    check.one_of(f"operator for {model.kind}", operator, OPERATORS[model.kind])
    return _texts(model, batch, operator) if model.kind == "text" else _pictures(model, batch, operator)


@torch.inference_mode()
def _ask(model: Model, questions: Sequence[tuple[Replace, Tensor]], batch_size: int, budget: int) -> Tensor:
    """Return logits for the masks of all questions, one below the other, float64 on the CPU."""
    rows = [(number, row) for number, (_, keep) in enumerate(questions) for row in range(len(keep))]

    def logits(chosen: Tensor) -> Tensor:
        pieces = []
        for number, some in groupby([rows[i] for i in chosen.tolist()], key=lambda one: one[0]):
            replace, keep = questions[number]
            pieces.append(replace(keep[[row for _, row in some]].to(model.device)))
        return model.logits(_together(model, pieces)).double().cpu()

    numbers = torch.arange(len(rows))
    return memory.in_chunks(logits, numbers, min(batch_size, memory.chunk_size(logits, numbers, budget)))


def _together(model: Model, pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join inputs; texts are padded to the longest."""
    if len(pieces) == 1:
        return pieces[0]
    if model.kind == "vision":
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    longest = max(piece["input_ids"].shape[1] for piece in pieces)

    def padded(name: str, values: Tensor) -> Tensor:
        filler = _filler(model) if name == "input_ids" else 0
        return F.pad(values, (0, longest - values.shape[1]), value=filler)

    return {name: torch.cat([padded(name, piece[name]) for piece in pieces]) for name in pieces[0]}


def _fits(keep: Tensor, batch: Batch) -> None:
    tokens = len(batch.labels[0])
    if keep.dtype != torch.bool or keep.ndim != 2 or keep.shape[1] != tokens or not len(keep):
        raise ValueError(f"keep is {keep.dtype} {tuple(keep.shape)}, expected bool (mask, {tokens} tokens).")
    special = [i for i, (start, end) in enumerate(batch.spans[0]) if start == end] if batch.spans else []
    if not keep[:, special].all():
        raise ValueError("a mask removes a special token, which the model always reads; leave it out of the order.")


def _beginning(model: Model) -> int:
    """Return the token that begins a document, which a language model reads where a whole prompt is gone."""
    tokenizer = model.tokenizer
    known = [] if tokenizer is None else [tokenizer.bos_token_id, tokenizer.eos_token_id]
    for one in known:
        if one is not None:
            return int(one)
    raise ValueError(f"nothing is left of a prompt, and {model.name} has no token that begins one; keep a token.")


def _filler(model: Model) -> int:
    """Return what stands where nothing is read."""
    return 0 if model.tokenizer is None or model.tokenizer.pad_token_id is None else model.tokenizer.pad_token_id


def _token(model: Model, operator: str) -> int | None:
    """Return the token that an operator writes; ``None`` if the vocabulary has none."""
    tokenizer = model.tokenizer
    if operator == "mask":
        return tokenizer.mask_token_id
    return neutral_word(model) if operator == "word" else tokenizer.unk_token_id


def neutral_word(model: Model) -> int | None:
    """Return the id of :data:`NEUTRAL`; ``None`` where it is no single token."""
    blank = " " if model.head == "next" else ""
    ids = model.tokenizer(f"{blank}{NEUTRAL}", add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and ids[0] != model.tokenizer.unk_token_id else None


def _texts(model: Model, batch: Batch, operator: str) -> Replace:
    inputs = batch.inputs

    def delete(keep: Tensor) -> dict[str, Tensor]:
        kept_first = (~keep).int().argsort(dim=1, stable=True)[:, : max(int(keep.sum(1).max()), 1)]
        many = {name: values.expand(len(keep), -1).gather(1, kept_first) for name, values in inputs.items()}
        there = keep.gather(1, kept_first)
        ids = many["input_ids"].where(there, _filler(model))
        if model.head == "next" and not there.any(1).all():
            empty = ~there.any(1)
            ids[empty, 0], there[empty, 0] = _beginning(model), True
        return many | {"input_ids": ids, "attention_mask": there.to(inputs["attention_mask"].dtype)}

    if operator == "delete":
        return delete
    token = _token(model, operator)
    if token is None:
        kind = {"mask": "mask token", "unknown": "token for unknown words", "word": f"single token for {NEUTRAL!r}"}
        raise ValueError(f"{model.name} has no {kind[operator]}; take operator='delete'.")

    def write(keep: Tensor) -> dict[str, Tensor]:
        many = {name: values.expand(len(keep), -1) for name, values in inputs.items()}
        return many | {"input_ids": many["input_ids"].where(keep, token)}

    return write


def _pictures(model: Model, batch: Batch, operator: str) -> Replace:
    ((name, pixels),) = batch.inputs.items()
    assert batch.grid is not None
    rows, columns = (side // count for side, count in zip(pixels.shape[-2:], batch.grid, strict=True))
    if operator == "mean":
        instead = pixels.mean((-2, -1), keepdim=True)
    elif operator == "black":
        if model.preprocessing is None:
            raise ValueError(f"{model.name} has no preprocessing, so black is not known; take operator='mean'.")
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (model.preprocessing.mean, model.preprocessing.std))
        instead = (-mean / std).to(pixels)
    else:
        spread = (0, 0, BLUR * rows, BLUR * columns)
        instead = torch.from_numpy(
            gaussian_filter(pixels.to(torch.promote_types(pixels.dtype, torch.float32)).cpu().numpy(), spread)
        ).to(pixels)

    def replace(keep: Tensor) -> dict[str, Tensor]:
        shown = keep.unflatten(1, batch.grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)  # type: ignore[arg-type]
        return {name: pixels.where(shown[:, None], instead)}

    return replace
