"""The attention classifier: the original's numbers, padding, words, saving and loading, refusals."""

import json
from dataclasses import replace

import numpy as np
import oracles
import pytest
import tiny
import torch
from places import GOLDEN
from safetensors.torch import save_file

from xai_utils.models import attention_classifier as ours
from xai_utils.models.attention_classifier import AttentionClassifier, BlockClassifier, Settings

STORED = np.load(GOLDEN / "attention_meets.npz")


def golden(name):
    return torch.from_numpy(np.atleast_1d(STORED[name]))


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def original():
    """Load the golden weights, with the positions they were run with."""
    module = AttentionClassifier(Settings(22, 16, 8, 6, 3, 2, 14)).double().eval()
    state = {
        name: torch.stack([golden(f"w_heads.{head}.{name}.weight") for head in range(3)])
        for name in ("query", "key", "value", "classifier")
    }
    module.load_state_dict({"embedding.weight": golden("w_embedding.weight"), **state})
    module.positions = golden("pe")
    return module


@pytest.mark.parametrize("document", ["doc0", "doc1"])
def test_scores_of_the_original(document):
    with torch.no_grad():
        module = original()
        same(module.embed(golden(f"{document}_ids")[None])[0], golden(f"{document}_e"))
        same(module(golden(f"{document}_ids")[None])[0], golden(f"{document}_logits"))


def test_positions_are_the_originals():
    same(ours.sinusoids(14, 16).double(), golden("pe"), 1e-7)


def test_scores_are_those_written_out():
    model = tiny.attention_classifier()
    ids = torch.tensor([[0, 5, 9, 1, 5, 4]])
    embedded, module = model.module.embed(ids)[0], model.module
    for target in (0, 1):
        heads = [
            oracles.attention_output(embedded, query, key, value, readout[target])
            for query, key, value, readout in zip(
                module.query, module.key, module.value, module.classifier, strict=True
            )
        ]
        assert float(module(ids)[0, target]) == pytest.approx(sum(heads) / 3, abs=1e-12)


def test_padding_changes_nothing():
    module = tiny.attention_classifier().module
    ids = torch.tensor([[0, 5, 9, 2, 2, 2], [0, 4, 4, 7, 8, 9]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    same(module(ids, mask)[:1], module(ids[:1, :3]))
    same(module(ids, mask)[1:], module(ids[1:]))
    assert (module(ids)[0] - module(ids[:1, :3])[0]).abs().max() > 1e-3, "unmasked padding shares the attention"


def test_the_layer_of_a_class_is_the_models():
    model = tiny.attention_classifier()
    layer = model.module.layer(0)
    assert torch.equal(layer.readout, model.module.classifier[:, 0]) and layer.query.dtype == torch.float64


def test_the_published_sizes_are_the_default():
    module = AttentionClassifier(Settings(10))
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "query": (6, 64, 128), "key": (6, 64, 128), "value": (6, 64, 128), "classifier": (6, 2, 64),
        "embedding.weight": (10, 128),
    }  # fmt: skip
    assert module.query.abs().max() <= 0.1


# In a block


def test_a_block_is_attention_a_residual_connection_and_an_mlp_written_out():
    torch.manual_seed(0)
    module = ours.build(Settings(10, 8, 4, 5, 3, 2, 16, feed_forward=6)).double()
    assert isinstance(module, BlockClassifier)
    ids, mask = torch.tensor([[0, 5, 9, 1, 2]]), torch.tensor([[1, 1, 1, 1, 0]])
    embedded = module.embed(ids)[0, :4]
    heads = []
    for query, key, value, output in zip(module.query, module.key, module.value, module.output, strict=True):
        weights = torch.softmax((embedded @ key.T) @ (query @ embedded[0]) / 4**0.5, -1)
        heads.append(output @ (value @ (weights @ embedded)))
    state = embedded[0] + sum(heads) / 3
    first, second = module.mlp[0], module.mlp[2]
    wide = torch.nn.functional.gelu(first.weight @ state + first.bias)
    expected = module.classifier @ (state + second.weight @ wide + second.bias)
    same(module(ids, mask)[0], expected)
    same(module.state(module.embed(ids), mask)[0], state)


def test_the_layer_of_a_block_reads_along_the_class_or_along_a_given_slope():
    module = ours.build(Settings(10, 8, 4, 5, 3, 2, 16, feed_forward=6))
    slope = torch.arange(8.0)
    same(module.layer(1).readout, module.layer(1, module.classifier[1].detach()).readout)
    expected = torch.stack([output.T @ slope for output in module.output])
    same(module.layer(0, slope).readout, expected.double(), 1e-5)


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It isn't dull.", "it is n't dull ."),
        ("it is n't dull .", "it is n't dull ."),
        ("the film's best-loved 3-D scene", "the film 's best-loved 3-d scene"),
        ("They'll LOVE it -- really!", "they 'll love it - - really !"),
        ("café, naïve", "café , naïve"),
    ],
)
def test_words_are_split_as_the_treebank_does(text, words):
    read = ours.word_tokenizer([words])
    coded = read(text, return_offsets_mapping=True)
    assert read.convert_ids_to_tokens(coded["input_ids"]) == ["[CLS]", *words.split()]
    assert [text[s:e].lower() for s, e in coded["offset_mapping"][1:]] == words.split()


def test_frequent_words_stay_and_the_rest_is_unknown():
    read = ours.word_tokenizer(["a a a b b c c d"], most=6, least=2)
    assert read.get_vocab() == {"[CLS]": 0, "[UNK]": 1, "[PAD]": 2, "a": 3, "b": 4, "c": 5}
    assert ours.word_tokenizer(["a a a b b c c d"], most=5).get_vocab().keys() == {"[CLS]", "[UNK]", "[PAD]", "a", "b"}
    assert read("a d zebra")["input_ids"] == [0, 3, 1, 1]


# Files


def save(module, tokenizer, folder):
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, folder / "model.safetensors")
    for name, content in ours.files(module, tokenizer).items():
        (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("wide", [0, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_saved_is_loaded_in_single_precision(dtype, wide, tmp_path):
    model = tiny.attention_classifier()
    module = ours.build(replace(model.module.config, feed_forward=wide))
    save(module.to(dtype), model.tokenizer, tmp_path)
    again, read = ours.load(tmp_path)
    assert again.config == module.config and not again.training and again.query.dtype == torch.float32
    kept = again.state_dict()
    assert all(torch.equal(kept[name], tensor.float()) for name, tensor in module.state_dict().items())
    assert read("the dull plot, zebra") == model.tokenizer("the dull plot, zebra")
    assert read.model_max_length == 32


def test_an_incomplete_or_mixed_folder_is_refused(tmp_path):
    model = tiny.attention_classifier()
    save(model.module, model.tokenizer, tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"width": 8', '"width": 10'))
    with pytest.raises(ValueError, match=r"do not fit its config.json"):
        ours.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"lacks tokenizer.json; training writes"):
        ours.load(tmp_path)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="width is 7, expected an even number"):
        Settings(10, width=7)
    with pytest.raises(ValueError, match="heads is 0, expected at least 1"):
        Settings(10, heads=0)
    with pytest.raises(ValueError, match="feed_forward is -1, expected at least 0"):
        Settings(10, feed_forward=-1)
    with pytest.raises(ValueError, match="33 tokens, but there are 32 positions"):
        tiny.attention_classifier().module(torch.zeros(1, 33, dtype=torch.long))
