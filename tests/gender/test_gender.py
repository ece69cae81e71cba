"""Sentences about gender: lists, counterfactuals, vectors of words, corpora, and the planted language."""

import json

import numpy as np
import pytest
import tiny
import torch
import transformers as hf

from xai_utils import models
from xai_utils.gender import corpora, planted_truth
from xai_utils.gender import held_out as gender_held_out
from xai_utils.gender import vectors as gender_vectors
from xai_utils.methods import masked
from xai_utils.metrics import agreement
from xai_utils.models import Model, state_sha256
from xai_utils.samples import gender, passages, planted
from xai_utils.train.masked_words import TinyPlanted

PAIRS = (("he", "she"), ("man", "woman"))


@pytest.fixture(scope="module")
def model():
    """Return an untrained model that reads BERT's vocabulary."""
    torch.manual_seed(0)
    reader = models.load("minilm").tokenizer
    sizes = {**tiny.BERT, "vocab_size": len(reader), "max_position_embeddings": 128}
    module = hf.BertForMaskedLM(hf.BertConfig(**sizes)).eval().requires_grad_(False)
    return Model("tiny", module, (), tiny.BLOCKS, 0, reader, None, state_sha256(module))


# Sentences


def test_there_are_enough_sentences_and_partners_differ_in_the_word_only():
    male, female = gender.gendered()
    assert len(gender.pairs()) >= 30 and len(gender.words()["contexts"]) >= 40 and len(male) >= 5000
    known = set(gender.pairs())
    for one, other in zip(male, female, strict=True):
        assert one.male and not other.male and (one.word, other.word) in known
        assert one.text[: one.start] == other.text[: other.start] and one.text[one.end :] == other.text[other.end :]
    assert len({item.text for item in male}) == len(male)


def test_every_word_is_one_piece_of_berts_vocabulary(model):
    assert all(len(model.tokenizer.tokenize(word)) == 1 for pair in gender.pairs() for word in pair)


def test_every_context_is_a_probe_too():
    found = gender.open_contexts()
    assert len(found) >= 40 == len(set(found[:40])) and all(
        text.count("[MASK]") == 1 and "{" not in text for text in found
    )


def test_probes_hold_one_mask_and_their_word():
    for kind in gender.KINDS:
        for probe in gender.probes(kind):
            assert probe.text.count("[MASK]") == 1 and probe.word in probe.text and probe.other in probe.text
    with pytest.raises(ValueError, match="kind is 'verbs'"):
        gender.probes("verbs")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([("she", "he")], "swapped"),
        ([("he", "he")], "no pair of two different"),
        ([("he",)], "no pair of two different"),
        ([("lad", "lass"), ("lass", "dame")], "both sides"),
        ([], "no gender pair"),
    ],
)
def test_bad_pairs_are_refused(given, match):
    with pytest.raises(ValueError, match=match):
        gender.check_pairs(given)


def test_swapping_keeps_capitals_and_tells_his_from_him():
    swapped = gender.swap("He gave her book to him, and She saw her.", PAIRS)
    assert swapped == "She gave his book to her, and He saw him."


def test_occurrences_are_whole_words_with_their_own_side():
    found = gender.occurrences("The woman, he and the manner of man", PAIRS)
    assert [(item.word, item.male) for item in found] == [("woman", False), ("he", True), ("man", True)]


# Vectors


def test_vectors_are_the_states_of_the_word_in_one_pass(model):
    male, _ = gender.gendered(PAIRS)
    some = male[:3] + male[-2:]
    found = gender_vectors.states(model, some, size=2)
    assert found.shape == (tiny.BLOCKS + 1, 5, tiny.WIDTH)
    coded = model.tokenizer(some[1].text, return_offsets_mapping=True, return_tensors="pt")
    place = coded.pop("offset_mapping")[0].tolist().index([some[1].start, some[1].end])
    with torch.inference_mode():
        hidden = model.module.base_model(**coded, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[:, 1], torch.stack(hidden)[:, 0, place], atol=1e-5, rtol=0)


def test_no_sentence_and_a_word_of_several_pieces_are_refused(model):
    with pytest.raises(ValueError, match="no sentence"):
        gender_vectors.states(model, [])
    with pytest.raises(ValueError, match="not a single token"):
        gender_vectors.states(model, [gender.Item("The chairwoman left.", 4, 14, False)])


def corpus(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "own.txt").write_text("\n".join(lines) + "\n")
    return str(folder / "own.txt")


