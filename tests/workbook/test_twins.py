"""Named runs whose models only a hub has, gone through with random twins of the same depth from local folders."""

import nbformat
import pytest
import tiny
import torch
import transformers as hf
from matplotlib import pyplot as plt

from xai_utils import figures, samples
from xai_utils.workbook import runs


def twin(folder, layers):
    """Write a random BERT of two classes that is as deep as asked for, and narrow."""
    torch.manual_seed(layers)
    config = hf.BertConfig(
        **{**tiny.BERT, "num_hidden_layers": layers, "num_labels": 2, "max_position_embeddings": 128}
    )
    hf.BertForSequenceClassification(config).save_pretrained(folder)
    reader = tiny.tokenizer()
    reader.model_max_length = 128
    reader.save_pretrained(folder)
    return f"hf:{folder}"


def sentences(_split):
    """Make sentences without label or marked words, as those of the test split of SST-2."""
    noise = torch.Generator().manual_seed(0)
    words = [" ".join(tiny.WORDS[n] for n in torch.randint(18, (6 + k % 9,), generator=noise)) for k in range(60)]
    return [samples.Text(f"{one} .", f"sst2 test {k}") for k, one in enumerate(words)]


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Execute the cells of a notebook under the parameters of a run, widgets left out; return its names."""
    monkeypatch.setenv("XAI_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

    def execute(number, run, **changed):
        (path,) = runs.find_notebooks(runs.Places(), [number])
        parameters = runs.parameters_of(runs.read(runs.Places(), run), [path])[path] | changed
        known: dict = {"__name__": "__main__"}
        for cell in nbformat.read(path, as_version=4).cells:
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "widget" not in tags:
                exec(compile(cell.source, path.name, "exec"), known)
                known |= parameters if "parameters" in tags else {}
        return known

    return execute


def test_bert_base_and_large_on_sst2(executed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(samples, "sst2", sentences)
    twins = [twin(tmp_path / f"bert{layers}", layers) for layers in (12, 24)]
    known = executed("02", "sst2", TEXT_MODELS=twins, DEVICE="cpu")
    assert known["TEXTS"] == "test" and known["LANGUAGE_MODEL"] == "" and list(known["LAYERS"].values()) == [12, 24]
    assert set(known["MEASURE"].values()) == {"gradient norm"} and len(known["reviews"]) == 60
    told = capsys.readouterr().out
    assert told.count("published rule above rollout") == 2 * 3 and "truth" not in told.partition("published rule")[2]
    curve = figures.read_table("02_curve", tmp_path / "figures")
    assert set(curve["model"]) == set(twins) and curve["p"].between(0, 1).all()
