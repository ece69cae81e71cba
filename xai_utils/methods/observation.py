"""One captured pass over a batch: everything that attention and gradient methods look at, kept for redrawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.capture.attention import Trace, capture_attention, capture_states, start_gradients
from xai_utils.capture.scans import capture_scans, scanning
from xai_utils.maths.hidden_maps import direction_maps
from xai_utils.models.encoding import Batch, encode, specimen
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, Target, asked
from xai_utils.samples.kinds import Sample


@dataclass(frozen=True)
class View:
    """What a method sees of one sample; no padding, prefix tokens included.

    Attributes:
        attention: ``(layer, head, query, key)``.
        gradient: of the number asked for by ``attention``, same shape, or ``None``.
        states: what enters each block (behind BERT's embedding LayerNorm) and leaves the last one, ``(layer + 1, token,
            width)``, or ``None``.
        state_gradients: of the number asked for by ``states``, same shape, or ``None``.
        readers: ``(token,)`` bool, the positions whose final state the answer is read from ([CLS]; also the
            distillation token where there are two heads; [MASK]), or ``None``.
        prefix: leading positions of a picture that stand for no patch.
        reading: the position that row methods read, the first of them if there are several.
    """

    attention: Tensor
    gradient: Tensor | None = None
    states: Tensor | None = None
    state_gradients: Tensor | None = None
    readers: Tensor | None = None
    prefix: int = 0
    reading: int = 0

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions that row methods read: [CLS], the last token of a decoder, or all where their mean is read."""
        found = (self.reading,) if self.readers is None else tuple(self.readers.nonzero()[:, 0].tolist())
        return found or (self.reading,)

    @property
    def embedding(self) -> Tensor | None:
        """``(token, width)`` entering the first block, or ``None``."""
        return None if self.states is None else self.states[0]

    @property
    def embedding_gradient(self) -> Tensor | None:
        """Gradient at :attr:`embedding`, or ``None``."""
        return None if self.state_gradients is None else self.state_gradients[0]


@dataclass(frozen=True)
class Observation:
    """One captured pass over a batch, detached from the model.

    Attributes:
        model: the model.
        batch: the encoded samples.
        attention: ``(layer, sample, head, query, key)``, padded to the longest sample; no layer where the model shows
            none that can be read (see :func:`suits.attends`).
        asked: what is asked of each sample; ``None`` for a model without a head.
        logits: ``(sample, answer)`` or ``None``.
        reading: the position that each answer is read from, ``(sample,)``; the first of them if there are several.
        gradient: of the sum of the numbers asked for by ``attention``, or ``None``.
        states: ``(layer + 1, sample, token, width)``, see :class:`View`, or ``None``.
        state_gradients: likewise.
        readers: ``(sample, token)`` bool, see :class:`View`, or ``None``.
    """

    model: Model
    batch: Batch
    attention: Tensor
    asked: Asked | None
    logits: Tensor | None
    reading: Tensor
    gradient: Tensor | None = None
    states: Tensor | None = None
    state_gradients: Tensor | None = None
    readers: Tensor | None = None

    @property
    def targets(self) -> tuple[int, ...] | None:
        """Class index of each sample; ``None`` for a model without a head."""
        return None if self.asked is None else self.asked.targets

    def view(self, sample: int) -> View:
        """Return one sample without its padding."""
        n = self.batch.length(sample)

        def square(maps: Tensor | None) -> Any:
            return None if maps is None else maps[:, sample, :, :n, :n]

        def rows(states: Tensor | None) -> Any:
            return None if states is None else states[:, sample, :n]

        return View(
            square(self.attention), square(self.gradient), rows(self.states), rows(self.state_gradients),
            None if self.readers is None else self.readers[sample, :n], self.batch.prefix, int(self.reading[sample]),
        )  # fmt: skip


