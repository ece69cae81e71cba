"""Time the closed forms of the attention classifier: against back-propagation, forward passes, and the lime package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import torch

from tests.bench.measure import Against, Row, in_turn, program
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


def package(model: Model, read: Document, count: int) -> Callable[[], object]:
    """Return the lime package's explanation of the same text, asked as its documentation asks."""
    from lime.lime_text import LimeTextExplainer

    explainer = LimeTextExplainer(class_names=list(model.classes), bow=True, random_state=0)

    def probabilities(texts: list[str]) -> np.ndarray:
        return closed_forms.class_scores(model, texts).softmax(-1).numpy()

    whole = " ".join(read.words)
    return lambda: explainer.explain_instance(whole, probabilities, num_features=len(read.words), num_samples=count)


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure the closed gradient, sampled LIME and exact LIME, and the widget."""
    repeats, count, words = (3, 200, 60) if quick else (7, 1000, 60)
    _, long = text(255)
    times = in_turn({"ours": long.gradient, "back": long.autograd}, repeats)
    back = Against("back-propagation", times["back"])
    yield Row("closed gradient of 6 heads, 256 tokens, float64", times["ours"], back)
    model, read = text(words)
    masks, parts = lime.sample(words, count, 0), read.ratio()
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: lime.regress(drawn := lime.sample(words, count, 0), mask_ratio.outputs(parts, drawn)),
        "passes": lambda: closed_forms.class_scores(model, closed_forms.masked_texts(read, masks)),
        "exact": lambda: lime.exact(parts),
    }
    name = program("lime", works, lambda: package(model, read, count))
    times = in_turn(works, 1 if quick else 3)
    peer = Against(name, times.get(name), 1.0)
    passes = Against(f"{count:,} texts, tokens, forward passes", times["passes"], HUNDREDTH)
    yield Row(f"LIME of {words} words from {count:,} masks", times["ours"], passes, peer)
    drawn = Against(f"our own {count:,} masks", times["ours"])
    yield Row(f"LIME of {words} words, exact: the limit of all masks", times["exact"], drawn, peer)
    yield widget(repeats)


def widget(repeats: int) -> Row:
    """Choose another head in the widget, against the closed forms that it shows."""
    model, read = text(12)
    box = closed_form.sentence_and_head(model, " ".join(read.words))
    chooser, heads = box.children[0].children[1], cycle(range(read.layer.heads))
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: setattr(chooser, "value", next(heads)),
        "forms": lambda: closed_forms.highlights(read.head(0), closed_form.SHOWN),
    }
    times = in_turn(works, repeats)
    return Row("another head in the widget, 12 words", times["ours"], Against("its closed forms", times["forms"]))
