"""Record attention, hidden states and mixing vectors of transformers, timm and torchvision models; leave no trace.

Everything is a context manager that undoes itself, also after an error. Nothing is patched by class, so other models
in the process are untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

# Names of the value projection and of the output projection inside one attention block, as the libraries call them.
_VALUES = ("value", "v_proj", "v_lin")
_OUTPUTS = ("output.dense", "o_proj", "out_lin")
_HEADS = ("num_heads", "num_attention_heads", "n_heads")


@dataclass
class Trace:
    """What the latest forward pass left behind; ``attention[i]`` belongs to ``layers[i]``.

    Attributes:
        attention: per kept layer, ``(batch, head, query, key)`` probabilities, attached to the graph.
        hidden: the input of every block and the output of the last, ``(batch, token, width)``; empty unless asked for.
        values: per kept layer, ``(batch, head, token, width)``: what each token hands on through each head (its value
            times the output projection, without bias); empty unless asked for.
        layers: numbers of the kept layers.
    """

    attention: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    seen: int = 0
    entered: int = 0

    def clear(self) -> None:
        """Forget the pass before."""
        for kept in (self.attention, self.hidden, self.values, self.layers):
            kept.clear()
        self.seen = self.entered = 0

    def stack(self) -> Tensor:
        """Return ``(layer, batch, head, query, key)`` without graph.

        Raises:
            RuntimeError: no forward pass was made inside the with-block.
            ValueError: the layers do not share one token grid (Swin windows), so there is no stack.
        """
        if not self.attention:
            raise RuntimeError("nothing was captured yet: run the model inside the with-block first.")
        shapes = sorted({tuple(a.shape) for a in self.attention})
        if len(shapes) != 1:
            raise ValueError(
                f"captured {len(self.attention)} maps of shapes {shapes}; only layers that share one token grid can be "
                "stacked. Windowed models (Swin) need a method of their own."
            )
        return torch.stack([a.detach() for a in self.attention])

    def stack_grad(self) -> Tensor:
        """Return the gradients of what was back-propagated, aligned with :meth:`stack`.

        Raises:
            RuntimeError: nothing was back-propagated inside the with-block, or gradients were switched off.
        """
        if not self.attention:
            raise RuntimeError("nothing was captured yet: run the model inside the with-block first.")
        return torch.stack([gradient_of(a) for a in self.attention])

    def hidden_grad(self, place: int = 0) -> Tensor:
        """Return the gradient at ``hidden[place]``, ``(batch, token, width)``."""
        if not self.hidden:
            raise RuntimeError("nothing was captured yet: run the model inside the with-block (hidden=True).")
        return gradient_of(self.hidden[place])

    def memory(self) -> int:
        """Return the bytes held by the recorded tensors, gradients not counted."""
        return sum(t.nbytes for t in (*self.attention, *self.hidden, *self.values))


@contextmanager
def capture_attention(
    model: nn.Module,
    blocks: int | None = None,
    layers: Collection[int] | None = None,
    hidden: bool = False,
    values: bool = False,
) -> Iterator[Trace]:
    """Record the attention probabilities of every forward pass inside the block.

    A gradient is kept on the very tensor it belongs to, so a layer's map and gradient cannot be paired wrongly. Fused
    attention (SDPA) is off inside the block only. Parameters may be frozen: gradients start at the embeddings.

    Args:
        model: a transformers, timm or torchvision model in evaluation mode.
        blocks: number of attention blocks that must be found; ``None`` accepts any but zero.
        layers: keep only these (memory: ``batch x heads x tokens² x 4`` bytes each); default all.
        hidden: also keep the hidden states that enter and leave the blocks.
        values: also keep what each token hands on through each head (BERT family, ViT, DeiT).

    Yields:
        The :class:`Trace`; it is emptied at the start of every forward pass.

    Raises:
        ValueError: training mode (dropout would be inside the maps), or a layer that does not exist.
        TypeError: the model has no attention that can be seen.
        RuntimeError: a forward pass met another number of blocks than ``blocks``.
    """
    if model.training:
        raise ValueError("the model is in training mode, so dropout would be inside the maps; call model.eval() first.")
    attentions = attention_modules(model)
    count = layers_of(model, attentions)
    if blocks is not None and blocks != count:
        raise RuntimeError(f"expected {blocks} attention blocks, found {count} in {type(model).__name__}.")
    wanted = _wanted(layers, count)
    trace = Trace()
    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(lambda *_: trace.clear()).remove)
        start_gradients(model, undo)
        _opener(model, attentions)(model, attentions, _keeper(trace, wanted), undo)
        if hidden:
            _keep_hidden(list_of_blocks(model), trace, undo)
        if values:
            for i in wanted:
                undo.callback(_keep_values(model, attentions[i], trace).remove)
        undo.callback(model.register_forward_hook(lambda *_: _complete(trace, count, type(model).__name__)).remove)
        yield trace


@contextmanager
def capture_states(model: nn.Module) -> Iterator[Trace]:
    """Record only the hidden states of every forward pass inside the block; attention is neither seen nor switched.

    Raises:
        ValueError: training mode.
        TypeError: the model has no list of equal blocks.
    """
    if model.training:
        raise ValueError("the model is in training mode, so dropout would be inside the states; call model.eval().")
    trace = Trace()
    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(lambda *_: trace.clear()).remove)
        start_gradients(model, undo)
        _keep_hidden(list_of_blocks(model), trace, undo)
        yield trace


def layers_of(model: Any, attentions: list[nn.Module]) -> int:
    """Return how many maps a model shows: ALBERT, which has one block of attention, runs it layer after layer."""
    config = getattr(model, "config", None)
    told = getattr(getattr(config, "vision_config", config), "num_hidden_layers", None)
    return told if isinstance(model, PreTrainedModel) and isinstance(told, int) else len(attentions)


def list_of_blocks(model: Any) -> list[nn.Module]:
    """Return the blocks of a model, also of one without attention, such as FNet."""
    try:
        return blocks_of(model, len(attention_modules(model)))
    except TypeError:
        config = getattr(model, "config", None)
        count = getattr(getattr(config, "vision_config", config), "num_hidden_layers", None)
        for module in model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count and len({type(one) for one in module}) == 1:
                return list(module)
        raise


def _keeper(trace: Trace, wanted: Collection[int]) -> Callable[[Tensor], None]:
    def keep(attention: Tensor) -> None:
        if trace.seen in wanted:
            trace.attention.append(with_gradient(attention))
            trace.layers.append(trace.seen)
        trace.seen += 1

    return keep


def with_gradient(tensor: Tensor) -> Tensor:
    """Let a tensor keep its gradient, if it will have one."""
    if tensor.requires_grad:
        tensor.retain_grad()
    return tensor


def gradient_of(kept: Tensor) -> Tensor:
    """Return the gradient of a captured tensor; ``RuntimeError`` if there is none."""
    if not kept.requires_grad:
        raise RuntimeError("the pass was made without gradients; leave no_grad and inference_mode, then run it again.")
    if kept.grad is None:
        raise RuntimeError("no gradient yet: call score.backward() inside the with-block first.")
    return kept.grad


def _wanted(layers: Collection[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    if bad := [layer for layer in layers if not -count <= layer < count]:
        raise ValueError(f"no layer {bad}: the model has {count}, numbered 0 to {count - 1}.")
    return sorted({layer % count for layer in layers})


def _complete(trace: Trace, count: int, name: str) -> None:
    if not trace.seen:
        raise RuntimeError(
            f"{name} has {count} attention blocks, but gives no attention back where it is asked for it."
        )
    if trace.seen != count:
        raise RuntimeError(
            f"{trace.seen} of {count} attention blocks showed their map in this pass; the others were skipped or fused."
        )


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """Find the attention blocks in the order they are registered, which is the order they run."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TypeError(
            f"{type(model).__name__} has an encoder and a decoder, with attention between them that no map of one text "
            "holds. Take a model of one stack (BERT, RoBERTa, GPT-2, Llama)."
        )
    if isinstance(model, PreTrainedModel):
        named = [m for m in model.modules() if "Attention" in type(m).__name__ and not list(_inner(m))]
    else:
        named = [m for m in model.modules() if hasattr(m, "fused_attn") and hasattr(m, "attn_drop")]
        named = named or [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    if not named:
        raise TypeError(
            f"{type(model).__name__} has no attention block that can be seen; for convolutional networks use Grad-CAM, "
            "for state-space models their hidden attention."
        )
    return named


def _inner(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the attention modules inside an attention module (BERT wraps its self-attention)."""
    yield from (m for m in module.modules() if m is not module and "Attention" in type(m).__name__)


def _opener(model: nn.Module, attentions: list[nn.Module]) -> Callable[..., None]:
    if isinstance(model, PreTrainedModel):
        return _open_transformers
    return _open_torch if isinstance(attentions[0], nn.MultiheadAttention) else _open_timm


def _open_transformers(
    model: Any, attentions: list[nn.Module], keep: Callable[[Tensor], None], undo: ExitStack
) -> None:
    """Switch to eager attention and ask the model for its maps, which it returns as they stand in its graph."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    undo.callback(model.set_attn_implementation, before)
    undo.callback(
        _without_library_hooks, {module: (set(module._forward_hooks), set(vars(module))) for module in model.modules()}
    )

    def ask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "output_attentions": True}

    def take(_module: nn.Module, _args: Any, output: Any) -> None:
        for attention in getattr(output, "attentions", None) or ():
            if isinstance(attention, Tensor):
                keep(attention)

    undo.callback(model.register_forward_pre_hook(ask, with_kwargs=True).remove)
    undo.callback(model.register_forward_hook(take).remove)


def _without_library_hooks(before: dict[nn.Module, tuple[set[int], set[str]]]) -> None:
    """Take away the hooks that transformers leaves on a model which was asked for its attention, and their mark."""
    for module, (known, marks) in before.items():
        for key in [key for key in module._forward_hooks if key not in known]:
            if getattr(module._forward_hooks[key], "__name__", "") == "output_capturing_hook":
                del module._forward_hooks[key]
        if "_output_capturing_hooks_installed" not in marks:
            vars(module).pop("_output_capturing_hooks_installed", None)


def _open_timm(_model: Any, attentions: list[nn.Module], keep: Callable[[Tensor], None], undo: ExitStack) -> None:
    """Switch fused attention off and take the maps where dropout would act on them."""
    for attention in attentions:
        undo.callback(setattr, attention, "fused_attn", attention.fused_attn)
        attention.fused_attn = False  # type: ignore[assignment]
        hook = attention.attn_drop.register_forward_hook(lambda _m, _a, out: keep(out))  # type: ignore[union-attr, operator]
        undo.callback(hook.remove)


def _open_torch(_model: Any, attentions: list[nn.Module], keep: Callable[[Tensor], None], undo: ExitStack) -> None:
    """Let torch's own attention (torchvision's ViT) go step by step, so that its probabilities are on the graph."""
    for attention in attentions:
        attention.forward = partial(_step_by_step, attention, keep)  # type: ignore[method-assign, arg-type]
        undo.callback(delattr, attention, "forward")


def _step_by_step(
    attention: nn.MultiheadAttention, keep: Callable[[Tensor], None], query: Tensor, key: Tensor, value: Tensor,
    **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend to the same tokens as they come, ``(batch, token, width)``; the sums are those of torch's own forward."""
    if query is not key or key is not value or not attention.batch_first:
        raise TypeError("only self-attention with the batch first is captured; this model attends to something else.")
    if any(options.get(name) is not None for name in ("key_padding_mask", "attn_mask")):
        raise TypeError("torch's attention is captured without masks only; this model gives one.")
    packed = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = (
        one.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for one in packed.chunk(3, -1)
    )
    probabilities = (queries @ keys.transpose(-2, -1) * attention.head_dim**-0.5).softmax(-1)
    keep(probabilities)
    return attention.out_proj((probabilities @ values).transpose(1, 2).flatten(2)), None


def start_gradients(model: nn.Module, undo: ExitStack) -> None:
    """Let a graph begin at the first embedding, so that frozen models have gradients too."""

    def begin(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or output.requires_grad:
            return output
        return output.detach().requires_grad_().clone()  # CTRL multiplies it in place, which a leaf forbids

    undo.callback(_first_embedding(model).register_forward_hook(begin).remove)


def _first_embedding(model: nn.Module) -> nn.Module:
    """Return the module that turns ids into vectors or pixels into patches."""
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Conv2d)):
            return module
    raise TypeError(f"{type(model).__name__} has neither a word embedding nor a patch convolution.")


def blocks_of(model: nn.Module, count: int) -> list[nn.Module]:
    """Return the list of blocks: the outermost list of ``count`` modules of one class."""
    for module in model.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) == count:
            if len({type(child) for child in module}) == 1 and _attention_inside(module):
                return list(module)
    raise TypeError(
        f"{type(model).__name__} has no list of {count} equal blocks, so no hidden states can be named; models in "
        "stages of windows (Swin) need a method of their own."
    )


