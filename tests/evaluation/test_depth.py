"""What becomes of attention from layer to layer: each function against the formula on one sample at a time."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr
from strategies import attention

from xai_utils import methods, models, samples
from xai_utils.capture.attention import capture_states
from xai_utils.capture.intervene import without_blocks
from xai_utils.evaluation import depth, judged, on_prompts, paired
from xai_utils.evaluation.judged import evidence
from xai_utils.maths import diffusion, flow, rollout, selective

BERT, TEXTS = tiny.model("bert"), list(tiny.SENTENCES)
STACKS = [attention(tiny.BLOCKS, n, n, seed=n, sharpness=2.0).double() for n in (5, 4, 7)]
MEASURES = depth.MEASURES[:2]
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
    found = depth.composed(STACKS, USED, 4, -1, 0.3, draws=3)
    assert list(found)[:3] == ["selective", "first layers", "last layers"] and len(found) == 3 + 2 * 3
    for i, (maps, used) in enumerate(zip(STACKS, USED, strict=True)):
        count = int(used.sum())
        anywhere, kept = (selective.random_layers(used, [4, i], 3, keep)[:, 2] for keep in (False, True))
        expected = {
            "selective": maps[used],
            "first layers": maps[:count],
            "last layers": maps[len(maps) - count :],
            "random layers 2": maps[anywhere],
            "random with the first 2": maps[kept],
        }
        for kind, layers in expected.items():
            torch.testing.assert_close(found[kind][i], rollout.rollout(layers, 0.3)[-1, -1])


def scores(rows=()):
    """Draw scores ``(*rows, token)`` for every sentence, specials among them."""
    noise = torch.Generator().manual_seed(1)
    labels = methods.observe(BERT, TEXTS).batch.labels
    return [torch.rand(*rows, len(own), generator=noise).double() for own in labels]


def test_one_look_is_what_the_methods_see():
    found = depth.look(BERT, TEXTS, target=1, batch_size=2)
    for kind, some in (("gradient_norm", found.slopes), ("gradient_x_input", found.products)):
        for one, own in zip(methods.explain(kind, BERT, TEXTS, 1), some, strict=True):
            torch.testing.assert_close(own, one.scores.abs().double(), rtol=1e-5, atol=1e-9)
    for one, own in zip(found.maps, depth.head_means(BERT, TEXTS), strict=True):
        torch.testing.assert_close(one, own.double(), rtol=1e-5, atol=1e-7)
    gradient = methods.observe(BERT, TEXTS[:1], 1).view(0).embedding_gradient
    torch.testing.assert_close(found.sums[0], gradient.sum(-1).abs().double(), rtol=1e-5, atol=1e-9)


def test_answers_are_kept_by_the_whole_and_lost_without_blocks():
    choices = {"all": range(tiny.BLOCKS), "first": [0], "none": []}
    found = depth.answers_kept(BERT, TEXTS, choices, batch_size=2)
    assert list(found) == list(choices) and found["all"].all() and not np.all([found["first"], found["none"]])
    module = tiny.module("bert")
    for block in module.bert.encoder.layer[1:]:
        block.forward = lambda states, *_, **__: states
    cut = tiny.wrap("bert", module)
    for i, one in enumerate(TEXTS):
        inputs = methods.observe(BERT, [one]).batch.inputs
        assert found["first"][i] == (cut.logits(inputs).argmax() == BERT.logits(inputs).argmax())


@pytest.mark.parametrize("left", [[], [0], [1], [0, 1], [0, 2], [1, 2]])
def test_what_lies_below_a_missing_block_need_not_run_again(left):
    missing, inputs = set(range(tiny.BLOCKS)) - set(left), models.encode(BERT, TEXTS).inputs
    with capture_states(BERT.module) as trace:
        whole = BERT.logits(inputs)
    with without_blocks(BERT, missing):
        cut = BERT.logits(inputs)
    with depth._without(BERT, missing, list(trace.hidden)):
        torch.testing.assert_close(BERT.logits(inputs), cut, rtol=0, atol=0)
    kept = depth.answers_kept(BERT, TEXTS, {"some": left})["some"]
    assert kept.tolist() == (whole.argmax(-1) == cut.argmax(-1)).tolist()


def test_a_shallower_model_has_its_first_blocks_or_lacks_one():
    found = depth.shallower(12)
    assert found["first 4"] == [0, 1, 2, 3] and found["all but block 8"] == [*range(8), *range(9, 12)]
    assert list(found)[:5] == ["first 2", "first 4", "first 6", "first 9", "first 11"] and len(found) == 7
    assert depth.shallower(2) == {"first 1": [0], "all but block 0": [1], "all but block 1": [0]}


def test_half_of_what_was_seen_is_every_other_sample():
    looked = depth.look(BERT, TEXTS)
    assert depth.half(looked, 1).slopes == [looked.slopes[1]] and len(depth.half(looked, 0).maps) == 2


def test_settings_are_skips_and_thresholds():
    looked = depth.look(BERT, TEXTS)
    found = depth.settings(BERT, looked, {0.5: 0.1}, "total_variation", (0.3, 0.9))
    assert list(found) == ["skip 0.3", "skip 0.9", "quantile 0.5", "last attention"]
    torch.testing.assert_close(found["skip 0.9"][1], rollout.rollout(looked.maps[1], 0.9)[-1, 0])
    chosen = selective.selective_rollout(looked.maps[2], 0.1, "total_variation").rolled[-1, 0]
    torch.testing.assert_close(found["quantile 0.5"][2], chosen)
    assert torch.equal(found["last attention"][0], looked.maps[0][-1, 0])


def test_words_are_ranked_and_punctuation_only_if_asked_for():
    labels = methods.observe(BERT, TEXTS).batch.labels
    for punctuation in (False, True):
        for own, names in zip(depth.ranked(BERT, TEXTS, punctuation), labels, strict=True):
            left = [n for n, name in enumerate(names) if name not in ("[CLS]", "[SEP]")]
            assert own.tolist() == [n for n in left if punctuation or names[n] not in (".", ",")]


def test_agreement_is_of_the_tokens_that_are_ranked():
    rows, references, places = {"one": scores(), "other": scores((1,))}, scores(), depth.ranked(BERT, TEXTS)
    rows["other"] = [one[0] for one in rows["other"]]
    found = depth.agreement(rows, references, places)
    assert found.shape == (3, 2) and list(found) == ["one", "other"]
    assert found["one"].tolist() == pytest.approx([1, 1, 1])
    for i, own in enumerate(places):
        assert found["other"][i] == pytest.approx(spearmanr(rows["other"][i][own], references[i][own]).statistic)


def test_readings_are_of_a_layer_a_row_and_some_tokens():
    stacks = [attention(3, len(one), len(one), seed=7 + len(one)).double() for one in scores()]
    references, words = scores(), depth.ranked(BERT, TEXTS)
    found = depth.readings(BERT, TEXTS, {"plain": stacks, "turned": [-one for one in stacks]}, references)
    assert found.shape == (3, 2 * len(depth.READINGS))
    expected = spearmanr(stacks[1][-2].amax(0), references[1]).statistic
    assert found[-2, "max", "all", "plain"][1] == pytest.approx(expected)
    expected = spearmanr(stacks[2][-1, 0, words[2]], references[2][words[2]]).statistic
    assert found[-1, "reader", "words", "plain"][2] == pytest.approx(expected)
    expected = spearmanr(stacks[0][-1, 0, 1:-1], references[0][1:-1]).statistic
    assert found[-1, "reader", "with punctuation", "plain"][0] == pytest.approx(expected)


def marked():
    """Mark the last word of every sentence as its evidence."""
    return [replace(one, rationale=((one.text.rindex(word), one.text.rindex(word) + len(word)),))
            for one, word in zip(TEXTS, ("slow", "plot", "friends"), strict=True)]  # fmt: skip


def test_the_truth_of_reviews_is_found_by_a_map_that_marks_it_and_not_by_one_that_is_turned():
    texts = marked()
    rows = {"it": [torch.zeros(len(one)) for one in scores()]}
    for one, own in zip(rows["it"], evidence(BERT, texts), strict=True):
        one[own.places[own.inside > 0]] = 1
    rows["turned"] = [-one for one in rows["it"]]
    found = depth.truth(BERT, texts, rows)
    assert (found["it"] > 0.3).all() and (found["turned"] < 0).all()


@pytest.fixture
def prompts(monkeypatch):
    """Give two prompts and a model that stands for a language model: its first token is left out."""
    asked = samples.prompts.draws("agreement", 2)
    monkeypatch.setattr(depth, "encode", lambda _model, some: SimpleNamespace(spans=[spans(one) for one in some]))
    monkeypatch.setattr(depth.on_prompts, "encode", depth.encode)
    return SimpleNamespace(head="next"), asked


def spans(prompt):
    return [found.span() for found in re.finditer(r"\w+|[^\w\s]", prompt.text)]


def test_the_truth_of_prompts_is_the_decisive_word_and_the_first_token_is_ranked_last(prompts):
    model, asked = prompts
    rows = {"it": [torch.tensor([float(span in one.rationale) for span in spans(one)]) for one in asked]}
    rows["the first"] = [one.clone() for one in rows["it"]]
    for one in rows["the first"]:
        one[0] = 9.0
    rows["turned"] = [-one for one in rows["it"]]
    found = depth.truth(model, asked, rows)
    words = [len(on_prompts.words(one, spans(one))) for one in asked]
    assert found["it"].tolist() == pytest.approx([1 - judged.chance(n, 1) for n in words])
    np.testing.assert_allclose(found["the first"], found["it"])
    assert (found["turned"] < 0).all()


def test_a_sweep_compares_the_rule_with_its_controls():
    looked, texts = depth.look(BERT, TEXTS), marked()
    found = depth.swept(BERT, texts, looked, {0.0: 0.0, 1.0: 1.0}, "total_variation")
    kinds = ("selective", *depth.CONTROLS)
    assert {key[1:] for key in found} == {(k, m) for k in kinds for m in MEASURES} | {("selective", "layers")}
    every = found[0.0].xs("gradient norm", axis=1, level="measure")
    assert (found[0.0, "selective", "layers"] == tiny.BLOCKS).all() and (found[1.0, "selective", "layers"] == 1).all()
    np.testing.assert_allclose(every.to_numpy(), every[["selective"]].to_numpy() * np.ones(5), atol=1e-12)
    alone = found[1.0].xs("truth", axis=1, level="measure")
    np.testing.assert_allclose(alone["random with the first"], alone["selective"], atol=1e-12)
    without = depth.swept(BERT, TEXTS, looked, {0.0: 0.0}, "total_variation")
    assert set(without.columns.get_level_values("measure")) == {"layers", *MEASURES} - {"truth"}


def test_a_model_without_attention_is_refused():
    with pytest.raises(TypeError):
        depth.head_means(tiny.model("resnet"), tiny.samples("resnet"))
    with pytest.raises(ValueError, match="empty"):
        depth.mixing(BERT, [replace(TEXTS[0], text=" ")])


@pytest.fixture(scope="module")
def bundled():
    """Give a model that reads, some reviews of known truth, and what is seen of them."""
    model, texts = models.load("minilm-sst2"), samples.reviews(60)
    return model, texts, depth.look(model, texts)


def better(bundled, looked):
    """Return how much the calibrated rule finds the truth better than as many layers at random, as notebook 02 does."""
    model, texts, _ = bundled
    cut = selective.calibrate(looked.maps, 0.5)
    table = depth.swept(model, texts, looked, {0.5: cut}, "total_variation").xs("truth", axis=1, level="measure")
    gain = paired.family(({"gain": table[0.5, "selective"] - table[0.5, "random layers"]}, None), seed=0)["gain"]
    return gain.p < 0.05 and gain.interval.mean > 0


def test_the_gain_of_the_rule_is_lost_by_layers_in_wrong_order_and_by_shuffled_maps(bundled):
    looked = bundled[2]
    assert better(bundled, looked)
    assert not better(bundled, replace(looked, maps=[one.flip(0) for one in looked.maps]))
    noise = torch.Generator().manual_seed(0)
    shuffled = []
    for one in looked.maps:
        order = torch.cat([torch.tensor([0]), 1 + torch.randperm(one.shape[-1] - 1, generator=noise)])
        shuffled.append(one[:, order][:, :, order])
    assert not better(bundled, replace(looked, maps=shuffled))


def test_gradient_rollout_finds_the_words_of_the_label_and_not_with_labels_swapped_or_layers_reversed(bundled):
    model, texts, _ = bundled
    asked = {"gradient rollout": ("gradient_rollout", {})}
    right = judged.gained(model, texts, asked)["gradient rollout"]
    swapped = judged.explained(model, texts, asked, [1 - one.label for one in texts])
    wrong = judged.judge(model, texts, swapped, ["precision"])["gradient rollout", "precision"]
    turned = [depth.gradient_pairing(model, [one])[1][0] for one in texts]
    reversed_order = judged.judge(model, texts, {"turned": turned}, ["precision"])["turned", "precision"]
    gaps = {"labels": right - wrong.to_numpy(), "order": right - reversed_order.to_numpy(), "chance": right}
    found = paired.family((gaps, None), seed=0)
    assert all(one.p < 0.05 and one.interval.mean > 0.05 for one in found.values()), found


@pytest.mark.parametrize("name", ["bert", "timm-vit", "vim"])
def test_diffused_rows_are_those_of_the_method(name):
    model, some = tiny.model(name), tiny.samples(name)
    found = depth.diffused(model, some, {"identity": 0.0, "heat": 2.0}, (0.3, 0.9), batch_size=1)
    assert list(found) == ["rollout, 0.3", "rollout, 0.9", "heat, 0.3", "heat, 0.9"]
    expected = methods.explain("diffusion_rollout", model, some, filter="heat", strength=2.0, residual=0.9)
    for row, one in zip(found["heat, 0.9"], expected, strict=True):
        torch.testing.assert_close(row, one.scores.to(row))


def test_rows_are_alike_where_the_filter_leaves_one_direction():
    maps = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = depth.alike(list(rollout.renormalise(maps)), {"identity": 0.0, "rank": 1}, residual=0.0)
    assert list(found) == ["identity", "rank"] and len(found) == 2
    assert (found["rank"] < 1e-8).all() and (found["identity"] > 1e-4).all()
    plain = rollout.rank_collapse(rollout.rollout(rollout.renormalise(maps[0]), 0.5))[-1]
    assert depth.alike([rollout.renormalise(maps[0])], {"identity": 0.0})["identity"][0] == pytest.approx(float(plain))
