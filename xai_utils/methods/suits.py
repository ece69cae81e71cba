"""Which method suits which model: each function returns "" where it does, else the reason in words.

The table of methods carries one of these in every row; the explorer, the sweep and the errors read it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn

from xai_utils.capture.attention import attention_modules
from xai_utils.capture.lrp import MODIFIED, lrp_rules, relevance_rules
from xai_utils.capture.scans import scanning
from xai_utils.methods.observation import sees
from xai_utils.methods.relevance import last_stage
from xai_utils.models.attention_classifier import AttentionClassifier
from xai_utils.models.encoding import specimen
from xai_utils.models.kinds import Model
from xai_utils.models.vim import Vim

NO_HEAD = (
    "it has no classifier, so no class to explain; try minilm-sst2, or models.compared(model, {name: sample}) for what "
    "makes its embedding like another."
)


def everything(model: Model) -> str:
    """Suit every model."""
    return ""


def answers(model: Model) -> str:
    """Suit a model with a head."""
    return "" if model.classes else NO_HEAD


def attends(model: Model) -> str:
    """Suit a model with attention, or with hidden attention in its place."""
    return "" if scanning(model.module) else _attention(model)


def reads_tokens(model: Model) -> str:
    """Suit a model with a head whose blocks take tokens, so that a gradient at a token is there."""
    if isinstance(model.module, AttentionClassifier):
        return _attention(model)
    if model.blocks == 0 and not scanning(model.module):
        return _attention(model) or answers(model)
    return sees(model).states or sees(model).gradients or answers(model)


def pays(model: Model) -> str:
    """Suit a model with a head, attention that can be seen, and blocks that take tokens."""
    return weighs(model) or reads_tokens(model)


def weighs(model: Model) -> str:
    """Suit a model with a head and attention of its own, whose gradient weighs it."""
    if scanning(model.module):
        return "it needs the gradient at attention probabilities, and this model reads by scans. Try mamba_attribution."
    return _attention(model) or answers(model) or sees(model).gradients


def follows_rules(preset: str, model: Model) -> str:
    """Suit a transformer with a head, for whose functions there are rules of relevance."""
    if scanning(model.module):
        return "its rules are those of transformers. Try mamba_lrp."
    return _attention(model) or answers(model) or _adds_up(model) or _ruled(preset, model)


def follows_positive_rules(model: Model) -> str:
    """Suit a transformer with a head and layers as in BERT and ViT, for which the z+ rules were written."""
    if model.head == "next":
        return "its z+ rules are for LayerNorm and plain layers, not for decoders. Try attnlrp or generic_attention."
    if model.compare is not None:
        return "its z+ rules begin at a layer of classes, and a comparison has none. Try attnlrp or generic_attention."
    return follows_rules("transformer_attribution", model)


def _adds_up(model: Model) -> str:
    if model.compare is not None and model.compare.measure == "cosine":
        return "a cosine does not grow with the embedding, so relevance adds up to 0. Try measure='projection'."
    return ""


def embeds(model: Model) -> str:
    """Suit a model with a head whose input embedding takes the words as they are given."""
    return answers(model) or sees(model).words or sees(model).gradients


_RULED: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()


def _ruled(preset: str, model: Model) -> str:
    """Try the rules once on a model of an unknown architecture; return ``""`` or which function has none."""
    if model.blocks is not None or (model.kind == "vision" and model.preprocessing is None):
        return ""
    known = _RULED.setdefault(model.module, {})
    if preset not in known:
        rules = lrp_rules if preset in MODIFIED else relevance_rules
        inputs, _ = specimen(model)
        try:
            with torch.inference_mode(False), torch.enable_grad(), rules(model.module, preset):
                model.logits(inputs).amax(-1).sum().backward()
            known[preset] = ""
        except TypeError as error:
            known[preset] = str(error)
        except RuntimeError as error:
            known[preset] = f"there is no relevance rule for how it is written: {error}."
    return known[preset]


def precise(model: Model, half: bool) -> str:
    """Suit a model whose precision is enough: float32 or float64, or half for methods that go by few sums.

    Not enough are sums over many differences that nearly cancel (integrated gradients, z+ rules), maps whose rows have
    to add up to one, and scans.
    """
    if model.dtype in (torch.float32, torch.float64) or (half and not scanning(model.module)):
        return ""
    return f"it needs more digits than {str(model.dtype).removeprefix('torch.')}; load the model with dtype='float32'."


def scans(model: Model) -> str:
    """Suit a Mamba or Vision Mamba."""
    if not scanning(model.module):
        return f"{type(model.module).__name__} has no selective scan; it is for Mamba and Vision Mamba."
    return ""


def scans_texts(model: Model) -> str:
    """Suit a Mamba of texts, whose convolutions are captured."""
    if isinstance(model.module, Vim):
        return "the two convolutions of Vision Mamba are not captured; take hidden_attention."
    return scans(model)


def scans_channels(model: Model) -> str:
    """Suit a Mamba or Vision Mamba, not Mamba-2, whose B, C and input share one convolution."""
    if any(type(module).__name__ == "Mamba2Mixer" for module in model.module.modules()):
        return "it has no rule for Mamba-2, whose B, C and input share one convolution; take hidden_attention."
    return scans(model) or answers(model)


def convolves(model: Model) -> str:
    """Suit a convolutional network."""
    if model.kind == "text":
        return "it reads texts; Grad-CAM on attention is the method 'attention_gradcam'."
    if scanning(model.module) or _has_attention(model):
        return "it is no convolutional network; Grad-CAM on attention is the method 'attention_gradcam'."
    return answers(model) or _ends_in_maps(model)


def _ends_in_maps(model: Model) -> str:
    if model.preprocessing is None:
        return ""  # it is not known which pictures it takes
    try:
        last_stage(model, specimen(model)[0])
    except TypeError as error:
        return str(error).partition(" is ")[2]
    return ""


def closed(model: Model) -> str:
    """Suit the attention classifier of notebook 07, and nothing else."""
    return "" if isinstance(model.module, AttentionClassifier) else "closed forms are for one layer of attention alone."


def of_kind(kinds: Sequence[str], model: Model) -> str:
    """Suit models of some kinds."""
    return "" if model.kind in kinds else f"it is a null of {' and '.join(kinds)} models."


def _has_attention(model: Model) -> bool:
    try:
        return bool(attention_modules(model.module))
    except TypeError:
        return False


def _attention(model: Model) -> str:
    if isinstance(model.module, AttentionClassifier):
        return "its one layer has forms of its own; take closed_attention or closed_gradient_mean."
    try:
        attention_modules(model.module)
    except TypeError as error:
        return str(error)
    seen = sees(model)
    read = seen.states if model.classes and model.head == "classes" else ""  # where the answer is read from
    return seen.attention or read
