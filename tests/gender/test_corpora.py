"""Published pairs of sentences: one gendered word, scores of what it names, and what is missing."""

import numpy as np
import pytest

from xai_utils.gender import corpora, probes
from xai_utils.metrics import agreement


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
    nurse, teacher, *_, guard = corpora.read(model, "winogender", folder)
    assert (nurse.word, nurse.women, teacher.women) == ("nurse", 90, 83) and guard.women != guard.women
    leaning = corpora.leanings(model, [nurse, teacher])
    kept, scores = corpora.named_scores(model, [nurse, nurse], rays)
    assert kept == [nurse, nurse] and scores["log odds"] == pytest.approx([leaning[0]] * 2, abs=1e-4)
    one = probes.observe(model, [nurse])
    place = one.seen.batch.labels[0].index("nurse")
    for name in ("AttDR", "AttCAT"):
        assert scores[name][1] == pytest.approx(float(one.scores(name, rays)[:, 0, place].sum()), abs=1e-5)
    shares, means = corpora.by_occupation([nurse, teacher, nurse, guard], [1.0, 5.0, 2.0, 9.0])
    assert shares.tolist() == [90, 83] and means.tolist() == [1.5, 5.0], "an occupation without a share is left out"


def test_scores_are_held_against_the_share_of_women(model, folder, rays):
    read = corpora.read(model, "winogender", folder)
    found = corpora.against_women(model, read, rays, 0)
    assert list(found) == ["log odds", "AttCAT", "AttDR"] and {one.n for one in found.values()} == {len(JOBS) - 1}
    _, scores = corpora.named_scores(model, read, rays)
    falling = np.arange(len(JOBS) - 1, 0, -1.0)
    assert found["AttCAT"].mean == pytest.approx(float(agreement.spearman(falling, scores["AttCAT"][:-1])))


def test_missing_corpora_are_named_and_no_folder_means_none(model, folder, rays):
    assert corpora.read_all(model, "") == {}
    with pytest.raises(ValueError, match="no folder winobias"):
        corpora.read_all(model, str(folder))
    (folder / "crows_pairs").mkdir()
    with pytest.raises(ValueError, match="is missing"):
        corpora.read(model, "crows_pairs", folder)
    (one, *_) = corpora.read(model, "winogender", folder)
    with pytest.raises(ValueError, match="holds its own name"):
        corpora.named_scores(model, [corpora.Contrast(one.text, "type1 1", pair=one.pair)], rays)
