"""A kept page: the numbers of the view inside, and nothing that is fetched; a browser looks at it elsewhere."""

import base64
import json
import re

import numpy as np
import pytest
import tiny

from xai_utils.samples import Text
from xai_utils.widgets.explorer import page, view
from xai_utils.widgets.explorer.view import Request


def states(text):
    return json.loads(re.search(r"const \[values, raw\] of (.*)\) \{", text)[1])


@pytest.mark.parametrize("name", ["bert", "timm-vit", "resnet"])
def test_a_page_holds_the_numbers_and_fetches_nothing(name):
    one = view.capture(tiny.model(name), tiny.samples(name)[0], None)
    request = Request(methods=("leave_one_out", "integrated_gradients"), layer=0)
    text = page.page(request, {"first": one}, "a <title>")
    ((values, raw),) = states(text)
    scores = np.frombuffer(base64.b64decode(values["scores"]), dtype=np.float32).reshape(2, -1)
    np.testing.assert_allclose(scores[0], view.panel(one, "leave_one_out").found.scores, rtol=1e-6)
    assert values["names"] == view.names_of(one) and "matrix" in raw and not values["checkable"]
    assert "<title>a &lt;title&gt;</title>" in text and not re.search(r"(src|href)=.https?:|import ", text)


def test_a_text_cannot_end_the_script():
    one = view.capture(tiny.model("bert"), Text("a </script><b> film"), None)
    text = page.page(Request(methods=("rollout",)), {"first": one}, "x")
    assert text.count("</script>") == 1


def numbers(values, name):
    return np.frombuffer(base64.b64decode(values[name]), dtype=np.float32)


def test_every_layer_and_head_is_kept_where_a_page_can_hold_them(monkeypatch):
    one = view.capture(tiny.model("bert"), tiny.samples("bert")[0], None)
    request = Request(methods=("rollout",), layer=0, query=2)
    text = page.page(request, {"first": one}, "x")
    ((values, _),) = states(text)
    assert values["shape"] == list(one.attention.shape[:3]) and page._WHOLE in text
    np.testing.assert_allclose(numbers(values, "attention"), one.attention.flatten(), rtol=1e-6)
    np.testing.assert_allclose(numbers(values, "overview"), one.attention[:, :, 2].flatten(), rtol=1e-6)
    np.testing.assert_allclose(numbers(values, "heads"), one.attention[0, :, 2].flatten(), rtol=1e-6)
    monkeypatch.setattr(page, "LARGEST", 4 * one.attention.numel() - 1)
    text = page.page(request, {"first": one}, "x")
    ((values, _),) = states(text)
    assert values["shape"] == [] and not values["attention"] + values["overview"] + values["heads"]
    assert page._PART in text and len(numbers(values, "matrix")) == one.attention.shape[-1] ** 2
