"""What stands for a widget where there is no kernel: a still frame of what it showed, the same on every run."""

import base64
import io

import numpy as np
import pytest
from nbformat import v4
from PIL import Image

from tests.workbook.made_up import write
from xai_utils.workbook import execute, frames

SLIDER = """\
import io, ipywidgets as widgets
from PIL import Image
file = io.BytesIO()
Image.linear_gradient("L").resize((1200, 300)).convert("RGB").save(file, "png")
widgets.VBox([widgets.IntSlider(), widgets.HBox([widgets.Image(value=file.getvalue())])])"""


def picture_of(output):
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))


def test_golden_stores_the_picture_that_a_widget_showed_and_nothing_of_its_kernel(places):
    write(places, "01_slider", SLIDER, tags=["widget"])
    stored = []
    for _ in range(2):
        assert [record["status"] for record in execute.golden(places)] == ["finished"]
        stored.append((places.notebooks / "01_slider.ipynb").read_bytes())
    assert stored[0] == stored[1] and b"model_id" not in stored[0]
    (output,) = v4.reads(stored[0].decode()).cells[-1].outputs
    still = picture_of(output)
    assert still.size == (frames.WIDEST, 225)
    shades = np.asarray(still.convert("L")).mean(1)
    assert shades[0] < 10 and shades[-1] > 245 and (np.diff(shades) >= 0).all()


@pytest.mark.parametrize("source", ["import ipywidgets as widgets\nwidgets.IntSlider()", "1 + 1", "None"])
def test_a_widget_without_a_picture_stores_nothing(places, source):
    write(places, "01_slider", source, tags=["widget"])
    execute.golden(places)
    assert v4.reads((places.notebooks / "01_slider.ipynb").read_text()).cells[-1].outputs == []


def stored(picture):
    file = io.BytesIO()
    picture.save(file, "png")
    output = v4.new_output("display_data", data={"image/png": base64.b64encode(file.getvalue()).decode()})
    return v4.new_notebook(cells=[v4.new_code_cell("", outputs=[output])])


def test_pictures_are_stored_lighter_and_look_the_same():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((600, 400), Image.Resampling.BICUBIC)
    notebook = stored(picture)
    before = len(notebook.cells[0].outputs[0].data["image/png"])
    frames.lighten(notebook)
    output = notebook.cells[0].outputs[0]
    assert len(output.data["image/png"]) < before / 2 and picture_of(output).size == picture.size
    gap = np.abs(np.asarray(picture_of(output).convert("RGB")).astype(int) - np.asarray(picture))
    assert gap.mean() < 16
    again = output.data["image/png"]
    frames.lighten(notebook)
    assert notebook.cells[0].outputs[0].data["image/png"] == again, "lighter only once"


def test_a_small_spot_of_a_rare_colour_keeps_it():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200))
    shown = np.repeat(noise[..., None], 3, 2).astype(np.uint8)
    shown[90:96, 90:96] = 179, 88, 6  # orange, on grey
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "png")
    light = frames._light(base64.b64encode(file.getvalue()).decode(), 200)
    kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(light))).convert("RGB")).astype(int)
    assert np.abs(kept - shown).max() <= 12
