"""Projects made up here: notebooks to run, and notebooks, figures and standings to report."""

import json

import nbformat
import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from nbformat import v4
from PIL import Image
from places import ROOT

from xai_utils.workbook.report import build

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRINTED = "holds  rows = 1 ± 1e-05\ndoes not hold  a < b\nundecided  c is better than d\nother text <&>\n"


def picture(path, shape=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape, "white").save(path)


def record(path, **changes):
    about = {
        "figure": path.stem, "caption": f"What {path.stem} shows.", "notebook": "01_small", "parameters": {"SEED": 0},
        "device": "cpu", "models": {"tiny": {"source": "tiny", "revision": None, "state_sha256": "ab" * 32}},
        "data": {"sentence": "a <b> film"}, "versions": {"python": "3.11"},
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(about | changes))


def notebook(number, *, saves=(), cells=()):
    shown = v4.new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    saving = [
        v4.new_code_cell(f'figures.save(fig, "{name}", "caption")', execution_count=3, outputs=[shown])
        for name in saves
    ]
    node = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f"# {number} · Small *title*\n\n**Question.** Is $x_1$ small,\nor not?\n\nMore."),
            v4.new_code_cell("SEED = 0", execution_count=1, metadata={"tags": ["parameters"]}),
            v4.new_markdown_cell("## A finding about $A_\\ell$\n\n$$\\sum_i a_i = 1$$"),
            *saving,
            v4.new_code_cell("explore()", execution_count=4, metadata={"tags": ["widget"]}),
            *cells,
            v4.new_code_cell(
                "claims.near()",
                execution_count=5,
                metadata={"tags": ["nbval-check-output"]},
                outputs=[v4.new_output("stream", name="stdout", text=PRINTED)],
            ),
        ]
    )
    node.metadata["language_info"] = {"name": "python"}
    return node


def project(root):
    """Lay out a project of two notebooks, one figure in two runs, and one model card."""
    for folder in ("notebooks", "figures", "data/models/tiny"):
        (root / folder).mkdir(parents=True)
    nbformat.write(notebook("01", saves=["01_rows"]), root / "notebooks/01_small.ipynb")
    nbformat.write(notebook("02"), root / "notebooks/02_other.ipynb")
    for run, parameters in (("", {"SEED": 0}), ("deit/", {"SEED": 7})):
        picture(root / f"figures/{run}01_rows.png")
        record(root / f"figures/{run}01_rows.png", parameters=parameters)
    card = {"name": "tiny", "about": "a tiny model", "measured": {"accuracy": 0.9, "n": 10}}
    (root / "data/models/tiny/card.json").write_text(json.dumps(card))
    return root


def scores(methods=("rollout", "flow")):
    """Draw standings of two models by three metrics, without a sweep."""
    noise = np.random.default_rng(0)
    rows = [
        {
            "model": model, "metric": metric, "operator": operator, "better": "higher", "method": method,
            **dict(zip(("mean", "low", "high", "gain", "gain_low", "gain_high"), noise.normal(size=6), strict=True)),
            "failed": 0.25, "n": 1200, "seconds": 0.5,
        }
        for model in ("tiny", "large")
        for metric, operator in (("deletion", "zero"), ("deletion", "blur"), ("lift", None))
        for method in methods
    ]  # fmt: skip
    return pd.DataFrame(rows)


def put_standings(root, table=None):
    """Write standings where the report looks for them."""
    (root / build.LEADERBOARD).parent.mkdir(parents=True, exist_ok=True)
    (scores() if table is None else table).to_csv(root / build.LEADERBOARD, index=False)


def soup(site, name):
    return BeautifulSoup((site / name).read_text(), "html.parser")


def write(places, name, *sources, tags=(), parameters="SIZE = 1  # dots"):
    """Write a notebook that can be run."""
    cells = [v4.new_markdown_cell("# A title"), v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {}) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), places.notebooks / f"{name}.ipynb")


def configure(places, text):
    """Write the list of named runs."""
    (places.notebooks / "runs.yml").write_text(text)
