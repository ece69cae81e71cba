"""Formulas: tensors in, tensors out; nothing here meets a model."""

from xai_utils.maths import (
    attcat,
    attention_layer,
    class_maps,
    densray,
    diffusion,
    flow,
    hidden_attention,
    hidden_maps,
    lime,
    mask_ratio,
    propagation,
    rollout,
    selective,
    selective_scan,
)
