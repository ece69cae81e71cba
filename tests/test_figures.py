"""Figures: the same bytes every time, the record beside them, and nothing half-written."""

import errno
import hashlib
import json
from contextlib import contextmanager

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from xai_utils import figures, runtime


@pytest.fixture(autouse=True)
def target(tmp_path, monkeypatch):
    """Send figures to an empty folder, with an empty record and no window."""
    monkeypatch.setenv("XAI_FIGURES", str(tmp_path / "out"))
    monkeypatch.delenv("XAI_NOTEBOOK", raising=False)
    monkeypatch.setattr(runtime, "record", runtime.Record())
    monkeypatch.setattr(plt, "show", lambda: None)
    yield tmp_path / "out"
    plt.close("all")


def figure(*heights):
    fig, ax = plt.subplots(figsize=(2, 1.5))
    ax.plot(heights or (1, 3, 2))
    ax.set_title("a curve")
    return fig


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is written


def test_the_same_figure_is_the_same_bytes(target):
    figures.save(figure(), "01_curve", "A curve.", ("png", "pdf"))
    first = contents(target)
    figures.save(figure(), "01_curve", "A curve.", ("png", "pdf"))
    assert contents(target) == first and set(first) == {"01_curve.png", "01_curve.pdf", "01_curve.json"}
    figures.save(figure(3, 1, 2), "01_curve", "A curve.", ("png", "pdf"))
    assert all(contents(target)[name] != first[name] for name in first), "the record holds their hashes"


def test_no_program_and_no_date_is_written_into_a_figure(target):
    figures.save(figure(), "01_curve", formats=("png", "pdf"))
    with Image.open(target / "01_curve.png") as image:
        assert "Software" not in image.info and image.format == "PNG"
    assert b"CreationDate" not in (target / "01_curve.pdf").read_bytes()
    assert (target / "01_curve.pdf").read_bytes().startswith(b"%PDF")


def test_only_what_is_asked_for_is_written(target):
    figures.save(figure(), "02_pdf_only", formats=("pdf",))
    assert set(contents(target)) == {"02_pdf_only.pdf", "02_pdf_only.json"}


def test_dots_per_inch_change_the_size(target):
    sizes = []
    for dpi in (50, 100):
        figures.save(figure(), "01_curve", dpi=dpi)
        with Image.open(target / "01_curve.png") as image:
            sizes.append(image.width)
    assert sizes[1] == pytest.approx(2 * sizes[0], abs=3)


def test_the_record_is_beside_the_figure(target, monkeypatch):
    runtime.record.parameters, runtime.record.device = {"SEED": 1, "LAYER": -1}, "abacus"
    runtime.record.models["tiny"] = {"source": "tiny", "revision": None, "state_sha256": "0" * 64}
    runtime.record.data["picture"] = "cat"
    figures.save(figure(), "01_curve", "A curve – in two words.")
    text = (target / "01_curve.json").read_text()
    about = json.loads(text)
    assert list(about.pop("files")) == ["01_curve.png"]
    assert about == {
        "figure": "01_curve",
        "caption": "A curve – in two words.",
        "notebook": "01_*",
        "parameters": {"SEED": 1, "LAYER": -1},
        "device": "abacus",
        "models": {"tiny": {"source": "tiny", "revision": None, "state_sha256": "0" * 64}},
        "data": {"picture": "cat"},
        "versions": runtime.record.as_dict()["versions"],
    }
    assert text.endswith("}\n")
    monkeypatch.setenv("XAI_NOTEBOOK", "01_rollout")
    figures.save(figure(), "01_curve")
    assert json.loads((target / "01_curve.json").read_text())["notebook"] == "01_rollout"


def test_figures_go_where_the_environment_says(target, monkeypatch, tmp_path):
    assert figures.folder() == target
    monkeypatch.setenv("XAI_FIGURES", str(tmp_path / "deep" / "er"))
    figures.save(figure(), "01_curve")
    assert (tmp_path / "deep" / "er" / "01_curve.png").stat().st_mode & 0o777 == 0o644 and not target.exists()
    for unset in ("", None):
        monkeypatch.setenv("XAI_FIGURES", "") if unset == "" else monkeypatch.delenv("XAI_FIGURES")
        assert figures.folder() == runtime.ROOT / "figures"


