"""Closed forms over many texts: parts survive an interruption, measures are what they say, reviews are judged."""

from dataclasses import replace
from math import inf

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from xai_utils import claims, models, samples, stats
from xai_utils.evaluation import paired
from xai_utils.maths import attention_layer, lime
from xai_utils.methods import closed_forms as forms
from xai_utils.methods.closed_forms import Sampling
from xai_utils.samples import Text
from xai_utils.sweep import closed_forms

TEXT = Text("the plot is slow and the film is very , very dull", label=0, rationale=((45, 49),))
TEXTS = [TEXT, Text("a warm funny film of friends"), Text("not a dull plot , but slow"), Text("the film is the plot")]
FEW = Sampling(200)


@pytest.fixture(scope="module")
def model():
    return tiny.attention_classifier()


def test_it_goes_on_where_it_stopped(model, tmp_path, monkeypatch):
    whole = closed_forms.compare(model, TEXTS, FEW, 0, tmp_path / "whole", 2)
    assert len(whole) == 4 and whole.notna().all().all()
    assert closed_forms.compare(model, TEXTS, FEW, 0, part=3).equals(whole)
    measured = closed_forms.measure

    def second_fails(read, *rest):
        if read.text is TEXTS[2]:
            raise KeyboardInterrupt
        return measured(read, *rest)

    monkeypatch.setattr(closed_forms, "measure", second_fails)
    with pytest.raises(KeyboardInterrupt):
        closed_forms.compare(model, TEXTS, FEW, 0, tmp_path / "parts", 2)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["part-000000.parquet", "settings.json"]
    seen = []
    monkeypatch.setattr(closed_forms, "measure", lambda read, *rest: seen.append(read.text) or measured(read, *rest))
    again = closed_forms.compare(model, TEXTS, FEW, 0, str(tmp_path / "parts"), 2)
    assert seen == TEXTS[2:] and again.equals(whole)


def test_a_folder_of_something_else_is_refused(model, tmp_path):
    closed_forms.compare(model, TEXTS[:1], FEW, 0, tmp_path)
    for how, named in ((Sampling(201), "count"), (Sampling(200, width=0.5), "width")):
        with pytest.raises(ValueError, match=f"made with other {named}"):
            closed_forms.compare(model, TEXTS[:1], how, 0, tmp_path)
    with pytest.raises(ValueError, match="other texts"):
        closed_forms.compare(model, TEXTS[1:2], FEW, 0, tmp_path)


def test_the_measures_are_what_they_say(model):
    read = forms.read(model, TEXT)
    row = closed_forms.measure(read, Sampling(3000), 0)
    assert (row["words"], row["tokens"]) == (9, 13)
    assert row["gradient"] < 1e-12 < row["gradient_single"] < 1e-5
    assert row["published_gradient"] > 1e-3 and 0 < row["sampled"] < 0.3 and row["published"] > 0.1
    parts = read.ratio()
    right, published = lime.exact(parts).mean(0), lime.published(parts).mean(0)
    assert row["published"] == pytest.approx(float((published - right).norm() / right.norm()))
    assert row["limit"] == pytest.approx(closed_forms.error(read.limit_lime().mean(0), lime.exact(parts, inf).mean(0)))


def test_flat_attention_is_what_the_limit_needs(model):
    table = closed_forms.flattened_errors(model, TEXTS, (1.0, 0.01))
    assert list(table) == ["shorter half", "longer half"] and len(table) == 4
    assert (table.loc[("limit", 0.01)] < 0.1 * table.loc[("limit", 1.0)]).all()
    flat = forms.read(model, TEXTS[3]).flattened(0.01)
    error = closed_forms.error(flat.published_lime().mean(0), flat.exact_lime(inf).mean(0))
    both = closed_forms.flattened_errors(model, [TEXT, TEXTS[3]], [0.01])
    assert both.loc[("published", 0.01), "shorter half"] == pytest.approx(error)


def test_reviews_are_judged_by_size_against_chance(model):
    labels, reviews = ("attention mean", "gradient L2", "LIME"), [TEXT, Text("a warm plot", 1, rationale=((2, 6),))]
    agrees, finds, decides = closed_forms.judge(model, reviews, labels, 3)
    assert list(agrees) == ["gradient L2", "LIME"] and len(decides) == 2
    assert list(finds) == [*labels, "LIME (size)", "random"]
    read = forms.read(model, TEXT, TEXT.label)
    found = forms.word_scores(read, labels)
    noise = np.random.default_rng(3).random((closed_forms.GUESSES + 1, 9))
    above = 1 + (noise > noise[:, 8:]).sum(1)  # rank of the one marked word, the last
    for name, scores in (("LIME", found["LIME"]), ("LIME (size)", found["LIME"].abs())):
        mine = 1 / float(1 + (scores > scores[8]).sum())
        assert finds[name][0] == pytest.approx(mine - (1 / above[:-1]).mean())
    other = forms.word_scores(forms.read(model, TEXT, 1), ["LIME"])["LIME"]
    assert not np.allclose(other, found["LIME"]), "the label is explained, not the class of the others"
    assert finds.random[0] == pytest.approx(1 / above[-1] - (1 / above[:-1]).mean())
    assert decides.right[0] == (forms.class_scores(model, [TEXT.text])[0].argmax() == 0)


