"""Methods on tiny models: properties of every method, mathematics by hand, published numbers, refusals."""

import json

import numpy as np
import pytest
import tiny
import torch
from places import GOLDEN
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from xai_utils.capture import capture_attention
from xai_utils.capture.attention import with_gradient
from xai_utils.methods import METHODS, attribute, explain, methods_for, table
from xai_utils.methods.observation import observe
from xai_utils.models import Model, memory, state_sha256
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples import Text

MODELS = ("bert", "timm-vit")
# Both Grad-CAMs may have nothing to show, and one wants a convolutional network; test_relevance.py has them.
SUITING = {name: [method for method in methods_for(tiny.model(name)) if "gradcam" not in method] for name in MODELS}
PAIRS = [(name, method) for name in MODELS for method in SUITING[name]]
EACH = pytest.mark.parametrize(("name", "method"), PAIRS)
EACH_THAT_ASKS = pytest.mark.parametrize(
    ("name", "method"), [pair for pair in PAIRS if METHODS[pair[1]].asks and METHODS[pair[1]].family != "null"]
)
GRADIENT = tuple(method for method in SUITING["bert"] if METHODS[method].asks)
ONE = torch.empty(0)
OBSERVED = tuple(method for method in SUITING["bert"] if METHODS[method].score is not None)


def same(left, right, atol=1e-10):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def tolerance(name):
    return 1e-10 if name in tiny.TEXT else 1e-5


# Every method


@EACH
def test_a_batch_gives_what_a_loop_gives(method, name):
    model, samples = tiny.model(name), tiny.samples(name)
    loop = [explain(method, model, sample) for sample in samples]
    for size in (1, 2, 16):
        batch = explain(method, model, samples, batch_size=size)
        assert len(batch) == len(loop)
        for one, alone in zip(batch, loop, strict=True):
            assert isinstance(one, Attribution) and one.labels == alone.labels and one.target == alone.target
            same(one.scores, alone.scores, tolerance(name))


