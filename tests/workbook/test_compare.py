"""Two folders of figures: what counts as different, and what is said of it."""

import numpy as np
import pytest
from PIL import Image

from xai_utils.__main__ import main
from xai_utils.workbook import compare


@pytest.fixture
def folders(tmp_path):
    found = tmp_path / "one", tmp_path / "other"
    for folder in found:
        (folder / "deit").mkdir(parents=True)
        for name in ("01_dot", "deit/01_dot"):
            draw(folder / f"{name}.png")
        (folder / "01_gains.csv").write_text("map,gain\nrollout,0.5\n")
    return found


def draw(path, **changed):
    pixels = np.full((4, 5, 3), 100, dtype=np.uint8)
    for place, value in changed.values():
        pixels[place] = value
    Image.fromarray(pixels).save(path)


def test_copies_are_the_same(folders, capsys):
    assert compare.differences(*folders) == {} and compare.report({}) == 0
    assert "no pixel differs by more than 1 of 255" in capsys.readouterr().out


def test_one_shade_is_no_difference_and_two_are(folders):
    draw(folders[1] / "01_dot.png", dark=((0, 0), 101))
    assert compare.differences(*folders) == {}
    draw(folders[1] / "deit/01_dot.png", dark=((0, 0), 102), light=((1, 1), 190))
    assert compare.differences(*folders) == {"deit/01_dot.png": "10.00% of the pixels differ, by up to 90 of 255"}
    assert compare.report(compare.differences(*folders)) == 1


def test_sizes_tables_and_what_is_missing_are_named(folders):
    Image.new("RGB", (9, 4)).save(folders[1] / "01_dot.png")
    (folders[0] / "01_gains.csv").write_text("map,gain\nrollout,0.50001\n")
    (folders[1] / "deit/01_dot.png").unlink()
    found = compare.differences(*folders)
    assert found == {
        "01_dot.png": "of another size: 5 x 4, 9 x 4",
        "deit/01_dot.png": f"not in {folders[1]}",
    }
    (folders[0] / "01_gains.csv").write_text("map,gain\nrollout,0.6\n")
    assert "gain" in compare.differences(*folders)["01_gains.csv"]


def test_a_folder_without_figures_is_refused(folders, tmp_path, capsys):
    with pytest.raises(ValueError, match="there is no figure in"):
        compare.differences(folders[0], tmp_path / "nothing")
    assert main(["figures", "--compare", str(tmp_path / "nothing")]) == 2
    assert "there is no figure in" in capsys.readouterr().err
