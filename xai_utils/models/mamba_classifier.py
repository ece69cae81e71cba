"""A classifier of texts on transformers' own Mamba: the state after the last token decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MambaConfig, MambaModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.mamba.modeling_mamba import MambaPreTrainedModel


class MambaClassifier(MambaPreTrainedModel):
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
