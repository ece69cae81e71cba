"""A view as one HTML file that keeps hover and clicks without a kernel: script and numbers inside, nothing fetched.

Every layer and head is in the file as well, to look at and to enlarge, while they take no more than :data:`LARGEST`
bytes: 12 layers of 3 heads over the 197 tokens of a picture do.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from xai_utils.widgets.explorer import view
from xai_utils.widgets.explorer.linked import Linked, floats
from xai_utils.widgets.explorer.view import Captured, Request

_HERE = Path(__file__).parent
LARGEST = 6_000_000  #: bytes of attention that a page holds
_WHOLE = "Kept view: positions, layers and heads can be chosen; masks and other methods need the explorer."
_PART = (
    "Kept view: positions can be chosen; layers and heads are too large for a page, and need the explorer as masks do."
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><h1 style="font: 600 18px sans-serif">{title}</h1><div id="views"></div>
<p style="font: 12px sans-serif">{note}</p>
<script type="module">
{script}
for (const [values, raw] of {states}) {{
  for (const name of raw) values[name] = Uint8Array.from(atob(values[name]), (one) => one.charCodeAt(0));
  const el = document.createElement("div");
  document.getElementById("views").append(el);
  linked.render({{ model: kept(values), el }});
}}
</script></body></html>
"""
# What the kernel does for a linked picture, as far as a page can: values that are listened to, other layers and heads.
_KEPT = """
function kept(values) {
  const heard = {};
  const model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; (heard[`change:${name}`] ?? []).forEach((act) => act()); },
    on: (names, act) => names.split(" ").forEach((name) => (heard[name] ??= []).push(act)),
    save_changes: () => {},
    send: (told) => { if ("layer" in told) look(told.layer, told.head); },
  };
  const [layers, heads, n] = values.shape;
  const all = new Float32Array(values.attention.buffer);
  const map = (layer, head) => all.subarray((layer * heads + head) * n * n, (layer * heads + head + 1) * n * n);
  const maps = (layer) => Array.from({ length: heads }, (_, head) => map(layer, head));
  const mean = (layer) => map(layer, 0).map((_, i) => maps(layer).reduce((sum, one) => sum + one[i], 0) / heads);
  const rows = (some) => Float32Array.from(some.flatMap(maps).flatMap(
    (one) => Array.from(one.subarray(values.query * n, (values.query + 1) * n))));
  const read = () => {
    model.set("heads", rows([values.layer]));
    model.set("overview", rows([...Array(layers).keys()]));
  };
  const look = (layer, head) => {
    const [name, which] = [values.title.split(": layer ")[0], head < 0 ? "mean of heads" : `head ${head}`];
    const title = `${name}: layer ${layer}, ${which}`;
    Object.assign(values, { layer, head, title, fresh: false, matrix: head < 0 ? mean(layer) : map(layer, head) });
    read();
    model.set("version", values.version + 1);
  };
  if (layers) {
    model.on("change:query", read);
    model.on("change:head", () => look(values.layer, values.head));
  }
  return model;
}
"""


def page(request: Request, shown: Mapping[str, Captured], title: str) -> str:
    """Return a whole view as HTML.

    Args:
        request: what is shown.
        shown: the captured passes by place.
        title: of the page.
    """
    states = [_state(request, one, shown) for one in shown.values()]
    script = (_HERE / "linked.js").read_text(encoding="utf-8").replace("export default", "const linked =") + _KEPT
    style = (_HERE / "linked.css").read_text(encoding="utf-8")
    numbers = json.dumps(states).replace("<", "\\u003c")
    note = _WHOLE if all(map(_fits, shown.values())) else _PART
    return _PAGE.format(title=escape(title), style=style, script=script, states=numbers, note=note)


def _fits(captured: Captured) -> bool:
    return captured.seen is None or 4 * captured.attention.numel() <= LARGEST


def _state(request: Request, captured: Captured, shown: Mapping[str, Captured]) -> tuple[dict[str, Any], list[str]]:
    """Return what a linked picture holds, and which of it is bytes, written in base 64."""
    kept = captured.seen is not None and _fits(captured)
    picture, layers = Linked(everywhere=kept), 1 if captured.seen is None else len(captured.attention)
    layer = max(-layers, min(layers - 1, request.layer))
    query = view.read_at(captured, request.query)
    picture.show(captured, view.panels(captured, request, shown), layer, request.head, query)
    values = {name: getattr(picture, name) for name in Linked.class_own_traits(sync=True) if not name.startswith("_")}
    values |= {"checkable": False, "attention": b"", "shape": []}  # what is taken away needs a kernel
    if kept:
        values |= {"attention": floats([captured.attention]), "shape": captured.attention.shape[:3]}
    else:
        values["heads"] = b""
    raw = [name for name, value in values.items() if isinstance(value, bytes)]
    return {**values, **{name: base64.b64encode(values[name]).decode() for name in raw}}, raw
