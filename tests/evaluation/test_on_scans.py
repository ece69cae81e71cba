"""What scans hold: exact matrices, memory by hand, the published shortcuts at their extreme, relevance that adds up."""

import math

import pytest
import torch
from transformers import Mamba2Config, Mamba2Model

from xai_utils import methods, models, samples
from xai_utils.evaluation import conservation, on_scans
from xai_utils.maths import hidden_attention
from xai_utils.maths.selective_scan import Scan
from xai_utils.methods.hidden import Look
from xai_utils.methods.observation import observe
from xai_utils.samples import recall

TEXTS = [recall.text_of(one) for one in recall.grid([3, 7], 2, 10, 0)]


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-recall")


@pytest.fixture(scope="module")
def seen(model):
    return on_scans.look(model, TEXTS[0])


def mamba2():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 2, "num_hidden_layers": 2}
    return Mamba2Model(Mamba2Config(**shape, vocab_size=20, chunk_size=4, pad_token_id=0)).eval()


def one_layer(delta, A):
    """Make what was seen of one scan with these steps ``(channel, token)`` and rates ``(channel, state)``."""
    delta, A = torch.tensor(delta)[None], torch.tensor(A)
    noise = torch.Generator().manual_seed(0)
    B, C = (torch.rand(1, A.shape[1], delta.shape[2], generator=noise) for _ in range(2))
    scan = Scan(torch.ones_like(delta), delta, A, B, C, torch.ones(len(A)))
    return Look([(scan,)], delta.shape[2] - 1, [], torch.zeros(2, 1, delta.shape[2], 1), None)


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-11)])
def test_the_matrix_gives_the_scans_output(seen, precision, bound):
    assert 0 <= on_scans.matrix_miss(seen, precision) <= bound


def test_a_wrong_matrix_is_seen(seen, monkeypatch):
    right = hidden_attention.hidden_attention
    monkeypatch.setattr(on_scans.hidden_attention, "hidden_attention", lambda *given: 1.1 * right(*given))
    assert on_scans.matrix_miss(seen, torch.float32) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("kind", ["Mamba", "Mamba-2"])
def test_the_matrix_gives_what_the_mixer_computes(kind, model, monkeypatch):
    module = model.module if kind == "Mamba" else mamba2()
    ids = torch.randint(1, 10, (2, 9), generator=torch.Generator().manual_seed(0))
    misses = on_scans.mixer_misses(module, ids)
    assert len(misses) == module.config.num_hidden_layers and max(misses) < 1e-5
    right = hidden_attention.of_scan
    monkeypatch.setattr(on_scans.hidden_attention, "of_scan", lambda *given, **named: 1.1 * right(*given, **named))
    assert on_scans.mixer_misses(module, ids) == pytest.approx([0.1] * len(misses), abs=1e-4)


def test_maps_of_channels_look_back(seen):
    maps = on_scans.channel_maps(seen, 0)
    tokens = seen.position + 1
    assert maps.shape == (seen.layers[0][0].delta.shape[1], tokens, tokens)
    assert torch.equal(maps, maps.tril()) and (maps < 0).any() and (maps > 0).any()


def test_a_lone_token_shows_what_the_published_row_leaves_out():
    found = on_scans.published(one_layer([[0.3], [0.7]], [[-1.0, -2.0], [-0.5, -3.0]]))
    assert found.off_row == 1 and found.own_weight == 0


def test_the_published_rollout_is_its_closed_form(seen):
    found = on_scans.published(seen)
    assert found.off_form < 1e-5 and 0 < found.off_row < 1 and found.own_weight == 0
    rows = [on_scans.channel_maps(seen, layer)[:, -1].mean(0) for layer in range(len(seen.layers))]
    assert found.divisors == pytest.approx([1 + float(row.sum()) for row in rows], rel=1e-3)