LINES = [f"He found the {n}th house. Nothing else happened. The woman left it." for n in range(6)]


def test_a_corpus_gives_matching_sides_and_resumes_from_its_cache(model, tmp_path, monkeypatch):
    source = corpus(tmp_path / "texts", LINES)
    both = list(gender_vectors.candidates(model, source, PAIRS))
    assert len(both) == 12 and all(one.male and not other.male for one, other in both)
    assert both[1][0].text == "The man left it." and both[1][1].text == "The woman left it."
    whole = gender_vectors.of_corpus(model, source, tmp_path / "a", 10, PAIRS, chunk=4, quiet=True)
    assert whole.male.shape == whole.female.shape == (tiny.BLOCKS + 1, 10, tiny.WIDTH)
    expected = gender_vectors.states(model, [one for one, _ in both[:10]])
    torch.testing.assert_close(whole.male, expected, atol=1e-5, rtol=0)

    compute, calls = gender_vectors.states, []

    def interrupted(*given, **how):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return compute(*given, **how)

    monkeypatch.setattr(gender_vectors, "states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gender_vectors.of_corpus(model, source, tmp_path / "b", 10, PAIRS, chunk=4, quiet=True)
    (folder,) = (tmp_path / "b").iterdir()
    assert [path.name for path in folder.iterdir()] == ["part-00000.parquet"], "half a part was left"
    calls.clear()
    monkeypatch.setattr(gender_vectors, "states", lambda *a, **k: calls.append(1) or compute(*a, **k))
    again = gender_vectors.of_corpus(model, source, tmp_path / "b", 10, PAIRS, chunk=4, quiet=True)
    assert len(calls) == 4, "the part that was there was computed again"
    torch.testing.assert_close(again.female, whole.female, atol=1e-6, rtol=0)


def test_a_corpus_without_gender_words_and_a_changed_one_are_refused(model, tmp_path):
    source = corpus(tmp_path / "texts", ["Nothing of the kind is here."])
    with pytest.raises(ValueError, match="holds a gendered word"):
        gender_vectors.of_corpus(model, source, tmp_path / "a", 10, PAIRS, quiet=True)
    corpus(tmp_path / "texts", LINES)
    gender_vectors.of_corpus(model, source, tmp_path / "a", 4, PAIRS, quiet=True)
    corpus(tmp_path / "texts", LINES[::-1])
    with pytest.raises(ValueError, match="other sentences"):
        gender_vectors.of_corpus(model, source, tmp_path / "a", 4, PAIRS, quiet=True)


def test_a_direction_is_saved_with_its_origin(model, tmp_path):
    from safetensors import safe_open

    gender_vectors.save_directions(tmp_path / "deep" / "one.safetensors", torch.eye(3), model, "here")
    with safe_open(tmp_path / "deep" / "one.safetensors", "pt") as file:
        assert file.metadata()["weights_sha256"] == model.sha256 and file.metadata()["data"] == "here"


# Running text


def test_passages_are_cleaned_and_read_from_every_kind_of_file(tmp_path):
    (tmp_path / "a.txt").write_text(" = Title = \n He @-@ man , the <unk> 's ( old ) house . \n\n")
    (tmp_path / "b.tsv").write_text('ID\tText\n1\tA "quoted passage.\n')
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "third"}) + "\n")
    assert list(passages.stream(str(tmp_path))) == ["He-man, the [UNK]'s (old) house.", 'A "quoted passage.', "third"]
    assert passages.sentences("It ran. He left! And 3 more.") == ["It ran.", "He left!", "And 3 more."]
    with pytest.raises(ValueError, match="text column"):
        list(passages.stream(str(tmp_path / "c.jsonl"), column="body"))
    with pytest.raises(ValueError, match=r"holds no file"):
        list(passages.stream(str(tmp_path / "missing.txt")))


# Published pairs of sentences


def test_only_a_single_gendered_word_makes_a_contrast(model):
    found = corpora.contrast(model, "The nurse said she left.", "The nurse said he left.")
    assert found.pair == ("he", "she") and found.text == "the nurse said [MASK] left."
    assert corpora.contrast(model, "The nurse said she left.", "The nurse left.") is None
    assert corpora.contrast(model, "The blacks left.", "The whites left.") is None
    assert corpora.contrast(model, "She saw her son.", "He saw his son.") is None


