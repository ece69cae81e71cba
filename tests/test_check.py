"""Input checks: what they let through, and that a refusal says what came and where."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papermill import cli
from strategies import SAMPLES_AND_HEADS, attention, attention_stacks, steady

from xai_utils import check

NAN, INFINITY = float("nan"), float("inf")


def spoilt(place, value):
    maps = attention(3, 4, 4)
    maps[place] = value
    return maps


# What is let through


def test_a_number_that_was_a_text_is_one_again():
    assert check.text("sample", 1999) == "1999" and check.text("sample", "yes") == "yes"
    for one in (True, None, 1.5):
        with pytest.raises(ValueError, match=r"sample is .* no text. YAML reads yes, no, null and 1.5 so"):
            check.text("sample", one)


def read_by(monkeypatch, *words):
    """Make papermill's command, with these words, the process that this kernel came from."""
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    process = type("Process", (), {"cmdline": lambda _: ["python", *words]})
    monkeypatch.setattr(check.psutil, "Process", lambda pid: process())


@pytest.mark.parametrize("typed", ["007", "1e5", "True", "None", "1_000", "+5", "nan", "1999", "0.50"])
def test_what_papermill_made_a_number_of_is_what_was_typed(typed, monkeypatch):
    value = cli._resolve_type(typed)
    assert value != typed
    read_by(monkeypatch, "/bin/papermill", "a.ipynb", "b.ipynb", "-p", "SEED", "3", "-p", "SAMPLE", typed)
    assert check.text("sample", value) == typed


def test_a_number_that_was_not_typed_or_twice_is_no_text_to_papermill(monkeypatch):
    read_by(monkeypatch, "-m", "papermill", "a.ipynb", "b.ipynb", "-p", "SEED", "7", "-p", "SAMPLE", "007")
    for value in (7, 8):  # typed in two ways; from a YAML file, which reads 010 so
        with pytest.raises(ValueError, match=r"papermill takes it as it stands by -r NAME VALUE"):
            check.text("sample", value)
    read_by(monkeypatch, "-m", "pytest", "-p", "no:x", "7")
    assert check.text("sample", 7) == "7"


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS))
def test_every_softmax_is_a_stack_of_probability_maps(maps):
    check.finite("maps", maps)
    check.square_stack("maps", maps)
    check.non_negative("maps", maps)
    check.row_stochastic("maps", maps)
    check.row_stochastic("maps", maps.float())


@steady
@given(size=st.integers(1, 50), data=st.data())
def test_positions_are_those_of_a_python_list(size, data):
    value = data.draw(st.integers(-60, 60))
    try:
        range(size)[value]
    except IndexError:
        with pytest.raises(IndexError, match=rf"layer is {value}, but there are {size}: .*0 to {size - 1}"):
            check.index("layer", value, size)
    else:
        check.index("layer", value, size)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0])
def test_a_share_may_be_anything_from_zero_to_one(value):
    check.share("residual", value)


def test_a_limit_of_a_share_is_itself_refused():
    check.share("discard", 0.999, below=1)
    check.share("discard", 0.0, below=1)
    with pytest.raises(ValueError, match=r"discard is 1\.0, expected a share from 0 to below 1"):
        check.share("discard", 1.0, below=1)


@pytest.mark.parametrize("factor", [1 + 9e-5, 1 - 9e-5])
def test_rows_may_miss_one_by_rounding(factor):
    check.row_stochastic("maps", factor * attention(2, 3, 3))


# What is refused


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_how_many_values_are_not_finite_and_where_the_first_is(value):
    maps = spoilt((1, 2, 3), value)
    maps[2, 0, 0] = value
    for refuse in (check.finite, check.non_negative, check.row_stochastic):
        with pytest.raises(ValueError, match=r"maps holds 2 of 48 .* the first at \(1, 2, 3\)"):
            refuse("maps", maps)


def test_a_sum_beyond_the_precision_is_no_infinity():
    check.finite("maps", torch.full((100,), 6e4, dtype=torch.float16))
    check.finite("maps", torch.full((10,), 3e38))
    assert check.non_negative("maps", torch.full((2, 2), 3e38)).isinf().all()
    with pytest.raises(ValueError, match="2 of 2"):
        check.finite("maps", torch.tensor([INFINITY, -INFINITY]))


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 4), (2, 4, 3), (0, 3, 3), (2, 0, 0), (2, 0, 3, 3), (5,), ()])
def test_other_shapes_are_no_stack(shape):
    with pytest.raises(ValueError, match=r"maps has shape .*expected"):
        check.square_stack("maps", torch.zeros(shape))


def test_the_smallest_negative_entry_is_named():
    with pytest.raises(ValueError, match=r"maps holds negative entries \(down to -0.25\)"):
        check.non_negative("maps", spoilt((2, 1, 0), -0.25))


@pytest.mark.parametrize(
    ("maps", "what"),
    [
        (spoilt((1, 3), torch.tensor([0.5, 0.5, 0.1, 0.0])), r"maps\[1\].*miss 1 by up to 0.1 "),
        (spoilt((2, 3), torch.tensor([1.5, -0.5, 0.0, 0.0])), r"maps\[2\].*smallest entry is -0.5"),
        (attention(3, 4, 4).log(), r"maps\[0\]"),
        (1.0002 * attention(3, 2, 4, 4), r"maps\[0\].*miss 1 by up to 0.0002 "),
        (attention(3, 4, 4) / attention(3, 4, 4).sum(-2, keepdim=True), r"maps\[0\]"),
    ],
)
def test_what_is_no_probability_map_is_named_by_layer(maps, what):
    with pytest.raises(ValueError, match=what):
        check.row_stochastic("maps", maps)


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, NAN, INFINITY, 50])
def test_what_is_no_share_is_named(value):
    with pytest.raises(ValueError, match=f"residual is {value}, expected a share between 0 and 1"):
        check.share("residual", value)


def test_the_allowed_names_are_listed():
    check.one_of("fusion", "min", ("mean", "min"))
    with pytest.raises(ValueError, match="fusion is 'median', expected one of: mean, min"):
        check.one_of("fusion", "median", ("mean", "min"))
