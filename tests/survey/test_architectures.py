"""The table of architectures: a family of each kind by the command's own way, and that a fault would be seen."""

import pandas as pd
import pytest
import torch

from xai_utils import methods
from xai_utils.__main__ import main
from xai_utils.survey import architectures
from xai_utils.survey.architectures import NEAR, SUBSET, survey


@pytest.fixture(scope="module")
def found():
    return survey(SUBSET)


def test_nothing_is_wrong_and_every_refusal_has_a_reason(found):
    assert set(found["result"]) <= {"works", "refused", "no map of these samples", "not complete"}
    assert (found[found["result"] == "refused"]["reason"].str.len() > 20).all()
    works = found[found["result"] == "works"]
    assert works["batch gap"].max() <= NEAR and works["answer change"].max() == 0
    assert works["attention gap"].max() == 0 and works["attention gap"].notna().sum() > 20


@pytest.mark.parametrize(("family", "least"), [("BERT", 16), ("Llama", 13), ("ViT", 16), ("Mamba, classes", 14)])
def test_families_that_are_explained_stay_so(found, family, least):
    assert (found[found["family"] == family]["result"] == "works").sum() >= least


def test_an_encoder_with_a_decoder_is_refused_as_a_whole_and_windows_by_method(found):
    (bart,) = found[found["family"] == "BART"].itertuples()
    assert bart.method == "all" and "an encoder and a decoder" in bart.reason
    swin = found[found["family"] == "Swin"].set_index("method")["result"]
    assert swin["rollout"] == "refused" and swin["integrated_gradients"] == "works"


def test_a_map_that_depends_on_its_neighbours_is_called_wrong(monkeypatch):
    plain = methods.explain

    def mixed(name, model, samples, *args, **options):
        made = plain(name, model, samples, *args, **options)
        if isinstance(made, list) and name == "rollout":
            made[0].scores.add_(torch.linspace(0, 0.1, len(made[0].scores)))
        return made

    monkeypatch.setattr(methods, "explain", mixed)
    results = survey(["BERT"]).set_index("method")["result"]
    assert results["rollout"] == "wrong" and results["attention"] == "works"


def test_the_command_writes_a_table_and_a_page(tmp_path, capsys):
    assert main(["architectures", "--only", "T5;ViT without a head", "--out", str(tmp_path / "table")]) == 0
    table, page = pd.read_csv(tmp_path / "table.csv"), (tmp_path / "ARCHITECTURES.md").read_text()
    assert list(table.columns) == list(architectures.COLUMNS) and "2 families" in capsys.readouterr().out
    assert "| T5 |" in page and "encoder and a decoder" in page and str(tmp_path) not in page
    assert main(["architectures", "--only", "BERTA"]) == 2 and "BERTA" in capsys.readouterr().err
