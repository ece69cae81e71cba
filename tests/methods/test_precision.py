"""Every method of the table on every bundled model: float32 gives what float64 gives, within a stated tolerance."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from xai_utils import samples
from xai_utils.methods import METHODS, explain, methods_for
from xai_utils.models import load
from xai_utils.models.encoding import encode
from xai_utils.samples import recall

TOLERANCE = 1e-3  #: of the greatest score of a map
POSITIVE = dict.fromkeys(("transformer_attribution", "full_lrp"), 1e-4)  #: whose forward pass runs in float64
MODELS = (
    "minilm-sst2 attention-sst2 bert12-sst2 bert24-sst2 minilm-mlm tiny-mlm-planted mamba-recall mamba-sst2 vit-scenes "
    "resnet-scenes vit-shortcut vim-scenes"
).split()
MASKED = "a film of [MASK] and jokes .", "the [MASK] was at home ."
LONG = ("flow", "leave_one_out", "integrated_gradients")  #: on pictures; both precisions of these meet on vit-shortcut


def two_samples(model):
    if model.kind == "vision":
        return samples.scene_pictures(2, objects=2)
    if model.head == "mask":
        return [samples.text(one) for one in MASKED]
    return [recall.text_of(one) for one in recall.grid([4], 2, 24, 0)] if "recall" in model.name else samples.reviews(2)


def methods_of(model):
    long = LONG if model.kind == "vision" and model.name != "vit-shortcut" else ()
    return [name for name in methods_for(model) if name not in long and METHODS[name].family != "null"]


def maps(*asked):
    """Return the scores of every sample, or what an empty map is refused with."""
    try:
        return [one.scores.double() for one in explain(*asked)]
    except ValueError as error:
        return [str(error)]


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_gives_what_double_gives(name):
    single = load(name)
    double, some = replace(single, module=deepcopy(single.module).double()), two_samples(single)
    targets = single.logits(encode(single, some).inputs).argmax(-1).tolist()
    for method in methods_of(single):
        asked = targets if METHODS[method].asks else None
        for one, other in zip(maps(method, single, some, asked), maps(method, double, some, asked), strict=True):
            if isinstance(other, str):
                assert one == other and "every score is zero" in other
                continue
            miss = (one - other).abs().max() / other.abs().max()
            assert miss <= POSITIVE.get(method, TOLERANCE), f"{method} on {name}: {miss:.1e}"


def test_positive_rules_divide_in_double_and_leave_the_model_as_it_is():
    model, some = load("vit-shortcut"), samples.scene_pictures(2)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    found = explain("full_lrp", model, some)
    assert all(one.scores.dtype == torch.float64 for one in found) and model.dtype == torch.float32
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())


def test_what_runs_in_single_precision_would_be_seen_to_fail(monkeypatch):
    from xai_utils.methods import relevance

    monkeypatch.setattr(relevance, "_in_float64", lambda *given: given)
    model, some = load("vit-scenes"), samples.scene_pictures(2, objects=2)
    double = replace(model, module=deepcopy(model.module).double())
    pairs = zip(explain("full_lrp", model, some, 0), explain("full_lrp", double, some, 0), strict=True)
    assert max(float((a.scores - b.scores).abs().max() / b.scores.abs().max()) for a, b in pairs) > 10 * TOLERANCE