def observe(
    model: Model,
    samples: Sequence[Sample] | Mapping[str, Tensor],
    target: Target = None,
    gradient: bool = True,
    specials: str = "kept",
    maps: bool = True,
) -> Observation:
    """Run one captured forward pass, and one backward pass from what is asked if ``gradient``.

    The numbers asked of all samples are added and back-propagated once; samples do not meet in the model, so each
    gets its own gradient. Memory: ``layers x batch x heads x tokens² x 4`` bytes for the maps, twice with gradients.

    Of Vision Mamba, ``attention`` is its hidden attention as shares, one "head" for each direction (see
    :func:`hidden_maps.direction_maps`), with the class token moved from the middle to the front; of a Mamba of texts,
    with its one direction. It has no gradient of its own (``mamba_attribution`` takes it on the scans).

    Args:
        model: the model.
        samples: sentences or pictures, or tensors of one's own (see :func:`encoding.encode`).
        target: what is asked, see :class:`targets.Question`.
        gradient: also go back.
        specials: ``"kept"``, or ``"masked"``: hide special tokens but [MASK] from attention (another model, published
            for gender scores).
        maps: of a Mamba, also work out its hidden attention, which takes ten times as long as both passes; without it
            there is no layer in ``attention``.
    """
    batch = encode(model, samples)
    if gradient and not model.classes:
        raise ValueError(f"{model.name} has no classifier, so no class to explain; try minilm-sst2.")
    if model.padding != "any" and len(batch) > 1:
        raise ValueError(
            f"{model.name} reads padding, so it takes one text at a time; methods.explain does so by itself."
        )
    if scanning(model.module):
        return _observe_scans(model, batch, target, gradient, maps)
    inputs = batch.inputs if specials == "kept" else without_specials(model, batch.inputs)
    seen = sees(model)
    if seen.attention:
        with torch.set_grad_enabled(gradient), capture_states(model.module) as trace:
            return _observed(model, batch, inputs, target, gradient, trace)
    with torch.set_grad_enabled(gradient), capture_attention(model.module, model.blocks, hidden=gradient) as trace:
        return _observed(model, batch, inputs, target, gradient, trace)


def _observed(
    model: Model, batch: Batch, inputs: Mapping[str, Tensor], target: Target, gradient: bool, trace: Trace
) -> Observation:
    """Run the passes of :func:`observe` inside a capture."""
    logits, question = _answer(model, inputs, target)
    positions = max(batch.length(i) for i in range(len(batch)))
    if trace.attention and (reason := placed(trace.attention, positions)):
        raise TypeError(f"the attention of {model.name} cannot be read: {reason}")
    attention = trace.stack() if trace.attention else torch.zeros(0, len(batch), 1, positions, positions)
    if not gradient:
        readers = _read_positions(model, batch, inputs)
        return Observation(model, batch, attention, question, logits, _first(readers), readers=readers)
    assert logits is not None and question is not None
    question.must_slope(logits.detach())
    question.score(logits).sum().backward()
    if len({state.shape for state in trace.hidden}) != 1:
        raise TypeError(f"the blocks of {model.name} do not keep their tokens, so there is no gradient at each.")
    slopes = torch.stack([trace.hidden_grad(place) for place in range(len(trace.hidden))])
    states, readers = torch.stack([state.detach() for state in trace.hidden]), slopes[-1].any(-1)
    maps, slope = (trace.stack(), trace.stack_grad()) if trace.attention else (attention, None)
    return Observation(model, batch, maps, question, logits.detach(), _first(readers), slope, states, slopes, readers)


@dataclass(frozen=True)
class Seen:
    """What can be seen of a model: ``""``, or the reason why its attention, states, words or gradients cannot."""

    attention: str = ""
    states: str = ""
    words: str = ""
    gradients: str = ""


_SEEN: WeakKeyDictionary[nn.Module, Seen] = WeakKeyDictionary()
_READ: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()  #: by how an encoder's tokens are pooled


def sees(model: Model) -> Seen:
    """Try once what can be seen of a model of an unknown architecture; those of the table are known."""
    blind = model.kind == "vision" and model.preprocessing is None  # it is not known which pictures it takes
    if model.blocks is not None or blind or scanning(model.module):
        return Seen()
    if model.module not in _SEEN:
        inputs, positions = specimen(model)
        _SEEN[model.module] = Seen(*(see(model, inputs, positions) for see in (_attention, _states, _words, _slopes)))
    return _SEEN[model.module]