def test_a_saved_figure_is_shown_and_stays_open(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    fig = figure()
    assert figures.save(fig, "01_curve") is None
    assert shown == [[fig.number]] and plt.fignum_exists(fig.number)


# What is refused


@pytest.mark.parametrize(
    "name",
    ["curve", "1_curve", "001_curve", "01_", "01_Curve", "01_a-b", "01_a b", "01_a.png", "01_a/b", "../01_a", "01_a\n"],
)
def test_names_that_do_not_read_well_are_refused(name, target):
    with pytest.raises(ValueError, match="should read NN_words, such as 01_rollout_by_depth"):
        figures.save(figure(), name)
    assert not target.exists()


def test_unknown_formats_are_refused_before_anything_is_written(target):
    with pytest.raises(ValueError, match=r"cannot write \['gif', 'svg'\], only \('png', 'pdf'\)"):
        figures.save(figure(), "01_curve", formats=("png", "svg", "gif"))
    assert not target.exists()


# When the disk is full


@contextmanager
def no_file_above(size):
    """Let the system refuse to write files beyond a size, as a full disk would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_that_the_old_figure_survives(target, kind):
    figures.save(figure(), "01_curve", "Before.", (kind,))
    before = contents(target)
    with no_file_above(1000), pytest.raises(OSError, match=f"cannot save 01_curve.{kind}: .*; nothing was written"):
        figures.save(figure(3, 1, 2), "01_curve", "After.", (kind,))
    assert contents(target) == before


def test_a_full_disk_leaves_the_old_figure_and_nothing_else(target):
    check_that_the_old_figure_survives(target, "png")


def test_a_full_disk_leaves_the_old_document_and_nothing_else(target):
    check_that_the_old_figure_survives(target, "pdf")


def test_a_full_disk_leaves_no_trace_of_a_new_figure(target):
    with no_file_above(1000), pytest.raises(OSError, match=r"cannot save 01_curve\.png: ") as raised:
        figures.save(figure(), "01_curve")
    assert contents(target) == {} and raised.value.errno == errno.EFBIG


def test_a_record_that_cannot_be_written_keeps_the_old_figure_too(target):
    figures.save(figure(), "01_curve", "Before.")
    before = contents(target)
    with no_file_above(len(before["01_curve.png"]) + 2000), pytest.raises(OSError, match="nothing was written"):
        figures.save(figure(3, 1, 2), "01_curve", "After. " * 9999)
    assert contents(target) == before


def test_an_error_while_drawing_leaves_nothing(target):
    fig = figure()
    fig.axes[0].set_title(r"$\nosuchcommand{$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        figures.save(fig, "01_curve")
    assert not target.exists()


# Tables


def test_a_table_is_written_with_its_figure_under_one_record(target):
    table = pd.DataFrame({"map": ["rollout", "flow"], "gain": [0.123456789, -1.0]})
    figures.save(figure(), "01_gains", "Gains.", table=table)
    assert sorted(contents(target)) == ["01_gains.csv", "01_gains.json", "01_gains.png"]
    assert contents(target)["01_gains.csv"] == b"map,gain\nrollout,0.123457\nflow,-1\n"
    assert figures.read_table("01_gains").gain.tolist() == [0.123457, -1.0]


def test_a_table_of_its_own_has_a_record_and_keeps_a_named_index(target):
    figures.save_table(pd.DataFrame({"gain": [1.5]}, pd.Index(["rollout"], name="map")), "01_numbers", "Numbers.")
    assert contents(target)["01_numbers.csv"] == b"map,gain\nrollout,1.5\n"
    assert json.loads(contents(target)["01_numbers.json"])["caption"] == "Numbers."


def test_a_table_that_is_not_there_is_named(target):
    with pytest.raises(ValueError, match=r"no table 01_nothing\.csv in out/; run the notebook 01"):
        figures.read_table("01_nothing")
    with pytest.raises(ValueError, match="should read NN_words"):
        figures.save_table(pd.DataFrame(), "gains")


def test_the_record_holds_the_hashes_of_what_it_describes(target):
    figures.save(figure(), "01_curve", table=pd.DataFrame({"x": [1]}))
    written = contents(target)
    told = json.loads(written.pop("01_curve.json"))["files"]
    assert told == {name: hashlib.sha256(content).hexdigest() for name, content in written.items()} and len(told) == 2


def test_a_notebooks_parameter_moves_its_figures(monkeypatch):
    monkeypatch.delenv("XAI_FIGURES")
    monkeypatch.setattr(figures.runtime.record, "parameters", {"SEED": 0, "FIGURES": "exported_views"})
    assert figures.folder() == figures.files.ROOT / "exported_views"
    monkeypatch.setenv("XAI_FIGURES", "/elsewhere")
    assert str(figures.folder()) == "/elsewhere"
