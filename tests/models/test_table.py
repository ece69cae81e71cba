"""The table of models: names, the hash of the weights, and models that are shared."""

import json
import shutil

import pytest
import tiny
import torch

from xai_utils import models, runtime, samples
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


@pytest.mark.parametrize("name", ["attention-sst2", "vit-shortcut", "bert12-sst2", "mamba-recall"])
def test_a_model_and_its_inputs_have_the_precision_that_is_asked_for(name):
    """The digits of the weights are the same; float64 computes to 1e-9 what float32 does to 1e-4."""
    single = models.load(name)
    double, half = models.load(name, dtype="float64"), models.load(name, dtype="bfloat16")
    assert (single.dtype, double.dtype, half.dtype) == (torch.float32, torch.float64, torch.bfloat16)
    assert runtime.record.models[name]["dtype"] == "bfloat16" and len({single.sha256, double.sha256, half.sha256}) == 3
    for one, other in zip(single.module.parameters(), double.module.parameters(), strict=True):
        assert torch.equal(one.double(), other)
    some = samples.scene_pictures(1) if single.kind == "vision" else [samples.Text("a warm and slow film")]
    with torch.no_grad():
        found = [one.logits(encode(one, some).inputs) for one in (single, double, half)]
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2].double(), found[1], rtol=0.1, atol=0.1)
    assert torch.isfinite(found[2]).all()


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="dtype is 'float16', expected one of: float32, float64, bfloat16"):
        models.load("attention-sst2", dtype="float16")
    with pytest.raises(ValueError, match=r"the scans of vim-scenes are in float32.*dtype='float32'"):
        models.load("vim-scenes", dtype="bfloat16")


def test_a_bundled_model_trained_again_is_loaded_as_that_model(tmp_path):
    card = json.loads((runtime.DATA / "models/mamba-recall/card.json").read_text())
    shutil.copytree(runtime.DATA / "models/mamba-recall", tmp_path / "again")
    found = models.load(f"trained:{tmp_path / 'again'}")
    assert card["name"] == "mamba-recall" and found.sha256 == models.load("mamba-recall").sha256
    (tmp_path / "again/card.json").write_text(json.dumps(card | {"name": "another"}))
    for place in ("again", "nothing"):
        with pytest.raises(ValueError, match="no folder of a bundled model trained again; `python -m xai_utils train"):
            models.load(f"trained:{tmp_path / place}")
