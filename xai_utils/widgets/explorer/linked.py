"""The linked picture of the explorer: a browser component that holds one layer and head and answers by itself.

Python sends numbers, :file:`linked.js` draws them; nothing is fetched from anywhere. For ``n`` positions a view is
``4 n²`` bytes for the chosen map and ``4 n`` for each head and method: 1 MB for 512 tokens.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy as np
import traitlets
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor

from xai_utils import plots
from xai_utils.models import Model, Preprocessing, encoding
from xai_utils.samples import Picture
from xai_utils.widgets.explorer import decided, known, view
from xai_utils.widgets.explorer.view import Captured, Panel, Request

_HERE = Path(__file__).parent
MARGIN = 0.02  #: share of a side that may be cut off without a word
THUMB = 280  #: greatest side of the input as it is shown, pixels


def _table() -> bytes:
    """Return the colours of amounts and of signed scores, ``(2, 256, 3)`` bytes, the same as in :mod:`plots`."""
    steps = np.linspace(0, 1, 256)
    maps = [colormaps[name](steps)[:, :3] for name in (plots.AMOUNT, plots.SIGNED)]
    return bytes(np.round(255 * np.stack(maps)).astype(np.uint8).tobytes())


class Linked(anywidget.AnyWidget):  # type: ignore[misc]
    """One model's view of one input; ``show`` and ``show_layer`` replace it, a browser's choices come back.

    These are ``query`` (position that reads), ``head``, and ``gone`` (explained tokens that are taken away). A browser
    asks now and then whether the kernel is still there, and says so where no answer comes.
    """

    _esm = _HERE / "linked.js"
    _css = _HERE / "linked.css"
    title = traitlets.Unicode("").tag(sync=True)
    decision = traitlets.Unicode("").tag(sync=True)
    told = traitlets.Unicode("").tag(sync=True)
    checkable = traitlets.Bool(False).tag(sync=True)
    explained = traitlets.Unicode(known.EXPLAINED).tag(sync=True)
    gone = traitlets.List(traitlets.Int()).tag(sync=True)
    words = traitlets.List(traitlets.Int()).tag(sync=True)
    pieces = traitlets.Bool(False).tag(sync=True)
    stale = traitlets.Bool(False).tag(sync=True)
    whole = traitlets.Bytes(b"").tag(sync=True)
    cropped = traitlets.Bool(False).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    special = traitlets.List(traitlets.Int()).tag(sync=True)
    prefix = traitlets.Int(0).tag(sync=True)
    grid = traitlets.List(traitlets.Int()).tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    matrix = traitlets.Bytes(b"").tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    layers = traitlets.Int(0).tag(sync=True)
    everywhere = traitlets.Bool(False).tag(sync=True)
    overview = traitlets.Bytes(b"").tag(sync=True)
    lines = traitlets.Bool(False).tag(sync=True)
    heads = traitlets.Bytes(b"").tag(sync=True)
    maps = traitlets.List(traitlets.Dict()).tag(sync=True)
    scores = traitlets.Bytes(b"").tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    table = traitlets.Bool(False).tag(sync=True)
    colours = traitlets.Bytes(_table()).tag(sync=True)
    fresh = traitlets.Bool(True).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        """Make an empty picture, which answers that the kernel is alive."""
        super().__init__(**traits)
        self.on_msg(self._alive)

    def _alive(self, _: Any, told: Any, __: Any) -> None:
        if isinstance(told, dict) and "alive" in told:
            self.send(told)

    def show(self, captured: Captured, panels: Sequence[Panel], layer: int, head: int | None, query: int) -> None:
        """Show another input, model or choice of methods."""
        views, grid = captured.batch.views, captured.batch.grid
        names = view.names_of(captured)
        with self.hold_sync():
            self.names, self.prefix, self.grid = names, captured.batch.prefix, list(grid or ())
            self.special, self.words = view.special(captured), decided.words(captured)
            self.decision, self.told, self.gone = decided.said(captured.model, captured.logits), "", []
            self.checkable = captured.logits is not None
            self.whole, self.cropped = _input(captured)
            self.picture = b"" if views is None else _png(views[0])
            self.query = min(query, len(names) - 1)
            self.maps = [_about(one, captured.model) for one in panels]
            self.scores = floats([one.found.scores for one in panels if one.found is not None])
            self._send_layer(captured, layer, head, fresh=True)

    def show_layer(self, captured: Captured, layer: int, head: int | None) -> None:
        """Show another layer or head of the same input."""
        with self.hold_sync():
            self._send_layer(captured, layer, head, fresh=False)

    def show_maps(self, captured: Captured, panels: Sequence[Panel]) -> None:
        """Show other maps of the same input."""
        with self.hold_sync():
            self.maps = [_about(one, captured.model) for one in panels]
            self.scores = floats([one.found.scores for one in panels if one.found is not None])
            self.fresh = False
            self.version += 1

    def show_heads(self, captured: Captured, layer: int) -> None:
        """Show what every head reads at the chosen position."""
        if captured.seen is not None:
            self.heads = floats([view.heads(captured, layer, self.query)])
            self.layer, self.layers = layer % len(captured.attention), len(captured.attention)
        self.show_overview(captured)

    def show_overview(self, captured: Captured) -> None:
        """Show what every head of every layer reads at the chosen position, if ``everywhere``."""
        shown = self.everywhere and captured.seen is not None
        self.overview = floats([view.overview(captured, self.query)]) if shown else b""

    def _send_layer(self, captured: Captured, layer: int, head: int | None, fresh: bool) -> None:
        self.head, self.fresh, self.title = -1 if head is None else head, fresh, captured.model.name
        if captured.seen is None:
            self.matrix = self.heads = self.overview = b""
        else:
            self.matrix = floats([view.linked(captured, layer, head)])
            number, which = layer % len(captured.attention), "mean of heads" if head is None else f"head {head}"
            self.title = f"{captured.model.name}: layer {number}, {which}"
            self.show_heads(captured, layer)
        self.version += 1

    def size(self) -> int:
        """Return the bytes of numbers and picture that the browser holds."""
        held = self.picture, self.matrix, self.heads, self.overview, self.scores, self.colours
        return sum(len(value) for value in held)


class Sent(NamedTuple):
    """Bytes of one view.

    Attributes:
        tokens: positions of the linked map.
        held: what the browser holds of it.
        everything: what attention of every layer and head would take.
    """

    tokens: int
    held: int
    everything: int


def sent(captured: Captured, request: Request) -> Sent:
    """Send a captured pass to a linked picture as the explorer does, and weigh it."""
    picture = Linked()
    picture.show(captured, view.panels(captured, request), request.layer, request.head, request.query)
    return Sent(len(view.names_of(captured)), picture.size(), 4 * captured.attention.numel())


def _about(panel: Panel, model: Model) -> dict[str, Any]:
    if panel.found is None:
        return {"title": panel.title, "problem": panel.problem}
    found = panel.found
    named = f" · {found.target_name}" if found.target_name else ""
    about = {"title": panel.title + named, "signed": found.signed, "unit": found.unit, "top": found.top(1)[0]}
    return {**about, "problem": "", "badge": known.badge(model, panel.title)}


def floats(tensors: Sequence[Tensor]) -> bytes:
    """Return tensors one after another as bytes of float32."""
    return b"".join(one.detach().float().cpu().contiguous().numpy().tobytes() for one in tensors)


def seen_part(shape: Sequence[int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return which part of a ``(height, width)`` picture a model sees: left, top, right and bottom, as shares.

    Read off a picture whose values are its coordinates, put through the same resize and crop: to 1/255 of a side.
    """
    down, across = np.linspace(0, 1, shape[0])[:, None], np.linspace(0, 1, shape[1])[None]
    rows, columns = (np.broadcast_to(one, tuple(shape)) for one in (down, across))
    seen = encoding.view(np.stack([rows, columns, columns]).astype(np.float32), preprocessing)
    return float(seen[1].min()), float(seen[0].min()), float(seen[1].max()), float(seen[0].max())


def _input(captured: Captured) -> tuple[bytes, bool]:
    """Return the whole picture as PNG, and whether it has more than the model sees, whose part is then outlined."""
    preprocessing = captured.model.preprocessing
    if preprocessing is None or not isinstance(captured.sample, Picture):
        return b"", False
    left, top, right, bottom = seen_part(captured.sample.image.shape[1:], preprocessing)
    image = Image.open(io.BytesIO(_png(captured.sample.image)))
    image.thumbnail((THUMB, THUMB))
    cropped = max(left, top) > MARGIN
    if cropped:
        corners = (left * image.width, top * image.height, right * image.width - 1, bottom * image.height - 1)
        ImageDraw.Draw(image).rectangle(corners, outline=(213, 94, 0), width=3)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue(), cropped


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(picture.transpose(1, 2, 0) * 255).astype(np.uint8)).save(file, "png")
    return file.getvalue()
