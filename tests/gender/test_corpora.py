"""Published pairs of sentences: one gendered word, scores of what it names, and what is missing."""

import numpy as np
import pytest

from xai_utils.gender import corpora, probes


def test_only_a_single_gendered_word_makes_a_contrast(model):
    found = corpora.contrast(model, "The nurse said she left.", "The nurse said he left.")
    assert found.pair == ("he", "she") and found.text == "the nurse said [MASK] left."
    assert corpora.contrast(model, "The nurse said she left.", "The nurse left.") is None
    assert corpora.contrast(model, "The blacks left.", "The whites left.") is None
    assert corpora.contrast(model, "She saw her son.", "He saw his son.") is None


JOBS = "nurse teacher clerk doctor lawyer engineer driver baker farmer sailor singer guard".split()


@pytest.fixture
def folder(tmp_path):
    """Write a WinoGender of some occupations as it is published; the last one has no share of women."""
    home = tmp_path / "winogender"
    home.mkdir()
    text = "".join(
        f"{job}.patient.1.{side}.txt\tThe {job} said that {word} left.\n"
        for job in JOBS
        for side, word in (("male", "he"), ("female", "she"), ("neutral", "they"))
    )
    (home / "all_sentences.tsv").write_text("sentid\tsentence\n" + text)
    shares = "".join(f"{job}\t80\t{90 - 7 * place}\t2015\n" for place, job in enumerate(JOBS[:-1]))
    (home / "occupations-stats.tsv").write_text("occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\n" + shares)
    return tmp_path


def test_winogender_is_read_and_its_occupations_scored(model, folder, rays):
    read = corpora.read(model, "winogender", folder)
    nurse, teacher, *_, guard = read
    assert (nurse.word, nurse.women, teacher.women) == ("nurse", 90, 83) and guard.women != guard.women
    table = corpora.by_occupation(model, [*read, nurse], rays, size=5)
    assert list(table.index) == JOBS[:-1], "an occupation without a share is left out"
    assert table["women"].tolist() == [one.women for one in read[:-1]]
    np.testing.assert_allclose(table["log odds"], corpora.leanings(model, read[:-1]), atol=1e-4)
    one = probes.observe(model, [nurse])
    place = one.seen.batch.labels[0].index("nurse")
    for name in ("AttDR", "AttCAT"):
        assert table[name]["nurse"] == pytest.approx(float(one.scores(name, rays)[:, 0, place].sum()), abs=1e-5)


def test_an_occupation_gets_the_mean_of_its_sentences(model, folder, rays):
    nurse, teacher, *_ = corpora.read(model, "winogender", folder)
    other = corpora.Contrast("a nurse saw that [MASK] left.", "nurse", women=90)
    both, alone = (corpora.by_occupation(model, some, rays) for some in ([nurse, teacher, other], [other]))
    own = corpora.by_occupation(model, [nurse], rays)
    np.testing.assert_allclose(both.loc["nurse"], (own.loc["nurse"] + alone.loc["nurse"]) / 2, atol=1e-5)


def test_missing_corpora_are_named_and_no_folder_means_none(model, folder, rays):
    assert corpora.read_all(model, "") == {}
    with pytest.raises(ValueError, match="no folder winobias"):
        corpora.read_all(model, str(folder))
    (folder / "crows_pairs").mkdir()
    with pytest.raises(ValueError, match="is missing"):
        corpora.read(model, "crows_pairs", folder)
    (one, *_) = corpora.read(model, "winogender", folder)
    with pytest.raises(ValueError, match="holds the name of an occupation"):
        corpora.by_occupation(model, [corpora.Contrast(one.text, "type1 1", pair=one.pair)], rays)
