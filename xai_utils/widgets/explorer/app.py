"""The explorer of notebook 10: choose model, input, class and methods; see their maps side by side, linked.

Everything slow runs in a thread of its own, with progress, and can be stopped; dragging redraws what is captured. An
error becomes a message, and what was shown before stays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import torch
from traitlets import TraitError

from xai_utils import models
from xai_utils.capture.stopping import stoppable
from xai_utils.models import Model
from xai_utils.widgets.explorer import decided, files, view
from xai_utils.widgets.explorer.controls import EXAMPLES, Controls, fitting
from xai_utils.widgets.explorer.linked import Linked
from xai_utils.widgets.explorer.view import Captured, Request

REDRAWN = ("layer", "head", "query", "change", "strength", "difference")  # chosen without asking the model again
INPUTS = {"text": "the effects dazzle , but the story is lifeless and the jokes fall flat", "vision": "scene:3:2"}
_CALLED = {"text": "sentences", "vision": "pictures"}


class Explorer:
    """Controls and linked pictures; ``box`` is the widget, ``request`` the view that is shown.

    Args:
        request: the first view.
        device: of the models.
        folder: where exported views and uploaded pictures go, :func:`files.folder` by default; made when needed.
    """

    def __init__(self, request: Request, device: torch.device | str = "cpu", folder: str | Path = "") -> None:
        """Load the first view; an error in it is shown as a message."""
        self.request, self.device, self.folder = request, device, Path(folder or files.folder())
        self.controls, self.message = Controls(), widgets.HTML()
        self.pictures = {"first": Linked(), "second": Linked()}
        self.models: dict[str, Model] = {}
        self.shown: dict[str, Captured] = {}  # by the place of a picture
        self.inputs = dict(INPUTS)  # the last one of each kind
        self.worker: threading.Thread | None = None
        self.flag = threading.Event()
        self.drawing = threading.RLock()  # one thread at a time changes what is shown
        self._told = False  # what is said of tokens taken away is said already
        self._filling: int | None = None  # the thread that sets controls, whose changes are nobody's wish
        self.side = widgets.HBox([self.pictures["first"]], layout=widgets.Layout(flex_flow="row wrap"))
        main = widgets.VBox(
            [self.message, self.side], layout=widgets.Layout(flex="1 1 24em", min_width="0", padding="0 0 0 12px")
        )
        self.box = widgets.HBox([self.controls.box, main], layout=widgets.Layout(align_items="flex-start"))
        self.controls.name(request)
        self._connect()
        self._guard(lambda: self._load(request))
        if "XAI_NOTEBOOK" in os.environ:  # executed without a browser: what a page shows without a kernel
            self.box.children = (*self.box.children, self._still())

    def _still(self) -> widgets.Image:
        """Return the first view as one picture, which no browser with a kernel shows."""
        still = widgets.Image(format="png", layout=widgets.Layout(display="none"))
        if self.shown:
            still.value = files.drawn(self.request, self.shown)
        return still

    def _connect(self) -> None:
        controls = self.controls
        controls.look.on_click(lambda _: self.start())
        controls.stop.on_click(lambda _: self.flag.set())
        controls.export.on_click(lambda _: self._guard(self._export))
        for one in controls.slow:
            one.observe(self._changed, "value")
        controls.upload.observe(lambda _: self._guard(self._uploaded), "value")
        controls.examples.observe(lambda change: self._example(change["new"]), "value")
        fast: dict[Any, Callable[[], None]] = {
            controls.change: self._another_change, controls.strength: self._redraw_maps,
            controls.layer: self._redraw_layer, controls.table: self._show_table, controls.pieces: self._show_table,
            controls.difference: self._redraw_maps, controls.lines: self._show_table,
            controls.everywhere: self._everywhere,
        }  # fmt: skip
        for control, act in fast.items():
            control.observe(lambda change, act=act: self._redraw(change, act), "value")
        for place, picture in self.pictures.items():
            picture.observe(lambda change: self._alone(lambda: self._head(change["new"])), "head")
            picture.observe(lambda change, place=place: self._alone(lambda: self._query(place, change["new"])), "query")
            picture.observe(lambda _, place=place: self._alone(lambda: self._without(place)), "gone")
            picture.on_msg(lambda _, told, __, place=place: self._asked(place, told))

    # asking a model: slow, in a thread

    def start(self) -> None:
        """Begin to look at what the controls say; what is running is stopped first."""
        self.wait(stop=True)
        asked = self.controls.asked(self.request)
        for picture in self.pictures.values():
            picture.stale = True
        self.worker = threading.Thread(target=lambda: self._guard(lambda: self._load(asked)), daemon=True)
        self.worker.start()

    def wait(self, stop: bool = False) -> None:
        """Wait until nothing runs any more; ``stop`` it first if asked."""
        if self.worker is not None and self.worker is not threading.current_thread():
            if stop:
                self.flag.set()
            self.worker.join()
        self.flag.clear()

    def _changed(self, change: dict[str, Any]) -> None:
        """Follow a choice; one made in the very moment in which older work filled the controls counts."""
        if self._is_filling or change["old"] == change["new"]:
            return
        self.wait(stop=True)
        with self._fills(), suppress(TraitError):
            change["owner"].value = change["new"]
        self.start()

    def _redraw(self, change: dict[str, Any], act: Callable[[], None]) -> None:
        """Follow a choice that asks the model nothing; one made while older work fills the controls counts."""
        if self._is_filling:
            return
        with self.drawing:
            with self._fills(), suppress(TraitError):
                change["owner"].value = change["new"]
            self._guard(act)

    def _alone(self, act: Callable[[], None]) -> None:
        """Change what is shown while no other thread does."""
        with self.drawing:
            self._guard(act)

    @property
    def _is_filling(self) -> bool:
        return self._filling == threading.get_ident()

    @contextmanager
    def _fills(self) -> Iterator[None]:
        """Set controls inside without following them."""
        before, self._filling = self._filling, threading.get_ident()
        try:
            yield
        finally:
            self._filling = before

    def _load(self, asked: Request) -> None:
        """Capture a whole view, then show it; stopped or failed, nothing changes."""
        progress, names = self.controls.progress, files.places(asked)
        found: dict[str, Captured] = {}
        with self.controls.busy((1 + len(asked.methods)) * len(names)), stoppable(self.flag):
            asked = self._of_its_kind(asked)
            for place, name in names.items():
                progress.description = f"{name} looks"
                found[place] = self._captured(asked, name)
                for method in asked.methods:
                    progress.value, progress.description = progress.value + 1, method
                    view.panel(found[place], method)
                progress.value += 1
        with self.drawing:
            meanwhile = {name: getattr(self.request, name) for name in REDRAWN}
            if self.shown and asked.sample != self.request.sample:
                meanwhile["query"] = 0  # a position of another input means nothing
            self.request, self.shown = replace(asked, **meanwhile), found
            self.inputs[found["first"].model.kind] = asked.sample
            self._show()

    def _model(self, name: str) -> Model:
        if name not in self.models:
            self.controls.progress.description = f"loading {name}"
            try:
                self.models[name] = models.load(name, self.device)
            except ValueError as error:
                near = get_close_matches(name, models.MODELS, 1)
                raise ValueError(f"Did you mean {near[0]}? {error}" if near else str(error)) from error
        return self.models[name]

    def _of_its_kind(self, asked: Request) -> Request:
        """Give a model that is new here what suits it: the last input of its kind, its methods, its own last layer."""
        model = self._model(asked.model)
        if asked.second_model and (other := self._model(asked.second_model).kind) != model.kind:
            raise ValueError(
                f"{asked.model} explains {_CALLED[model.kind]} and {asked.second_model} {_CALLED[other]}; two models "
                "beside each other need one input. Choose a second model of the same kind, or none."
            )
        before = self.shown.get("first")
        if before is not None and before.model is model:
            return asked
        asked = replace(asked, methods=fitting(model, asked.methods))
        if before is not None and before.model.kind != model.kind and asked.sample == self.request.sample:
            return replace(asked, sample=self.inputs[model.kind])
        return asked

    def _captured(self, asked: Request, name: str) -> Captured:
        """Capture, or keep what is captured of this very input already."""
        model = self._model(name)
        target = files.target_of(asked, name)
        if asked.sample == self.request.sample:
            for kept in self.shown.values():
                if kept.model is model and kept.target == target:
                    return kept
        return view.capture(model, view.sample_of(model, asked.sample, self.folder), target)

    # showing what is captured: fast

    def _show(self) -> None:
        first = self.shown["first"]
        layer, head = self._within(first)
        last = len(view.names_of(first)) - 1
        self.request = replace(
            self.request, layer=layer, head=head, query=view.read_at(first, min(self.request.query, last))
        )
        with self._fills():
            self.controls.fill(self.request, first)
        for place, captured in self.shown.items():
            shown = view.panels(captured, self.request, self.shown)
            self.pictures[place].everywhere = self.controls.everywhere.value
            self.pictures[place].show(captured, shown, *self._within(captured), self.request.query)
            self.pictures[place].stale = False
        self.side.children = [self.pictures[place] for place in self.shown]
        self._say("")

    def _within(self, captured: Captured) -> tuple[int, int | None]:
        """Return layer and head of the request as far as this model has them (the second may be smaller)."""
        if captured.seen is None:
            return 0, None
        layers, heads = captured.attention.shape[:2]
        layer, head = self.request.layer, self.request.head
        return max(-layers, min(layers - 1, layer)), None if head is None or head >= heads else head

    def _redraw_layer(self) -> None:
        self.request = replace(self.request, layer=self.controls.layer.value)
        for place, captured in self.shown.items():
            self.pictures[place].show_layer(captured, *self._within(captured))

    def _everywhere(self) -> None:
        for place, captured in self.shown.items():
            self.pictures[place].everywhere = self.controls.everywhere.value
            self.pictures[place].show_overview(captured)

    def _asked(self, place: str, wish: Mapping[str, Any]) -> None:
        """Do what a browser asks for in a picture: a head of the overview, or a map's first words taken away."""
        if "layer" in wish:
            self.controls.layer.value = int(wish["layer"])
            self._alone(lambda: self._head(int(wish["head"])))
        elif "top" in wish:
            self._alone(lambda: self._best(place, wish))

    def _head(self, head: int) -> None:
        if self.shown and head != (-1 if self.request.head is None else self.request.head):
            self.request = replace(self.request, head=None if head < 0 else head)
            for other, captured in self.shown.items():
                self.pictures[other].show_layer(captured, *self._within(captured))

    def _query(self, place: str, query: int) -> None:
        """Show the heads at the position chosen in one picture, and choose it in the other if that is its like."""
        if place not in self.shown or query == self.request.query:
            return
        self.request = replace(self.request, query=query)
        names = {other: view.names_of(captured) for other, captured in self.shown.items()}
        for other, captured in self.shown.items():
            if names[other] == names[place]:
                self.pictures[other].query = query
                self.pictures[other].show_heads(captured, self._within(captured)[0])

    def _without(self, place: str) -> None:
        """Say what a model decides without the tokens that were taken away in its picture."""
        picture = self.pictures[place]
        if place in self.shown and not self._told:
            picture.told = decided.told(self.shown[place], picture.gone) if picture.gone else ""

    def _best(self, place: str, wish: Mapping[str, Any]) -> None:
        """Take a map's first words or patches away, and say what as many at random do."""
        captured, picture = self.shown[place], self.pictures[place]
        shown = view.panels(captured, self.request, self.shown)[int(wish["top"])]
        found = decided.checked(captured, shown)
        self._told = True
        try:
            with picture.hold_sync():
                picture.gone, picture.told = found.gone, f"{shown.title}, its first {decided.TAKEN} gone: {found}"
        finally:
            self._told = False

    def _another_change(self) -> None:
        with self._fills():
            self.controls.fill_change(self.controls.change.value, None)
        self._redraw_maps()

    def _redraw_maps(self) -> None:
        asked = self.controls.asked(self.request)
        self.request = replace(self.request, change=asked.change, strength=asked.strength, difference=asked.difference)
        for place, captured in self.shown.items():
            self.pictures[place].show_maps(captured, view.panels(captured, self.request, self.shown))

    def _show_table(self) -> None:
        for picture in self.pictures.values():
            picture.table, picture.pieces = self.controls.table.value, self.controls.pieces.value
            picture.lines = self.controls.lines.value

    def _example(self, chosen: str | None) -> None:
        """Put an example into the input; the list then waits for the next choice."""
        if not self._is_filling and chosen not in (None, EXAMPLES):
            self.controls.sample.value = chosen

    # files and messages

    def _uploaded(self) -> None:
        if self.controls.upload.value:
            file = files.received(self.controls.upload.value[0], self.folder)
            self.controls.sample.value = file.name

    def _export(self) -> None:
        written = files.export(self.request, self.shown, self.folder, self.controls.dpi.value)
        self._say(f"written into {self.folder.name}: " + ", ".join(path.name for path in written), colour="#00568a")

    def _guard(self, act: Callable[[], None]) -> None:
        """Do something; whatever goes wrong becomes a message, and what is shown stays."""
        try:
            act()
        except KeyboardInterrupt:
            self._say("interrupted; what was shown before is still valid.")
        except Exception as error:  # the widget must go on, whatever a model, a file or a stop does
            self._say(str(error) or type(error).__name__)

    def _say(self, words: str, colour: str = "#a40000") -> None:
        self.message.value = f"<p role='alert' style='color:{colour}'>{escape(words)}</p>" if words else ""


def explore(request: Request, device: torch.device | str = "cpu", folder: str | Path = "") -> widgets.Widget:
    """Return the explorer as one widget, with its first view loaded; see :class:`Explorer`."""
    return Explorer(request, device, folder).box
