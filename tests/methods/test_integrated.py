"""Integrated gradients: completeness and steps, a quadrature by hand, published numbers, refusals."""

import numpy as np
import pytest
import tiny
import torch
from places import GOLDEN

from tests.methods.test_table import ROWS, golden_model
from xai_utils.methods import explain, integrated
from xai_utils.models.encoding import encode
from xai_utils.samples import Text

STORED = GOLDEN / "captum.npz"
BOTH = pytest.mark.parametrize("name", ["bert", "roberta", "timm-distilled"])


def same(left, right, atol=1e-10):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def differences(model, batch, targets):
    """Return score(input) - score(baseline) of each sample: same ids, mask and positions, other word vectors."""
    with torch.no_grad():
        whole = model.logits(batch.inputs)
        if batch.grid is None:
            ids, table = batch.inputs["input_ids"], model.module.get_input_embeddings()
            empty = table(ids.where(torch.isin(ids, torch.tensor([0, 1, 2, 3, 4])), 0))
            handle = table.register_forward_hook(lambda *_: empty)
            base = model.logits(batch.inputs)
            handle.remove()
        else:
            base = model.logits({"x": torch.zeros_like(batch.inputs["x"])})
    return (whole - base)[range(len(targets)), targets]


def run(name, count=3, targets=(0, 1, 2), samples=None, **options):
    model = tiny.model(name)
    batch = encode(model, samples or tiny.samples(name, count))
    targets = targets[: len(batch)]
    return integrated.gradients(model, batch, targets, **options), differences(model, batch, targets), batch


# Properties


@BOTH
def test_the_gap_is_what_completeness_misses(name):
    found, spans, _ = run(name, steps=3, most_steps=3)
    gaps = torch.tensor([details["gap"] for _, details in found], dtype=torch.float64)
    assert (gaps.abs() > 1e-6).all()
    same(torch.stack([scores.sum() for scores, _ in found]).double() - spans.double(), gaps, 1e-5)
    for (_, details), span in zip(found, spans.tolist(), strict=True):
        assert details["relative_gap"] == pytest.approx(abs(details["gap"]) / abs(span), rel=1e-3)


@BOTH
def test_steps_are_doubled_until_the_gap_is_small(name):
    model = tiny.model(name)
    by_steps = {steps: run(name, steps=steps, most_steps=steps)[0] for steps in (2, 4, 8, 16)}
    gaps = {steps: [details["relative_gap"] for _, details in found] for steps, found in by_steps.items()}
    assert max(gaps[16]) < max(gaps[2]) / 10
    ordered = sorted(gaps[2])
    tolerance = (ordered[0] + ordered[1]) / 2  # one sample is content with two steps, the others are not
    passes = []
    handle = model.module.register_forward_hook(lambda _m, _a, out: passes.append(1))
    found = run(name, steps=2, most_steps=16, tolerance=tolerance)[0]
    handle.remove()
    used = [details["steps"] for _, details in found]
    wanted = [next((s for s in (2, 4, 8, 16) if gaps[s][i] <= tolerance), 16) for i in range(3)]
    assert used == wanted and sorted(used)[0] == 2 < sorted(used)[1]
    for i, (scores, details) in enumerate(found):
        same(scores, by_steps[used[i]][i][0], 1e-6)
        assert details["converged"] == (details["relative_gap"] <= tolerance)
        assert details["gap"] == pytest.approx(by_steps[used[i]][i][1]["gap"], abs=1e-6)


def test_where_doubling_ends_is_reported():
    found, *_ = run("bert", steps=2, most_steps=9, tolerance=0.0)
    assert [details["steps"] for _, details in found] == [8, 8, 8]
    assert not any(details["converged"] for _, details in found)
    found, *_ = run("bert", steps=5, most_steps=1, tolerance=1e9)
    assert [(details["steps"], details["converged"]) for _, details in found] == [(5, True)] * 3


@BOTH
def test_the_size_of_a_chunk_changes_nothing(name):
    whole, *_ = run(name, steps=6, most_steps=6, chunk=10_000)
    for chunk in (1, 4, 7):
        some, *_ = run(name, steps=6, most_steps=6, chunk=chunk)
        for (one, details), (other, wanted) in zip(some, whole, strict=True):
            same(one, other, 1e-10 if name in tiny.TEXT else 1e-5)
            assert details["gap"] == pytest.approx(wanted["gap"], abs=1e-5)


def test_a_chunk_bounds_how_many_inputs_meet_in_one_pass():
    model, sizes = tiny.model("bert"), []

    def measure(_module, _args, given):
        sizes.append(len(given["input_ids"]))

    handle = model.module.register_forward_pre_hook(measure, with_kwargs=True)
    run("bert", steps=32, most_steps=32, chunk=8)
    handle.remove()
    assert max(sizes) <= 8


@pytest.mark.parametrize("name", tiny.TEXT)
def test_a_padded_batch_gives_what_single_sentences_give(name):
    together, *_ = run(name, steps=8, most_steps=8)
    for i, sample in enumerate(tiny.SENTENCES):
        ((alone, details),), *_ = run(name, targets=(i,), samples=[sample], steps=8, most_steps=8)
        same(together[i][0], alone, 1e-10)
        assert together[i][1]["gap"] == pytest.approx(details["gap"], abs=1e-9)


