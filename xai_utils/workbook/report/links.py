"""Whether a built site holds together: every link, picture and anchor is there, and nothing comes from elsewhere."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADED = {"src", "srcset", "poster", "data"}  # what a browser fetches by itself
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_CSS_ADDRESS = re.compile(r"@import|url\(\s*['\"]?(?!data:)([^'\")]+)", re.IGNORECASE)


@dataclass
class _Page(HTMLParser):
    """What a page points to, and the anchors it offers."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: Counter[str] = field(default_factory=Counter)
    nameless: list[str] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.anchors[values["id"]] += 1
        if tag in ("select", "input"):
            self.fields.add(values.get("name", ""))
        if tag == "img" and not values.get("alt", "").strip():
            self.nameless.append(values.get("src", "")[:80])
        for name, value in values.items():
            if name in LOADED or (name == "href" and tag != "a"):
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)


def problems(site: Path) -> list[str]:
    """Return what is wrong with a site, one sentence each; an empty list means that it may be published.

    A link within the site must be relative and lead to a file of it, and to an anchor of that file if it names one. An
    address on the web is allowed in ``<a href>`` only. Anchors are unique, and every picture has an alternative text.
    """
    pages = {path.relative_to(site).as_posix(): _parse(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for name, page in pages.items():
        found += [
            f"{name}: the anchor {one!r} occurs {times} times" for one, times in page.anchors.items() if times > 1
        ]
        found += [f"{name}: the picture {one!r} has no alternative text" for one in page.nameless]
        found += [f"{name}: {one[:80]!r} is loaded from elsewhere" for one in page.loaded if _foreign(one)]
        inside = [one for one in page.links + page.loaded if not _SCHEME.match(one) and not one.startswith("//")]
        found += [f"{name}: {why}" for one in inside if (why := _broken(one, name, site, pages))]
        found += [f"{name}: {one!r} is no address on the web" for one in page.links if _local(one)]
    for path in sorted(site.rglob("*.css")):
        foreign = [match[0] for match in _CSS_ADDRESS.finditer(path.read_text(encoding="utf-8"))]
        found += [f"{path.name}: {one!r} is loaded from elsewhere" for one in foreign]
    return found


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page


def _foreign(address: str) -> bool:
    return address.startswith("//") or (bool(_SCHEME.match(address)) and not address.startswith("data:"))


def _local(address: str) -> bool:
    """Say whether a link with a scheme leads to a machine's own files, or nowhere."""
    scheme = _SCHEME.match(address)
    return address.startswith("//") or bool(scheme and scheme[0].lower() not in ("http:", "https:", "mailto:"))


def _broken(address: str, name: str, site: Path, pages: dict[str, _Page]) -> str:
    target, _, anchor = address.partition("#")
    if target.startswith("/"):
        return f"{address!r} is absolute; write it relative to the page"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(target))) if target else name
    if path.startswith("..") or not (site / path).is_file():
        return f"{address!r} leads to nothing in the site"
    offered = pages[path].fields if path in pages else set()
    if "=" in anchor:  # a choice of the page's filter, see site.js
        unknown = {one.partition("=")[0] for one in anchor.split("&")} - offered
        return f"{address!r} chooses {', '.join(sorted(unknown))}, which {path} does not offer" if unknown else ""
    if anchor and (path not in pages or unquote(anchor) not in pages[path].anchors):
        return f"{address!r} names an anchor that {path} does not have"
    return ""