def test_memory_by_hand():
    seen = one_layer([[0.1] * 4, [0.2] * 4], [[-1.0, -2.0], [-5.0, -0.5]])
    (lives,) = on_scans.half_lives(seen)
    expected = math.log(2) / torch.tensor([[0.1, 0.2], [1.0, 0.1]])
    torch.testing.assert_close(lives, expected)
    assert on_scans.outlasting(seen) == [1.0]
    assert on_scans.outlasting(one_layer([[0.1] * 4, [0.2] * 4], [[-1.0], [-5.0]])) == [0.5]
    assert on_scans.outlasting(one_layer([[0.1] * 7], [[-1.0]])) == [0.0], "half of it is left after 6.9 tokens"


def test_more_channels_outlive_the_text_than_of_another_model():
    long, short = (one_layer([[0.1] * 4] * 40, [[-rate]] * 40) for rate in (1.0, 5.0))
    found = on_scans.longer_than(long, short, 0)
    assert (found.mean, found.low, found.high, found.n) == (1, 1, 1, 80)
    assert on_scans.longer_than(long, long, 0).mean == 0
    mixed = one_layer([[0.1] * 4] * 40, [[-1.0], [-5.0]] * 20)
    half = on_scans.longer_than(long, mixed, 0)
    assert half.mean == 0.5 and 0.35 < half.low < 0.5 < half.high < 0.65


def test_an_untrained_copy_is_drawn_anew_and_again_the_same(model):
    before, state = models.state_sha256(model.module), torch.random.get_rng_state()
    fresh, again, other = (on_scans.untrained(model, seed) for seed in (0, 0, 1))
    assert fresh.sha256 == again.sha256 != other.sha256 != model.sha256 == before
    assert torch.equal(torch.random.get_rng_state(), state) and not fresh.module.training
    assert on_scans.look(fresh, TEXTS[0]).position == on_scans.look(model, TEXTS[0]).position


def test_what_the_last_token_reads_is_what_the_methods_average(model, seen):
    for found, name in zip(on_scans.last_reads(seen), ("hidden_attention", "unified_attention"), strict=True):
        assert found.shape == (len(seen.layers), seen.position + 1)
        torch.testing.assert_close(found.mean(0), methods.explain(name, model, TEXTS[0]).scores)


def test_rows_of_every_block_before_and_after_a_filter():
    vim, (picture,) = models.load("vim-scenes"), samples.scene_pictures(1)
    found = on_scans.filtered_rows(vim, picture, ("identity", "rank"))
    assert {one.shape for one in found.values()} == {(8, 14, 14)}
    assert not torch.allclose(found["identity"], found["rank"], atol=1e-4)
    whole = observe(vim, [picture], gradient=False).view(0).attention.mean(1)[:, 0, 1:]
    torch.testing.assert_close(found["identity"].flatten(1), whole)


def test_a_copy_without_biases_leaves_the_model(model):
    bare = on_scans.without_biases(model)
    for name, parameter in bare.module.named_parameters():
        if name.endswith("bias"):
            assert bool(parameter.any()) == ("dt_proj" in name), name
    assert bare.sha256 != model.sha256 and models.state_sha256(model.module) == model.sha256
    assert bare.name == "mamba-recall, no biases"


def test_relevance_adds_up_without_biases_and_not_without_rules(model):
    bare = on_scans.without_biases(model)
    whole = conservation.by_depth(bare, TEXTS, "mamba_lrp", target=1)
    assert whole.shape == (len(TEXTS), 1 + model.module.config.num_hidden_layers) and (whole - 1).abs().max() < 1e-3
    assert (conservation.by_depth(bare, TEXTS, "mamba_lrp", target=1, rules=())[:, 0] - 1).abs().min() > 0.05
    kept = (conservation.by_depth(model, TEXTS, "mamba_lrp", target=1)[:, 0] - 1).abs()
    assert kept.median() > 0.01, "biases keep a share"


def test_a_model_without_scans_is_refused():
    with pytest.raises(TypeError, match="no selective scan"):
        on_scans.look(models.load("minilm-sst2"), TEXTS[0])
