"""Vectors of gendered words: the right token at every layer, directions, and a corpus that resumes."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.gender import vectors
from xai_utils.gender.vectors import Vectors
from xai_utils.samples import gender

PAIRS = (("he", "she"), ("man", "woman"))


def test_vectors_are_the_states_of_the_word_in_one_pass(model):
    male, _ = gender.gendered(PAIRS)
    some = male[:3] + male[-2:]
    found = vectors.states(model, some, size=2)
    assert found.shape == (tiny.BLOCKS + 1, 5, tiny.WIDTH)
    coded = model.tokenizer(some[1].text, return_offsets_mapping=True, return_tensors="pt")
    place = coded.pop("offset_mapping")[0].tolist().index([some[1].start, some[1].end])
    with torch.inference_mode():
        hidden = model.module.base_model(**coded, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[:, 1], torch.stack(hidden)[:, 0, place], atol=1e-5, rtol=0)


def test_no_sentence_and_a_word_of_several_pieces_are_refused(model):
    with pytest.raises(ValueError, match="no sentence"):
        vectors.states(model, [])
    with pytest.raises(ValueError, match="not a single token"):
        vectors.states(model, [gender.Item("The chairwoman left.", 4, 14, False)])


def test_directions_point_to_the_masculine_side_and_the_unnormalised_one_is_the_mean_difference():
    noise = torch.Generator().manual_seed(0)
    male, female = torch.randn(2, 3, 50, 6, generator=noise)
    male[..., 2] += 8
    found = Vectors(male, female, np.arange(50))
    rays, explained = found.rays(40)
    assert rays.shape == (3, 6) and (rays[:, 2] > 0.9).all() and all(0 < share <= 1 for share in explained)
    assert not torch.equal(found.rays()[0], rays), "some vectors are as good as all"
    sides = found.coordinates(rays)
    assert len(sides) == 3 and all(one > other + 5 for one, other in sides)
    assert sides[1][0] == pytest.approx(float((male[1] @ rays[1]).mean()), abs=1e-5)
    assert found.rank_one_gap(40) < 1e-9
    assert (found.means() * rays).sum(-1).min() > 0.9
    with pytest.raises(ValueError, match="most is 0"):
        found.rays(0)


def test_places_are_spread_evenly():
    assert vectors.evenly(9, 3).tolist() == [0, 4, 8] and vectors.evenly(3, 9).tolist() == [0, 1, 2]
    assert vectors.evenly(4, None).tolist() == [0, 1, 2, 3]


def corpus(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "own.txt").write_text("\n".join(lines) + "\n")
    return str(folder / "own.txt")


LINES = [f"He found the {n}th house. Nothing else happened. The woman left it." for n in range(6)]


def extract(model, source, cache, count=10):
    return vectors.of_corpus(model, source, count, pairs=PAIRS, cache=cache, chunk=4)


def test_a_corpus_gives_matching_sides_and_resumes_from_its_cache(model, tmp_path, monkeypatch):
    source = corpus(tmp_path / "texts", LINES)
    both = list(vectors.candidates(model, source, PAIRS))
    assert len(both) == 12 and all(one.male and not other.male for one, other in both)
    assert both[1][0].text == "The man left it." and both[1][1].text == "The woman left it."
    whole = extract(model, source, tmp_path / "a")
    assert whole.male.shape == whole.female.shape == (tiny.BLOCKS + 1, 10, tiny.WIDTH)
    assert whole.group.tolist() == list(range(10)), "every sentence is a group of its own"
    expected = vectors.states(model, [one for one, _ in both[:10]])
    torch.testing.assert_close(whole.male, expected, atol=1e-5, rtol=0)

    compute, calls = vectors.states, []

    def interrupted(*given, **how):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return compute(*given, **how)

    monkeypatch.setattr(vectors, "states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(model, source, tmp_path / "b")
    (folder,) = (tmp_path / "b").iterdir()
    assert [path.name for path in folder.iterdir()] == ["part-00000.safetensors"], "half a part was left"
    calls.clear()
    monkeypatch.setattr(vectors, "states", lambda *a, **k: calls.append(1) or compute(*a, **k))
    again = extract(model, source, tmp_path / "b")
    assert len(calls) == 4, "the part that was there was computed again"
    torch.testing.assert_close(again.female, whole.female, atol=1e-6, rtol=0)


def test_a_corpus_without_gender_words_and_a_changed_one_are_refused(model, tmp_path):
    source = corpus(tmp_path / "texts", ["Nothing of the kind is here."])
    with pytest.raises(ValueError, match="holds a gendered word"):
        extract(model, source, tmp_path / "a")
    corpus(tmp_path / "texts", LINES)
    extract(model, source, tmp_path / "a", 4)
    corpus(tmp_path / "texts", LINES[::-1])
    with pytest.raises(ValueError, match="other sentences"):
        extract(model, source, tmp_path / "a", 4)


def test_a_direction_is_saved_with_its_origin(model, tmp_path):
    from safetensors import safe_open

    vectors.save_directions(model, torch.eye(3), "here", tmp_path / "deep" / "one.safetensors")
    with safe_open(tmp_path / "deep" / "one.safetensors", "pt") as file:
        assert file.metadata()["weights_sha256"] == model.sha256 and file.metadata()["data"] == "here"


def test_half_of_the_groups_and_the_turns_from_layer_to_layer():
    male = torch.arange(12.0).reshape(1, 4, 3)
    one = Vectors(male, -male, np.array([0, 1, 2, 1]))
    assert one.half(True).male[0].tolist() == male[0, [1, 3]].tolist() and one.half(False).group.tolist() == [0, 2]
    rays = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert vectors.turns(rays) == [0, -1]


def test_the_published_extraction_takes_the_other_sides_tokens_from_the_end(model):
    right, wrong = vectors.extracted(model)
    half, plain = len(right.group) // 2, vectors.written(model)
    assert torch.equal(right.male, plain.male) and torch.equal(right.female, plain.female)
    assert wrong.group.tolist() == 2 * right.group[:half].tolist() and right.group.tolist() == plain.group.tolist()
    assert torch.equal(wrong.male[:, :half], right.male[:, :half])
    assert torch.equal(wrong.female[:, :half], right.female[:, :half])
    _, female = gender.gendered(places=1)
    coded = model.tokenizer(female[5].text, return_offsets_mapping=True, return_tensors="pt")
    place = coded.pop("offset_mapping")[0].tolist().index([female[5].start, female[5].end])
    with torch.inference_mode():
        hidden = model.module.base_model(**coded, output_hidden_states=True).hidden_states
    torch.testing.assert_close(wrong.male[:, half + 5], torch.stack(hidden)[:, 0, -place], atol=1e-5, rtol=0)


def test_running_text_gives_the_states_of_all_tokens_without_padding(model):
    texts = ["the film", "the film is warm and funny"]
    found = vectors.running(model, texts)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in texts]
    assert found.shape == (tiny.BLOCKS + 1, sum(lengths), tiny.WIDTH)
    torch.testing.assert_close(vectors.running(model, texts[:1]), found[:, : lengths[0]], atol=1e-5, rtol=0)