def _attention(model: Model, inputs: dict[str, Tensor], positions: int) -> str:
    """Look at the attention, and see that the model answers as it does when nobody looks."""
    with torch.no_grad():
        plain = model.run(inputs)
        try:
            with capture_attention(model.module) as trace:
                seen = model.run(inputs)
        except (TypeError, RuntimeError, ValueError) as error:
            return str(error)
    near = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1
    if (plain - seen).abs().max() > near * plain.abs().max():
        return f"the model answers otherwise where it shows its attention, by {float((plain - seen).abs().max()):.2g}."
    return placed(trace.attention, positions)


def _states(model: Model, inputs: dict[str, Tensor], positions: int) -> str:
    try:
        with torch.no_grad(), capture_states(model.module) as trace:
            model.run(inputs)
    except (TypeError, ValueError) as error:
        return str(error)
    rows = len(next(iter(inputs.values())))
    wrong = [tuple(state.shape) for state in trace.hidden if state.shape[:-1] != (rows, positions)]
    if wrong and wrong[0][:-1] == (positions, rows):
        return "its blocks take tokens first and samples second, as no other model does."
    if wrong:
        return f"a block takes {wrong[0]}, but {rows} samples of {positions} tokens were given."
    return "" if trace.hidden else "its blocks run without being called as modules, so what they take is not seen."


def _words(model: Model, inputs: dict[str, Tensor], positions: int) -> str:
    """See whether as many words are embedded as were given, and other vectors may be put in their place."""
    module: Any = model.module
    if model.kind == "vision" or not hasattr(module, "get_input_embeddings"):
        return ""
    seen: list[Tensor] = []

    def put(_module: nn.Module, _args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise RuntimeError("they come with scales of their own, as in I-BERT")
        seen.append(output)
        return output.detach().requires_grad_()

    handle = module.get_input_embeddings().register_forward_hook(put)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            model.run({name: values.clone() for name, values in inputs.items()})
    except RuntimeError as error:
        return f"no other vectors can be put in place of its words: {str(error).rstrip('.')}. Try leave_one_out."
    finally:
        handle.remove()
    if len(seen) == 1 and seen[0].shape[1] == positions:
        return ""
    told = [tuple(one.shape) for one in seen]
    if len(seen) == 1 and seen[0].shape[0] == positions:
        return "it embeds tokens first and samples second, as no other model does. Try leave_one_out."
    return f"it embeds {told}, but {positions} words were given: it pads them by itself. Try leave_one_out."


def _slopes(model: Model, inputs: dict[str, Tensor], positions: int) -> str:
    """See whether what the model makes can be taken back to its input (RWKV writes over what that needs)."""
    given = {name: values.clone() for name, values in inputs.items()}
    try:
        with torch.inference_mode(False), torch.enable_grad(), ExitStack() as undo:
            start_gradients(model.module, undo)
            model.run(given).sum().backward()
    except (RuntimeError, TypeError) as error:
        return f"gradients do not pass through it: {str(error).split(':')[0].rstrip('.')}. Try leave_one_out."
    return ""


def placed(maps: Sequence[Tensor], positions: int) -> str:
    """Check that maps are attention over the tokens that were encoded; the one place where positions are compared.

    Args:
        maps: of every layer, ``(sample, head, query, key)``.
        positions: tokens of the longest sample; of a picture its patches and prefix tokens.

    Returns:
        ``""``, or what is wrong.
    """
    for layer, one in enumerate(maps):
        if one.ndim != 4 or one.shape[-2:] != (positions, positions):
            return (
                f"layer {layer} shows a map {tuple(one.shape)}, but {positions} tokens were given, each to each. "
                "Models of windows (Swin, Longformer) or stages have no map of all tokens; try integrated_gradients."
            )
        if one.min() < 0 or (one.sum(-1) - 1).abs().max() > 0.02:
            return f"the rows of layer {layer} are no shares: they do not add up to 1."
    return "" if maps else "it shows no attention."


#: where an answer can be read from: ``(positions, number of prefix tokens, last position) -> bool``
READERS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "first": lambda at, _prefix, _last: at == 0,
    "last": lambda at, _prefix, last: at == last,
    "patches": lambda at, prefix, _last: at >= prefix,
    "prefix": lambda at, prefix, _last: at < prefix,
}