@pytest.mark.parametrize("method", ["rollout", "gradient_rollout", "attnlrp"])
@pytest.mark.parametrize("name", MODELS)
def test_long_samples_go_in_smaller_batches(method, name, monkeypatch):
    """Ten times the longest of three, with a budget for four of it: the first pass measures, three more explain."""
    model, some = tiny.model(name), [*tiny.samples(name), *tiny.samples(name)[-1:] * 7]
    whole, passes, real = explain(method, model, some, 1 if METHODS[method].asks else None), [], table._explain

    def counted(name, model, part, *rest):
        passes.append(len(part))
        return real(name, model, part, *rest)

    monkeypatch.setattr(table, "_explain", counted)
    longest = memory.peak(lambda _: explain(method, model, some[-1:], 1 if METHODS[method].asks else None), ONE)
    monkeypatch.setattr(memory, "BUDGET", 4 * longest + longest // 2)
    assert len(explain(method, model, some)) == 10 and passes == [1, 10], "short ones are not measured"
    monkeypatch.setattr(table, "LONG", 1)
    found = explain(method, model, some, 1 if METHODS[method].asks else None)
    assert passes[2:] == [1, 4, 4, 2]
    for one, other in zip(found, whole, strict=True):
        same(one.scores, other.scores, tolerance(name))


@EACH
def test_twice_is_once(method, name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    first, second = (explain(method, model, sample, target=1 if METHODS[method].asks else None) for _ in range(2))
    assert torch.equal(first.scores, second.scores) and first.details == second.details
    assert state_sha256(model.module) == model.sha256 and not any(p.requires_grad for p in model.module.parameters())


@EACH
def test_the_result_is_labelled(method, name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    found = explain(method, model, sample, target=2)
    assert (found.method, found.model, found.unit, found.signed) == (
        method, model.name, METHODS[method].unit.replace("asked", "logit"), METHODS[method].signed
    )  # fmt: skip
    if METHODS[method].asks:
        assert (found.target, found.target_name) == (2, model.classes[2])
    else:
        assert (found.target, found.target_name) == (None, "")
    if name in tiny.TEXT:
        assert found.labels == ("[CLS]", "the", "film", "is", "not", "dull", ",", "but", "slow", ".", "[SEP]")
        assert found.grid is None
    else:
        assert found.grid == tiny.GRID and found.labels[5] == "1,1" and len(found.labels) == 16


@EACH_THAT_ASKS
def test_the_explained_class_follows_the_target(method, name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    by_index = [explain(method, model, sample, target=i) for i in range(len(model.classes))]
    for i, class_name in enumerate(model.classes):
        named = explain(method, model, sample, target=class_name)
        assert named.target == i and named.target_name == class_name
        same(named.scores, by_index[i].scores, 0)
        assert (by_index[i].scores - by_index[i - 1].scores).abs().max() > 1e-4
    same(explain(method, model, sample, target=-1).scores, by_index[-1].scores, 0)
    predicted = int(model.logits(encode(model, [sample]).inputs).argmax())
    assert explain(method, model, sample).target == predicted
    same(explain(method, model, sample).scores, by_index[predicted].scores, 0)


@pytest.mark.parametrize("name", [*tiny.TEXT, *tiny.VISION])
def test_one_score_for_each_token_of_each_family(name):
    model, sample = tiny.model(name), tiny.samples(name)[1]
    for method in ("attention", "rollout", "gradient_rollout", "gradient_x_input"):
        row = {"row": -1} if name == "gpt2" and method != "gradient_x_input" else {}
        found = explain(method, model, sample, target=1, **row)
        assert len(found.scores) == len(found.labels) == (16 if name in tiny.VISION else 3 if name == "gpt2" else 5)


@pytest.mark.parametrize("name", tiny.VISION)
def test_prefix_tokens_are_left_out_and_patches_kept_in_order(name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    seen = observe(model, [sample])
    assert seen.attention.shape[-1] == 16 + tiny.PREFIX[name]
    heads = 2 if name in ("deit", "timm-distilled") else 1  # [CLS], and the distillation token with a head of its own
    row = seen.attention[-1, 0].mean(0)[:heads].mean(0)
    same(attribute("attention", seen).scores, row[tiny.PREFIX[name] :], 1e-7)
    same(attribute("gradient_norm", seen).scores, seen.state_gradients[0, 0, tiny.PREFIX[name] :].norm(dim=-1), 1e-6)


# Each method by hand


# Published numbers


class Rows:
    """A tokenizer that reads the number of a stored row and returns that row."""

    all_special_ids, pad_token_id, unk_token_id, model_max_length, is_fast = [0, 1, 2, 3], 0, 3, 24, True

    def __init__(self, stored):
        self.stored = stored

    def __call__(self, text, **_):
        row, names = int(text), ("input_ids", "attention_mask", "token_type_ids")
        length = int(self.stored["attention_mask"][row].sum())
        coded = {name: self.stored[name][row][:length].tolist() for name in names}
        return {**coded, "offset_mapping": [(0, 0)] * length}

    def convert_ids_to_tokens(self, ids):
        return [f"word {i}" for i in ids]


def golden_model(stored) -> Model:
    module = BertForSequenceClassification(BertConfig(**json.loads(str(stored["config"])))).double().eval()
    module.load_state_dict(load_file(GOLDEN / "bert_seqcls.safetensors"))
    module.requires_grad_(False)
    return Model("golden", module, ("a", "b", "c"), 4, 0, Rows(stored), None, "")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "nullity.npz") as file:
        stored = dict(file)
    return stored, golden_model(stored)


ROWS = [Text("0"), Text("1"), Text("2")]


def test_golden_logits(golden):
    stored, model = golden
    same(observe(model, ROWS, gradient=False).logits, torch.from_numpy(stored["logits"]))


@pytest.mark.parametrize("target", range(3))
@pytest.mark.parametrize(
    ("method", "name"), [("gradient_norm", "l2_grad_embed_out"), ("gradient_x_input", "gxi_embed_out")]
)
def test_golden_gradients_behind_the_layer_norm(golden, target, method, name):
    stored, model = golden
    for i, found in enumerate(explain(method, model, ROWS, target)):
        same(found.scores, torch.from_numpy(stored[name])[i, target, : len(found.scores)], 1e-8)


@pytest.mark.parametrize("target", range(3))
def test_golden_gradients_before_the_layer_norm_say_nothing(golden, target):
    stored, model = golden
    inputs = encode(model, ROWS).inputs
    words = []
    with capture_attention(model.module) as trace:
        embedding = model.module.get_input_embeddings()
        handle = embedding.register_forward_hook(lambda _module, _args, output: words.append(with_gradient(output)))
        model.logits(inputs)[:, target].sum().backward()
        handle.remove()
    assert trace.stack_grad().any()
    word, gradient = words[0].detach(), words[0].grad
    same(gradient, torch.from_numpy(stored["grad_word"])[:, target])
    parts = model.module.bert.embeddings
    other = parts.position_embeddings.weight[: word.shape[1]] + parts.token_type_embeddings(inputs["token_type_ids"])
    length, present = gradient.norm(dim=-1), inputs["attention_mask"].bool()
    assert (gradient.sum(-1).abs()[present] / length[present]).max() <= 1e-12
    assert (length[~present] == 0).all()
    assert (gradient * (word + other)).sum(-1).abs().max() <= 1e-9
    same((gradient * word).sum(-1), -(gradient * other).sum(-1), 1e-9)


# Refusals


def test_unknown_names_list_what_exists():
    model, sample = tiny.model("bert"), tiny.SENTENCES[0]
    with pytest.raises(ValueError, match=r"method is 'saliency', expected one of: attention, rollout"):
        explain("saliency", model, sample)
    with pytest.raises(ValueError, match=r"method is 'saliency', expected one of: attention, rollout"):
        attribute("saliency", observe(model, [sample]))
    for method in ("rollout", "gradient_norm", "integrated_gradients"):
        with pytest.raises(ValueError, match=r"tiny bert has no class 'superb'; such as: bad, fair, good"):
            explain(method, model, sample, target="superb")
        for wrong in (3, -4):
            with pytest.raises(IndexError, match=rf"class of tiny bert is {wrong}, but there are 3"):
                explain(method, model, sample, target=wrong)


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("attention", {"layer": 3}, IndexError, "layer is 3, but there are 3: expected 0 to 2"),
        ("rollout", {"layer": -4}, IndexError, "layer is -4, but there are 3"),
        ("gradient_rollout", {"layer": 9}, IndexError, "layer is 9, but there are 3"),
        ("flow", {"layer": 3}, IndexError, "layer is 3, but there are 3"),
        ("attention", {"head": 4}, IndexError, "head is 4, but there are 4: expected 0 to 3"),
        ("attention", {"row": 11}, IndexError, "row is 11, but there are 11"),
        ("rollout", {"row": 11}, IndexError, "(row|query) is 11, but there are 11"),
        ("gradient_rollout", {"row": -12}, IndexError, "(row|query) is -12, but there are 11"),
        ("flow", {"row": 11}, IndexError, "row is 11, but there are 11"),
        ("attention", {"row": "last"}, ValueError, "row is 'last', expected one of: reader, max, mean"),
        ("rollout", {"row": "last"}, ValueError, "row is 'last', expected one of: reader, max, mean"),
        ("rollout", {"fusion": "median"}, ValueError, "fusion is 'median', expected one of: mean, max, min"),
        ("rollout", {"discard": 1.0}, ValueError, r"discard is 1.0, expected a share from 0 to below 1"),
        ("rollout", {"residual": 1.5}, ValueError, "residual is 1.5, expected a share between 0 and 1"),
        ("gradient_rollout", {"residual": -0.1}, ValueError, "residual is -0.1"),
        ("flow", {"residual": 2}, ValueError, "residual is 2"),
        ("gradient_norm", {"layer": 0}, TypeError, "unexpected keyword argument 'layer'"),
        ("rollout", {"head": 0}, TypeError, "unexpected keyword argument 'head'"),
        ("integrated_gradients", {"layers": 0}, TypeError, "unexpected keyword argument 'layers'"),
    ],
)
def test_wrong_options_are_refused(method, options, error, message):
    with pytest.raises(error, match=message):
        explain(method, tiny.model("bert"), tiny.SENTENCES[0], **options)


def test_a_sample_that_was_not_observed_is_refused():
    seen = observe(tiny.model("bert"), tiny.SENTENCES[:2])
    with pytest.raises(IndexError, match="sample is 2, but there are 2"):
        attribute("rollout", seen, 2)
    with pytest.raises(ValueError, match=r"integrated_gradients needs passes of its own; call explain\("):
        attribute("integrated_gradients", seen)


@pytest.mark.parametrize("size", [0, -2])
def test_a_batch_size_below_one_is_refused(size):
    with pytest.raises(ValueError, match="batch_size"):
        explain("rollout", tiny.model("bert"), tiny.SENTENCES, batch_size=size)


@EACH_THAT_ASKS
def test_no_gradient_is_an_error_and_not_a_picture(method, name):
    module = tiny.module(name, dtype=torch.float64 if name == "bert" else torch.float32)
    head = module.classifier if name == "bert" else module.head
    with torch.no_grad():
        head.weight[1] = 0
    model = tiny.wrap(name, module)
    assert explain(method, model, tiny.samples(name)[0], target=0).scores.any()
    with pytest.raises(ValueError, match=r"every score is zero|positive gradient|would be empty"):
        explain(method, model, tiny.samples(name)[0], target=1)


@pytest.mark.parametrize("method", OBSERVED)
def test_nan_in_the_model_is_an_error_and_not_a_picture(method):
    module = tiny.module("bert")
    with torch.no_grad():
        module.bert.encoder.layer[0].attention.self.query.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN|not a probability map"):
        explain(method, tiny.wrap("bert", module), tiny.SENTENCES[0], target=0)


@pytest.mark.parametrize("method", OBSERVED)
def test_models_that_methods_cannot_see_into_are_refused(method):
    picture = tiny.samples("resnet")[0]
    with pytest.raises(TypeError, match="no attention block"):
        explain(method, tiny.model("resnet"), picture)
    with pytest.raises((TypeError, ValueError), match=r"Swin|equal blocks"):
        explain(method, tiny.model("swin"), picture)


def test_a_model_without_classes_has_no_class_to_explain():
    module = tiny.module("bert").bert
    model = Model("bare", module, (), 3, 0, tiny.tokenizer(), None, "")
    assert explain("rollout", model, tiny.SENTENCES[0]).target is None
    for method in GRADIENT:
        with pytest.raises(TypeError, match="cannot explain bare: it has no classifier"):
            explain(method, model, tiny.SENTENCES[0])
    with pytest.raises(ValueError, match="no classifier, so there is no class 'good'"):
        explain("rollout", model, tiny.SENTENCES[0], target="good")


def test_the_wrong_kind_of_sample_is_refused():
    with pytest.raises(ValueError, match="takes sentences, not a picture"):
        explain("rollout", tiny.model("bert"), tiny.samples("vit")[0])
    with pytest.raises(ValueError, match="takes pictures, not a text"):
        explain("rollout", tiny.model("vit"), tiny.SENTENCES[0])
    with pytest.raises(ValueError, match="has 36 tokens, but tiny bert reads at most 32"):
        explain("rollout", tiny.model("bert"), Text("dull " * 34, "long"))
    assert len(explain("rollout", tiny.model("bert"), Text("dull " * 30)).scores) == 32


@pytest.mark.parametrize("name", tiny.TEXT)
def test_the_longest_sentence_that_is_let_in_can_be_read(name):
    model = tiny.model(name)
    words = 32
    while True:
        try:
            found = explain("attention", model, Text("dull " * words), row=-1)
        except ValueError as error:
            assert "reads at most" in str(error)
            words -= 1
        else:
            assert len(found.scores) >= 30
            break