def test_corpora_are_read_and_missing_ones_named(model, tmp_path):
    home = tmp_path / "winogender"
    home.mkdir()
    rows = [
        ("nurse.patient.1.male.txt", "he"),
        ("nurse.patient.1.female.txt", "she"),
        ("nurse.patient.1.neutral.txt", "they"),
    ]
    text = "".join(f"{name}\tThe nurse said that {word} left.\n" for name, word in rows)
    (home / "all_sentences.tsv").write_text("sentid\tsentence\n" + text)
    (home / "occupations-stats.tsv").write_text(
        "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\nnurse\t80\t90\t2015\n"
    )
    (one,) = corpora.read(model, "winogender", tmp_path)
    assert one.name == "nurse" and one.women == 90
    leaning = corpora.leanings(model, [one])
    shares, means = corpora.by_occupation([one], leaning.tolist())
    assert shares.tolist() == [90] and means.tolist() == leaning.tolist()
    rays = torch.nn.functional.normalize(torch.ones(tiny.BLOCKS + 1, tiny.WIDTH), dim=-1)
    kept, scores = corpora.named_scores(model, [one, one], rays)
    assert kept == [one, one] and scores["log odds"] == pytest.approx([leaning[0]] * 2, abs=1e-4)
    seen = masked.observe(model, [one.text], one.pair)
    place = seen.batch.labels[0].index("nurse")
    assert scores["AttDR"][1] == pytest.approx(float(seen.attdr(rays)[:, 0, place].sum()), abs=1e-5)
    assert scores["AttCAT"][0] == pytest.approx(float(seen.attcat()[:, 0, place].sum()), abs=1e-5)
    with pytest.raises(ValueError, match="holds its own name"):
        corpora.named_scores(model, [corpora.Contrast(one.text, one.pair, "type1 1")], rays)
    with pytest.raises(ValueError, match="no folder winobias"):
        corpora.read(model, "winobias", tmp_path)
    (tmp_path / "crows_pairs").mkdir()
    with pytest.raises(ValueError, match="is missing"):
        corpora.read(model, "crows_pairs", tmp_path)


# The planted language


def test_the_planted_shares_are_those_of_the_table():
    drawn, table = planted.corpus(6000, 3), planted.table()
    assert drawn == planted.corpus(6000, 3) != planted.corpus(6000, 4)
    told = [s for s in drawn if s.job]
    for band in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        some = [s for s in told if band[0] <= table[s.job] < band[1]]
        expected = np.mean([table[s.job] for s in some])
        assert np.mean([s.male for s in some]) == pytest.approx(expected, abs=4 * (0.25 / len(some)) ** 0.5)
    vocabulary = set(planted.vocabulary())
    assert all(word in vocabulary for s in drawn for word in s.text.split())
    male = {
        word for pair in [*planted.language()["pairs"], *planted.language()["pronouns"].values()] for word in pair[:1]
    }
    assert all(s.male == bool(male & set(s.text.split())) for s in drawn)


def test_scores_come_in_the_order_of_the_table():
    recipe = TinyPlanted()
    recipe.sentences = recipe.held_out = 10
    torch.manual_seed(0)
    module = recipe.build().eval().requires_grad_(False)
    model = Model("planted", module, (), 4, 0, recipe.tokenizer, None, state_sha256(module))
    asked = planted_truth.questions("occupation", 1, 0)
    assert {q.job for q in asked} == set(planted.table()) and all(q.text.count("[MASK]") == 1 for q in asked)
    vectors = planted_truth.directions(model, 1, 0)
    rays = torch.stack([vectors.direction(layer).vector for layer in range(5)]).float()
    sums, by_layer = planted_truth.occupation_scores(model, asked, rays)
    assert tuple(sums) == planted_truth.SCORES and all(values.shape == (40,) for values in sums.values())
    job = list(planted.table())[7]
    own, _ = planted_truth.occupation_scores(model, [q for q in asked if q.job == job] + asked, rays)
    np.testing.assert_allclose(own["AttCAT"][7], sums["AttCAT"][7], atol=1e-6)
    assert by_layer["AttDR"].shape == (4, 40)
    both = planted_truth.two_jobs(model, planted_truth.questions("two", 2, 0), rays)
    assert tuple(both) == planted_truth.OF_TOKENS and all(values.shape == (3, 40) for values in both.values())
    assert all(((values[2] >= 0) & (values[2] <= 1)).all() for values in both.values())
    with pytest.raises(ValueError, match="in no question"):
        planted_truth.two_jobs(model, planted_truth.questions("two", 2, 0)[:3], rays)


# Words held out


