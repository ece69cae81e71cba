"""The widget over layers and channels of a Mamba: the maps it draws, and what it says of their memory."""

import pytest
import torch

from xai_utils import models
from xai_utils.capture.scans import capture_scans
from xai_utils.maths import hidden_attention
from xai_utils.models.encoding import encode
from xai_utils.samples import recall
from xai_utils.widgets import scans


@pytest.mark.parametrize("folded", [False, True])
def test_layer_channel_and_map_are_what_is_drawn(folded, monkeypatch):
    model, drawn = models.load("mamba-recall"), []
    text = recall.text_of(recall.grid([3], 1, 10, 0)[0])
    monkeypatch.setattr(scans.plots_scans, "signed_matrix", lambda _ax, one, *_: drawn.append(one))
    box = scans.layers_and_channels(model, text)
    layer, channel, what = box.children[0].children
    layer.value, channel.value, what.value = 0, 5, list(scans.WHAT)[folded]
    with torch.no_grad(), capture_scans(model.module) as trace:
        model.module(**encode(model, [text]).inputs)
    scan = trace.scans[0][0]
    every = hidden_attention.of_scan(scan, "all", folded=folded)[0]
    torch.testing.assert_close(drawn[-2], every[5])
    torch.testing.assert_close(drawn[-1], every.mean(0))
    shortest, longest = hidden_attention.half_life(scan.delta, scan.A)[0, 5].aminmax()
    said = box.children[1].children[1].value
    assert f"layer 0, channel 5: half-lives {shortest:.1f} to {longest:.1f} tokens" in said
