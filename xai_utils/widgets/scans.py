"""A widget over the hidden attention of one text: layer by layer, channel by channel."""

from __future__ import annotations

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from xai_utils.capture.scans import capture_scans
from xai_utils.maths import hidden_attention
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.plots import scans as plots_scans
from xai_utils.samples.kinds import Text
from xai_utils.widgets.attention import WIDE, Canvas

WHAT = {"scan alone": False, "with skip and gate": True}


def layers_and_channels(model: Model, sample: Text) -> widgets.Widget:
    """Step through the layers and channels of a Mamba; see the channel's map, the layer's mean and what is remembered.

    Args:
        model: a Mamba of texts.
        sample: one text; it is captured once, and one channel at a time is computed.
    """
    batch = encode(model, [sample])
    with torch.no_grad(), capture_scans(model.module) as trace:
        model.module(**batch.inputs)
    scans = [scans[0] for scans in trace.scans]
    layer = widgets.IntSlider(max=len(scans) - 1, value=len(scans) - 1, description="layer", style=WIDE)
    channel = widgets.IntSlider(max=scans[0].delta.shape[1] - 1, description="channel", style=WIDE)
    what = widgets.Dropdown(options=list(WHAT), description="map", style=WIDE)
    canvas, labels = Canvas(10.5, 4.3), batch.labels[0]

    def paint(fig: Figure) -> str:
        scan = scans[layer.value]
        every = hidden_attention.of_scan(scan, "all", folded=WHAT[what.value])[0]
        left, right = fig.add_axes((0.09, 0.2, 0.3, 0.7)), fig.add_axes((0.56, 0.2, 0.3, 0.7))
        plots_scans.signed_matrix(left, every[channel.value], f"channel {channel.value}", labels)
        plots_scans.signed_matrix(right, every.mean(0), "mean of the layer's channels", labels)
        shortest, longest = hidden_attention.half_life(scan.delta, scan.A)[0, channel.value].aminmax()
        named = f"layer {layer.value}, channel {channel.value}"
        return f"{named}: half-lives {float(shortest):,.1f} to {float(longest):,.1f} tokens"

    for control in (layer, channel, what):
        control.observe(lambda *_: canvas.draw(paint), names="value")
    canvas.draw(paint)
    return widgets.VBox([widgets.HBox([layer, channel, what]), canvas.box])