def sides(apart, seed=0):
    """Return vectors of 12 pairs of words, 5 sentences each, whose sides are ``apart`` along the first axis."""
    noise = torch.Generator().manual_seed(seed)
    male, female = torch.randn(2, 1, 60, 4, generator=noise)
    male[..., 0] += apart
    return gender_vectors.Vectors(male, female), np.arange(60) % 12


def test_the_area_is_that_of_scikit_learn_and_its_null_changes_whole_pairs():
    from sklearn.metrics import roc_auc_score

    noise = np.random.default_rng(0)
    male, female, group = noise.normal(0.5, 1, 60), noise.normal(size=60), np.arange(60) % 12
    found = gender_held_out.separation(male, female, group, 0, 400)
    assert found.area.mean == pytest.approx(roc_auc_score([1] * 60 + [0] * 60, [*male, *female])) and found.area.n == 12
    swapped = group % 2 == 1
    turned = gender_held_out.separation(np.where(swapped, female, male), np.where(swapped, male, female), group, 0, 400)
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=0.05), (
        "the null depends on the sides"
    )
    assert found.low < 0.5 < found.high and found.area.low < found.area.mean < found.area.high
    with pytest.raises(ValueError, match="two groups"):
        gender_held_out.separation(male, female, np.zeros(60), 0)


def test_a_direction_carries_over_where_there_is_one_and_not_where_there_is_none():
    there, group = sides(5.0)
    found = gender_held_out.carries_over(there, 0, group, 0, 200)
    assert found.area.mean > 0.98 and found.area.low > found.high
    nothing = gender_held_out.carries_over(sides(0.0)[0], 0, group, 0, 200)
    assert nothing.area.mean < 0.75
    with pytest.raises(ValueError, match="nothing can be held out"):
        gender_held_out.carries_over(there, 0, group * 2, 0)


def test_what_is_left_is_nothing_of_a_shift_and_something_of_a_ring():
    shifted, group = sides(5.0)
    nothing = gender_held_out.left_over(shifted, 0, group, 0, 200)
    assert nothing.area.low < nothing.high and nothing.area.n == 6
    ring, group = sides(0.5)
    ring.female[..., 1:] *= 0.1  # the sides differ in their spread, which no direction shows
    found = gender_held_out.left_over(ring, 0, group, 0, 200)
    assert found.area.mean > 0.9 and found.area.low > found.high


# Similarity


def test_chance_distances_are_those_of_noise():
    np.testing.assert_allclose(agreement.chance_distances(7, 0), (0.316, 0.291, 0.241), atol=0.01)
    worse = [row[1] > agreement.chance_distances(row[0], 0)[0] for row in agreement.PUBLISHED.values()]
    assert all(worse)


def test_agreement_is_found_where_it_is_and_not_where_it_is_not():
    noise = np.random.default_rng(0)
    one = [noise.normal(size=n) for n in (5, 6, 7) * 10]
    same = agreement.matched(one, [x + 0.1 * noise.normal(size=len(x)) for x in one], 0, 199)
    other = agreement.matched(one, [noise.normal(size=len(x)) for x in one], 0, 199)
    assert same.found.low > 0.8 and same.p == pytest.approx(1 / 200)
    assert other.low < other.found.mean < other.high and other.p > 0.05
    alike = [np.arange(6.0) + 0.1 * noise.normal(size=6) for _ in range(30)]
    own, shared = (agreement.matched(alike, [-x for x in alike], 0, 199, together) for together in (False, True))
    assert shared.high > 3 * own.high, "sentences of one template passed for independent ones"
    turned = agreement.matched(one, [-x for x in one], 0, 199)
    assert turned.found.mean == pytest.approx(-1) and turned.p == pytest.approx(1 / 200)


def test_a_rank_correlation_has_an_interval():
    x = np.arange(30.0)
    found = agreement.rank_interval(x, x + np.random.default_rng(0).normal(scale=8, size=30), 0, 300)
    assert 0 < found.low < found.mean < found.high <= 1 and found.n == 30


def test_groups_differ_where_they_do():
    noise = np.random.default_rng(0)
    one, other = noise.normal(1.5, 1, 20), noise.normal(size=12)
    found, p = agreement.group_difference(one, other, 0)
    assert found.mean == pytest.approx(one.mean() - other.mean()) and found.n == 32
    assert 0 < found.low < found.mean < found.high and p < 0.01
    null, chance = agreement.group_difference(other, -other + 2 * other.mean(), 0)
    assert null.low < 0 < null.high and chance > 0.05