def test_the_pull_is_that_of_the_chosen_class(model):
    for text in TEXTS:
        review = Text(text.text, 0, rationale=((0, 3),))
        (pull,) = closed_forms.judge(model, [review], ("attention mean", "LIME"), 0)[2].pull
        chosen = int(forms.class_scores(model, [text.text])[0].argmax())
        read = forms.read(model, text)
        most = read.by_word(read.attention().mean(0)).argmax()
        assert pull == pytest.approx((1 if chosen else -1) * float(read.exact_lime().mean(0)[most]))


def test_columns_are_summed_up_as_stats_does(model):
    table = pd.DataFrame({"one": np.linspace(0, 1, 12), "other": np.linspace(-1, 2, 12) ** 2})
    found = closed_forms.intervals(table, 5)
    assert found == {name: stats.mean_interval(table[name].tolist(), 5) for name in table}
    narrow = closed_forms.intervals(table, 5, 0.5)["one"]
    assert found["one"].low < narrow.low < narrow.high < found["one"].high


def test_texts_are_joined_reviews_or_read_from_a_file_and_fit_the_model(model, tmp_path, monkeypatch):
    assert closed_forms.texts_of(model, "reviews", 3, 0) == samples.paragraphs(3, 0, most=5)
    limit = model.module.config.max_position_embeddings
    long, own = "plot " * (limit + 20), tmp_path / "own.csv"
    own.write_text(f"text,label\n{long},good\na warm film,bad\n")
    found = closed_forms.texts_of(model, str(own), 9, 0)
    assert sorted(len(one.text.split()) for one in found) == [3, limit - 1]
    assert len(forms.read(model, max(found, key=lambda one: len(one.text))).labels) == limit
    monkeypatch.setattr(samples, "imdb", lambda: TEXTS)
    drawn = closed_forms.texts_of(model, "imdb", 2, 1)
    assert len(drawn) == 2 and all(one in TEXTS for one in drawn)
    with pytest.raises(FileNotFoundError):
        closed_forms.texts_of(model, "nowhere.csv", 2, 1)


def test_the_share_of_the_class_tokens_row(model):
    read = forms.read(model, TEXT)
    row = closed_forms.measure(read, FEW, 0)
    back = read.autograd()
    assert row["class_row"] ** 2 == pytest.approx(float(back[0].square().sum() / back.square().sum()))
    assert row["published_whole"] == pytest.approx(row["class_row"] * row["published_gradient"], rel=1e-6)


# Faults planted in notebook 07, which its claims have to see: on the bundled classifier


@pytest.fixture(scope="module")
def trained():
    return models.load("attention-sst2")


SHAPES = ("attention mean", "gradient L2", "LIME")


def said_of(model, reviews, capsys):
    """Say how claims about marked words and about the form of attention turn out."""
    agrees, finds, _ = closed_forms.judge(model, reviews, SHAPES, 0)
    tests = {name: finds[name].to_numpy() for name in SHAPES}
    for name, one in paired.family((tests, None), seed=0, permutations=999).items():
        claims.tested(f"{name} finds marked words", one.interval.mean, one.p)
    for name, interval in closed_forms.intervals(agrees, 0).items():
        claims.finding(f"attention ranks words as {name} does", *interval.bounds, above=0.5)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_maps_find_marked_words_and_agree_in_size(trained, capsys):
    assert said_of(trained, samples.reviews(60), capsys) == ["holds"] * 5


def test_words_in_random_order_are_seen(trained, monkeypatch, capsys):
    real, noise = forms.word_scores, torch.Generator().manual_seed(0)

    def mixed(*given):
        return {name: one[torch.randperm(len(one), generator=noise)] for name, one in real(*given).items()}

    monkeypatch.setattr(forms, "word_scores", mixed)
    assert said_of(trained, samples.reviews(60), capsys) == ["undecided"] * 3 + ["does not hold"] * 2


def test_labels_that_are_swapped_are_seen_by_a_signed_form_only(trained, capsys):
    swapped = [replace(one, label=1 - one.label) for one in samples.reviews(60)]
    assert said_of(trained, swapped, capsys)[:3] == ["holds", "holds", "undecided"]


FAULTS = {
    "no question": lambda layer: layer,
    "the other class": lambda layer: layer.against(),
    "scale of keys": lambda layer: replace(layer, key=layer.key / layer.key.shape[1] ** 0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_formula_stops_the_notebook(trained, monkeypatch, fault):
    def gradient(read, query_term=True):
        layer = FAULTS[fault](read.layer)
        return attention_layer.gradient(layer, read.embeddings, query_term and fault != "no question")

    read = forms.read(trained, samples.reviews(1)[0])
    claims.at_most("closed gradient", closed_forms.measure(read, FEW, 0)["gradient"], 1e-12)
    monkeypatch.setattr(forms.Document, "gradient", gradient)
    with pytest.raises(AssertionError, match="closed gradient"):
        claims.at_most("closed gradient", closed_forms.measure(read, FEW, 0)["gradient"], 1e-12)
