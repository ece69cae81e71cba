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
