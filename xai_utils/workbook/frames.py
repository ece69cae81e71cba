"""A still frame of every widget, for readers on the web: the picture that it showed when its notebook was executed.

A widget lives in a kernel; what a page shows without one is this frame. It is found in the state that the kernel left
in the executed notebook: the first picture among the widget and what it holds.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from PIL import Image

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
COLOURS = 256  #: of a stored picture; a map needs no more, and a notebook stays below a megabyte
WIDEST = 900  #: of a stored frame, pixels


def stills(notebook: NotebookNode) -> dict[int, list[NotebookNode]]:
    """Return the outputs to store for the cells tagged ``widget``, by place; to be called before a notebook is cleaned.

    A widget without a picture, or a cell that was not executed, has no output to store.
    """
    state = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    return {
        place: [_still(picture) for shown in _shown(cell) for picture in list(_pictures(state, shown))[:1]]
        for place, cell in enumerate(notebook.cells)
        if "widget" in cell.metadata.get("tags", [])
    }


def lighten(notebook: NotebookNode) -> None:
    """Store every picture of a notebook's outputs with at most :data:`COLOURS` colours; the files in figures stay."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _light(output.data["image/png"], None)


def _shown(cell: NotebookNode) -> Iterator[str]:
    """Yield the numbers of the widgets that a cell shows."""
    for output in cell.get("outputs", []):
        if VIEW in output.get("data", {}):
            yield output.data[VIEW]["model_id"]


def _pictures(state: Mapping[str, Any], number: str) -> Iterator[str]:
    """Yield the pictures of a widget and of what it holds, outermost first, as base64."""
    model = state.get(number)
    if model is None:
        return
    if model["model_name"] == "ImageModel":
        yield from (one["data"] for one in model.get("buffers", []) if one["path"] == ["value"] and one["data"])
    for child in model["state"].get("children", []):
        yield from _pictures(state, str(child).removeprefix("IPY_MODEL_"))


def _still(picture: str) -> NotebookNode:
    data = {"image/png": _light(picture, WIDEST), "text/plain": "a still frame of the widget"}
    return new_output("display_data", data=data)


def _light(picture: str, widest: int | None) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    if widest is not None and image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    few = image.quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )  # a rare colour stays that colour
    few.save(file, "png", optimize=True)
    light = base64.b64encode(file.getvalue()).decode()
    return light if widest is not None or len(light) < len(picture) else picture
