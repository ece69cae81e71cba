"""The table of models: names, the hash of the weights, and models that are shared."""

import pytest
import tiny
import torch

from xai_utils import models, samples
from xai_utils.models.encoding import encode


def test_the_hash_of_the_weights_sees_every_change():
    module = tiny.module("resnet")
    changed = {models.state_sha256(module)}
    assert changed == {models.state_sha256(tiny.module("resnet"))}
    with torch.no_grad():
        module.fc.weight[1, 2] += 1e-12
    changed.add(models.state_sha256(module))
    module.bn1.running_mean[3] += 1  # a buffer
    changed.add(models.state_sha256(module))
    module.head = module.fc
    changed.add(models.state_sha256(module))
    assert len(changed) == 4
    one, other = (torch.nn.ModuleDict({name: module.fc}) for name in ("one", "other"))
    assert models.state_sha256(one) != models.state_sha256(other)


def test_an_unknown_name_lists_the_known_ones():
    for name in ("bert-tiny", "gpt:x", "hf:", "timm:"):
        with pytest.raises(ValueError, match=rf"no model '{name}'\. Known: minilm, minilm-sst2, .*; or hf:owner/name"):
            models.load(name)


def test_classes_are_found_by_index_and_by_name():
    model = tiny.model("vit")
    for i, name in enumerate(model.classes):
        assert model.class_index(name) == model.class_index(i) == i
    assert model.class_index(-1) == 4
    with pytest.raises(ValueError, match=r"tiny vit has no class 'squa'; such as: square\."):
        model.class_index("squa")
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=f"class of tiny vit is {wrong}, but there are 5"):
            model.class_index(wrong)


def test_shared_models_are_loaded_once():
    first = models.shared("attention-sst2")
    assert models.shared("attention-sst2") is first
    before = models.identity("attention-sst2")
    encode(first, [samples.Text("a film"), samples.Text("a long and slow film")])  # padding is a state of the tokenizer
    assert models.identity("attention-sst2") == before != first.sha256
    try:
        models.work_on("meta")
        with pytest.raises(NotImplementedError, match="meta"):
            models.shared("attention-sst2")
    finally:
        models.work_on("cpu")
    assert models.shared("attention-sst2") is first
