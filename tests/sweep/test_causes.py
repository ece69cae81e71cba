"""Many prompts of known cause: every map and control beside the others, parts found again, tests in one family."""

import decoders
import numpy as np
import pandas as pd
import pytest

from xai_utils import stats
from xai_utils.evaluation import on_prompts
from xai_utils.samples import prompts
from xai_utils.sweep import causes
from xai_utils.sweep.standings import NULLS

COUNT = 4
WRONG = "notes:1"


@pytest.fixture(scope="module")
def model():
    drawn = [one for task in prompts.TASKS for one in prompts.draws(task, COUNT)]
    whole = [each for one in drawn for each in (one, prompts.echoed(one), prompts.echoed(one, behind=True))]
    return decoders.knowing([f"{edit.text} {edit.answer}" for one in whole for edit in one.versions], limit=128)


@pytest.fixture(autouse=True)
def believed(monkeypatch):
    """Keep every prompt but one, whatever the model says; its echo, too, is dropped."""

    def verified(_model, some):
        verdicts = ["the model is wrong" if one.name.startswith(WRONG) else "" for one in some]
        return on_prompts.Verified(tuple(some), tuple(verdicts))

    monkeypatch.setattr(on_prompts, "verified", verified)


@pytest.fixture(scope="module")
def found(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_prompts, "verified", lambda _, some: on_prompts.Verified(tuple(some), ("",) * len(some)))
        patch.setitem(causes.SLOW, "integrated gradients", ("integrated_gradients", {"steps": 2, "tolerance": None}))
        return causes.study(model, COUNT, 2)


def test_a_row_for_every_prompt_and_a_column_for_every_map(found):
    assert list(found.prompt) == [f"{task}:{i}" for task in prompts.TASKS for i in range(COUNT)]
    assert list(found.echo) == ["", "", "not asked", "not asked"] * 3
    labels = {name.rsplit(": ", 1)[0] for name in found if ": " in name}
    assert labels >= {*causes.QUICK, *causes.SLOW, *on_prompts.NULLS, "same word", "AttnLRP, shuffled"}
    assert labels >= {"AttnLRP, echoed", "AttnLRP, alone", "AttnLRP, size", "rollout, first last"}
    there = found.notna()
    assert there["AttnLRP: hit"].all() and (there["leave one out: hit"] == (found.echo == "")).all()
    assert (there["AttnLRP, echoed: hit"] == (found.echo == "")).all()


def test_its_marks_are_those_of_one_prompt_after_the_other(model, found):
    for task in prompts.TASKS:
        table, drawn = causes.marks(found, task), prompts.draws(task, COUNT)
        maps = on_prompts.explained(model, drawn, {"AttnLRP": ("attnlrp", {})})
        right = on_prompts.marks(model, drawn, maps)
        pd.testing.assert_frame_equal(table[["AttnLRP"]], right[["AttnLRP"]], check_names=False)
        echoes = [prompts.echoed(one, behind=i == 1) for i, one in enumerate(drawn[:2])]
        heard = on_prompts.marks(model, echoes, on_prompts.explained(model, echoes, {"AttnLRP": ("attnlrp", {})}))
        told = table["AttnLRP, echoed"].dropna()
        np.testing.assert_allclose(told, heard["AttnLRP"])


def test_a_search_for_the_answer_finds_its_echo_as_well(found):
    hits = {task: causes.marks(found, task)["same word, echoed", "hit"].dropna() for task in prompts.TASKS}
    assert (hits["indirect_object"] == 0.5).all() and (hits["notes"] == 0.5).all() and (hits["agreement"] == 0).all()


