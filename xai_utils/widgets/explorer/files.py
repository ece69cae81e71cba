"""The explorer without a browser: a view captured, drawn and written as files; and a picture that came from one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from xai_utils import files, models, plots, runtime
from xai_utils.models.targets import Question, Target
from xai_utils.samples import Text
from xai_utils.widgets.explorer import decided, page
from xai_utils.widgets.explorer import view as exploration
from xai_utils.widgets.explorer.view import Captured, Panel, Request

LARGEST = 50_000_000  #: pixels of an uploaded picture
COLUMNS = 5
RECORDED = 10  #: answers in the record, likeliest first
FOLDER = "exported_views"
SCALE = (
    "Colours: each map from 0 (dark) to its own greatest value (yellow); "
    "with signs orange speaks for, violet against, and white is 0."
)


def folder() -> Path:
    """Return where exported views and uploaded pictures go: ``$XAI_VIEWS`` if set, else ``exported_views``."""
    return files.ROOT / (os.environ.get("XAI_VIEWS") or FOLDER)


def places(request: Request) -> dict[str, str]:
    """Return the names of a view's models by place, ``"first"`` and perhaps ``"second"``."""
    return {"first": request.model} | ({"second": request.second_model} if request.second_model else {})


def target_of(request: Request, name: str) -> Target:
    """Return what one model of a view is asked: the first about what is chosen, the second about its own."""
    if name != request.model:
        return None
    return Question(request.target, request.against) if request.against else request.target


def captured(request: Request, device: torch.device | str = "cpu") -> dict[str, Captured]:
    """Load the models of a view and let each look at its input once; return the captured passes by place.

    Raises:
        ValueError: an unknown model or class, an input that a model cannot take, a layer that a model does not have.
    """
    found = {}
    for place, name in places(request).items():
        model = models.load(name, device)
        sample = exploration.sample_of(model, request.sample, folder())
        found[place] = exploration.capture(model, sample, target_of(request, name))
        _has_layer(request.layer, found[place])
    return found


def _has_layer(layer: int, shown: Captured) -> None:
    count = 0 if shown.seen is None else len(shown.attention)
    if count and not -count <= layer < count:
        raise ValueError(
            f"layer is {layer}, but {shown.model.name} has {count}: take 0 to {count - 1}, or -1 for the last."
        )


def draw(fig: Figure, request: Request, shown: Mapping[str, Captured]) -> None:
    """Draw a whole view on an empty figure: per model the linked map's chosen row, then every method.

    Args:
        fig: with constrained layout.
        request: what is shown.
        shown: the captured passes by place (``"first"``, ``"second"``).

    A text is shown without its special tokens, which take most of many maps. A method that could not explain this
    model leaves its message where its map would be.
    """
    rows = fig.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for part, captured in zip(rows, shown.values(), strict=True):
        part.suptitle(f"{captured.model.name}: {decided.said(captured.model, captured.logits)}", fontsize=10)
        maps = exploration.panels(captured, request, shown)
        (_draw_picture if captured.batch.views is not None else _draw_text)(part, request, captured, maps)


