"""What is said of a decision, and what masking says: the numbers of the package's own removal."""

import decoders
import pytest
import tiny
import torch

from xai_utils.models import removal
from xai_utils.samples import Text
from xai_utils.widgets.explorer import decided, view

EACH = pytest.mark.parametrize("name", ["bert", "timm-vit", "resnet"])


def captured(name, target=None):
    return view.capture(tiny.model(name), tiny.samples(name)[0], target)


@EACH
def test_the_decision_is_the_models_own_with_its_probabilities(name):
    one = captured(name)
    chances = one.model.logits(one.batch.inputs)[0].double().softmax(-1)
    first, second = chances.argsort(descending=True)[:2].tolist()
    classes = one.model.classes
    told = decided.said(one.model, one.logits)
    assert told == (
        f"predicted {classes[first]} ({decided.percent(float(chances[first]))}), "
        f"{classes[second]} ({decided.percent(float(chances[second]))})"
    )


def test_certainty_is_not_rounded_to_all_or_nothing():
    assert [decided.percent(one) for one in (0.5231, 0.9996, 0.0004)] == ["52 %", "99.96 %", "0.04 %"]


def test_a_model_without_a_classifier_decides_nothing():
    one = captured("bert")
    one.logits = None
    assert "decides nothing" in decided.said(one.model, None)
    with pytest.raises(ValueError, match="decides nothing"):
        decided.asked_class(one)


@EACH
def test_masking_gives_what_removal_gives(name):
    one = captured(name, target=1)
    gone = [[], [1], [1, 2]]
    keep = torch.ones(3, len(one.batch.labels[0]), dtype=torch.bool)
    keep[1, 1] = keep[2, 1] = keep[2, 2] = False
    found = decided.chances(one.model, decided.without(one, gone))[:, decided.asked_class(one)]
    torch.testing.assert_close(found, removal.scorer(one.model, one.sample, 1)(keep))
    assert found[0] != found[2]


def test_a_special_token_or_one_that_is_not_there_cannot_go():
    with pytest.raises(ValueError, match="special token"):
        decided.without(captured("bert"), [[0]])
    with pytest.raises(IndexError, match="token is 99"):
        decided.without(captured("bert"), [[99]])


def test_the_first_words_of_a_map_go_beside_as_many_at_random():
    one = captured("bert", target=1)
    shown = view.panel(one, "attnlrp")
    found = decided.checked(one, shown, count=2, draws=3)
    owner = decided.words(one)
    scores, names = shown.found.scores.tolist(), view.names_of(one)
    sums = {word: sum(s for s, o in zip(scores, owner, strict=True) if o == word) for word in owner if word >= 0}
    plain = [word for word in sums if any(map(str.isalnum, names[owner.index(word)]))]
    assert {owner[i] for i in found.gone} == set(sorted(plain, key=lambda w: -sums[w])[:2])
    assert found.before == pytest.approx(float(decided.chances(one.model, one.logits)[1]))
    assert len(found.random) == 3 and "in 3 draws" in str(found)
    assert str(decided.checked(one, shown, count=2, draws=3)) == str(found), "the draws are seeded"


def test_a_map_that_is_not_there_has_no_first_words():
    with pytest.raises(ValueError, match="gradcam has no map"):
        decided.best(captured("bert"), view.panel(captured("bert"), "gradcam"))


def test_pieces_belong_to_words_and_words_are_written_as_in_the_text():
    model = decoders.causal("llama")
    one = view.capture(model, Text("the film is not dull , but slow ."), None)
    owner, names = decided.words(one), view.names_of(one)
    assert len(owner) == len(names) and "film" in names
    text = captured("bert")
    assert decided.words(text)[0] == decided.words(text)[-1] == -1
    picture = captured("timm-vit")
    assert decided.words(picture) == list(range(len(picture.batch.labels[0])))
