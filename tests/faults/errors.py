"""Break a model in the middle of a method, and see that the model is afterwards what it was before.

An error is planted in one layer of the network. Whatever a method had changed by then (hooks, precision, other
forward functions, gradients asked for) has to be taken back: the modules hold what they held, the weights are the same
bytes, and so is the answer.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tiny
import torch

from xai_utils import methods, models
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.samples import Text


class Planted(Exception):
    """The error that is planted; no library raises it."""


def networks() -> list[tuple[Model, Any]]:
    """Return a model of every architecture, and something for it to read."""
    small = [(tiny.model(name), tiny.samples(name)[0]) for name in (*tiny.TEXT, *tiny.VISION, *tiny.OTHER)]
    return [*small, (models.load("mamba-recall"), Text("n03 blue n07 red n03"))]


def state(model: Model, sample: Any) -> tuple[object, ...]:
    """Return all that a method could leave behind: what modules hold, weights, what asks for gradients, the answer.

    Hooks of transformers' own are left out: it installs them when attention is first asked for, and they stay.
    """
    held, digest = [], hashlib.sha256()
    for name, module in model.module.named_modules():
        kinds = [value for key, value in vars(module).items() if key.endswith("_hooks") and value]
        hooks = [getattr(hook, "__module__", "") for kind in kinds for hook in kind.values()]
        hooks = [origin for origin in hooks if not origin.startswith("transformers.")]
        own = sorted(key for key, value in vars(module).items() if callable(value))
        held.append((name, type(module), module.training, len(hooks), own))
    for name, tensor in (*model.module.named_parameters(), *model.module.named_buffers()):
        asks = (name, tensor.dtype, tensor.requires_grad, tensor.grad is None)
        digest.update(repr(asks).encode() + tensor.detach().numpy().tobytes())
    with torch.inference_mode():
        answer = model.logits(encode(model, [sample]).inputs)
    config = getattr(model.module, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    return held, digest.hexdigest(), attention, answer.numpy().tobytes(), torch.is_grad_enabled()


def strike(name: str, model: Model, sample: Any, before: tuple[object, ...], noise: np.random.Generator) -> str:
    """Plant an error in a layer drawn at random while a method runs; return what the model kept of it, or nothing."""
    layers = [module for module in model.module.modules() if not list(module.children())]
    broken = layers[int(noise.integers(len(layers)))]

    def fail(*_: object) -> None:
        raise Planted(f"in {type(broken).__name__}")

    handle = broken.register_forward_hook(fail)
    try:
        methods.explain(name, model, sample, 0)
    except (Planted, TypeError):  # a method may refuse a model; what it had changed by then counts as well
        pass
    finally:
        handle.remove()
    return "" if state(model, sample) == before else f"{name} on {model.name}: not restored after an error"


def strike_all(pairs: Sequence[tuple[Model, Any]], seed: int, count: int) -> list[str]:
    """Strike methods that suit the models by turns, ``count`` times in all; return what was not restored."""
    noise = np.random.default_rng(seed)
    before = [state(*pair) for pair in pairs]
    suited = [methods.methods_for(model) for model, _ in pairs]
    said = []
    for n in range(count):
        turn = n % len(pairs)
        name = suited[turn][(n // len(pairs)) % len(suited[turn])]
        said.append(strike(name, *pairs[turn], before[turn], noise))
    return [one for one in said if one]
