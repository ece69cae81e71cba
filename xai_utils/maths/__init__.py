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
    hidden_pairs,
    lime,
    mask_ratio,
    mixing,
    propagation,
    rollout,
    selective,
    selective_scan,
)

__all__ = [
    "attcat",
    "attention_layer",
    "class_maps",
    "densray",
    "diffusion",
    "flow",
    "hidden_attention",
    "hidden_maps",
    "hidden_pairs",
    "lime",
    "mask_ratio",
    "mixing",
    "propagation",
    "rollout",
    "selective",
    "selective_scan",
]