def test_specials_stay_and_so_get_nothing():
    model = tiny.model("bert")
    ids = encode(model, [Text("the dull film")]).inputs["input_ids"]
    assert integrated.without_words(model, ids).tolist() == [[1, 0, 0, 0, 2]]
    found = explain("integrated_gradients", model, tiny.SENTENCES, target=0)
    for one in found:
        assert one.scores[0] == one.scores[-1] == 0 and one.scores[1:-1].all()


def test_the_prefix_of_a_picture_gets_nothing():
    found, _, batch = run("timm-distilled", steps=8, most_steps=8)
    for scores, _ in found:
        assert len(scores) == 18 and (scores[:2] == 0).all() and scores[2:].all()
    assert batch.prefix == 2


@pytest.mark.parametrize("name", [*tiny.TEXT, "timm-vit"])
def test_completeness_is_what_explain_asks_for_by_default(name):
    """Also where the ids say more than the words: RoBERTa counts positions, GPT-2 finds its last word by [PAD]."""
    for found in explain("integrated_gradients", tiny.model(name), tiny.samples(name), target=1):
        assert found.details["converged"] and found.details["relative_gap"] <= 0.02 and found.details["steps"] >= 16


def test_a_convolutional_network_is_explained_too():
    model = tiny.model("resnet")
    picture = tiny.samples("resnet")[0]
    found = explain("integrated_gradients", model, picture, target=1, tolerance=0.05)
    assert found.grid[0] * found.grid[1] == len(found.scores)


# By hand


def quadrature(forward, inputs, baseline, steps):
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(inputs)
    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        point = (baseline + node * (inputs - baseline)).detach().requires_grad_()
        total += weight * torch.autograd.grad(forward(point), point)[0]
    return total * (inputs - baseline)


def test_words_equal_a_quadrature_by_hand():
    model = tiny.model("bert")
    batch = encode(model, tiny.SENTENCES[:1])
    module = tiny.module("bert").requires_grad_(False)
    table = module.get_input_embeddings().weight
    ids = batch.inputs["input_ids"]
    baseline = table[integrated.without_words(model, ids)]
    wanted = quadrature(lambda states: module(inputs_embeds=states).logits[0, 2], table[ids], baseline, 6).sum(-1)[0]
    (((found, _),), _, _) = run("bert", count=1, targets=(2,), steps=6, most_steps=6)
    same(found, wanted, 1e-7)


def test_pixels_equal_a_quadrature_by_hand_and_add_up_by_patch():
    model = tiny.model("timm-distilled")
    pixels = encode(model, tiny.samples("timm-distilled", 1)).inputs["x"].double()
    module = tiny.module("timm-distilled", dtype=torch.float32).double()
    wanted = quadrature(lambda given: module(given)[0, 1], pixels, torch.zeros_like(pixels), 6)[0]
    patches = [
        wanted[:, row : row + tiny.PATCH, column : column + tiny.PATCH].sum()
        for row in range(0, tiny.SIDE, tiny.PATCH)
        for column in range(0, tiny.SIDE, tiny.PATCH)
    ]
    (((found, _),), _, _) = run("timm-distilled", count=1, targets=(1,), steps=6, most_steps=6)
    same(found[2:].double(), torch.stack(patches), 1e-5)


# Published numbers


@pytest.fixture(scope="module")
def golden():
    with np.load(STORED) as file:
        stored = dict(file)
    return stored, golden_model(stored)


@pytest.mark.parametrize("target", range(3))
def test_golden_words(golden, target):
    stored, model = golden
    steps = int(stored["n_steps"])
    batch = encode(model, ROWS)
    found = integrated.gradients(model, batch, [target] * 3, steps=steps, most_steps=steps)
    for i, (scores, details) in enumerate(found):
        n = int(stored["attention_mask"][i].sum())
        assert len(scores) == n
        for name in ("lig_word_gausslegendre_sum", "ig_word_float64_gl50_sum"):
            same(scores, torch.from_numpy(stored[f"c{target}_{name}"][i, :n]), 1e-7)
        assert details["gap"] == pytest.approx(stored[f"c{target}_lig_word_gausslegendre_delta"][i], abs=1e-7)
        span = stored["logits"][i, target] - stored["logits_baseline"][i, target]
        assert details["relative_gap"] == pytest.approx(abs(details["gap"] / span), rel=1e-6)


def test_golden_baseline(golden):
    stored, model = golden
    ids = torch.from_numpy(stored["input_ids"])
    assert integrated.without_words(model, ids).tolist() == stored["baseline_ids"].tolist()


# Refusals


def test_a_tokenizer_without_pad_is_refused():
    model = tiny.wrap("gpt2", tiny.module("gpt2"))
    tokenizer = tiny.tokenizer.__wrapped__(cls=False)
    tokenizer.pad_token = None
    object.__setattr__(model, "tokenizer", tokenizer)
    with pytest.raises(ValueError, match=r"tokenizer of tiny gpt2 has no \[PAD\]"):
        integrated.without_words(model, torch.tensor([[7, 8]]))


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": -1}, {"chunk": 0}])
def test_counts_below_one_are_refused(options):
    with pytest.raises(ValueError, match=r"steps|chunk"):
        run("bert", **options)


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_no_state_is_left(name):
    model, sample = tiny.model(name), tiny.samples(name)[0]

    def hooks():
        return [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.module.modules()]

    before = hooks()
    explain("integrated_gradients", model, sample, target=0)
    assert hooks() == before
    assert not any(p.requires_grad or p.grad is not None for p in model.module.parameters())
