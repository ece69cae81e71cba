"""Where methods point on sequences with one known cause, by hand and on the bundled model, and at what distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xai_utils import claims, models
from xai_utils.evaluation import judged, on_recall, paired, sanity
from xai_utils.maths import hidden_attention
from xai_utils.methods import hidden
from xai_utils.samples import recall


def drawn(length, distance=None, seed=0):
    return recall.draw(np.random.default_rng(seed), length, distance)


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-recall")


def test_pointing_by_hand():
    one, two = drawn(9, 5), drawn(9, 1)
    on, behind = torch.zeros(9), torch.zeros(9)
    on[one.place], behind[two.place - 1] = 1, 1
    on[-1] = behind[-1] = 9  # the reader does not count
    found = on_recall.pointing([on, behind], [one, two])
    assert found.exact.tolist() == [True, False] and found.near.tolist() == [True, False]
    assert found.marked.tolist() == [False, True] and found.null == pytest.approx(1 / 8)
    assert found.near_null == pytest.approx((4 / 8 + 1 / 8) / 2)
    with pytest.raises(ValueError, match="8 scores for 9 tokens"):
        on_recall.pointing([on[:8]], [one])


def test_the_bundled_model_recalls_and_goes_by_the_answer_alone(model):
    sequences = recall.grid([1, 9, 30], 6, 40, 0)
    assert on_recall.accuracy(model, sequences).all()
    at_answer, elsewhere = on_recall.swaps(model, sequences, 0)
    assert at_answer.all() and not elsewhere.any()


def test_relevance_finds_the_answer(model):
    sequences = recall.grid([2, 20], 8, 30, 3)
    maps = judged.explained(model, *_asked(sequences))
    assert on_recall.marks(maps, sequences)["plain", "exact"].mean() > 0.8


def _asked(sequences):
    texts, labels = on_recall.texts(sequences)
    return texts, {"plain": ("mamba_lrp", {}), "no rules": ("mamba_lrp", {"rules": ()})}, labels


def test_many_maps_are_marked_as_each_alone(model):
    sequences = recall.grid([2, 5], 3, 12, 0)
    maps = judged.explained(model, *_asked(sequences))
    found = on_recall.marks(maps, sequences)
    assert list(found) == [(label, measure) for label in maps for measure in ("exact", "near")]
    for label, own in maps.items():
        alone = on_recall.pointing([one.scores for one in own], sequences)
        assert np.array_equal(found[label, "exact"], alone.exact) and np.array_equal(found[label, "near"], alone.near)


def test_texts_ask_for_the_answer():
    (text,), (label,) = on_recall.texts([drawn(9, 4)])
    assert text == recall.text_of(drawn(9, 4)) and recall.LETTERS[label] == drawn(9, 4).tokens[drawn(9, 4).place]


def test_hits_are_counted_by_distance():
    sequences = recall.grid([2, 5], 2, 12, 0)
    hits = [1.0, 0.0, 1.0, 1.0]
    rates = on_recall.by_distance(hits, sequences)
    assert {distance: (rate.mean, rate.n) for distance, rate in rates.items()} == {2: (0.5, 2), 5: (1.0, 2)}
    with pytest.raises(ValueError, match="shorter"):
        on_recall.by_distance(hits, sequences[:3])


# Faults planted in the study of letters, which its claims have to see

ASKED = {
    "MambaLRP": ("mamba_lrp", {}),
    "gradient × input": ("mamba_lrp", {"rules": ()}),
    "unified": ("unified_attention", {}),
    "hidden": ("hidden_attention", {}),
}
PAIR = ("MambaLRP", "gradient × input")


@pytest.fixture(scope="module")
def study(model):
    sequences = recall.grid([2, 8, 20], 8, 32, 5)
    texts, answers = on_recall.texts(sequences)
    null = sanity.shuffled(
        model, texts, ASKED, lambda one: on_recall.marks(one, sequences), answers, seeds=range(3)
    )  # fmt: skip
    return sequences, null


def made(model, study):
    texts, answers = on_recall.texts(study[0])
    return judged.explained(model, texts, ASKED, answers)


def claimed(maps, study, capsys):
    """Say how three claims turn out: each ``holds``, ``does not hold`` or ``undecided``."""
    sequences, null = study
    own = on_recall.marks(maps, sequences)
    tests = paired.differences(own, [PAIR], {"exact": 1}) | sanity.above_shuffled(own, null, ("exact",))
    found = paired.family((tests, None), seed=0, permutations=999)
    capsys.readouterr()
    for one, other in (PAIR, ("MambaLRP", "shuffled weights"), ("unified", "shuffled weights")):
        gain = found[one, other, "exact"]
        claims.tested(f"{one} above {other}", gain.interval.mean, gain.p)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_claims_about_letters_turn_out_as_the_notebook_says(model, study, capsys):
    assert claimed(made(model, study), study, capsys) == ["holds"] * 3


def negated(maps):
    return {name: [-one.scores for one in own] for name, own in maps.items()}


def of_another_sequence(maps):
    return {name: [*own[8:], *own[:8]] for name, own in maps.items()}  # eight have their letter at one place


@pytest.mark.parametrize("fault", [negated, of_another_sequence])
def test_maps_that_are_turned_or_moved_are_seen(fault, model, study, capsys):
    assert "holds" not in claimed(fault(made(model, study)), study, capsys)


def test_swapped_names_of_maps_are_seen(model, study, capsys):
    maps = made(model, study)
    assert claimed(maps | dict(zip(PAIR, (maps[PAIR[1]], maps[PAIR[0]]), strict=True)), study, capsys) == [
        "does not hold",
        "undecided",
        "holds",
    ]


def test_maps_of_shuffled_weights_are_seen(model, study, capsys):
    with sanity.randomised(model, sanity.layers(model), 9):
        assert "holds" not in claimed(made(model, study), study, capsys)
        assert on_recall.accuracy(model, study[0]).mean() < 0.5


def test_layers_read_from_the_wrong_end_are_seen(model, study, capsys, monkeypatch):
    real = hidden.looks

    def turned(*given, **options):
        return [
            replace(one, streams=one.streams.flip(0), stream_gradients=one.stream_gradients.flip(0))
            if one.stream_gradients is not None
            else one
            for one in real(*given, **options)
        ]

    monkeypatch.setattr(hidden, "looks", turned)
    assert "holds" not in claimed(made(model, study), study, capsys)[:2]


def test_a_convolution_read_from_the_wrong_end_is_seen(model, study, capsys, monkeypatch):
    real = hidden_attention._convolved
    monkeypatch.setattr(hidden_attention, "_convolved", lambda found, taps: real(found, taps.flip(1)))
    assert claimed(made(model, study), study, capsys) == ["holds", "holds", "undecided"]


def test_a_letter_that_is_not_the_cause_is_seen(model, study, monkeypatch):
    monkeypatch.setattr(recall, "swapped", lambda one, _place, _noise: one)
    at_answer, _ = on_recall.swaps(model, study[0], 0)
    with pytest.raises(AssertionError, match="swapping the answer"):
        claims.at_least("swapping the answer changes the prediction, share", at_answer.mean(), 0.95)
