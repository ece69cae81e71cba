"""Whole lists of probes: what is compared is what was given, token by token."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils import stats
from xai_utils.gender import lists, probes, published
from xai_utils.metrics import agreement
from xai_utils.samples.gender import Probe

PAIR = ("warm", "dull")
GROUPS = {"one": ("film", "plot", "friends", "and"), "other": ("slow", "funny", "very", "not")}
KIND = [Probe(f"the {w} is [MASK] .", w, "noun", group, pair=PAIR) for group, some in GROUPS.items() for w in some]
COUPLES = (("film", "plot"), ("slow", "very"), ("two", "and"))
JOBS = [pair for one, other in COUPLES for pair in ((one, other), (other, one))]
TWO = [Probe(f"the {one} of the {other} is [MASK] .", other, "two jobs", "", one, PAIR) for one, other in JOBS]


def test_groups_are_those_of_the_list_and_p_is_that_of_shuffled_membership(rays):
    seen = {"noun": probes.observe(tiny.mlm(), KIND)}
    found = lists.group_differences(seen, [("noun", "one", "other")], rays, 0)
    assert list(found) == [f"{name}: more for one than for other" for name in ("log odds", "AttCAT", "AttDR")]
    values = seen["noun"].sums("AttCAT")
    interval, p = found["AttCAT: more for one than for other"]
    assert interval.mean == pytest.approx(values[:4].mean() - values[4:].mean()) and interval.n == 8
    assert p == agreement.group_difference(values[:4], values[4:], 0)[1]


def test_a_gap_counts_both_orders_of_a_pair_once(rays):
    one = probes.observe(tiny.mlm(), TWO)
    (mean, p), kept = lists.job_gap(one, "AttCAT", rays, 0)
    scores = one.scores("AttCAT", rays).sum(0)
    places = [(2, 5), (5, 2)] * 3
    mans, others = (torch.stack([scores[i, at[k]] for i, at in enumerate(places)]) for k in (0, 1))
    assert p >= 0.25, "three pairs can be exchanged in eight ways"
    assert mean.n == 3 and mean.mean == pytest.approx(float((mans - others).mean()))
    chosen = (mans > 0) & (others < 0)
    np.testing.assert_allclose(kept, (mans - others)[chosen])
    assert 0 < len(kept) < 6


def test_impact_is_the_words_share_and_even_is_one_over_the_tokens():
    one = probes.observe(tiny.mlm(), KIND[:2])
    share, even, strongest = lists.impact(one)
    size = one.scores("AttCAT").sum(0)[0].abs()
    assert share[0] == pytest.approx(float(size[2] / size[[1, 2, 3, 5]].sum())) and even.tolist() == [0.25, 0.25]
    assert strongest[0] == (size[2] >= size[[1, 3, 5]].max())


def test_agreement_by_layer_leaves_mask_and_specials_out(rays):
    one = probes.observe(tiny.mlm(), KIND)
    found = lists.agreement_by_layer(one, rays, 0, 99)
    assert list(found) == [*(f"layer {i}" for i in range(tiny.BLOCKS)), "sum"]
    scores = [one.scores(name, rays)[1][:, [1, 2, 3, 5]].numpy() for name in ("AttCAT", "DensRay")]
    assert found["layer 1"].found.mean == pytest.approx(agreement.spearman(*scores).mean())
    assert isinstance(found["sum"], stats.AgainstChance)
    together = lists.agreement_by_layer(one, rays, 0, 99, together=True)
    assert together["sum"].found == found["sum"].found and together["sum"].high > found["sum"].high


def test_hidden_specials_change_the_answer_and_the_table_says_by_how_much():
    table, found = lists.hidden_specials({"noun": probes.observe(tiny.mlm(), KIND)}, 0)
    either = [probes.observe(tiny.mlm(), KIND, specials=how).either for how in ("kept", "masked")]
    np.testing.assert_allclose(table["sum"], [one.mean() for one in either])
    ((name, (interval, _)),) = found.items()
    assert name.startswith("noun: hiding") and interval.mean == pytest.approx((either[1] - either[0]).mean())


def test_asked_words_are_tabled_by_kind_and_target():
    seen = {"noun": probes.observe(tiny.mlm(), KIND)}
    table, found = lists.asked_words(seen, 0)
    share, even, _ = lists.impact(seen["noun"])
    assert list(table.index) == [("noun", "difference"), ("noun", "likeliest")]
    assert table["share"].iloc[0] == pytest.approx(share.mean()) and len(found) == 2
    assert found["AttCAT (difference): more than an even share on the noun"][0].mean == pytest.approx(
        (share - even).mean()
    )


def test_the_study_distances_are_taken_of_summed_scores_with_mask(rays):
    one = probes.observe(tiny.mlm(), KIND)
    both = [one.scores(name, rays).sum(0)[:, 1:6].numpy() for name in ("AttCAT", "DensRay")]
    np.testing.assert_allclose(lists.published_distances(one, rays), published.distances(*both).mean(0))
