"""Named runs: which notebooks with which parameters, keys of results, names that nothing knows."""

import pytest

from tests.workbook.made_up import configure, write
from xai_utils.workbook import execute, runs


def test_the_key_changes_with_every_dependency(places):
    def key():
        return runs.plan(places, "any")[0].key

    write(places, "01_dots", "SIZE")
    configure(places, "any: {}")
    keys = [key(), key()]
    for file in ("xai_utils/models.py", "xai_utils/room/deep.py", "requirements.lock", "data/models/tiny/card.json"):
        (places.root / file).parent.mkdir(parents=True, exist_ok=True)
        (places.root / file).write_text("something new")
        keys.append(key())
    configure(places, "any: {parameters: {SIZE: 3}}")
    keys.append(key())
    write(places, "01_dots", "SIZE", "SIZE + 1")
    keys.append(key())
    assert keys[0] == keys[1] and len(set(keys)) == len(keys) - 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "odd: {parameters: {SIZ: 2}}",
            r"unknown parameter of run odd: SIZ\. Did you mean SIZE\? Known: COLOUR, SIZE",
        ),
        ("odd: {overrides: {2: {SIZE: 2}}}", r"unknown parameter of notebook 02: SIZE\. Known: COLOUR"),
        ("odd: {overrides: {7: {SIZE: 2}}}", r"unknown notebook among the overrides of run odd: 07"),
        ("odd: {notebooks: [7]}", r"unknown notebook: 07\. .*Known: 01, 02"),
        ("odd: {paramters: {SIZE: 2}}", r"run odd: unknown field 'paramters'\. Did you mean parameters\?"),
        ("odd: {notebooks: 10}", "run odd: notebooks is 10: input should be a valid list"),
        ("odd: {notebooks: [null]}", r"run odd: notebooks\[0\]"),
        ("odd: 3", "run odd is 3, expected fields such as parameters"),
        ("[odd]", "holds a list, expected names of runs"),
        ("odd: {}\nodd: {}", "line 2: 'odd' is there twice"),
        ("odd:\n\tnotebooks: []", "runs.yml is no plain YAML: line 2"),
        ("odd: !!python/name:os.system ''", "runs.yml is no plain YAML: line 1"),
        ("od: {}", r"unknown run of runs\.yml: odd\. Did you mean od\? Known: default, od"),
        ("odd: {notebooks: [2]}", r"run odd has only these notebooks: 02_colours"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(places, text, told):
    write(places, "01_dots", "SIZE")
    write(places, "02_colours", parameters="COLOUR = 'red'")
    configure(places, text)
    with pytest.raises(ValueError, match=told):
        execute.figures(places, "odd", only=["01"])
    assert not places.runs.exists() and not places.figures.exists()


def test_parameters_reach_the_notebooks_that_have_them(places):
    write(places, "01_dots", "SIZE")
    write(places, "02_colours", parameters="COLOUR = 'red'")
    configure(places, "odd: {parameters: {SIZE: 2, COLOUR: blue}, overrides: {1: {SIZE: 3}}}")
    assert [job.parameters for job in runs.plan(places, "odd")] == [{"SIZE": 3}, {"COLOUR": "blue"}]
    assert [job.parameters for job in runs.plan(places)] == [{}, {}]


def test_no_notebook_is_an_error(places):
    with pytest.raises(ValueError, match=r"no notebook called NN_words\.ipynb"):
        execute.figures(places)


@pytest.mark.parametrize("name", ["../../x", "/x", ".hidden", "a b"])
def test_a_run_cannot_lead_out_of_its_folders(places, name):
    write(places, "01_dots", "SIZE")
    configure(places, f"{name!r}: {{}}")
    with pytest.raises(ValueError, match="because folders carry its name"):
        runs.read(places, name)


def test_a_run_does_not_share_the_folder_of_sweeps(places):
    write(places, "01_dots", "SIZE")
    configure(places, "sweeps: {}")
    with pytest.raises(ValueError, match="because folders carry its name"):
        runs.read(places, "sweeps")
