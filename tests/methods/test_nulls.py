"""Maps that know nothing: what each looks like, the same in any batch, and the one that looks at the model."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils import methods
from xai_utils.methods import nulls
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples import Picture


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_null_maps_know_what_they_should(name):
    model = tiny.model(name)
    some = tiny.samples(name)
    for method in (one for one in methods.methods_for(model) if methods.METHODS[one].family == "null"):
        maps = methods.explain(method, model, some, 0)
        again = methods.explain(method, model, some[1:], 0)
        assert all(isinstance(one, Attribution) for one in maps)
        for one, other in zip(maps[1:], again, strict=True):  # the same in any batch
            torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-7)
    if name == "timm-vit":
        centre = methods.explain("centre", model, some[0]).picture()
        assert centre.flatten().argmax() in (5, 6, 9, 10) and torch.equal(centre, centre.flip(0).flip(1))


def test_what_texts_get_is_chance_length_and_place():
    model, some = tiny.model("bert"), tiny.samples("bert")
    found = {name: nulls.null(name, model, some) for name in ("random", "uniform", "length", "position")}
    for i, spans in enumerate(encode(model, some).spans):
        assert found["uniform"][i].scores.tolist() == [1] * len(spans)
        assert found["length"][i].scores.tolist() == [end - start + 1 for start, end in spans]
        assert found["position"][i].scores.tolist() == list(range(1, len(spans) + 1))
        assert 0 <= found["random"][i].scores.min() < found["random"][i].scores.max() < 1
    other = nulls.null("random", model, some, seed=1)
    assert not torch.equal(other[0].scores, found["random"][0].scores)


def test_contrast_finds_what_stands_out_whatever_the_model():
    model = tiny.model("timm-vit")
    image = np.full((3, tiny.SIDE, tiny.SIDE), 0.5, np.float32)
    image[:, 8:16, 16:24], image[:, 24:32, 0:4] = 0.9, 0.7
    (found,) = nulls.null("contrast", model, [Picture(image, "own", {})])
    pixels = encode(model, [Picture(image, "own", {})]).inputs["x"][0].double()
    apart = (pixels - pixels.flatten(1).median(1).values.view(3, 1, 1)).abs().mean(0)
    expected = apart.unflatten(0, (4, 8)).unflatten(2, (4, 8)).mean((1, 3))
    torch.testing.assert_close(found.picture(), expected)
    assert found.scores.argmax() == 6 and (found.scores > 0).sum() == 2
    tensors = nulls.null("contrast", model, {"x": encode(model, [Picture(image, "own", {})]).inputs["x"]})
    assert torch.equal(tensors[0].scores, found.scores)
    other = tiny.model("timm-registers")
    assert other.name != model.name and nulls.null("contrast", other, tiny.samples("timm-registers"))


def test_the_pixel_gradient_is_the_gradient_at_the_pixels():
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit")
    found = methods.explain("pixel_gradient", model, some, [1, 2, 3])
    for one, target, sample in zip(found, [1, 2, 3], some, strict=True):
        pixels = encode(model, [sample]).inputs["x"].requires_grad_()
        model.logits({"x": pixels})[0, target].backward()
        squares = pixels.grad[0].square().sum(0).unflatten(0, (4, 8)).unflatten(2, (4, 8)).sum((1, 3)).flatten()
        torch.testing.assert_close(one.scores, squares, rtol=1e-3, atol=1e-9)
