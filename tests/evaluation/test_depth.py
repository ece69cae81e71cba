"""What becomes of attention from layer to layer: each function against the formula on one sample at a time."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import kendalltau, spearmanr
from strategies import attention

from xai_utils import methods
from xai_utils.evaluation import depth
from xai_utils.maths import diffusion, flow, rollout, selective

BERT, TEXTS = tiny.model("bert"), list(tiny.SENTENCES)
STACKS = [attention(tiny.BLOCKS, n, n, seed=n, sharpness=2.0).double() for n in (5, 4, 7)]
USED = [torch.tensor([True, False, True]), torch.tensor([True, True, True]), torch.tensor([True, False, False])]


@pytest.mark.parametrize("name", ["bert", "timm-vit", "vim"])
def test_head_means_of_a_batch_are_those_of_every_sample_alone(name):
    model, some = tiny.model(name), tiny.samples(name)
    for one, own in zip(depth.head_means(model, some, batch_size=2), some, strict=True):
        alone = methods.observe(model, [own], gradient=False).view(0)
        torch.testing.assert_close(one, alone.attention.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.sum(-1), torch.ones_like(one[..., 0]), rtol=1e-5, atol=1e-5)


def test_rows_collapse_as_the_rollout_says():
    found = depth.collapse(STACKS, 0.3)
    assert found.shape == (3, tiny.BLOCKS)
    torch.testing.assert_close(found[1], rollout.rank_collapse(rollout.rollout(STACKS[1], 0.3)))
    same = torch.full((2, 4, 4), 0.25)
    assert depth.collapse([same], 0.0).abs().max() < 1e-6


def test_mixing_is_nothing_where_every_token_reads_itself(monkeypatch):
    found = depth.mixing(BERT, TEXTS)
    assert found.shape == (3, tiny.BLOCKS) and ((found > 0) & (found < 1)).all()
    torch.testing.assert_close(depth.mixing(BERT, TEXTS[1:2])[0], found[1])
    inner = rollout.mixing_ratio

    def of_itself(maps, *rest):
        return inner(torch.eye(maps.shape[-1]).expand_as(maps).to(maps), *rest)

    monkeypatch.setattr(depth.rollout, "mixing_ratio", of_itself)
    assert depth.mixing(BERT, TEXTS[:1]).abs().max() < 1e-6


def test_flows_are_those_of_one_position_and_stay_below_their_bound():
    found, bound = depth.flows(STACKS[0], 0.4)
    mixed = rollout.mix(STACKS[0], 0.4)
    for layer, row in enumerate(found):
        torch.testing.assert_close(row, flow.flow(mixed, layer)[0])
    assert found.dtype == torch.float64 and (found <= bound + 1e-9).all()
    last, _ = depth.flows(STACKS[0].float(), 0.4, layers=[-1], query=2)
    torch.testing.assert_close(last[0], flow.flow(mixed, -1)[2], rtol=1e-5, atol=1e-6)


def test_gradients_are_paired_with_their_own_layer_or_with_the_mirrored_one():
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit")
    right, wrong, agreed = depth.gradient_pairing(model, some, 0.6)
    for i, one in enumerate(some):
        expected = methods.explain("gradient_rollout", model, one, residual=0.6).scores
        torch.testing.assert_close(right[i], expected, rtol=1e-4, atol=1e-7)
        view = methods.observe(model, [one]).view(0)
        turned = rollout.gradient_weighted(view.attention, view.gradient.flip(0))
        torch.testing.assert_close(wrong[i], rollout.rollout(turned, 0.6, rescale=True)[-1, 0, 1:])
        assert agreed[i] == pytest.approx(spearmanr(right[i], wrong[i]).statistic)
    assert (agreed < 0.999).any()


def test_the_pole_is_passed_where_a_sink_is():
    sink = torch.zeros(1, 9, 9).index_fill(-1, torch.tensor([0]), 1.0)
    even = torch.full((1, 9, 9), 1 / 9)
    largest, negative = depth.beyond_pole([sink, even], 0.8)
    torch.testing.assert_close(largest, torch.tensor([[3.0], [1.0]]))
    assert negative.tolist() == [[True], [False]] and diffusion.spectral_map(largest, 0.8)[0] < 0


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 1.0), (1.0, 1 / tiny.BLOCKS)])
def test_a_threshold_takes_all_layers_or_the_first_only(threshold, expected):
    assert depth.share_used(STACKS, threshold, "total_variation", 0.5) == pytest.approx([expected] * 3)


def test_controls_compose_as_many_layers_as_the_rule():
    found = depth.composed(STACKS, USED, (4, 5, 6), 0.3)
    assert list(found) == ["selective", "first layers", "random layers"]
    for i, (maps, used) in enumerate(zip(STACKS, USED, strict=True)):
        count = int(used.sum())
        expected = {
            "selective": rollout.rollout(maps[used], 0.3),
            "first layers": rollout.rollout(maps[:count], 0.3),
            "random layers": rollout.rollout(maps[selective.random_layers(used, 4 + i)], 0.3),
        }
        for kind, rolled in expected.items():
            torch.testing.assert_close(found[kind][i], rolled[-1, 0])
    again = depth.composed(STACKS[:1], USED[:1], (5,), 0.3)["random layers"][0]
    assert any(not torch.equal(again, depth.composed(STACKS[:1], USED[:1], (seed,), 0.3)["random layers"][0])
               for seed in range(9))  # fmt: skip


def scores(rows=()):
    """Draw scores ``(*rows, token)`` for every sentence, specials among them."""
    noise = torch.Generator().manual_seed(1)
    labels = methods.observe(BERT, TEXTS).batch.labels
    return [torch.rand(*rows, len(own), generator=noise).double() for own in labels]


def test_agreement_is_of_words_and_of_every_row():
    rows, references = scores((2, 3)), scores()
    found = depth.agreement(BERT, TEXTS, rows, references)
    assert found.shape == (3, 2, 3)
    for i in range(3):
        assert found[i, 1, 2] == pytest.approx(spearmanr(rows[i][1, 2, 1:-1], references[i][1:-1]).statistic)
    loud = [one.index_fill(-1, torch.tensor([0, one.shape[-1] - 1]), 99.0) for one in rows]
    np.testing.assert_array_equal(depth.agreement(BERT, TEXTS, loud, references), found)


def test_readings_are_of_a_layer_a_row_and_some_tokens():
    stacks = [attention(3, len(one), len(one), seed=7 + len(one)).double() for one in scores()]
    references = scores()
    found = depth.readings(BERT, TEXTS, {"plain": stacks, "turned": [-one for one in stacks]}, references)
    assert found.shape == (3, 16) and list(found.columns.names) == ["layer", "row", "tokens", "map"]
    expected = spearmanr(stacks[1][-2].amax(0), references[1]).statistic
    assert found[-2, "max", "all", "plain"][1] == pytest.approx(expected)
    expected = spearmanr(stacks[2][-1, 0, 1:-1], references[2][1:-1]).statistic
    assert found[-1, "cls", "words", "plain"][2] == pytest.approx(expected)
    np.testing.assert_allclose(found[-1, "cls", "all", "turned"], -found[-1, "cls", "all", "plain"])


def test_concordance_is_a_mean_over_samples_beside_chance():
    rows, references = scores((1,)), scores()
    rows = [one[0] for one in rows]
    found = depth.concordance(BERT, TEXTS, {"itself": references, "other": rows}, references, count=2)
    assert found.loc["itself"].tolist()[:2] == [1, 1] and list(found) == ["τ-b", "top 2", "chance"]
    lengths = np.array([len(one) - 2 for one in references])
    assert found["chance"].tolist() == pytest.approx([(2 / lengths).mean()] * 2)
    expected = np.mean([kendalltau(a[1:-1], b[1:-1]).statistic for a, b in zip(rows, references, strict=True)])
    assert found.loc["other", "τ-b"] == pytest.approx(expected)
    more = depth.concordance(BERT, TEXTS[1:2], {"other": rows[1:2]}, references[1:2], count=99)
    assert more.loc["other", "top 99"] == more.loc["other", "chance"] == 1
    with pytest.raises(ValueError, match="count is 0"):
        depth.concordance(BERT, TEXTS, {}, references, count=0)


def test_a_model_without_attention_is_refused():
    with pytest.raises(TypeError):
        depth.head_means(tiny.model("resnet"), tiny.samples("resnet"))
    with pytest.raises(ValueError, match="empty"):
        depth.mixing(BERT, [replace(TEXTS[0], text=" ")])
