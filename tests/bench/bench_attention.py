"""Time the closed forms of the attention classifier: against back-propagation, and against LIME by forward passes."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import torch

from tests.bench.bench_capture import in_turn, row
from xai_utils.maths import lime, mask_ratio
from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import Document
from xai_utils.models import Model
from xai_utils.models.attention_classifier import AttentionClassifier, Settings, word_tokenizer
from xai_utils.samples import Text
from xai_utils.widgets import closed_form

HUNDREDTH = 0.01  # of LIME by forward passes


def text(words: int) -> tuple[Model, Document]:
    """Build the classifier with random weights and published sizes, and a text of so many different words."""
    torch.manual_seed(0)
    vocabulary = [f"word{number}" for number in range(max(words, 2000))]
    tokenizer = word_tokenizer(vocabulary)
    module = AttentionClassifier(Settings(len(tokenizer))).eval().requires_grad_(False)
    model = Model("bench", module, ("negative", "positive"), 0, 0, tokenizer, None, "")
    chosen = np.random.default_rng(0).choice(len(vocabulary), words, replace=False)
    return model, closed_forms.read(model, Text(" ".join(vocabulary[i] for i in chosen)))


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure gradient, sampled LIME and exact LIME."""
    repeats, count, words = (3, 1000, 60) if quick else (7, 5000, 200)
    _, long = text(255)
    closed, back = "closed gradient of every head", "back-propagation"
    times = in_turn(
        {
            closed: lambda: long.gradient(),
            back: lambda: long.autograd(),
        },
        repeats,
    )
    lines = [row("gradient, 256 tokens, 6 heads, double precision", closed, back, times)]
    model, read = text(words)
    masks, parts = lime.sample(words, count, 0), read.ratio()
    affine, passes = "scores as a ratio", "texts, tokens and forward passes"
    times = in_turn(
        {
            affine: lambda: mask_ratio.outputs(parts, masks),
            passes: lambda: closed_forms.class_scores(model, closed_forms.masked_texts(read, masks)),
        },
        1,
    )
    lines.append(row(f"{count} masks of {words} words, 6 heads", affine, passes, times, HUNDREDTH))
    exact, drawn = "exact LIME", f"masks, ratio and regression, {count} samples"
    times = in_turn(
        {
            exact: lambda: lime.exact(parts),
            drawn: lambda: lime.regress(masks := lime.sample(words, count, 0), mask_ratio.outputs(parts, masks)),
        },
        repeats,
    )
    lines.append(row(f"LIME of {words} words, 6 heads", exact, drawn, times))
    return [*lines, widget(repeats)]


def widget(repeats: int) -> dict[str, object]:
    """Choose another head in the widget, against the closed forms that it shows."""
    model, read = text(12)
    box = closed_form.sentence_and_head(model, " ".join(read.words))
    chooser, heads = box.children[0].children[1], cycle(range(read.layer.heads))
    redraw, forms = "another head chosen", "the closed forms alone"
    times = in_turn(
        {
            redraw: lambda: setattr(chooser, "value", next(heads)),
            forms: lambda: closed_forms.highlights(read.head(0), closed_form.SHOWN),
        },
        repeats,
    )
    return row("widget on the closed forms, 12 words", redraw, forms, times)
