"""The widget of notebook 11 as a person uses it: a word of the answer is clicked, words of the prompt go."""

import re

import pytest
import torch

from tests.browser import lab
from xai_utils import models, samples

pytestmark = pytest.mark.browser
(NOTEBOOK,) = [path for path in lab.NOTEBOOKS if path.name.startswith("11")]
PROMPT = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with lab.served(tmp_path_factory.mktemp("lab")) as where:
        yield where


class Seen:
    """The widget in a page."""

    def __init__(self, page):
        self.root = page.locator(".jp-OutputArea-output", has=page.locator(".widget-image")).first
        self.root.scroll_into_view_if_needed()
        self.image = self.root.locator(".widget-image").first
        self.image.wait_for()
        self.said = self.root.locator(".widget-toggle-buttons button")

    @property
    def note(self) -> str:
        """The line below the picture, without the time that it took."""
        return self.root.locator(".widget-html").last.inner_text().partition(" (")[0].strip()

    def word(self, word: str):
        """Return the button of a word of the prompt."""
        return self.root.locator("button.widget-toggle-button", has_text=re.compile(rf"^{word}$")).first

    def until(self, told: str) -> None:
        lab.wait_for(lambda: self.note == told, lab.PATIENCE, f"{told!r}; it says {self.note!r}")


def probability(model, text: str, word: int) -> float:
    """Ask the model itself, without widget, answer or masks."""
    with torch.inference_mode():
        return float(model.logits(models.encode(model, [samples.text(text)]).inputs)[0].softmax(-1)[word])


def test_it_tells_what_the_model_gives(address, tmp_path):
    model = models.load("smollm2")
    answer = models.answers.generated(model, PROMPT, 4)
    said = [int(one) for one in answer.ids[answer.first :]]
    names = [model.tokenizer.decode([one]).strip() or repr(model.tokenizer.decode([one])) for one in said]
    texts = [answer.text[: answer.spans[place][0]] for place in answer.explained]
    with lab.opened(address, NOTEBOOK, tmp_path) as page:
        lab.run_all(page)
        seen = Seen(page)
        assert seen.note == f"probability of {names[0]}: {probability(model, PROMPT, said[0]):.2f}"
        before = seen.image.get_attribute("src")
        seen.said.nth(1).click()
        seen.until(f"probability of {names[1]}: {probability(model, texts[1], said[1]):.2f}")
        assert seen.image.get_attribute("src") != before and seen.image.evaluate("it => it.naturalWidth") > 300
        seen.said.nth(0).click()
        whole = f"probability of {names[0]}: {probability(model, PROMPT, said[0]):.2f}"
        seen.until(whole)
        seen.word("Mary").click()
        shorter = probability(model, PROMPT.replace("Mary ", "", 1), said[0])
        assert abs(shorter - probability(model, PROMPT, said[0])) > 0.1, (
            "the word is the cause, so taking it away tells"
        )
        seen.until(f"{whole}; without Mary: {shorter:.2f}")
        seen.root.screenshot(path=lab.SHOTS / f"{NOTEBOOK.stem}_widget_masked.png")
        seen.word("store").press("Space")  # by the keyboard, and the other word stays away
        both = probability(model, PROMPT.replace("Mary ", "", 1).replace(" store", "", 1), said[0])
        seen.until(f"{whole}; without Mary, store: {both:.2f}")
        seen.word("Mary").click()
        seen.word("store").click()
        seen.until(whole)
        assert not lab.errors(page)