def test_parts_are_found_again_and_others_are_not(model, tmp_path, monkeypatch):
    once = causes.study(model, 2, 0, folder=tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(f"{task}-000000.parquet" for task in prompts.TASKS)
    monkeypatch.setattr(causes, "_marked", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(causes.study(model, 2, 0, folder=tmp_path), once)
    with pytest.raises(pytest.fail.Exception):
        causes.study(model, 2, 0, seed=1, folder=tmp_path)


def test_slow_methods_are_chosen_by_name_and_are_parts_of_their_own(model, found, tmp_path):
    some = causes.study(model, 2, 2, folder=tmp_path, many=["leave one out"])
    own = found.groupby("task", sort=False).head(2).reset_index(drop=True)
    kept = some.verdict == ""
    assert "leave one out, the: hit" not in some and "integrated gradients: hit" not in some
    for name in ("leave one out: precision", "AttnLRP, shuffled: precision", "AttnLRP, echoed: precision"):
        pd.testing.assert_series_equal(some[name][kept], own[name][kept])
    assert "leave one out, the: hit" in causes.study(model, 2, 2, folder=tmp_path)
    with pytest.raises(ValueError, match="'leave two out', expected one of"):
        causes.study(model, 2, 2, many=["leave two out"])


def test_what_is_dropped_is_counted_and_not_marked(model):
    found = causes.study(model, 2, 2, tasks=["notes"])
    assert causes.kept(found).loc["notes"].to_dict() == {"drawn": 2, "kept": 1, "the model is wrong": 1}
    assert found["AttnLRP: hit"].notna().tolist() == found["AttnLRP, echoed: hit"].notna().tolist() == [True, False]
    assert causes.summary(found, ["AttnLRP", "unheard"], "hit", 0)["notes"]["AttnLRP"].n == 1


def test_a_task_of_which_nothing_is_kept_has_no_marks(model, monkeypatch):
    monkeypatch.setattr(on_prompts, "verified", lambda _, some: on_prompts.Verified(tuple(some), ("no",) * len(some)))
    found = causes.study(model, 2, 2, tasks=["agreement"])
    assert list(found) == ["task", "prompt", "verdict", "echo"]


def by_hand():
    rng = np.random.default_rng(0)
    good, bad = rng.random(40) < 0.9, rng.random(40) < 0.1
    table = {"task": "notes", "prompt": [f"notes:{i}" for i in range(40)], "verdict": "", "echo": "not asked"}
    return pd.DataFrame(table | {"good: hit": good * 1.0, "bad: hit": bad * 1.0, "same: hit": good * 1.0})


def test_gains_are_one_family_and_skip_what_was_not_asked():
    study = by_hand()
    study.loc[30:, "good: hit"] = np.nan
    pairs = [("good", "bad"), ("good", "same")]
    found = causes.gains(study, pairs, ["hit"], 0)
    one, other = (found["notes", *pair, "hit"] for pair in pairs)
    assert one.interval.n == 30 and one.p < 0.05 < other.p and other.interval.mean == 0
    ps = stats.permutation_p((study["good: hit"] - study["bad: hit"])[:30].tolist(), 0)
    assert one.p == pytest.approx(ps), "the other is zero throughout, and no test"


def test_stored_verdicts_may_be_missing_instead_of_empty(tmp_path):
    study = by_hand()
    study.loc[0, "verdict"] = "the model is wrong"
    file = tmp_path / "study.csv"
    study.to_csv(file, index=False)
    assert causes.kept(pd.read_csv(file)).loc["notes"].to_dict() == causes.kept(study).loc["notes"].to_dict()


def test_every_measure_in_one_table(found):
    labels = causes.columns(found)
    assert labels[0] == "attention" and len(set(labels)) == len(labels)
    table = causes.measured(found, ["AttnLRP", "random", "unheard"], 0)
    assert len(table) == len(prompts.TASKS) * 2 * len(on_prompts.MEASURES)
    row = table.set_index(["task", "map", "measure"]).loc[("notes", "AttnLRP", "precision")]
    assert row["mean"] == pytest.approx(causes.marks(found, "notes")["AttnLRP", "precision"].mean()) and row.n == COUNT
    assert row.low <= row["mean"] <= row.high


def test_templates_are_told_apart_and_share_out_the_mean(found):
    table = causes.by_template(found, ["AttnLRP", "random"], "precision")
    assert table.n.sum() == len(found) and list(table) == ["n", "AttnLRP", "random"]
    for task in prompts.TASKS:
        own, marks = table.loc[task], causes.marks(found, task)
        assert len(own) == len({one.opening for one in prompts.draws(task, COUNT)})
        assert (own.AttnLRP * own.n).sum() / COUNT == pytest.approx(marks["AttnLRP", "precision"].mean())


def test_a_cascade_of_no_block_gives_the_marks_of_the_study_and_leaves_the_model(model, found):
    before = model.module.get_input_embeddings().weight.clone()
    seen = causes.cascade(model, found, ["AttnLRP", "gradient norm"], [0, 2], COUNT, seed=1)
    for task, rows in seen.items():
        marks = causes.marks(found, task)
        for label in ("AttnLRP", "gradient norm"):
            assert rows[label][0].mean == pytest.approx(marks[label, "precision"].mean())
        assert list(rows) == ["AttnLRP", "gradient norm", causes.RIGHT] and rows[causes.RIGHT][0].n == COUNT
    assert any(rows["AttnLRP"][0] != rows["AttnLRP"][1] for rows in seen.values()), "shuffling changes nothing"
    assert (model.module.get_input_embeddings().weight == before).all()
    again = causes.cascade(model, found, ["AttnLRP"], [0], COUNT)
    assert again["notes"]["AttnLRP"][0].mean == pytest.approx(seen["notes"]["AttnLRP"][0].mean)


def test_a_cascade_refuses_more_blocks_than_there_are_and_unknown_maps(model, found):
    with pytest.raises(ValueError, match="99 blocks are to be shuffled; expected 0 to"):
        causes.cascade(model, found, ["AttnLRP"], [1, 99], 2)
    with pytest.raises(ValueError, match="'magic', expected one of"):
        causes.cascade(model, found, ["magic"], [1], 2)


def swept(rho=1.0, seed=0):
    """A table of two tasks: deleting ranks as the cause does, the other way by chance, and unproved prompts against."""
    noise, rows = np.random.default_rng(seed), []
    methods = [*(f"method {i}" for i in range(9)), "leave_one_out", *NULLS]
    for task in ("indirect_object", "agreement"):
        right, other = np.linspace(0.1, 0.9, len(methods)), noise.permutation(len(methods)) / len(methods)
        for i in range(12):
            jitter = noise.normal(0, 0.01, (3, len(methods)))
            for n, method in enumerate(methods):
                told = {
                    "aopc": (rho * right[n] + jitter[0, n], other[n] + jitter[1, n]) if i < 10 else (-right[n],) * 2
                }
                at = {"model": "lm", "method": method, "sample": f"{task}:{i}", "seconds": 0.0, "error": ""}
                rows += [at | {"metric": "aopc", "operator": way, "value": value}
                         for way, value in zip(("delete", "word"), told["aopc"], strict=True)]  # fmt: skip
                if i < 10:
                    rows.append(at | {"metric": "average_precision", "operator": "", "value": right[n] + jitter[2, n]})
    return pd.DataFrame(rows)


def test_a_metric_that_ranks_as_the_cause_does_is_told_from_one_that_does_not():
    ranks, each = causes.metrics_ranked(swept(), 0)
    assert list(zip(ranks.operator, ranks.without, strict=True)) == [
        (way, without) for way in ("delete", "word") for without in ("", "leave_one_out")
    ]
    found = ranks.set_index(["operator", "without"])
    assert found.loc["delete", "rho"].min() > 0.98 and found.loc["delete", "p"].max() < 0.01
    assert (found.loc["word", "p"] > 0.05).all() and found.loc["word", "rho"].abs().max() < 0.6
    assert (found.low <= found.rho).all() and (found.rho <= found.high).all()
    assert set(each.model) == {"indirect_object", "agreement"} and set(each.methods) == {9, 10}


def test_a_metric_that_ranks_against_the_cause_is_found_so():
    ranks, _ = causes.metrics_ranked(swept(rho=-1.0), 0)
    found = ranks.set_index(["operator", "without"]).loc["delete"]
    assert found.rho.max() < -0.98 and found.p.max() < 0.01
