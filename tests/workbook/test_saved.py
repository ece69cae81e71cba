"""A notebook that was only opened is saved as it was; in a browser see ``tests/browser``."""

import copy

import nbformat
import pytest

from tests.workbook.made_up import NOTEBOOKS
from xai_utils.workbook import execute, saved


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_jupyterlab_adds_is_left_out(path):
    content = nbformat.read(path, as_version=4)
    opened = copy.deepcopy(content)
    opened.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    opened.metadata.language_info.version = "3.12.1"
    saved.as_stored({"type": "notebook", "content": opened}, path=path.name, contents_manager=None)
    assert opened == content


def test_a_notebook_that_was_executed_is_stored_like_one_that_was_opened():
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    language = {"name": "python", "version": "3.12.1"}
    about = {"kernelspec": kernel, "language_info": language}
    cleaned = execute.clean(nbformat.v4.new_notebook(metadata=about)).metadata
    assert cleaned.kernelspec.display_name == "Python 3" and cleaned.language_info == {"name": "python"}


@pytest.mark.parametrize(
    "model", [{"type": "file", "content": "text"}, {"type": "notebook", "content": None}, {"type": "directory"}]
)
def test_anything_else_is_left_alone(model):
    before = copy.deepcopy(model)
    saved.as_stored(model)
    assert model == before


def test_another_kernel_keeps_its_name():
    content = {"metadata": {"kernelspec": {"name": "ir", "display_name": "R"}}}
    saved.as_stored({"type": "notebook", "content": content})
    assert content["metadata"]["kernelspec"]["display_name"] == "R"
