"""A classifier of texts on transformers' own Mamba: the state after the last token decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MambaConfig, MambaModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.mamba import modeling_mamba

from xai_utils.maths.selective_scan import selective_scan

_LOOP = modeling_mamba.mamba_selective_scan  # transformers' own: a loop over time that indexes every step


@contextmanager
def fast_scan() -> Iterator[None]:
    """Let transformers' Mamba run on :func:`selective_scan.selective_scan` inside the block: same values, faster.

    A pass that keeps a cache, which asks for the last state, runs as it does without. Afterwards, also after an error,
    transformers has its own function back.
    """
    modeling_mamba.mamba_selective_scan = _scan
    try:
        yield
    finally:
        modeling_mamba.mamba_selective_scan = _LOOP


def _scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, return_last_state: bool = False,
    **others: Any,
) -> Any:  # fmt: skip
    if return_last_state:
        return _LOOP(u, dt, A, B, C, D=D, z=z, return_last_state=True, **others)
    precision = torch.promote_types(u.dtype, torch.float32)
    u, dt, A, B, C, D, bias = (one.to(precision) for one in (u, dt, A, B, C, D, others["delta_bias"]))
    return selective_scan(u, F.softplus(dt + bias[:, None]), A, B, C, D) * F.silu(z)


class MambaClassifier(modeling_mamba.MambaPreTrainedModel):
    """Mamba with a linear head on the last token that is no padding, on whichever side the padding is.

    A Mamba reads from left to right, so that the last token alone has seen the whole text.
    """

    def __init__(self, config: MambaConfig) -> None:
        """Build it untrained; ``config.num_labels`` classes."""
        super().__init__(config)
        self.backbone = MambaModel(config)
        self.classifier = nn.Linear(config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        """Return ``logits`` ``(batch, class)``.

        Args:
            input_ids: ``(batch, token)``.
            attention_mask: same shape, 1 where a token is real; default all.
        """
        with fast_scan():
            states = self.backbone(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return SequenceClassifierOutput(
            logits=self.classifier(
                states[range(len(states)), last(input_ids, attention_mask)].to(self.classifier.weight.dtype)
            )
        )


def last(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the position of the last real token of every sample, ``(batch,)``."""
    if attention_mask is None:
        return torch.full((len(input_ids),), input_ids.shape[1] - 1)
    return (attention_mask * torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)).argmax(1)
