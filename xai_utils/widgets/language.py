"""A widget on a language model: choose a word that it said and see what it came from; mask words of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils import methods, plots
from xai_utils.methods import stepwise
from xai_utils.models import Model, Question, removal
from xai_utils.models.answers import Answer, generated, logits_at
from xai_utils.plots import language as plots_language
from xai_utils.samples.spans import named, owners
from xai_utils.widgets.attention import WIDE, Canvas

METHODS = ("attnlrp", "cp_lrp", "gradient_norm", "generic_attention", "rollout", "leave_one_out")
LIKELY = 6  #: next words on offer
Asked = tuple[str, int, int, int | None]  # method, step, target, against


class Said:
    """An answer and all that was computed of it: nothing is computed twice.

    Attributes:
        answer: prompt and answer.
        words: of the whole text, in order.
        prompted: how many of them are the prompt's.
    """

    def __init__(self, model: Model, prompt: str, tokens: int, names: Sequence[str]) -> None:
        """Let the model answer, and explain every token of the answer by every method."""
        self.model, self.answer = model, generated(model, prompt, tokens)
        groups = named(self.answer.text, "words")
        self.words = list(groups)
        self._owner = torch.tensor(owners(self.answer.text, self.answer.spans, list(groups.values())))
        self.prompted = sum(spans[0][1] <= len(prompt) for spans in groups.values())
        self._chances = self._read()
        self._rows: dict[Asked, Tensor] = {}
        for name in names:
            every = stepwise.explain(name, model, self.answer)
            for step, scores in enumerate(every.scores):
                self._rows[name, step, self.said(step), None] = self._summed(scores, step)

    def said(self, step: int) -> int:
        """Return the id of an explained token."""
        return int(self.answer.ids[self.answer.explained[step]])

    def before(self, step: int) -> list[str]:
        """Return the words that stand before an explained token."""
        return self.words[: self._count(step)]

    def chances(self, step: int) -> Tensor:
        """Return the probability of every next word at a step, ``(word of the vocabulary,)``."""
        return self._chances[step]

    def row(self, method: str, step: int, target: int, against: int | None) -> Tensor:
        """Return what each word before a step has to do with a target, ``(word,)``."""
        asked = method, step, target, against
        if asked not in self._rows:
            inputs = self.answer.inputs(self.model, self.answer.explained[step])
            known = against if methods.METHODS[method].asks else None
            question = Question(target, known) if methods.METHODS[method].asks else None
            self._rows[asked] = self._summed(methods.explain(method, self.model, inputs, question)[0].scores, step)
        return self._rows[asked]

    def without(self, masked: Sequence[int], step: int, operator: str) -> Tensor:
        """Return the probabilities at a step once some words of the prompt are gone."""
        batch = self.answer.batch(self.model, self.answer.explained[step])
        gone = torch.isin(self._owner[: self.answer.explained[step]], torch.tensor(masked))
        with torch.inference_mode():
            inputs = removal.replacer(self.model, batch, operator)(~gone[None].to(self.model.device))
            return self.model.logits(inputs)[0].softmax(-1).cpu()

    def _count(self, step: int) -> int:
        return int(self._owner[: self.answer.explained[step]].max()) + 1

    def _summed(self, scores: Tensor, step: int) -> Tensor:
        place, count = self.answer.explained[step], self._count(step)
        owner = self._owner[:place]
        there = owner >= 0
        return torch.zeros(count, dtype=torch.float64).index_add(0, owner[there], scores[:place].double()[there])

    @torch.inference_mode()
    def _read(self) -> Tensor:
        places = torch.tensor([self.answer.explained], device=self.model.device) - 1
        return logits_at(self.model, self.answer.inputs(self.model, -1), places)[0].softmax(-1).cpu()


def answer(model: Model, prompt: str, tokens: int = 8, names: Sequence[str] = METHODS) -> widgets.Widget:
    """Click a word of the answer and see what it came from; mask words of the prompt and see what becomes of it.

    Args:
        model: a causal language model.
        prompt: to begin with.
        tokens: of the answer, at most.
        names: methods on offer (see :data:`methods.METHODS`); all of them explain every token of an answer at once.

    Returns:
        A field for the prompt, its words and those of the answer as buttons, method, target and contrast above a
        picture: what each word before the chosen one has to do with it, and how likely it is.
    """
    return _Controls(model, prompt, tokens, names).box


class _Controls:
    def __init__(self, model: Model, prompt: str, tokens: int, names: Sequence[str]) -> None:
        self.model, self.tokens, self.names = model, tokens, names
        wide = widgets.Layout(width="48em")
        self.typed = widgets.Text(value=prompt, description="prompt", continuous_update=False, layout=wide, style=WIDE)
        self.masks = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self.step = widgets.ToggleButtons(description="answer", style={**WIDE, "button_width": "auto"})
        self.method = widgets.Dropdown(options=list(names), description="method", style=WIDE)
        self.operator = widgets.Dropdown(options=list(removal.operators_for(model)), description="mask by", style=WIDE)
        self.target = widgets.Dropdown(description="target", style=WIDE)
        self.against = widgets.Dropdown(description="against", style=WIDE)
        self.canvas, self.quiet = Canvas(9, 4.2), True
        for control in (self.method, self.operator, self.target, self.against):
            control.observe(self._redraw, names="value")
        self.step.observe(self._offer, names="value")
        self.typed.observe(self._ask, names="value")
        hint = widgets.HTML("<small>press a word of the prompt to take it away</small>")
        choices = widgets.HBox([self.method, self.operator, self.target, self.against])
        self.box = widgets.VBox([self.typed, self.masks, hint, self.step, choices, self.canvas.box])
        self._ask()

    def _ask(self, *_: Any) -> None:
        """Let the model answer what is typed; a prompt that it cannot answer leaves everything as it was."""

        def paint(fig: Figure) -> str:
            self.seen = Said(self.model, self.typed.value, self.tokens, self.names)
            self.quiet = True
            self.masks.children = [self._button(word) for word in self.seen.words[: self.seen.prompted]]
            self.step.options = [(_shown(self.seen.answer, i), i) for i in range(len(self.seen.answer))]
            self.step.value = 0
            self._offer()
            return self._paint(fig)

        self.canvas.draw(paint)

    def _button(self, word: str) -> widgets.ToggleButton:
        button = widgets.ToggleButton(description=word, layout=widgets.Layout(width="auto"))
        button.observe(self._redraw, names="value")
        return button

    def _offer(self, *_: Any) -> None:
        """Offer the likeliest words at the chosen place as target and contrast, the one that was said first."""
        if self.step.value is None:  # for a moment, while its options change
            return
        quiet, self.quiet = self.quiet, True
        step, said = self.step.value, self.seen.said(self.step.value)
        chances = self.seen.chances(step)
        likely = [one for one in chances.topk(LIKELY).indices.tolist() if one != said]
        named = [(f"{self._name(one)} ({chances[one]:.2f})", one) for one in (said, *likely)]
        self.target.options, self.against.options = named, [("nothing", None), *named]
        self.target.value, self.against.value = said, None
        self.quiet = quiet
        self._redraw()

    def _name(self, token: int) -> str:
        return self.model.tokenizer.decode([token]).strip() or repr(self.model.tokenizer.decode([token]))

    def _redraw(self, *_: Any) -> None:
        if not self.quiet:
            self.canvas.draw(self._paint)

    def _paint(self, fig: Figure) -> str:
        self.quiet = False
        step, target, against = self.step.value, self.target.value, self.against.value
        if target == against:
            raise ValueError("target and contrast are the same word; choose another one against it.")
        scores = self.seen.row(self.method.value, step, target, against)
        masked = [i for i, button in enumerate(self.masks.children) if button.value]
        before = self.seen.chances(step)
        after = self.seen.without(masked, step, self.operator.value) if masked else None
        method = methods.METHODS[self.method.value]
        named = self._name(target) + (f" − {self._name(against)}" if against is not None else "")
        title = f"{self.method.value} of {named}" if method.asks else f"{self.method.value}, whatever is said"
        left, right = fig.add_axes((0.14, 0.14, 0.4, 0.77)), fig.add_axes((0.68, 0.14, 0.3, 0.77))
        unit = method.unit.replace("asked", "logit")
        plots.token_bars(left, scores, self.seen.before(step), title, unit, method.signed)
        shown = [one for _, one in self.target.options]
        names = [self._name(one) for one in shown]
        plots_language.chances(right, names, before[shown], None if after is None else after[shown], "what comes next")
        gone = ", ".join(self.masks.children[i].description for i in masked)
        told = f"probability of {self._name(target)}: {before[target]:.2f}"
        return told if after is None else f"{told}; without {gone}: {after[target]:.2f}"


def _shown(answer: Answer, step: int) -> str:
    """Return an explained token as it is read."""
    start, end = answer.spans[answer.explained[step]]
    return answer.text[start:end].strip() or repr(answer.text[start:end])