def _attention_inside(blocks: nn.Module) -> bool:
    return any("Attention" in type(m).__name__ for m in blocks.modules())


def _keep_hidden(blocks: list[nn.Module], trace: Trace, undo: ExitStack) -> None:
    """Keep what enters every block, each time it runs, and what leaves the last one at the end."""

    def keep(state: Any, place: int) -> None:
        del trace.hidden[place:]
        trace.hidden.append(with_gradient(state[0] if isinstance(state, (tuple, list)) else state))
        trace.entered = place + 1

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"], trace.entered)

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        keep(output, trace.entered)
        trace.entered -= 1  # a block that runs again enters in place of what left it

    for block in blocks:
        undo.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
    undo.callback(blocks[-1].register_forward_hook(leave).remove)


def _keep_values(model: nn.Module, attention: Any, trace: Trace) -> Any:
    """Hook one value projection and multiply what it returns by the output projection, head by head."""
    packed = hasattr(attention, "qkv")  # timm keeps queries, keys and values in one matrix
    source = attention.qkv if packed else _named([attention], _VALUES)
    weight = (attention.proj if packed else _named(_homes(model, attention), _OUTPUTS)).weight.detach()
    heads = next(getattr(attention, name) for name in _HEADS if hasattr(attention, name))

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
        values = output.detach().chunk(3, -1)[2] if packed else output.detach()
        by_head = values.unflatten(-1, (heads, -1))
        trace.values.append(torch.einsum("bthd,ohd->bhto", by_head, weight.unflatten(1, (heads, -1))))

    return source.register_forward_hook(keep)


def _homes(model: nn.Module, attention: nn.Module) -> list[nn.Module]:
    """Return an attention module and the module that holds it (BERT's output projection is a sibling)."""
    name = next(name for name, module in model.named_modules() if module is attention)
    return [attention, model.get_submodule(name.rpartition(".")[0])]


def _named(homes: list[nn.Module], names: tuple[str, ...]) -> Any:
    for home in homes:
        for name, module in home.named_modules():
            if name in names:
                return module
    raise TypeError(f"{type(homes[0]).__name__} has no projection among {names}; its values cannot be captured.")
