"""A view as one HTML file that keeps hover and clicks without a kernel: script and numbers inside, nothing fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from xai_utils.widgets.explorer import view
from xai_utils.widgets.explorer.linked import Linked
from xai_utils.widgets.explorer.view import Captured, Request

_HERE = Path(__file__).parent
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><h1 style="font: 600 18px sans-serif">{title}</h1><div id="views"></div>
<p style="font: 12px sans-serif">Kept view: pointing and choosing positions work; layers, heads and masks need the explorer.</p>
<script type="module">
{script}
const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
for (const [values, raw] of {states}) {{
  for (const name of raw) values[name] = bytes(values[name]);
  const heard = {{}};
  const model = {{
    get: (name) => values[name],
    set: (name, value) => {{ values[name] = value; (heard[`change:${{name}}`] ?? []).forEach((act) => act()); }},
    on: (names, act) => names.split(" ").forEach((name) => (heard[name] ??= []).push(act)),
    save_changes: () => {{}},
    send: () => {{}},
  }};
  const el = document.createElement("div");
  document.getElementById("views").append(el);
  linked.render({{ model, el }});
}}
</script></body></html>
"""  # noqa: E501


def page(request: Request, shown: Mapping[str, Captured], title: str) -> str:
    """Return a whole view as HTML.

    Args:
        request: what is shown.
        shown: the captured passes by place.
        title: of the page.
    """
    states = [_state(request, one, shown) for one in shown.values()]
    script = (_HERE / "linked.js").read_text(encoding="utf-8").replace("export default", "const linked =")
    style = (_HERE / "linked.css").read_text(encoding="utf-8")
    numbers = json.dumps(states).replace("<", "\\u003c")
    return _PAGE.format(title=escape(title), style=style, script=script, states=numbers)


def _state(request: Request, captured: Captured, shown: Mapping[str, Captured]) -> tuple[dict[str, Any], list[str]]:
    """Return what a linked picture holds, and which of it is bytes, written in base 64."""
    picture, layers = Linked(), 1 if captured.seen is None else len(captured.attention)
    layer = max(-layers, min(layers - 1, request.layer))
    query = view.read_at(captured, request.query)
    picture.show(captured, view.panels(captured, request, shown), layer, request.head, query)
    values = {name: getattr(picture, name) for name in Linked.class_own_traits(sync=True) if not name.startswith("_")}
    values |= {"checkable": False, "heads": b""}  # what would need a kernel
    raw = [name for name, value in values.items() if isinstance(value, bytes)]
    return {**values, **{name: base64.b64encode(values[name]).decode() for name in raw}}, raw
