"""A view without a browser: captured from its names, drawn, written and made again; a picture that came from one."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from xai_utils.widgets.explorer import files
from xai_utils.widgets.explorer import view as exploration
from xai_utils.widgets.explorer.view import Request, requested

SENTENCE = "the film is not dull , but slow ."
TEXT = Request("bert", SENTENCE, methods=("rollout", "gradcam"), layer=0, query=2)
PICTURE = Request("timm-vit", "scene:3:2", methods=("rollout",), layer=1, change="discard")
CONVOLUTIONS = Request("resnet", "cat", methods=("gradcam", "rollout"))


def written(request):
    """Draw a view and return the figure and everything that is written in it."""
    shown = files.captured(request)
    fig = Figure(figsize=files.size(request, shown), layout="constrained")
    files.draw(fig, request, shown)
    words = [text.get_text() for ax in fig.get_axes() for text in (ax.title, ax._left_title, *ax.texts)]
    return fig, words


def test_a_layer_that_a_model_does_not_have_is_named_with_those_it_has():
    with pytest.raises(ValueError, match="layer is 7, but tiny bert has 3: take 0 to 2, or -1 for the last"):
        files.captured(replace(TEXT, layer=7))
    assert files.captured(replace(CONVOLUTIONS, layer=7)), "it shows no layers"


def test_a_view_is_captured_from_its_names():
    shown = files.captured(replace(TEXT, second_model="electra", target="bad"))
    assert [one.model.name for one in shown.values()] == ["tiny bert", "tiny electra"]
    assert list(shown) == ["first", "second"] and {one.sample.text for one in shown.values()} == {SENTENCE}
    assert [one.target for one in shown.values()] == ["bad", None], "the second one answers as it likes"
    assert list(files.captured(TEXT)) == ["first"]
    with pytest.raises(ValueError, match="no model"):
        files.captured(replace(TEXT, model="no such"))


def test_a_text_is_drawn_without_special_tokens_and_excuses_are_written():
    fig, words = written(TEXT)
    assert "film" in words and "[CLS]" not in words and "[SEP]" not in words
    assert any(one.startswith("film reads: layer 0, mean of heads") for one in words)
    assert any(one.startswith("gradcam: ") for one in words), "why it has no map"
    assert fig.get_figwidth() >= 8


def test_a_picture_is_drawn_with_the_row_and_every_map():
    fig, words = written(PICTURE)
    titles = [one for one in words if one]
    assert titles[1] == "[CLS] reads: layer 1, mean of heads"
    assert titles[2:] == ["rollout", "rollout, discard share 0.5"]
    assert fig.get_figwidth() == 2.5 * 4 and files.SCALE in [one.get_text() for one in fig.findobj(Text)]
    _, words = written(CONVOLUTIONS)
    assert not any("reads" in one for one in words) and any("attention" in one for one in words)


@pytest.mark.parametrize("view", [TEXT, PICTURE, CONVOLUTIONS])
def test_an_exported_view_can_be_made_again(view, tmp_path):
    shown = files.captured(view)
    paths = {path.suffix: path for path in files.export(view, shown, tmp_path)}
    assert sorted(paths) == [".csv", ".html", ".json", ".pdf", ".png", ".svg", ".yml"]
    assert len({path.stem for path in paths.values()}) == 1
    one, record = shown["first"], json.loads(paths[".json"].read_text())
    assert set(record["models"]) == {one.model.name} and record["view"] == view.parameters()
    about = record["models"][one.model.name]
    assert about["sha256"] == tiny.model(view.model).sha256
    assert about["decided"][0][1] == pytest.approx(float(one.logits.softmax(-1).max()), abs=1e-5)
    content = one.sample.text.encode() if view is TEXT else one.sample.image.tobytes()
    assert record["input"]["sha256"] == hashlib.sha256(content).hexdigest()
    table = pd.read_csv(paths[".csv"], keep_default_na=False)
    for map_ in exploration.panels(one, view):
        if map_.found is not None:
            kept = table[table["map"].str.split(" · ").str[0] == map_.title].score
            np.testing.assert_allclose(kept, map_.found.scores, rtol=1e-5, atol=1e-9)
    again, first = requested(yaml.safe_load(paths[".yml"].read_text())), paths[".png"].read_bytes()
    assert again == view and np.asarray(Image.open(paths[".png"])).std() > 5
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    files.export(again, files.captured(again), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before and first
    files.export(again, shown, tmp_path / "coarse", dpi=50)
    coarse = Image.open(tmp_path / "coarse" / paths[".png"].name)
    assert coarse.width < Image.open(paths[".png"]).width


def test_nothing_shown_is_no_view(tmp_path):
    with pytest.raises(ValueError, match="no view to export"):
        files.export(TEXT, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_received_picture_keeps_its_name_beside_a_hash_of_its_content(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), 90, dtype=np.uint8)).save(file, "png")
    names = {
        "my cat.PNG": "my_cat",
        "../../b": "b",
        "..\\c.exe\n.sh": "c_exe",
        "…": "upload",
        "x" * 90 + ".png": "x" * 40,
    }
    for name, stem in names.items():
        kept = files.received({"name": name, "content": file.getvalue()}, tmp_path)
        assert kept == files.received({"name": name, "content": file.getvalue()}, tmp_path), "one content, one file"
        assert kept.parent == tmp_path and kept.suffix == ".png" and kept.read_bytes() == file.getvalue()
        assert kept.stem.rpartition("_")[0] == stem and len(kept.stem.rpartition("_")[2]) == 10
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        files.received({"name": "half.png", "content": file.getvalue()[:40]}, tmp_path)
    assert len(list(tmp_path.iterdir())) == len(names)


def test_an_upload_is_found_again_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_VIEWS", str(tmp_path / "views"))
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(file, "png")
    kept = files.received({"name": "mine.png", "content": file.getvalue()}, files.folder())
    request = replace(PICTURE, sample=kept.name)
    paths = files.export(request, files.captured(request), files.folder())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    parameters = yaml.safe_load(paths[-1].read_text())
    assert parameters["FIGURES"] == "exported_views", "what is made again keeps out of the project's figures"
    assert files.captured(requested(parameters))["first"].sample.name == kept.name
    monkeypatch.delenv("XAI_VIEWS")
    assert files.folder().name == "exported_views" and files.folder().is_absolute()