def _read_positions(model: Model, batch: Batch, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the positions that each answer is read from, ``(sample, token)`` bool.

    Of a classifier they are those whose final state has a gradient; they are looked for once and follow a rule.
    A picture's encoder without a head and without [CLS] is read by the mean of its patches.
    """
    lengths = [batch.length(i) for i in range(len(batch))]
    if model.classes and model.head != "classes":
        return F.one_hot(model.reading(inputs), max(lengths)).bool()
    known, pooling = _READ.setdefault(model.module, {}), str(model.compare and model.compare.pooling)
    rule = known.get(pooling, "") if model.classes else "first" if batch.prefix or not batch.grid else "patches"
    if not rule:
        found = _with_gradient(model, inputs)
        if min(lengths) > batch.prefix + 2:
            rules = (name for name in READERS if torch.equal(found, _by_rule(name, batch.prefix, lengths).to(found)))
            known[pooling] = next(rules, "")
        return found
    return _by_rule(rule, batch.prefix, lengths).to(model.device)


def _by_rule(rule: str, prefix: int, lengths: Sequence[int]) -> Tensor:
    at = torch.arange(max(lengths))
    return torch.stack([READERS[rule](at, prefix, length - 1) & (at < length) for length in lengths])


def _with_gradient(model: Model, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the positions whose final state the answer depends on."""
    with torch.inference_mode(False), torch.enable_grad(), capture_states(model.module) as trace:
        given = {name: values.clone() for name, values in inputs.items()}
        if model.compare is None:
            model.logits(given).amax(-1).sum().backward()
        else:  # a cosine may have its greatest value here; a sum of unequal weights has not
            found = model.embedding(given, model.compare.pooling)
            (found @ torch.linspace(-1, 1, found.shape[1]).to(found)).sum().backward()
        return trace.hidden_grad(-1).any(-1)


def _first(readers: Tensor) -> Tensor:
    return readers.long().argmax(1)


def _answer(model: Model, inputs: Mapping[str, Tensor], target: Target) -> tuple[Tensor | None, Asked | None]:
    """Run the model inside a capture; of one without a head there is nothing to ask."""
    found = model.run(inputs)
    return (found, asked(model, found, target)) if model.classes else (None, asked(model, 0, target))


def without_specials(model: Model, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hide [CLS], [SEP] and their like from attention, [MASK] not."""
    ids = inputs["input_ids"]
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
    return {**inputs, "attention_mask": inputs["attention_mask"] * (~special | (ids == model.tokenizer.mask_token_id))}


def _observe_scans(model: Model, batch: Batch, target: Target, gradient: bool, maps: bool) -> Observation:
    with torch.set_grad_enabled(gradient), capture_scans(model.module) as trace:
        logits, question = _answer(model, batch.inputs, target)
        if gradient:
            assert logits is not None and question is not None
            question.score(logits).sum().backward()
    at = trace.class_position
    last = [batch.length(i) - 1 for i in range(len(batch))]  # a text is read by its last token
    reading = torch.tensor(last if batch.grid is None else [0] * len(batch))
    positions = max(last) + 1
    attention = torch.zeros(0, len(batch), 1, positions, positions)
    if maps:
        attention = class_first(class_first(direction_maps(trace.scans), at, -1), at, -2)
    if not gradient:
        return Observation(model, batch, attention, question, logits, reading)
    assert logits is not None
    slopes = torch.stack([class_first(trace.stream_gradient(i), at, 1) for i in range(len(trace.streams))])
    states = torch.stack([class_first(stream.detach(), at, 1) for stream in trace.streams])
    return Observation(
        model, batch, attention, question, logits.detach(), reading, None, states, slopes, slopes[-1].any(-1)
    )


def class_first(tensor: Tensor, position: int, axis: int) -> Tensor:
    """Move the token at ``position`` of an axis to its front; the others keep their order."""
    before, own, behind = tensor.split([position, 1, tensor.shape[axis] - position - 1], axis)
    return torch.cat([own, before, behind], axis)
