"""Faults planted in the study of gender, which the claims of notebooks 06 and 12 have to see: on the bundled models."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xai_utils import claims, models, samples
from xai_utils.gender import erasure, findings, lists, patching, planted_truth, probes, removal, vectors

HOLDS, NOT, OPEN = "holds", "does not hold", "undecided"


@pytest.fixture(scope="module")
def masked():
    return models.load("minilm-mlm")


@pytest.fixture(scope="module")
def means(masked):
    return vectors.written(masked, samples.gender.pairs()[:12:2]).means()


@pytest.fixture(scope="module")
def planted():
    return models.load("tiny-mlm-planted")


def verdicts(capsys, found, above=0.0):
    """Say how a family of claims turns out."""
    for what, row in findings.table(found, dict.fromkeys(found, above)).iterrows():
        claims.tested(what, row["effect"], row["p (Holm)"], row["above"])
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def among(count, share=0.5):
    return np.random.default_rng(0).random(count) < share


# Notebook 06


@pytest.mark.parametrize(("order", "said"), [(("kept", "masked"), NOT), (("masked", "kept"), HOLDS)])
def test_hidden_and_kept_specials_that_are_swapped_are_seen(masked, monkeypatch, capsys, order, said):
    seen = {"noun": probes.observe(masked, samples.gender.probes("noun"), specials=order[0])}
    monkeypatch.setattr(lists, "logits", lambda model, asked, _: probes.logits(model, asked, order[1]))
    assert verdicts(capsys, lists.hidden_specials(seen, 0)[1]) == [said]


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("swapped", NOT), ("shuffled", OPEN)])
def test_jobs_that_are_taken_for_each_other_are_seen(masked, means, capsys, fault, said):
    asked = samples.gender.probes("two jobs")
    wrong = {"none": among(16, 0), "swapped": among(16, 1), "shuffled": np.arange(16) % 2 == 0}[fault].repeat(2)
    turned = [
        replace(one, word=one.other, other=one.word) if bad else one for one, bad in zip(asked, wrong, strict=True)
    ]
    one = probes.observe(masked, turned)
    found = {name: lists.job_gap(one, name, means, 0)[0] for name in ("AttCAT", "AttDR")}
    assert verdicts(capsys, found) == [said] * 2


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("swapped", NOT), ("shuffled", OPEN)])
def test_words_in_the_wrong_list_are_seen(masked, means, capsys, fault, said):
    asked = [one for one in samples.gender.probes("adjective") if one.group in ("intelligence", "appearance")]
    wrong = {"none": among(len(asked), 0), "swapped": among(len(asked), 1), "shuffled": among(len(asked))}[fault]
    other = {"intelligence": "appearance", "appearance": "intelligence"}
    turned = [replace(one, group=other[one.group]) if bad else one for one, bad in zip(asked, wrong, strict=True)]
    seen = {"adjective": probes.observe(masked, turned)}
    found = lists.group_differences(seen, [("adjective", "intelligence", "appearance")], means, 0)
    assert verdicts(capsys, {name: one for name, one in found.items() if name.startswith("log odds")}) == [said]


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("turned", NOT), ("shuffled", OPEN)])
def test_scores_of_other_tokens_are_seen(masked, means, monkeypatch, capsys, fault, said):
    one = probes.observe(masked, samples.gender.open_contexts())
    scores, noise = probes.Observed.scores, torch.Generator().manual_seed(0)

    def given(self, name, rays=None):
        found = scores(self, name, rays)
        if name == "AttCAT" or fault == "none":
            return found
        if fault == "turned":
            return -found
        kept = self.explained
        order = torch.rand(kept.shape, generator=noise).masked_fill(~kept, 9).argsort(1)  # of explained tokens
        place = (~kept).long().argsort(dim=1, stable=True)  # where they stand
        return found.scatter(2, place.expand(found.shape), found.gather(2, order.expand(found.shape)))

    monkeypatch.setattr(probes.Observed, "scores", given)
    found = lists.agreement_by_layer(one, means, 0, 999)
    assert verdicts(capsys, {name: found[name] for name in ("layer 5",)}) == [said]


# Notebook 12


@pytest.fixture(scope="module")
def removed(masked, means):
    asked = replace(removal.asked(), occupations=(), agreements=())
    edits = [erasure.projection(mean) for mean in means]
    return asked, edits


@pytest.mark.parametrize(("fault", "said"), [("none", NOT), ("swapped", HOLDS), ("shuffled", OPEN)])
def test_sides_of_definitions_that_are_swapped_are_seen(masked, removed, capsys, fault, said):
    asked, edits = removed
    count = len(asked.definitions)
    wrong = {"none": among(count, 0), "swapped": among(count, 1), "shuffled": among(count)}[fault]
    other = {"male": "female", "female": "male"}
    turned = [replace(p, group=other[p.group]) if bad else p for p, bad in zip(asked.definitions, wrong, strict=True)]
    asked = replace(asked, definitions=turned)
    before, after = removal.measure(masked, asked), removal.measure(masked, asked, edits)
    assert verdicts(capsys, removal.change(asked, before, after, 0)) == [said]


@pytest.fixture(scope="module")
def patched(masked):
    return patching.patch(masked, samples.gender.definitions()[:12])


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("shuffled", OPEN)])
def test_gradients_of_other_tokens_do_not_follow_patching(patched, means, monkeypatch, capsys, fault, said):
    real, order = patching.of_states, np.random.default_rng(1).permutation(len(patched.tokens))
    if fault == "shuffled":
        monkeypatch.setattr(patching, "of_states", lambda *given: real(*given)[..., order])
    assert verdicts(capsys, {"": patching.follows([patched], "gradient × difference", means, 0, 999)}) == [said]


@pytest.fixture(scope="module")
def planted_rays(planted):
    return planted_truth.directions(planted, 2, 0).rays()[0]


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("turned", NOT), ("shuffled", OPEN)])
def test_a_planted_table_in_another_order_is_seen(planted, planted_rays, monkeypatch, capsys, fault, said):
    asked, truth = planted_truth.questions("occupation", 1, 0), planted_truth.log_odds()
    wrong = {"none": truth, "turned": -truth, "shuffled": np.random.default_rng(0).permutation(truth)}[fault]
    monkeypatch.setattr(planted_truth, "log_odds", lambda: wrong)
    scores = planted_truth.occupation_scores(planted, asked, planted_rays)
    some = {name: scores[name].sum(0) for name in ("AttCAT", "AttDR", "DensRay of the occupation")}
    assert verdicts(capsys, planted_truth.recovered(some, 0, 999)) == [said] * 3


@pytest.mark.parametrize(("fault", "said"), [("none", HOLDS), ("swapped", NOT), ("shuffled", OPEN)])
def test_an_idle_occupation_taken_for_the_one_that_decides_is_seen(planted, planted_rays, capsys, fault, said):
    asked = planted_truth.questions("two", 2, 0)
    wrong = {"none": among(len(asked), 0), "swapped": among(len(asked), 1), "shuffled": among(len(asked))}[fault]
    turned = [
        replace(one, word=one.other, other=one.word) if bad else one for one, bad in zip(asked, wrong, strict=True)
    ]
    both = planted_truth.two_jobs(planted, turned, planted_rays)
    found = {name: findings.paired(both[name][2] - 0.5, 0) for name in ("AttCAT", "AttDR", "attention of [MASK]")}
    assert verdicts(capsys, found) == [said] * 3