def size(request: Request, shown: Mapping[str, Captured]) -> tuple[float, float]:
    """Return the inches that :func:`draw` needs for a view."""
    first = next(iter(shown.values()))
    count = 2 + len(exploration.panels(first, request, shown))
    if first.batch.views is not None:
        return 2.5 * min(count, COLUMNS), 2.7 * -(-count // COLUMNS) * len(shown)
    wide = 2.0 + 0.11 * sum(len(name) + 3 for name in first.batch.labels[0])
    return min(max(8.0, wide), 40.0), (0.6 + 0.34 * count) * len(shown)


def _row(request: Request, captured: Captured) -> tuple[str, Any]:
    """Return title and scores of the chosen row of the linked map, prefix tokens dropped."""
    layer, query = request.layer, exploration.read_at(captured, request.query)
    names = exploration.names_of(captured)
    row = exploration.linked(captured, layer, request.head)[query]
    number = layer % len(captured.attention)
    which = "mean of heads" if request.head is None else f"head {request.head}"
    return f"{names[query]} reads: layer {number}, {which}", row[captured.batch.prefix :]


def _draw_picture(part: Any, request: Request, captured: Captured, shown: Sequence[Panel]) -> None:
    view = captured.batch.views[0]  # type: ignore[index]
    count = 2 + len(shown)
    grid = part.subplots(-(-count // COLUMNS), min(count, COLUMNS), squeeze=False)
    part.supxlabel(SCALE, fontsize=8)
    axes = list(grid.flat)
    plots.image(axes[0], view, captured.sample.name)
    if captured.seen is not None:
        title, row = _row(request, captured)
        plots.overlay(axes[1], view, row.cpu().view(captured.batch.grid), title, bar=False, smooth=False)  # type: ignore[arg-type]
    for ax, one in zip(axes[2:], shown, strict=False):
        if one.found is None:
            _excuse(ax, one)
        else:
            scores, signed = one.found.picture(), one.found.signed
            plots.overlay(ax, view, scores, _titled(one), signed=signed, bar=False, smooth=False)
    for ax in axes[count:] + ([axes[1]] if captured.seen is None else []):
        ax.axis("off")


def _draw_text(part: Any, request: Request, captured: Captured, maps: Sequence[Panel]) -> None:
    rows: dict[str, tuple[Any, bool]] = {}
    if captured.seen is not None:
        title, row = _row(request, captured)
        rows[title] = row, False
    excuses = []
    for one in maps:
        if one.found is None:
            excuses.append(f"{one.title}: {one.problem}")
        else:
            rows[_titled(one)] = one.found.scores, one.found.signed
    ax, hidden = part.subplots(), exploration.special(captured)
    if rows:
        names = exploration.names_of(captured)
        words = [i for i in range(len(names)) if i not in hidden]
        shown = {name: (scores[words], signed) for name, (scores, signed) in rows.items()}
        plots.highlighted(ax, shown, [names[i] for i in words])
    ax.axis("off")
    if excuses:
        ax.set_title("\n".join(excuses), fontsize=7, color="#a40000", loc="left", wrap=True)


def _titled(one: Panel) -> str:
    assert one.found is not None
    return one.title + (f" · {one.found.target_name}" if one.found.target_name else "")


def _excuse(ax: Any, one: Panel) -> None:
    ax.set_title(one.title, fontsize=9)
    ax.text(0.5, 0.5, one.problem, ha="center", va="center", fontsize=6, color="#a40000", wrap=True)
    ax.axis("off")


def drawn(request: Request, shown: Mapping[str, Captured], kind: str = "png", dpi: int = 110) -> bytes:
    """Return a whole view as ``"png"``, ``"pdf"`` or ``"svg"``; the same view gives the same bytes."""
    fig, file = Figure(figsize=size(request, shown), layout="constrained"), io.BytesIO()
    nameless = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}
    with rc_context({"svg.hashsalt": "view"}):
        draw(fig, request, shown)
        fig.savefig(file, format=kind, dpi=dpi, metadata=nameless[kind])
    return file.getvalue()


def scores(request: Request, shown: Mapping[str, Captured]) -> str:
    """Return every number of a view as CSV: model, map, token, score, unit."""
    rows = [
        (captured.model.name, _titled(one), i, label, float(score), one.found.unit)
        for captured in shown.values()
        for one in exploration.panels(captured, request, shown)
        if one.found is not None
        for i, (label, score) in enumerate(zip(one.found.labels, one.found.scores, strict=True))
    ]
    table = pd.DataFrame(rows, columns=["model", "map", "place", "token", "score", "unit"])
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def record(request: Request, shown: Mapping[str, Captured]) -> dict[str, Any]:
    """Return what made a view, and no more: its models, its input, its parameters, what was decided, the versions."""
    sample = next(iter(shown.values())).sample
    content = sample.text.encode() if isinstance(sample, Text) else sample.image.tobytes()
    return {
        "notebook": "10_explorer",
        "view": request.parameters(),
        "input": {"name": sample.name, "sha256": hashlib.sha256(content).hexdigest()},
        "models": {one.model.name: _decision(one) for one in shown.values()},
        "device": str(next(iter(shown.values())).model.device),
        "versions": runtime.versions(),
    }


def _decision(captured: Captured) -> dict[str, Any]:
    model, told = captured.model, {"sha256": captured.model.sha256}
    if captured.logits is None:
        return told
    values, order = decided.chances(model, captured.logits).sort(descending=True)
    most = zip(order[:RECORDED].tolist(), values[:RECORDED].tolist(), strict=True)
    return {**told, "explained": decided.named(model, decided.asked_class(captured)),
            "decided": [[decided.named(model, i), round(value, 6)] for i, value in most]}  # fmt: skip


def export(request: Request, shown: Mapping[str, Captured], folder: Path, dpi: int = 300) -> list[Path]:
    """Write a view: ``view_KEY`` as PNG, PDF, SVG, HTML and CSV, its record ``.json`` and its parameters ``.yml``.

    Args:
        request: what is shown.
        shown: the captured passes by place.
        folder: made if it is not there. The same view gives the same names.
        dpi: dots per inch of the PNG.

    Raises:
        ValueError: nothing is shown yet.
        OSError: the folder cannot be written; no half-written file is left.
    """
    if not shown:
        raise ValueError("nothing is shown yet, so there is no view to export.")
    parameters = request.parameters()
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:10]
    about = f"# from the project's folder: papermill notebooks/10_explorer.ipynb {FOLDER}/OUT.ipynb -f THIS_FILE\n"
    kept = yaml.safe_dump({**parameters, "FIGURES": FOLDER}, sort_keys=False, allow_unicode=True)
    texts = {
        "html": page.page(request, shown, f"{request.model}: {_short(request.sample)}"),
        "csv": scores(request, shown),
        "json": json.dumps(record(request, shown), indent=1) + "\n",
        "yml": about + kept,
    }
    pictures = {kind: drawn(request, shown, kind, dpi) for kind in ("png", "pdf", "svg")}
    contents = {**pictures, **{kind: text.encode() for kind, text in texts.items()}}
    return [files.write(folder / f"view_{key}.{kind}", content) for kind, content in contents.items()]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def received(upload: Mapping[str, Any], folder: Path) -> Path:
    """Keep an uploaded picture as it is, under its name and a hash of its content, for a view to name; return its path.

    Args:
        upload: ``name`` and ``content`` as ipywidgets' ``FileUpload`` has them.
        folder: where it goes.

    Raises:
        ValueError: no picture, or one with more than :data:`LARGEST` pixels.
    """
    name, content = repr(str(upload["name"])[:80]), bytes(upload["content"])
    try:
        with Image.open(io.BytesIO(content)) as stored:
            if stored.width * stored.height > LARGEST:
                raise ValueError(
                    f"{name} has {stored.width} x {stored.height} pixels; at most {LARGEST / 1e6:.0f} million are "
                    "taken. Make it smaller first."
                )
            ending = f".{(stored.format or 'png').lower()}"
            stored.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error
    stem = re.sub(r"[^\w-]+", "_", Path(str(upload["name"])).stem)[:40].strip("_") or "upload"
    return files.write(folder / f"{stem}_{hashlib.sha256(content).hexdigest()[:10]}{ending}", content)
