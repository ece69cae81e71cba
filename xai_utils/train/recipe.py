"""What a recipe says, and the pieces that several recipes share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

Export = tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]


class Recipe:
    """What is trained, on what and how; a recipe says what it does otherwise than it stands here."""

    seed = 0  # of the first weights and of every batch
    steps = 0
    warmup = 100  # steps until the learning rate is at its peak
    peak = 1e-3
    decay = 0.01  # of the weights
    clip = 1.0  # largest norm of the gradient
    select_from = 0  # first step after which accuracies are measured to keep the best weights; 0: keep the last
    select_every = 1  # steps from one such measurement to the next
    patience = 0  # so many of them without gain end the training; 0: never
    tokenizer: Any  # of transformers, in recipes of texts

    @property
    def repeat(self) -> str:
        """Command for the card, where ``make train MODEL=NAME`` would not make the same."""
        return ""

    def build(self) -> nn.Module:
        """Return the module to train, freshly initialised."""
        raise NotImplementedError

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Return the optimisers with their peak learning rates: AdamW on all that is not frozen."""
        return [AdamW([p for p in module.parameters() if p.requires_grad], lr=self.peak, weight_decay=self.decay)]

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate."""
        return cosine(step, self.steps, self.warmup)

    def loss(self, module: Any, step: int) -> Tensor:
        """Draw the batch of this step from the seed and return its loss, a scalar."""
        raise NotImplementedError

    def finish(self, module: Any) -> None:
        """Change the trained weights once, in place, before they are measured and shipped."""

    def select(self, module: Any) -> dict[str, Any]:
        """Return accuracies, the first of which says which weights are the best."""
        return self.evaluate(module)

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Return measured accuracies, each with its n."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return what the card says: what it is about, classes, data, recipe."""
        raise NotImplementedError

    def export(self, module: Any) -> Export:
        """Return tensors to ship, facts for the card, and further JSON files by name; here those of transformers."""
        vocabulary = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return module.state_dict(), self.facts(), {"config.json": module.config.to_dict(), "tokenizer.json": vocabulary}


def cosine(step: int, steps: int, warmup: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def muon_and_adamw(
    module: nn.Module,
    peak: float,
    decay: float,
    matrices: Callable[[str], bool],
    free: Callable[[str, Tensor], bool] = lambda _name, _parameter: False,
) -> list[Optimizer]:
    """Return Muon on the chosen matrices and AdamW on the rest, in this order.

    Args:
        module: what is trained.
        peak: learning rate of both.
        decay: weight decay of both.
        matrices: tells by its name which two-dimensional parameter Muon takes.
        free: tells which parameter of the rest has no weight decay.
    """
    chosen: list[nn.Parameter] = []
    bound: list[nn.Parameter] = []
    unbound: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and matrices(name):
            chosen.append(parameter)
        else:
            (unbound if free(name, parameter) else bound).append(parameter)
    groups: list[dict[str, Any]] = [{"params": bound}, {"params": unbound, "weight_decay": 0.0}]
    muon = Muon(chosen, lr=peak, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW([group for group in groups if group["params"]], lr=peak, weight_decay=decay)]


def hide(ids: Tensor, share: float | Tensor, special: Iterable[int]) -> Tensor:
    """Choose words to hide at random: bool, of the shape of ``ids``, never a special token.

    Args:
        ids: ``(text, token)``.
        share: of the words, or one for each place.
        special: ids that stay.
    """
    return (torch.rand(ids.shape) < share) & ~torch.isin(ids, torch.tensor(list(special)))


def padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    """Return rows of ids as one tensor ``(row, token)``, filled up at their ends."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows])


def adapter(module: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the settings of a low-rank adapter in peft's own format."""
    from peft import get_peft_model_state_dict

    given = module.peft_config["default"].to_dict()
    keep = ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "modules_to_save", "bias")
    said = {key: given[key] for key in keep if given[key] is not None}
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in said.items()}
    return dict(get_peft_model_state_dict(module)), settings
